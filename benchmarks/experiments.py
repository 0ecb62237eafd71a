"""The measurements, by the ids of the quality targets.

Each is a function of the processes and of how long to measure, and gives a dict:
`title`; `cases`, what was measured (see stats.Case); and `rows`, one for each figure
that has a floor or a goal.
"""

import itertools
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Callable

from processes import THREADS, Bench, MeasurementError, RawTcp
from stats import Case, differences, ratios, spread

RESNET = "seq-cifar10"
MLP = "seq-mnist"
SHAPES = {RESNET: [3, 32, 32], MLP: [1, 28, 28]}

Sides = dict[str, Callable[[], dict[str, Any]]]
Result = dict[str, Any]


@dataclass
class Plan:
    """The time to measure.

    Attributes
    ----------
    rounds : int
        Of each side.
    scale : float
        Factor on the seconds of every round.
    """

    rounds: int
    scale: float = 1.0
    began: float = field(default_factory=time.monotonic)

    def timing(self, seconds: float, warmup: int = 2, calls: int = 1) -> dict[str, Any]:
        """Give a command's words for how long to measure."""
        return {
            "seconds": seconds * self.scale,
            "warmup": warmup,
            "min_calls": calls,
        }

    def show(self, what: str) -> None:
        """Say what is going on."""
        elapsed = time.monotonic() - self.began
        line = f"[{elapsed:5.0f} s] {what}"
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def alternate(plan: Plan, what: str, work: dict[str, Sides]) -> dict[str, Case]:
    """Measure the sides of each case in turn, and all of that in every round."""
    cases = {name: Case(name) for name in work}
    for number in range(1, plan.rounds + 1):
        plan.show(f"{what}: round {number} of {plan.rounds}")
        for name, sides in work.items():
            for side, measure in sides.items():
                cases[name].add(side, measure())
    return cases


def result(title: str, cases: dict[str, Case], rows: list[Result]) -> Result:
    return {
        "title": title,
        "cases": [case.to_json() for case in cases.values()],
        "rows": rows,
    }


def row(
    case: str,
    what: str,
    values: list[float],
    unit: str = "",
    *,
    floor: float | None = None,
    goal: float | None = None,
    lower_is_better: bool = False,
    absolute: str = "",
) -> Result:
    """Make a line of the table of targets."""
    return {
        "case": case,
        "what": what,
        "value": spread(values),
        "unit": unit,
        "floor": floor,
        "goal": goal,
        "lower_is_better": lower_is_better,
        "absolute": absolute,
    }


def _ms(values: list[float]) -> str:
    middle = spread(values)[0] * 1e3
    return f"{middle:.0f} ms" if middle >= 100 else f"{middle:.3g} ms"


def _gb(values: list[float]) -> str:
    return f"{spread(values)[0] / 1e9:.2f} GB/s"


def forward(target: str, benchmark: str, batch: int) -> dict[str, Any]:
    """Give a forward's command for the C++ client."""
    shape = [batch, *SHAPES[benchmark]]
    return {"do": "forward", "target": target, "instance": benchmark, "shape": shape}


def a_side(threads: int) -> str:
    """Name a case with so many threads in the server, and in process."""
    return f"{threads} thread{'s' if threads > 1 else ''} a side"


def local_forward(benchmark: str, batch: int) -> dict[str, Any]:
    """Give a forward's command for a process that has the network itself."""
    return {"do": "forward", "benchmark": benchmark, "batch": batch}


def p1(bench: Bench, plan: Plan) -> Result:
    """Measure ResNet18's forward."""
    server, local, remote = bench.server, bench.local, bench.remote
    work: dict[str, Sides] = {}
    for batch, seconds in ((1, 1.0), (8, 1.0), (32, 1.5), (128, 2.5)):
        timing = plan.timing(seconds, 5 if batch == 1 else 1, 3)
        command = local_forward(RESNET, batch)
        sides: Sides = {"in process": lambda c=command, t=timing: local.ask(**c, **t)}
        for side, target in (("Unix socket", server.unix), ("TCP", server.tcp)):
            command = forward(target, RESNET, batch)
            sides[side] = lambda c=command, t=timing: remote.ask(**c, **t)
        work[f"batch {batch}"] = sides
    cases = alternate(plan, "P1 ResNet18 forward", work)
    floors = {"batch 1": 0.92, "batch 8": 0.94, "batch 32": 0.97}
    goals = {"batch 1": 0.95, "batch 32": 0.98, "batch 128": 0.98}
    rows = []
    for name, case in cases.items():
        own = case.medians("in process")
        for side in ("Unix socket", "TCP"):
            there = case.medians(side)
            rows.append(
                row(
                    f"{name}, {side}",
                    "throughput, remote / in process",
                    ratios(own, there),
                    floor=floors.get(name),
                    goal=goals.get(name),
                    absolute=f"{_ms(there)} / {_ms(own)}",
                )
            )
    return result("ResNet18 (CIFAR), evaluation", cases, rows)


