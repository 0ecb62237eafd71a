"""The measurements of sharing: batching, memory of clones, fairness."""

from typing import Any

from experiments import (
    MLP,
    RESNET,
    SHAPES,
    Plan,
    Result,
    Sides,
    _ms,
    alternate,
    local_forward,
    result,
    row,
)
from processes import Bench, MeasurementError, Server
from stats import ratios, spread

CLIENTS = 16
CLONES = 50
WARMUP_WRITES = 20
CLONE_BYTES = 430 << 10
FORKS = 8
FLOOD = 10
LONGER = 5

Client = dict[str, Any]


def forwards(instance: str, batch: int, merge: bool = False) -> Client:
    """Give a client that makes forwards of one kind."""
    shape = [batch, *SHAPES[instance]]
    return {"instance": instance, "mix": [_forward(shape, merge)]}


def _forward(shape: list[int], merge: bool) -> dict[str, Any]:
    return {"do": "forward", "shape": shape, "allow_merge": merge}


def load(
    bench: Bench, plan: Plan, server: Server, seconds: float, *clients: Client
) -> dict[str, Any]:
    """Give what the clients got, all at a time.

    Raises
    ------
    MeasurementError
        If a call failed, or a client got nothing: what remains is no measurement.
    """
    # Many clients need some time even to take turns; on a busy machine more.
    seconds *= max(plan.scale, 0.3)
    for _ in range(LONGER):
        answer = bench.load.ask(
            do="load",
            target=server.unix,
            seconds=seconds,
            warmup_s=0.15 * seconds,
            clients=list(clients),
        )
        if answer["errors"]:
            raise MeasurementError(f"calls failed: {answer['errors']}")
        if all(client["latency_s"] for client in answer["clients"]):
            return answer
        seconds *= 2
    raise MeasurementError(f"a client got no answer in {seconds / 2:g} s")


def _rate(values: list[float], unit: str = "calls/s") -> str:
    return f"{spread(values)[0]:.3g} {unit}"


def p12(bench: Bench, plan: Plan) -> Result:
    """Measure what merging gives, and what the device would give."""
    name = f"ResNet18, {CLIENTS} clients of batch 1"
    sides: Sides = {
        f"in process, batch {batch}": lambda b=batch: bench.local.ask(
            **local_forward(RESNET, b), **plan.timing(1.0, 2, 3)
        )
        for batch in (1, CLIENTS)
    }
    client = {**forwards(RESNET, 1, merge=True), "count": CLIENTS}
    for side, server in (("off", bench.unbatched), ("on", bench.server)):
        sides[side] = lambda s=server: load(bench, plan, s, 6.0, client)
    case = alternate(plan, "P12 batching", {name: sides})[name]
    one = case.medians("in process, batch 1")
    many = case.medians(f"in process, batch {CLIENTS}")
    off, on = case.values("off", "throughput"), case.values("on", "throughput")
    gains = [CLIENTS * seconds for seconds in ratios(one, many)]
    rows = [
        row(
            name,
            "throughput, batching / without, of G in process",
            ratios(ratios(on, off), gains),
            goal=0.85,
            absolute=f"{_rate(on)} / {_rate(off)}, G {spread(gains)[0]:.2f}",
        )
    ]
    return result("Batching of forwards", {name: case}, rows)


def p13(bench: Bench, plan: Plan) -> Result:
    """Measure latencies at a rate that the device can just not bear unbatched."""
    name = f"ResNet18, {CLIENTS} clients, Poisson"
    client = {**forwards(RESNET, 1, merge=True), "count": CLIENTS}
    most = load(bench, plan, bench.unbatched, 4.0, client)["throughput"]
    client = {**client, "rate": most / CLIENTS, "in_flight": 4}
    sides: Sides = {
        side: lambda s=server: load(bench, plan, s, 6.0, client)
        for side, server in (("off", bench.unbatched), ("on", bench.server))
    }
    case = alternate(plan, "P13 latency at saturation", {name: sides})[name]
    off, on = case.percentiles("off", 99), case.percentiles("on", 99)
    rows = [
        row(
            name,
            "p99 latency, batching / without",
            ratios(on, off),
            goal=1.0,
            lower_is_better=True,
            absolute=f"{_ms(on)} / {_ms(off)} at {most:.3g} calls/s",
        )
    ]
    return result("Latency where one by one saturates", {name: case}, rows)


