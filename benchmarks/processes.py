"""The processes of a measurement: servers, and programs that take commands."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent
THREADS = 2
"""Of LibTorch, in every process."""

BENCHMARKS = ("seq-cifar10", "seq-mnist")
"""Hosted by every server, under their own names: ResNet18 and the MLP."""

# Variables by which OpenMP's idle threads wait; measurements set them, not the shell.
_OMP_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")


class MeasurementError(Exception):
    """A process of the measurement failed."""


def environment(omp: dict[str, str] | None = None) -> dict[str, str]:
    """Give this process's environment with these OpenMP settings and no others."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in _OMP_VARIABLES and not key.startswith("BACKBONED_")
    }
    return {**kept, **(omp or {})}


class Process:
    """A child process that can be stopped for a while.

    Parameters
    ----------
    command : sequence
        The program and its arguments.
    omp : dict, optional
        OpenMP's environment variables, and ours.
    """

    def __init__(
        self, command: Sequence[Any], omp: dict[str, str] | None = None
    ) -> None:
        self.name = Path(str(command[0])).name
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(omp),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_line(self, timeout_s: float = 120.0) -> str:
        """Wait for one line of output."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            status = self._process.poll()
            raise MeasurementError(
                f"{self.name} says nothing in {timeout_s:g} s"
                if status is None
                else f"{self.name} ended with status {status}"
            )
        return line.strip()

    def write_line(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def pause(self) -> None:
        """Stop it where it is: it takes no time at all until `resume`."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def resident_bytes(self) -> int:
        """Give the memory that it occupies (RSS)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(x for x in status.splitlines() if x.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def close(self) -> None:
        """End it, and wait until it is gone."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Worker(Process):
    """A program that measures on command."""

    def send(self, **command: Any) -> None:
        self.write_line(json.dumps(command))

    def receive(self) -> dict[str, Any]:
        answer = json.loads(self.read_line())
        if "error" in answer:
            raise MeasurementError(f"{self.name}: {answer['error']}")
        return answer

    def ask(self, **command: Any) -> dict[str, Any]:
        """Have it do something, and give its answer."""
        self.send(**command)
        return self.receive()


class Server(Process):
    """A server on a Unix socket and a TCP port, with the two networks.

    Attributes
    ----------
    unix, tcp : str
        Its targets.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        options: Sequence[str] = (),
        omp: dict[str, str] | None = None,
        threads: int = THREADS,
    ) -> None:
        path = Path(tempfile.mkdtemp(dir=folder)) / "s"
        self.unix = f"unix:{path}"
        super().__init__(
            [
                binary,
                *("--listen", self.unix, "--listen", "127.0.0.1:0"),
                *("--threads", threads, "--log-level", "warn"),
                *(f"--instance={name}" for name in BENCHMARKS),
                *options,
            ],
            omp,
        )
        self.banner = self.read_line()
        self.tcp = next(
            word.strip(",")
            for word in self.banner.split()
            if word.startswith("127.0.0.1:")
        )


class PlainServer(Process):
    """The server of generated code.

    Attributes
    ----------
    target : str
        Its TCP port.
    """

    def __init__(self, command: Sequence[Any]) -> None:
        super().__init__(command)
        self.target = self.read_line()


class RawTcp:
    """One TCP stream over loopback, as iperf3 measures it."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = str(probe.getsockname()[1])
        self._server = subprocess.Popen(
            ["iperf3", "--server", "--port", self._port],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.5)

    @staticmethod
    def available() -> bool:
        return shutil.which("iperf3") is not None

    def bytes_per_second(self, total_bytes: int) -> float:
        """Move so many bytes in writes of 1 MiB."""
        done = subprocess.run(
            [
                *("iperf3", "--client", "127.0.0.1", "--port", self._port),
                *("--length", "1M", "--bytes", str(total_bytes), "--json"),
            ],
            capture_output=True,
            check=True,
            text=True,
        )
        summary = json.loads(done.stdout)["end"]["sum_received"]
        return summary["bits_per_second"] / 8

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()


class Bench:
    """Everything that measurements use, started when it is first asked for.

    A context manager; at its end all processes are gone.

    Parameters
    ----------
    binary : Path
        The server; the other programs lie beside it.
    """

    # The server's own default, so that both sides wait alike.
    omp = {"GOMP_SPINCOUNT": "10000"}

    def __init__(self, binary: Path) -> None:
        self.binary = binary
        self._temporary = tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp")
        self._made: dict[str, Any] = {}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for made in reversed(self._made.values()):
            made.close()
        self._temporary.cleanup()

    @property
    def server(self) -> Server:
        """The server with its default options."""
        return self.make("server", lambda: self.start_server())

    @property
    def local(self) -> Worker:
        """C++ in process, waiting as the server does."""
        return self.make("local", lambda: self.start_local(self.omp))

    @property
    def remote(self) -> Worker:
        """The C++ client."""
        return self.make("remote", lambda: Worker([self._beside("bench-remote")]))

    @property
    def load(self) -> Worker:
        """Clients in number."""
        return self.make("load", lambda: Worker([self._beside("bench-load")]))

    @property
    def unbatched(self) -> Server:
        """A server that never runs forwards together."""
        return self.make("unbatched", lambda: self.start_server(("--max-batch", "0")))

    @property
    def python_local(self) -> Worker:
        """Torch in process, as a user has it."""
        return self.make("python_local", self._start_python)

    @property
    def python_remote(self) -> Worker:
        """The Python client, as a user has it."""
        return self.make("python_remote", self._start_python)

    @property
    def raw_tcp(self) -> RawTcp:
        return self.make("raw_tcp", RawTcp)

    def start_server(
        self,
        options: Sequence[str] = (),
        omp: dict[str, str] | None = None,
        threads: int = THREADS,
    ) -> Server:
        return Server(self.binary, Path(self._temporary.name), options, omp, threads)

    def server_of(self, threads: int) -> Server:
        """Give the server with so many threads."""
        if threads == THREADS:
            return self.server
        name = f"server of {threads}"
        return self.make(name, lambda: self.start_server(threads=threads))

    def local_of(self, threads: int) -> Worker:
        """Give C++ in process with so many threads."""
        if threads == THREADS:
            return self.local
        name = f"local of {threads}"
        return self.make(name, lambda: self.start_local(self.omp, threads=threads))

    def start_local(
        self, omp: dict[str, str] | None, thread: str = "main", threads: int = THREADS
    ) -> Worker:
        return Worker([self._beside("bench-local"), threads, thread], omp)

    def start_plain(self, elements: int) -> "PlainServer":
        return PlainServer([self._beside("bench-plain"), elements])

    def make(self, key: str, start: Any) -> Any:
        """Give what was started under this key, or start it."""
        if key not in self._made:
            self._made[key] = start()
        return self._made[key]

    def _start_python(self) -> Worker:
        return Worker([sys.executable, HERE / "worker.py", THREADS])

    def _beside(self, name: str) -> Path:
        program = self.binary.parent / name
        if not program.exists():
            raise MeasurementError(f"there is no {program}; run scripts/build")
        return program
