"""Simulates the server's scheduler for 1 to 100 clients, and makes docs/scaling.md.

Needs bench-simulate beside the server (scripts/build makes it) and takes seconds. The
device's times are those of device_times.json; with --record they are measured anew
with bench-local, which takes a minute on a quiet machine.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import plots  # noqa: E402
from experiments import RESNET  # noqa: E402
from processes import THREADS, Bench, MeasurementError, Worker  # noqa: E402
from report import fill, markdown, number  # noqa: E402
from run import find_binary  # noqa: E402

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "scaling.md"
TIMES = HERE / "device_times.json"

COUNTS = (1, 2, 5, 10, 20, 50, 100)
SECONDS = 600
PAUSE_S = 0.005
"""Between an answer and the client's next request, on average."""
FLOOD = 10
DELAYS_US = (0, 2_000, 5_000, 20_000)
DELAYED = (1, 5, 20)

Answer = dict[str, Any]


class Simulator:
    """Runs simulations with the recorded device times.

    Parameters
    ----------
    worker : Worker
        bench-simulate.
    times : dict
        As in device_times.json.
    """

    def __init__(self, worker: Worker, times: dict[str, Any]) -> None:
        self._worker = worker
        self.step_s: float = times["step_s"]
        self._common = {
            "do": "simulate",
            "seconds": SECONDS,
            "seed": 0,
            "device_s": times["forward_s"],
        }

    def run(self, *clients: dict[str, Any], **words: Any) -> Answer:
        """Simulate clients; those of none are left out."""
        there = [client for client in clients if client.get("count", 1)]
        return self._worker.ask(**self._common, clients=there, **words)


def record(binary: Path) -> dict[str, Any]:
    """Measure the device's times."""

    def seconds(bench: Bench, what: str, batch: int) -> float:
        command = {"do": what, "benchmark": RESNET, "batch": batch}
        answer = bench.local.ask(**command, seconds=3, warmup=2, min_calls=5)
        return median(answer["latency_s"])

    with Bench(binary) as bench:
        return {
            "source": f"ResNet18 (CIFAR), float32, {THREADS} threads: medians of "
            "bench-local",
            "forward_s": {
                str(n): seconds(bench, "forward", n) for n in (1, 2, 4, 8, 16, 32, 64)
            },
            "step_s": seconds(bench, "gradients", 32),
        }


def merging(simulator: Simulator) -> dict[int, tuple[Answer, Answer]]:
    """Simulate clients with a forward of one image each: one by one, and merged."""
    found = {}
    for count in COUNTS:
        client = {"count": count, "pause_s": PAUSE_S, "allow_merge": True}
        apart = simulator.run(client, max_batch=0)
        found[count] = apart, simulator.run(client)
    return found


def delays(simulator: Simulator) -> dict[int, list[Answer]]:
    """Simulate what waiting for others gives, by microseconds and clients."""
    client = {"pause_s": PAUSE_S, "allow_merge": True}
    return {
        delay: [
            simulator.run({**client, "count": count}, max_delay_us=delay)
            for count in DELAYED
        ]
        for delay in DELAYS_US
    }


def flood(simulator: Simulator) -> dict[int, tuple[Answer, Answer]]:
    """Simulate one client that floods: first come first served, and by shares."""
    found = {}
    for count in COUNTS[1:]:
        others = {"count": count - 1, "pause_s": PAUSE_S}
        flooding = {"in_flight": FLOOD, "pause_s": PAUSE_S}
        # Within one share, first come first served.
        one_line = [{**client, "run": "all"} for client in (others, flooding)]
        found[count] = simulator.run(*one_line), simulator.run(others, flooding)
    return found


