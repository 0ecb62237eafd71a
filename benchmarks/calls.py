"""The measurements of small calls: of one client, of many, and beside a transfer."""

import sys
import time
from pathlib import Path
from typing import Any

from experiments import (
    MLP,
    RESNET,
    Plan,
    Result,
    Sides,
    _ms,
    a_side,
    alternate,
    forward,
    result,
    row,
)
from processes import HERE, THREADS, Bench, MeasurementError, Worker
from stats import ratios

TRANSPORTS = ("native", "grpcio")
# Ratio of a local step: floor and goal, one thread a side, native.
STEPS = {"train_step": (0.60, 0.80), "hosted": (0.45, 0.58), "mirrored": (0.22, 0.36)}
CLIENTS = (1, 10, 100)
_WARMUP_S = 0.5


def _python(bench: Bench, threads: int, transport: str = "") -> Worker:
    """Give a Python process with so many threads of torch's, and a transport."""
    variables = {"BACKBONED_TRANSPORT": transport} if transport else {}
    return bench.make(
        f"python {threads} {transport}",
        lambda: Worker([sys.executable, HERE / "worker.py", threads], variables),
    )


def p22(bench: Bench, plan: Plan) -> Result:
    """Measure a training step of the perceptron, as small as steps are."""
    command = {"do": "step", "benchmark": MLP, "batch": 64}
    timing = plan.timing(1.0, 20, 20)
    work: dict[str, Sides] = {}
    for threads in (1, THREADS):
        server = bench.server_of(threads)
        own = _python(bench, threads)
        sides: Sides = {"local torch": lambda w=own: w.ask(**command, **timing)}
        for transport in TRANSPORTS:
            remote = _python(bench, threads, transport)
            for way in STEPS:
                asked = {**command, **timing, "target": server.unix}
                if way != "mirrored":
                    asked["way"] = way
                sides[f"{way}, {transport}"] = lambda w=remote, c=asked: w.ask(**c)
        work[a_side(threads)] = sides
    cases = alternate(plan, "P22 training step of the MLP", work)
    rows = []
    for name, case in cases.items():
        own_s = case.medians("local torch")
        for transport in TRANSPORTS:
            for way, (floor, goal) in STEPS.items():
                there = case.medians(f"{way}, {transport}")
                aimed = transport == "native" and name == a_side(1)
                rows.append(
                    row(
                        f"{name}, {way}, {transport}",
                        "throughput, remote / local torch",
                        ratios(own_s, there),
                        floor=floor if aimed else None,
                        goal=goal if aimed else None,
                        absolute=f"{_ms(there)} / {_ms(own_s)}",
                    )
                )
    case = cases[a_side(1)]
    for way in STEPS:
        native, grpcio = (case.medians(f"{way}, {t}") for t in TRANSPORTS)
        rows.append(
            row(
                f"{a_side(1)}, {way}",
                "throughput, grpcio / native",
                ratios(native, grpcio),
                floor=0.65,
                goal=0.8,
                absolute=f"{_ms(grpcio)} / {_ms(native)}",
            )
        )
    return result("Training step, MLP batch 64", cases, rows)


def p23(bench: Bench, plan: Plan) -> Result:
    """Measure clients in number, each with a stream of its own."""
    server = bench.server
    seconds = plan.timing(1.5, 1, 1)["seconds"]
    idle = server.resident_bytes()
    grown: dict[str, list[tuple[int, int]]] = {}

    def load(count: int) -> dict[str, Any]:
        bench.load.send(
            do="load",
            target=server.unix,
            seconds=seconds,
            warmup_s=_WARMUP_S,
            clients=[
                {
                    "instance": MLP,
                    "count": count,
                    "in_flight": 1,
                    "mix": [{"do": "forward", "shape": [1, 1, 28, 28]}],
                }
            ],
        )
        time.sleep(_WARMUP_S + seconds / 2)
        grown.setdefault(_clients(count), []).append(
            (_threads(server.pid), server.resident_bytes() - idle)
        )
        answer = bench.load.receive()
        if answer["errors"]:
            raise MeasurementError(f"calls failed: {answer['errors']}")
        return {"latency_s": answer["latency_s"], "wall_s": seconds}

    sides: Sides = {_clients(n): lambda n=n: load(n) for n in CLIENTS}
    case = alternate(plan, "P23 clients", {"MLP, batch 1": sides})["MLP, batch 1"]
    rows = []
    for side, seen in grown.items():
        pace = [1 / seconds for seconds in case.paces(side)]
        threads, memory = (max(values) for values in zip(*seen))
        rows.append(
            row(
                side,
                "calls/s",
                pace,
                absolute=f"server: {threads} threads, {memory / 2**20:.0f} MiB more",
            )
        )
    return result("Clients with a stream each, MLP batch 1", {"": case}, rows)


def p24(bench: Bench, plan: Plan) -> Result:
    """Measure small calls beside a transfer: in its stream, and beside its RPC."""
    worker, server = _python(bench, 1, "native"), bench.server
    command = {"do": "beside", "benchmark": MLP, "batch": 1, "target": server.unix}
    timing = plan.timing(1.0, 20, 20)
    sides: Sides = {
        name: lambda t=transfer: worker.ask(
            **command, **timing, transfer=t, large=RESNET
        )
        for name, transfer in (
            ("alone", ""),
            ("in the transfer's stream", "stream"),
            ("beside its RPC", "rpc"),
        )
    }
    case = alternate(plan, "P24 beside a transfer", {"MLP, batch 1": sides})[
        "MLP, batch 1"
    ]
    own = case.medians("beside its RPC")
    there = case.medians("in the transfer's stream")
    rows = [
        row(
            "a small call beside a transfer of 45 MB",
            "latency, in its stream / beside its RPC",
            ratios(there, own),
            floor=1.25,
            goal=1.1,
            lower_is_better=True,
            absolute=f"{_ms(there)} / {_ms(own)}; alone {_ms(case.medians('alone'))}",
        )
    ]
    return result("Small calls beside a transfer", {"": case}, rows)


def p25(bench: Bench, plan: Plan) -> Result:
    """Measure where the time of a small call goes."""
    server = bench.server
    timing = plan.timing(0.5, 50, 20)
    command = {"do": "call", "benchmark": MLP, "batch": 1, "target": server.unix}
    sides: Sides = {}
    for side, transport in (("Python, RPC", "grpcio"), ("Python, stream", "native")):
        worker = _python(bench, THREADS, transport)
        sides[side] = lambda w=worker: w.ask(**command, **timing)
    asked = forward(server.unix, MLP, 1)
    sides["C++, stream"] = lambda: bench.remote.ask(**asked, **timing)
    cases = alternate(plan, "P25 a call's time", {"MLP, batch 1": sides})
    return result("Where the time of a small call goes, MLP batch 1", cases, [])


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


def _threads(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
