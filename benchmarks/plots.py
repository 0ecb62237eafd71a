"""The pictures of docs/performance.md."""

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

Result = dict[str, Any]
COLORS = ("#4878a8", "#e08a3c", "#6aa56e", "#b5606a", "#8a79b0", "#8c8c8c", "#c9b458")

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
    }
)


def draw(results: dict[str, Result], folder: Path) -> dict[str, str]:
    """Draw what there are results for; give file names by id of the measurement."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for key, function in _PLOTS.items():
        if key in results:
            figure = function(results[key])
            name = f"{key.lower()}.png"
            figure.savefig(folder / name, dpi=110, bbox_inches="tight")
            plt.close(figure)
            drawn[key] = name
    return drawn


def _error(value: list[float]) -> tuple[list[float], list[float]]:
    """Give the bar's errors: down to the minimum and up to the maximum."""
    return [value[0] - value[1]], [value[2] - value[0]]


def _forward(result: Result) -> Any:
    """Draw remote / in-process throughput by batch size."""
    figure, axes = plt.subplots(figsize=(6, 2.8))
    batches: list[str] = []
    for row in result["rows"]:
        batch, side = row["case"].split(", ")
        if batch not in batches:
            batches.append(batch)
        first = side == "Unix socket"
        at = batches.index(batch) + (-0.18 if first else 0.18)
        axes.bar(
            at,
            row["value"][0],
            0.34,
            yerr=_error(row["value"]),
            capsize=2,
            color=COLORS[0 if first else 1],
            label=side if len(batches) == 1 else None,
        )
        if row["floor"] and first:
            here = batches.index(batch)
            axes.hlines(row["floor"], here - 0.4, here + 0.4, "black", "dashed", lw=1)
    axes.axhline(1, color="grey", lw=0.8)
    axes.set_xticks(range(len(batches)), batches)
    axes.set_ylim(0.5, None)
    axes.set_ylabel("remote / in process")
    axes.set_title("ResNet18 forward: throughput\n(dashed: floor)", loc="left")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    return figure


def _latency(result: Result) -> Any:
    """Draw what a call adds."""
    figure, axes = plt.subplots(figsize=(6, 1.9))
    rows = result["rows"][::-1]
    for at, row in enumerate(rows):
        axes.barh(
            at,
            row["value"][0],
            0.6,
            xerr=_error(row["value"]),
            capsize=2,
            color=COLORS[0],
        )
        axes.vlines(row["floor"], at - 0.4, at + 0.4, "black", "dashed", lw=1)
    axes.set_yticks(range(len(rows)), [row["case"] for row in rows])
    axes.set_xlabel("ms")
    axes.set_title("MLP batch 1: latency added to the local call (dashed: floor)")
    return figure


def _transfers(result: Result) -> Any:
    """Draw the speed of each way to move parameters."""
    figure, axes = plt.subplots(figsize=(6, 3.4))
    case = result["cases"][0]
    sides = list(case["sides"])[::-1]
    for at, side in enumerate(sides):
        speeds = [
            case["bytes"] / s / 1e9 for s in case["sides"][side]["round_medians_s"]
        ]
        middle = median(speeds)
        color = 2 if side.startswith("one") else int("protobuf" in side)
        axes.barh(
            at,
            middle,
            0.7,
            xerr=_error([middle, min(speeds), max(speeds)]),
            capsize=2,
            color=COLORS[color],
        )
    axes.set_yticks(range(len(sides)), sides)
    axes.set_xlabel("GB/s")
    axes.set_title("GetParams and SetParams of 44.7 MB")
    return figure


def _omp(result: Result) -> Any:
    """Draw each policy's latencies, relative to the best one's."""
    figure, axes = plt.subplots(figsize=(7, 3))
    cases = result["cases"]
    policies = list(dict.fromkeys(side for case in cases for side in case["sides"]))
    policies = [policy for policy in policies if "in process" not in policy]
    width = 0.8 / len(policies)
    for index, policy in enumerate(policies):
        heights = []
        for case in cases:
            own = {
                side: median(figures["round_medians_s"])
                for side, figures in case["sides"].items()
                if side in policies
            }
            heights.append(own[policy] / min(own.values()))
        shift = (index - len(policies) / 2 + 0.5) * width
        places = [at + shift for at in range(len(cases))]
        axes.bar(places, heights, width, label=policy, color=COLORS[index])
    axes.set_yscale("log")
    labels = [case["name"].replace(", ", ",\n") for case in cases]
    labels = [label.replace("a busy ", "a\nbusy ") for label in labels]
    axes.set_xticks(range(len(cases)), labels)
    axes.set_ylabel("latency / the best policy's")
    axes.set_title("How idle OpenMP threads of the server wait")
    axes.legend(fontsize=7, ncols=2)
    return figure


def _stages(result: Result) -> Any:
    """Draw where the time of a call goes, as a bar for each side."""
    figure, axes = plt.subplots(figsize=(7, 2.3))
    sides = result["cases"][0]["sides"]
    for at, figures in enumerate(reversed(sides.values())):
        phases, left = figures["phases_s"], 0.0
        whole = figures["percentiles_s"]["50"]
        transport = phases.get("transport", whole)
        parts = {
            "server: queue": phases["queue"],
            "server: compute": phases["compute"],
            "server: rest": phases["handler"] - phases["queue"] - phases["compute"],
            "wire, wake-ups": transport - phases["handler"],
            "client's Python": whole - transport,
        }
        for color, (name, seconds) in zip(COLORS, parts.items()):
            width = seconds * 1e6
            axes.barh(at, width, 0.6, left, color=color, label=None if at else name)
            if width > 12:
                place = left + width / 2, at
                axes.annotate(f"{width:.0f}", place, ha="center", va="center")
            left += width
    axes.set_yticks(range(len(sides)), list(sides)[::-1])
    axes.set_xlabel("us")
    axes.set_title("MLP batch 1: where the time of a call goes", loc="left")
    axes.legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    return figure


_PLOTS = {
    "P1": _forward,
    "P3": _latency,
    "P6": _transfers,
    "P25": _stages,
    "OMP": _omp,
}