def mixture(simulator: Simulator) -> dict[int, Answer]:
    """Simulate as many clients that train as ask for features."""
    training = {"lane": True, "device_s": simulator.step_s, "pause_s": PAUSE_S}
    asking = {"pause_s": PAUSE_S, "allow_merge": True}
    return {
        count: simulator.run(
            {**training, "count": count // 2},
            {**asking, "count": count - count // 2},
        )
        for count in COUNTS[1:]
    }


def _ms(answer: Answer, percent: str) -> str:
    return number(answer["percentiles_s"][percent] * 1e3)


def merging_table(found: dict[int, tuple[Answer, Answer]]) -> str:
    """Give what merging does to throughput and latency."""
    headings = ["clients"]
    for side in ("one by one", "merged"):
        headings += [f"{side}: calls/s", "p50, ms", "p99, ms", "Jain"]
    lines = []
    for count, sides in found.items():
        line = [str(count)]
        for answer in sides:
            line += [number(answer["throughput"])]
            line += [_ms(answer, "50"), _ms(answer, "99"), f"{answer['jain']:.4f}"]
        lines.append(line)
    return markdown(headings, lines)


def batches_table(found: dict[int, tuple[Answer, Answer]]) -> str:
    """Give why the merged batches left."""
    reasons = ("full", "incompatible", "device_idle")
    lines = []
    for count, (_, merged) in found.items():
        batches = merged["batches"]
        whole = sum(batches.values())
        lines.append(
            [str(count), number(merged["samples_per_batch"])]
            + [f"{100 * batches.get(reason, 0) / whole:.0f} %" for reason in reasons]
        )
    return markdown(["clients", "samples a batch", *reasons], lines)


def delays_table(found: dict[int, list[Answer]]) -> str:
    """Give throughput and median latency by how long batches wait."""
    headings = ["--max-delay-us"]
    for count in DELAYED:
        headings += [f"{count} clients: calls/s", "p50, ms", "samples a batch"]
    lines = []
    for delay, answers in found.items():
        line = [str(delay)]
        for answer in answers:
            line += [number(answer["throughput"]), _ms(answer, "50")]
            line += [number(answer["samples_per_batch"])]
        lines.append(line)
    return markdown([h.replace("1 clients", "1 client") for h in headings], lines)


def _least_share(answer: Answer) -> float:
    """Give what the poorest of those who do not flood has, of a fair share."""
    each = [client["device_share"] for client in answer["clients"]]
    return min(each[:-1]) * len(each) / sum(each)


def flood_table(found: dict[int, tuple[Answer, Answer]]) -> str:
    """Give what a flood leaves to the others."""
    headings = ["clients"]
    for side in ("first come first served", "by shares"):
        headings += [f"{side}: least share / fair", "flood's share", "Jain"]
    lines = []
    for count, sides in found.items():
        line = [str(count)]
        for answer in sides:
            flooding = answer["clients"][-1]["device_share"]
            line += [f"{_least_share(answer):.3f}", f"{100 * flooding:.1f} %"]
            line += [f"{answer['jain']:.4f}"]
        lines.append(line)
    return markdown(headings, lines)


def mixture_table(found: dict[int, Answer]) -> str:
    """Give what those who train and those who ask get of each other."""
    lines = []
    for count, answer in found.items():
        trainers = answer["clients"][: count // 2]
        askers = answer["clients"][count // 2 :]
        line = [f"{len(trainers)} + {len(askers)}"]
        for clients in (trainers, askers):
            line.append(number(sum(c["throughput"] for c in clients)))
            line.append(number(max(c["percentiles_s"]["99"] for c in clients) * 1e3))
            line.append(f"{100 * sum(c['device_share'] for c in clients):.0f} %")
        lines.append(line)
    headings = ["training + asking", "steps/s", "p99, ms", "device"]
    return markdown([*headings, "forwards/s", "p99, ms", "device"], lines)


def draw(
    merged: dict[int, tuple[Answer, Answer]],
    flooded: dict[int, tuple[Answer, Answer]],
    path: Path,
) -> None:
    """Draw throughput, latency and fairness by the number of clients."""
    figure, (speed, wait, share) = plt.subplots(1, 3, figsize=(10, 3))
    for side, name in enumerate(("one by one", "merged")):
        color = plots.COLORS[side]
        answers = [sides[side] for sides in merged.values()]
        speeds = [answer["throughput"] for answer in answers]
        speed.plot(COUNTS, speeds, "o-", ms=3, color=color, label=name)
        waits = [answer["percentiles_s"]["99"] for answer in answers]
        wait.plot(COUNTS, waits, "o-", ms=3, color=color, label=name)
    for side, name in enumerate(("first come first served", "by shares")):
        shares = [_least_share(sides[side]) for sides in flooded.values()]
        color = plots.COLORS[2 + side]
        share.plot(list(flooded), shares, "o-", ms=3, color=color, label=name)
    for axes, title in (
        (speed, "forwards a second"),
        (wait, "p99 latency, s"),
        (share, "least share / fair share,\none of the clients floods"),
    ):
        axes.set_xscale("log")
        axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
        axes.minorticks_off()
        axes.set_xlabel("clients")
        axes.set_title(title, loc="left")
        axes.legend(frameon=False)
    wait.set_yscale("log")
    speed.set_ylim(0, None)
    share.set_ylim(0, 1.1)
    path.parent.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--record", action="store_true", help="measure the device's times first"
    )
    arguments = parser.parse_args()
    try:
        binary = find_binary()
        if arguments.record:
            TIMES.write_text(json.dumps(record(binary), indent=2) + "\n")
        times = json.loads(TIMES.read_text())
        worker = Worker([binary.parent / "bench-simulate"])
        try:
            simulator = Simulator(worker, times)
            merged, flooded = merging(simulator), flood(simulator)
            mixed, delayed = mixture(simulator), delays(simulator)
        finally:
            worker.close()
    except MeasurementError as error:
        print(f"scaling.py: {error}", file=sys.stderr)
        return 1
    draw(merged, flooded, DOCUMENT.with_suffix("") / "scaling.png")
    parts = {
        "times": _times(times),
        "merging": merging_table(merged),
        "batches": batches_table(merged),
        "delays": delays_table(delayed),
        "flood": flood_table(flooded),
        "mixture": mixture_table(mixed),
    }
    fill(DOCUMENT, parts)
    print(f"wrote {os.path.relpath(DOCUMENT)}")
    return 0


def _times(times: dict[str, Any]) -> str:
    """Give the device's times as a sentence and a table."""
    batches = times["forward_s"]
    headings = ["", *(f"forward of {count}" for count in batches), "step of 32"]
    line = ["ms", *(number(s * 1e3) for s in (*batches.values(), times["step_s"]))]
    return f"{times['source']}.\n\n{markdown(headings, [line])}"


if __name__ == "__main__":
    sys.exit(main())
