"""The measurements of training: optimizers in the server, and slow networks."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from experiments import (
    MLP,
    RESNET,
    Plan,
    Result,
    Sides,
    _ms,
    alternate,
    result,
    row,
)
from processes import Bench, MeasurementError
from stats import differences, ratios

# Name, bits a second, seconds of a round trip.
NETWORKS = (("1 Gb/s, 2 ms", 1e9, 0.002), ("100 Mb/s, 20 ms", 1e8, 0.02))
ROUND_TRIPS = {"hosted": 2.3, "train_step": 1.3}
BATCH = 64
"""Of a step of experience replay: 32 images, and 32 from the buffer."""
IMAGE_BYTES = BATCH * 3 * 32 * 32 * 4


def p17(bench: Bench, plan: Plan) -> Result:
    """Measure training steps whose optimizer is in the server."""
    name = "ResNet18, batch 32"
    command = {"do": "step", "benchmark": RESNET, "batch": 32}
    timing = plan.timing(3.0, 2, 3)
    remote = {**command, "target": bench.server.unix, **timing}
    sides: Sides = {
        "local torch": lambda: bench.python_local.ask(**command, **timing),
    }
    for way in ROUND_TRIPS:
        sides[way] = lambda w=way: bench.python_remote.ask(**remote, way=w)
    case = alternate(plan, "P17 training step", {name: sides})[name]
    own = case.medians("local torch")
    rows = []
    for way, floor in (("hosted", 0.90), ("train_step", 0.90)):
        there = case.medians(way)
        rows.append(
            row(
                f"{name}, {way}",
                "throughput, optimizer in the server / local torch",
                ratios(own, there),
                floor=floor,
                goal=0.95,
                absolute=f"{_ms(there)} / {_ms(own)}",
            )
        )
    return result("Training step, optimizer in the server", {name: case}, rows)


class SlowNetwork:
    """A TCP proxy that delays and throttles both directions (toxiproxy).

    Parameters
    ----------
    target : str
        ``host:port`` of the server.
    bits_per_second, round_trip_s : float
    """

    def __init__(
        self, target: str, bits_per_second: float, round_trip_s: float
    ) -> None:
        control, listen = _free_port(), _free_port()
        self.target = f"127.0.0.1:{listen}"
        self._api = f"http://127.0.0.1:{control}"
        self._process = subprocess.Popen(
            [program(), "-host", "127.0.0.1", "-port", str(control)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._post(
            "/proxies", {"name": "slow", "listen": self.target, "upstream": target}
        )
        for stream in ("upstream", "downstream"):
            self._toxic("latency", stream, latency=round(round_trip_s / 2 * 1e3))
            self._toxic("bandwidth", stream, rate=round(bits_per_second / 8e3))

    def _toxic(self, kind: str, stream: str, **attributes: int) -> None:
        body = {"type": kind, "stream": stream, "attributes": attributes}
        self._post("/proxies/slow/toxics", {"name": f"{kind}-{stream}", **body})

    def _post(self, path: str, body: dict[str, Any]) -> None:
        request = urllib.request.Request(
            self._api + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        for attempt in range(50):
            try:
                with urllib.request.urlopen(request, timeout=5):
                    return
            except urllib.error.URLError as error:
                if isinstance(error, urllib.error.HTTPError) or attempt == 49:
                    raise MeasurementError(f"toxiproxy: {error}") from error
                time.sleep(0.1)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def program() -> str:
    """Find toxiproxy; empty if there is none."""
    built = Path.home() / "go" / "bin" / "toxiproxy-server"
    return shutil.which("toxiproxy-server") or (str(built) if built.exists() else "")


def network(bench: Bench, plan: Plan) -> Result:
    """Measure training steps over emulated networks."""
    if not program():
        plan.show("NET left out: there is no toxiproxy-server")
        return result("Training over a slow network (not measured)", {}, [])
    command = {"do": "step", "benchmark": RESNET, "batch": BATCH}
    timing = plan.timing(4.0, 2, 3)
    work: dict[str, Sides] = {}
    for name, bits, round_trip in NETWORKS:
        proxy = bench.make(
            name, lambda b=bits, r=round_trip: SlowNetwork(bench.server.tcp, b, r)
        )
        remote = {**command, "target": proxy.target, **timing}
        work[name] = {
            "local torch": lambda: bench.python_local.ask(**command, **timing),
            **{
                way: lambda w=way, c=remote: bench.python_remote.ask(**c, way=w)
                for way in ROUND_TRIPS
            },
        }
    cases = alternate(plan, "NET training step", work)
    rows = []
    for name, bits, round_trip in NETWORKS:
        own = cases[name].medians("local torch")
        images = IMAGE_BYTES * 8 / bits
        for way, trips in ROUND_TRIPS.items():
            there = cases[name].medians(way)
            spent = [(added - images) / round_trip for added in differences(there, own)]
            rows.append(
                row(
                    f"{name}, {way}",
                    "round trips beyond the local step and the images' time",
                    spent,
                    floor=trips,
                    lower_is_better=True,
                    absolute=f"{_ms(there)} - {_ms(own)} - {images * 1e3:.1f} ms",
                )
            )
    title = f"Training step of ResNet18, batch {BATCH}, over emulated networks"
    return result(title, cases, rows)


def tapes(bench: Bench, plan: Plan) -> Result:
    """Measure 64 samples' own gradients, in one Backward and in one each."""
    name = "MLP, 64 samples"
    command = {
        "do": "tapes",
        "target": bench.server.unix,
        "benchmark": MLP,
        "count": 64,
        **plan.timing(1.5, 2, 3),
    }
    sides: Sides = {
        what: lambda t=together: bench.python_remote.ask(**command, together=t)
        for what, together in (
            ("a call each", ""),
            ("one call, each gradient", "each"),
            ("one call, sum of squares", "squares"),
        )
    }
    case = alternate(plan, "TAPES gradients of each sample", {name: sides})[name]
    each = case.medians("a call each")
    rows = []
    for side, floor in (
        ("one call, each gradient", None),
        ("one call, sum of squares", 5),
    ):
        together = case.medians(side)
        rows.append(
            row(
                f"{name}: {side}",
                "speed / a Backward each",
                ratios(each, together),
                floor=floor,
                absolute=f"{_ms(together)} / {_ms(each)}",
            )
        )
    return result("Gradients of each sample", {name: case}, rows)