def p14(bench: Bench, plan: Plan) -> Result:
    """Measure what one client pays for allowing what nobody else is there for."""
    work: dict[str, Sides] = {}
    for name, instance in (("ResNet18, batch 1", RESNET), ("MLP, batch 1", MLP)):
        work[name] = {
            side: lambda i=instance, m=merge: load(
                bench, plan, bench.server, 1.5, forwards(i, 1, merge=m)
            )
            for side, merge in (("not allowed", False), ("allowed", True))
        }
    cases = alternate(plan, "P14 one client", work)
    rows = []
    for name, case in cases.items():
        off, on = case.medians("not allowed"), case.medians("allowed")
        rows.append(
            row(
                name,
                "median latency, merging allowed / not",
                ratios(on, off),
                floor=1.02,
                goal=1.02,
                lower_is_better=True,
                absolute=f"{_ms(on)} / {_ms(off)}",
            )
        )
    return result("One client that allows merging", cases, rows)


class _Memory:
    """The bytes that a server's memory grows by.

    Parameters
    ----------
    bench : Bench
    server : Server
        Nobody else uses it.
    """

    def __init__(self, bench: Bench, server: Server) -> None:
        self._bench = bench
        self._server = server
        self._before = self._look()

    def grown(self) -> tuple[int, int]:
        """Give accounted bytes since the last look, and resident ones.

        The latter without what rests in the server's pool, for whoever is next.
        """
        before, self._before = self._before, self._look()
        return self._before[0] - before[0], self._before[1] - before[1]

    def _look(self) -> tuple[int, int]:
        answer = self._bench.remote.ask(do="server", target=self._server.unix)
        resident = self._server.resident_bytes() - answer["pooled_bytes"]
        return answer["allocated_bytes"], resident


def _memory_rows(
    what: str,
    grown: dict[str, tuple[int, int]],
    own: dict[str, int],
    goal: float,
    floor: float | None = None,
) -> tuple[list[Result], dict[str, int]]:
    """Give growth by bytes of parameters, accounted and resident, and the bytes."""
    rows, sizes = [], {}
    for case, both in grown.items():
        for kind, count in zip(("accounted", "resident"), both):
            rows.append(
                row(
                    f"{case}, {kind}",
                    what,
                    [count / own[case]],
                    floor=floor,
                    goal=goal,
                    lower_is_better=True,
                    absolute=f"{count:,} / {own[case]:,} bytes",
                )
            )
            sizes[f"{case}: {kind}"] = count
        sizes[f"{case}: parameters"] = own[case]
    return rows, sizes


def p15(bench: Bench, plan: Plan) -> Result:
    """Measure the memory of clones that nobody writes."""
    plan.show("P15 memory of clones")
    server = bench.make("clones", lambda: bench.start_server())
    about = {"target": server.unix, "instance": RESNET}
    size = bench.remote.ask(do="get_params", **about, seconds=0)["bytes"]
    clone = {"do": "clone", **about}
    # The memory that the first of everything takes is not a clone's.
    bench.remote.ask(**clone, count=1)
    memory = _Memory(bench, server)
    bench.remote.ask(**clone, count=CLONES)
    name = f"ResNet18, {CLONES} clones"
    rows, sizes = _memory_rows(
        "memory of clones / their parameters' bytes",
        {name: memory.grown()},
        {name: CLONES * size},
        goal=0.01,
        floor=round(CLONE_BYTES / size, 4),
    )
    title = "Memory of clones that nobody writes"
    return {"title": title, "cases": [], "rows": rows, "bytes": sizes}


def p16(bench: Bench, plan: Plan) -> Result:
    """Measure the memory of clones some tensors of which are written."""
    plan.show("P16 memory of written clones")
    server = bench.make("written", lambda: bench.start_server())
    about = {"target": server.unix, "seconds": 0, "warmup": 0}
    clones = bench.remote.ask(do="clone", target=server.unix, instance=RESNET, count=4)[
        "instances"
    ]
    # The first writes fill buffers of gRPC that stay, a set for each of its threads.
    for _ in range(WARMUP_WRITES):
        bench.remote.ask(do="set_params", instance=clones[0], **about)
    memory = _Memory(bench, server)
    grown, own = {}, {}
    for clone, glob in zip(clones[1:], ("layer4.1.conv2.weight", "layer3.*", "*")):
        case = f"ResNet18, {glob} written"
        own[case] = bench.remote.ask(
            do="set_params", instance=clone, globs=[glob], **about
        )["bytes"]
        grown[case] = memory.grown()
    what = "memory of writing / bytes written"
    rows, sizes = _memory_rows(what, grown, own, goal=1.05)
    title = "Memory of clones some of whose tensors are written"
    return {"title": title, "cases": [], "rows": rows, "bytes": sizes}