def p3(bench: Bench, plan: Plan) -> Result:
    """Measure what a call adds to a forward that costs next to nothing."""
    server = bench.server
    timing = plan.timing(0.5, 50, 20)
    own = {**local_forward(MLP, 1), **timing}
    unix = {**forward(server.unix, MLP, 1), **timing}
    tcp = {**forward(server.tcp, MLP, 1), **timing}
    sides: Sides = {
        "in process, C++": lambda: bench.local.ask(**own),
        "C++, Unix socket": lambda: bench.remote.ask(**unix),
        "C++, TCP": lambda: bench.remote.ask(**tcp),
        "in process, Python": lambda: bench.python_local.ask(**own),
        "Python, Unix socket": lambda: bench.python_remote.ask(
            **own, target=server.unix
        ),
    }
    case = alternate(plan, "P3 added latency", {"MLP, batch 1": sides})["MLP, batch 1"]
    rows = []
    for side, base, floor, goal in (
        ("C++, Unix socket", "in process, C++", 0.3, 0.15),
        ("C++, TCP", "in process, C++", 0.3, 0.2),
        ("Python, Unix socket", "in process, Python", 0.8, 0.5),
    ):
        there, here = case.medians(side), case.medians(base)
        rows.append(
            row(
                side,
                "latency added to the local call",
                [seconds * 1e3 for seconds in differences(there, here)],
                "ms",
                floor=floor,
                goal=goal,
                lower_is_better=True,
                absolute=f"{_ms(there)} - {_ms(here)}",
            )
        )
    return result("Added latency, MLP batch 1", {"": case}, rows)


KINDS = ("Unix socket", "TCP")
FLIGHTS = {
    "1 in flight": {"in_flight": 1},
    "8 in flight by 8 threads": {"in_flight": 8},
    "8 in flight by one thread": {"in_flight": 8, "one_thread": True},
}


def p4(bench: Bench, plan: Plan) -> Result:
    """Measure eight calls at a time."""
    timing = plan.timing(0.7, 20, 20)
    work: dict[str, Sides] = {}
    for threads in (1, THREADS):
        server, local = bench.server_of(threads), bench.local_of(threads)
        sides: Sides = {
            "in process": lambda w=local: w.ask(**local_forward(MLP, 32), **timing)
        }
        for flight, fields in FLIGHTS.items():
            for kind, target in zip(KINDS, (server.unix, server.tcp)):
                command = {**forward(target, MLP, 32), **timing, **fields}
                sides[f"{flight}, {kind}"] = lambda c=command: bench.remote.ask(**c)
        work[a_side(threads)] = sides
    cases = alternate(plan, "P4 in flight", work)
    rows = []
    for name, case in cases.items():
        own = case.paces("in process")
        for flight, kind in itertools.product(list(FLIGHTS)[1:], KINDS):
            side = f"{flight}, {kind}"
            there = case.paces(side)
            rows.append(
                row(
                    f"{name}, {side}",
                    "throughput, remote / in process",
                    ratios(own, there),
                    floor=0.4,
                    goal=0.6,
                    absolute=f"{1 / spread(there)[0]:.0f} / {1 / spread(own)[0]:.0f}"
                    " calls/s",
                )
            )
    return result("Forwards in flight, MLP batch 32", cases, rows)


