"""The comparison that decides how the server's idle OpenMP threads wait."""

from typing import Any, Callable

from experiments import MLP, RESNET, Plan, Result, forward, local_forward
from processes import Bench, Process
from stats import Case

# Name in the tables: options of the server, its environment.
POLICIES: dict[str, tuple[list[str], dict[str, str]]] = {
    "auto": ([], {}),
    "active": (["--omp-wait=active"], {}),
    "passive": (["--omp-wait=passive"], {}),
    "spin 1000": ([], {"GOMP_SPINCOUNT": "1000"}),
    "spin 30000": ([], {"GOMP_SPINCOUNT": "30000"}),
    "spin 300000": ([], {"GOMP_SPINCOUNT": "300000"}),
}
"""300000 is libgomp's own, if nobody says anything."""

IN_PROCESS = {
    "in process, main thread": "main",
    "in process, worker thread": "worker",
}
"""LibTorch without a server, with libgomp's own policy."""

_MOST_ROUNDS = 5


def omp_wait(bench: Bench, plan: Plan) -> Result:
    """Measure each policy alone on the machine, beside a busy process, and training.

    All processes that a round does not need are stopped, since idle threads that spin
    would take part in it.
    """
    servers = {
        policy: bench.make(
            f"server {policy}", lambda o=options, e=omp: bench.start_server(o, e)
        )
        for policy, (options, omp) in POLICIES.items()
    }
    locals_ = {
        side: bench.make(side, lambda t=thread: bench.start_local(omp=None, thread=t))
        for side, thread in IN_PROCESS.items()
    }
    busy = bench.make("busy", lambda: bench.start_local(omp=None))
    busy.send(**local_forward(RESNET, 32), seconds=36000)
    everyone: list[Process] = [*servers.values(), *locals_.values(), busy]
    for process in everyone:
        process.pause()
    cases = {
        name: Case(name)
        for name in (
            "quiet, MLP, batch 1",
            "quiet, batch 1",
            "quiet, batch 32",
            "beside a busy process, batch 1",
            "beside a busy process, batch 32",
            "training step, batch 32",
        )
    }
    rounds = min(plan.rounds, _MOST_ROUNDS) if plan.scale == 1 else 1
    for number in range(1, rounds + 1):
        for side, local in locals_.items():
            plan.show(f"omp-wait: round {number} of {rounds}, {side}")
            local.resume()
            _measure(
                lambda net, batch, timing, worker=local: worker.ask(
                    **local_forward(net, batch), **timing
                ),
                *(busy, plan, cases, side),
            )
            local.pause()
        for policy, server in servers.items():
            plan.show(f"omp-wait: round {number} of {rounds}, {policy}")
            server.resume()
            _measure(
                lambda net, batch, timing, target=server.unix: bench.remote.ask(
                    **forward(target, net, batch), **timing
                ),
                *(busy, plan, cases, policy),
            )
            command = {"do": "step", "benchmark": RESNET, "batch": 32}
            answer = bench.python_remote.ask(
                **command, target=server.unix, **plan.timing(1.5, 1, 2)
            )
            cases["training step, batch 32"].add(policy, answer)
            server.pause()
    return {
        "title": "How idle OpenMP threads wait",
        "cases": [case.to_json() for case in cases.values()],
        "rows": [],
    }


def _measure(
    run: Callable[[str, int, dict[str, Any]], dict[str, Any]],
    busy: Process,
    plan: Plan,
    cases: dict[str, Case],
    side: str,
) -> None:
    """Measure one side's forwards, first alone and then beside the busy process."""
    cases["quiet, MLP, batch 1"].add(side, run(MLP, 1, plan.timing(0.3, 20, 20)))
    cases["quiet, batch 1"].add(side, run(RESNET, 1, plan.timing(0.6, 5, 3)))
    cases["quiet, batch 32"].add(side, run(RESNET, 32, plan.timing(0.8, 1, 2)))
    busy.resume()
    try:
        for batch in (1, 32):
            answer = run(RESNET, batch, plan.timing(0.8, 0, 2))
            cases[f"beside a busy process, batch {batch}"].add(side, answer)
    finally:
        busy.pause()