def p19(bench: Bench, plan: Plan) -> Result:
    """Measure what three clients get beside one that floods."""
    name = f"ResNet18, batch 1, one of 4 keeps {FLOOD} in flight"
    labels = ("a", "b", "c", "flood")
    clients = [
        {
            **forwards(RESNET, 1),
            "label": label,
            "in_flight": FLOOD if label == "flood" else 1,
        }
        for label in labels
    ]
    sides: Sides = {"all": lambda: load(bench, plan, bench.server, 6.0, *clients)}
    case = alternate(plan, "P19 fairness", {name: sides})[name]
    rows = []
    for index, label in enumerate(labels[:-1]):
        got = [
            each[index]["throughput"] / (sum(c["throughput"] for c in each) / 4)
            for each in case.values("all", "clients")
        ]
        own = [each[index]["throughput"] for each in case.values("all", "clients")]
        rows.append(
            row(
                f"{name}, client {label}",
                "throughput / fair share",
                got,
                floor=0.9,
                goal=0.9,
                absolute=_rate(own),
            )
        )
    return result("Fairness beside a flood", {name: case}, rows)


def p20(bench: Bench, plan: Plan) -> Result:
    """Measure forwards while somebody reads a large network's parameters."""
    plan.show("P20 making a vision transformer")
    server = bench.make("large", lambda: bench.start_server())
    create = {"do": "create", "architecture": "vit", "classes": 100}
    vit = bench.remote.ask(**create, target=server.unix)["instance"]
    size = bench.remote.ask(
        do="get_params", target=server.unix, instance=vit, seconds=0
    )["bytes"]
    name = f"ResNet18, batch 1, {size / 1e6:.0f} MB read"
    client = forwards(RESNET, 1)
    reader = {"instance": vit, "mix": [{"do": "get_params"}]}

    def first_of(*clients: Client) -> dict[str, Any]:
        answer = load(bench, plan, server, 6.0, *clients)
        return {**answer["clients"][0], "wall_s": answer["wall_s"]}

    sides: Sides = {
        "idle": lambda: first_of(client),
        "beside a reader": lambda: first_of(client, reader),
    }
    case = alternate(plan, "P20 forwards beside a reader", {name: sides})[name]
    idle, busy = case.percentiles("idle", 99), case.percentiles("beside a reader", 99)
    rows = [
        row(
            name,
            "p99 latency, beside a reader / idle",
            ratios(busy, idle),
            goal=2,
            lower_is_better=True,
            absolute=f"{_ms(busy)} / {_ms(idle)}",
        )
    ]
    bench.remote.ask(do="delete", target=server.unix, instance=vit)
    return result("Forwards beside a large read", {name: case}, rows)


def p21(bench: Bench, plan: Plan) -> Result:
    """Measure forks with heads of their own against one network."""
    name = f"ResNet18, {FORKS} forks of batch 4, one of batch {4 * FORKS}"
    server = bench.make("forks", lambda: bench.start_server())
    forks = bench.remote.ask(
        do="clone", target=server.unix, instance=RESNET, count=FORKS, classes=10
    )["instances"]
    one = {**forwards(RESNET, 4 * FORKS, merge=True), "in_flight": 2}
    apart = {**forwards(RESNET, 4, merge=True), "in_flight": 2}
    many = [{**apart, "instance": fork} for fork in forks]
    sides: Sides = {
        "one": lambda: load(bench, plan, server, 8.0, one),
        "forks": lambda: load(bench, plan, server, 8.0, *many),
    }
    case = alternate(plan, "P21 forks", {name: sides})[name]
    unit = "samples/s"
    alone, all_forks = (case.values(side, "samples_per_s") for side in sides)
    rows = [
        row(
            name,
            "samples a second, forks together / one network",
            ratios(all_forks, alone),
            goal=0.9,
            absolute=f"{_rate(all_forks, unit)} / {_rate(alone, unit)}",
        )
    ]
    return result("Forks with heads of their own", {name: case}, rows)