def transfers(bench: Bench, plan: Plan) -> Result:
    """Measure GetParams and SetParams of ResNet18."""
    server, name = bench.server, "ResNet18, 44.7 MB"
    timing = plan.timing(0.7, 2, 5)
    remote, python = bench.remote, bench.python_remote
    size = remote.ask(do="get_params", target=server.unix, instance=RESNET, seconds=0)[
        "bytes"
    ]
    plain = bench.make("plain", lambda: bench.start_plain(size // 4))
    sides: Sides = {}
    for kind, target in (("Unix socket", server.unix), ("TCP", server.tcp)):
        for verb in ("get", "set"):
            sides[f"{verb}, C++, {kind}"] = lambda v=verb, t=target: remote.ask(
                do=f"{v}_params", target=t, instance=RESNET, **timing
            )
    for verb in ("get", "set"):
        sides[f"{verb}, protobuf C++, TCP"] = lambda v=verb: remote.ask(
            do=f"plain_{v}",
            target=server.tcp,
            instance=RESNET,
            plain_target=plain.target,
            **timing,
        )
        sides[f"{verb}, Python, Unix socket"] = lambda v=verb: python.ask(
            do=f"{v}_params", target=server.unix, benchmark=RESNET, **timing
        )
    sides["get, protobuf Python, Unix socket"] = lambda: python.ask(
        do="stock_get", target=server.unix, benchmark=RESNET, **timing
    )
    if RawTcp.available():
        sides["one raw TCP stream"] = lambda: _raw(bench.raw_tcp, size)
    case = alternate(plan, "P6 P9 P10 parameters", {name: sides})[name]
    return result("Parameters of 44.7 MB", {name: case}, _transfer_rows(case))


def _raw(stream: RawTcp, size: int) -> dict[str, Any]:
    """Give the time that a raw stream takes for so many bytes."""
    seconds = size / stream.bytes_per_second(20 * size)
    return {"latency_s": [seconds], "wall_s": seconds, "bytes": size}


def _transfer_rows(case: Case) -> list[Result]:
    rows = []
    for side, floor in (
        ("get, C++, Unix socket", 1.2),
        ("set, C++, Unix socket", 1.2),
        ("get, Python, Unix socket", 0.45),
        ("set, Python, Unix socket", 0.45),
    ):
        speeds = [speed / 1e9 for speed in case.speeds(side)]
        rows.append(row(side, "speed", speeds, "GB/s", floor=floor))
    pairs = [
        ("get, C++, TCP", "get, protobuf C++, TCP", 1.1),
        ("set, C++, TCP", "set, protobuf C++, TCP", None),
        ("set, C++, Unix socket", "get, C++, Unix socket", 0.8),
        ("get, Python, Unix socket", "get, C++, Unix socket", 0.35),
        ("get, Python, Unix socket", "get, protobuf Python, Unix socket", 1.0),
    ]
    if RawTcp.available():
        pairs.insert(0, ("get, C++, TCP", "one raw TCP stream", 0.5))
    for side, base, goal in pairs:
        above, below = case.speeds(side), case.speeds(base)
        rows.append(
            row(
                side,
                f"/ {base}",
                ratios(above, below),
                goal=goal,
                absolute=f"{_gb(above)} / {_gb(below)}",
            )
        )
    return rows


def p18(bench: Bench, plan: Plan) -> Result:
    """Measure training steps with parameters and optimizer on the client."""
    name = "ResNet18, batch 32"
    command = {"do": "step", "benchmark": RESNET, "batch": 32}
    timing = plan.timing(3.0, 1, 3)
    server = bench.server
    sides: Sides = {
        "local torch": lambda: bench.python_local.ask(**command, **timing),
        "Unix socket": lambda: bench.python_remote.ask(
            **command, target=server.unix, **timing
        ),
    }
    case = alternate(plan, "P18 training step", {name: sides})[name]
    own, there = case.medians("local torch"), case.medians("Unix socket")
    rows = [
        row(
            name,
            "throughput, optimizer on the client / local torch",
            ratios(own, there),
            floor=0.75,
            goal=0.85,
            absolute=f"{_ms(there)} / {_ms(own)}",
        )
    ]
    return result("Training step, Python", {name: case}, rows)


def layers(bench: Bench, plan: Plan) -> Result:
    """Measure our layers against Python's modules, both in process."""
    work: dict[str, Sides] = {}
    for what, name, batch, seconds in (
        ("forward", "evaluation, batch 1", 1, 1.0),
        ("forward", "evaluation, batch 32", 32, 1.5),
        ("gradients", "training, batch 32", 32, 3.0),
    ):
        command = {"do": what, "benchmark": RESNET, "batch": batch}
        timing = plan.timing(seconds, 5 if batch == 1 else 1, 3)
        work[name] = {
            side: lambda p=process, c=command, t=timing: p.ask(**c, **t)
            for side, process in (
                ("Python's modules", bench.python_local),
                ("our layers, C++", bench.local),
            )
        }
    cases = alternate(plan, "LAYERS ResNet18 in process", work)
    rows = []
    for name, case in cases.items():
        own, there = case.medians("our layers, C++"), case.medians("Python's modules")
        rows.append(
            row(
                name,
                "speed, our layers / Python's modules",
                ratios(there, own),
                floor=0.97,
                absolute=f"{_ms(own)} / {_ms(there)}",
            )
        )
    return result("ResNet18 in process, our layers and Python's", cases, rows)


def memory(bench: Bench, plan: Plan) -> Result:
    """Measure what an instance and a tape occupy."""
    plan.show("memory")
    count = 10
    target = bench.make("memory server", lambda: bench.start_server())
    remote = bench.remote

    def look() -> tuple[int, int]:
        allocated = remote.ask(do="server", target=target.unix)["allocated_bytes"]
        return allocated, target.resident_bytes()

    params = remote.ask(
        do="get_params", target=target.unix, instance=RESNET, seconds=0
    )["bytes"]
    before = look()
    names = [
        remote.ask(do="create", target=target.unix, benchmark=RESNET)["instance"]
        for _ in range(count)
    ]
    after = look()
    for name in names:
        remote.ask(do="delete", target=target.unix, instance=name)
    gone = look()
    if gone[0] > before[0]:
        raise MeasurementError(f"{gone[0] - before[0]} bytes of instances are left")
    tape = remote.ask(
        do="tape", target=target.unix, instance=RESNET, shape=[32, *SHAPES[RESNET]]
    )
    return {
        "title": "Memory",
        "cases": [],
        "rows": [],
        "bytes": {
            "parameters of a ResNet18": params,
            "tensors of one more ResNet18": (after[0] - before[0]) // count,
            f"resident memory of one more ResNet18 (mean of {count})": (
                after[1] - before[1]
            )
            // count,
            "resident memory of a server with a ResNet18 and an MLP": before[1],
            "tape of ResNet18, batch 32, training": tape["tape_bytes"],
        },
    }
