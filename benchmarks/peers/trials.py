"""The peers' trials: a server, if there is one, and experiments that train on it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from backboned.transport.local import find_binary
from processes import MeasurementError, Process, Worker
from stats import percentile

HERE = Path(__file__).parent
PATHS = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(filter(None, PATHS))}
WARMUP = 9
"""Steps after the first; their losses are compared too."""
AFTER_KILL_S = 2.0
PATIENCE_S = 60.0
PATIENCE_AGAIN_S = 20.0
"""Of one that begins after another was killed."""

PEERS = {
    "torch": "torch, a process each",
    "mps": "torch, a process each, CUDA MPS",
    "plain": "grpcio and torch, plain",
    "rpc": "torch.distributed.rpc",
    "train_step": "Backboned, train_step",
    "hosted": "Backboned, hosted",
}
SERVERS = {"plain": "plain_server.py", "rpc": "rpc_server.py"}


def missing(peer: str, device: str) -> str:
    """Say why a peer cannot be measured here; empty if it can."""
    if peer != "mps":
        return ""
    if device == "cpu":
        return "CUDA MPS is of NVIDIA's GPUs, and this run is on a CPU"
    found = shutil.which("nvidia-cuda-mps-control")
    return "" if found else "there is no nvidia-cuda-mps-control"


class Trial:
    """One peer with some experiments on one network; its processes end with `close`.

    Parameters
    ----------
    peer : str
        Of `PEERS`.
    work : dict
        `network`, `filters`, `shape`, `threads` and `device`.
    """

    def __init__(self, peer: str, work: dict[str, Any]) -> None:
        self._peer, self._work = peer, work
        self._ended = ExitStack()
        self._environment = dict(ENVIRONMENT)
        self._begun = 0
        self.clients: list[Worker] = []
        self._all: list[Process] = []
        self._target = ""
        with ExitStack() as failing:
            failing.callback(self.close)
            self._idle_device = device_bytes(work["device"])
            self._start_server()
            failing.pop_all()

    def close(self) -> None:
        for process in reversed(self._all):
            process.close()
        self._ended.close()

    def _start_server(self) -> None:
        folder = self._ended.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
        threads, target = self._work["threads"], f"unix:{folder}/s"
        if self._peer in SERVERS:
            program = HERE / SERVERS[self._peer]
            self._all.append(
                Process([sys.executable, program, threads, target], ENVIRONMENT)
            )
            target = self._all[0].read_line()
        elif self._peer in ("train_step", "hosted"):
            options = ["--device", self._work["device"], "--log-level", "error"]
            command = [find_binary(), "--listen", target, "--threads", threads]
            self._all.append(Process([*command, *options]))
            self._all[0].read_line()
        elif self._peer == "mps":
            self._environment.update(self._ended.enter_context(mps(folder)))
        self._target = target

    def begin(self, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Start one more experiment; say how long its first step took to end."""
        spec = {**self._work, "peer": self._peer, "target": self._target}
        spec.update(index=self._begun, seed=self._begun)
        self._begun += 1
        began = time.perf_counter()
        program = HERE / "experiment.py"
        client = Worker([sys.executable, program, json.dumps(spec)], self._environment)
        self._all.append(client)
        self.clients.append(client)
        first = json.loads(client.read_line(patience_s))
        start_s = time.perf_counter() - began
        warm = client.ask(do="train", seconds=0, steps=WARMUP)
        return {"start_s": start_s, "losses": first["losses"] + warm["losses"]}

    def window(self, seconds: float) -> dict[str, Any]:
        """Let all train for so long."""
        cpu, began = self._cpu_s(), time.perf_counter()
        for client in self.clients:
            client.send(do="train", seconds=seconds, steps=1)
        answers = [client.receive() for client in self.clients]
        cores = (self._cpu_s() - cpu) / (time.perf_counter() - began)
        rates = [len(a["latency_s"]) / a["wall_s"] for a in answers]
        latencies = [s for a in answers for s in a["latency_s"]]
        return {
            "rate": sum(rates),
            "jain": jain(rates),
            "p50_s": percentile(latencies, 50),
            "p99_s": percentile(latencies, 99),
            "cores": cores,
            "bytes": sum(pss(process.pid) for process in self._all),
            "device_bytes": device_bytes(self._work["device"]) - self._idle_device,
            "longest_s": [max(a["latency_s"]) for a in answers],
        }

    def kill(self, seconds: float, again: bool) -> dict[str, Any]:
        """Kill the first client in the middle of a window; maybe begin another.

        The first client is in a step at almost any time: nothing lies between two.
        """
        others = self.clients[1:]
        before = max(self.window(seconds)["longest_s"][1:])
        held = self._held()
        for client in self.clients:
            client.send(do="train", seconds=seconds, steps=1)
        time.sleep(seconds / 2)
        os.kill(self.clients.pop(0).pid, signal.SIGKILL)
        found: dict[str, Any] = {"before_s": before, "held": held}
        try:
            answers = [client.receive() for client in others]
            found["longest_s"] = max(max(a["latency_s"]) for a in answers)
            time.sleep(AFTER_KILL_S)
            found["held_after"] = self._held()
        except MeasurementError as error:
            found["error"] = str(error)
        if not again:
            return found
        try:
            found["again_s"] = self.begin(PATIENCE_AGAIN_S)["start_s"]
        except MeasurementError as error:
            found["again_error"] = str(error)
        return found

    def _held(self) -> int | None:
        """Give how many networks the server holds; None if there is no server."""
        if not self._target or self._peer in ("torch", "mps"):
            return None
        count: int = self.clients[-1].ask(do="count")["count"]
        return count

    def _cpu_s(self) -> float:
        """Give the processor's seconds that all processes have used."""
        ticks = 0
        for process in self._all:
            stat = Path(f"/proc/{process.pid}/stat").read_text()
            fields = stat.rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def jain(shares: list[float]) -> float:
    """Give Jain's index: 1 if all are equal, 1/N if one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def pss(pid: int) -> int:
    """Give a process's memory, its part of what is shared with others (PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("Pss:")) * 1024


def asked_of_gpu(what: str) -> str:
    """Give what nvidia-smi says of the first GPU."""
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    told = subprocess.run(query, capture_output=True, check=True, text=True)
    return told.stdout.splitlines()[0]


def device_bytes(device: str) -> int:
    """Give the memory of the first GPU that is in use; 0 on a CPU."""
    return 0 if device == "cpu" else int(asked_of_gpu("memory.used")) << 20


@contextmanager
def mps(folder: str) -> Iterator[dict[str, str]]:
    """Run NVIDIA's MPS; give the environment of its clients."""
    words = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
    control = ["nvidia-cuda-mps-control"]
    options = {"env": {**os.environ, **words}, "check": True, "timeout": 30}
    try:
        subprocess.run([*control, "-d"], **options)
    except (OSError, subprocess.SubprocessError) as error:
        raise MeasurementError(f"MPS does not start: {error}") from error
    try:
        yield words
    finally:
        subprocess.run(control, input=b"quit\n", **options)
