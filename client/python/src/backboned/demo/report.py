"""Shows the demo's results at its end: a table and a plot."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure  # Needs no screen, as pyplot may.

from backboned.demo.replay import CLASSES_PER_TASK, Outcome


def table(outcome: Outcome) -> str:
    """Format the accuracies after each task, in percent."""
    tasks = "".join(f"{f'task {i + 1}':>9}" for i in range(len(outcome.class_il)))
    head = f"accuracy % after {tasks}"
    rows = (
        f"{name:<17}" + "".join(f"{value:9.2f}" for value in values)
        for name, values in _series(outcome).items()
    )
    rule = "-" * len(head)
    return "\n".join([rule, head, rule, *rows, rule])


def plot(outcome: Outcome, title: str, path: Path) -> None:
    """Draw the accuracies after each task into a PNG file."""
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="tight")
    axes = figure.subplots()
    series = _series(outcome)
    tasks = range(1, len(outcome.class_il) + 1)
    styles = (("#b3441e", "o", -16), ("#1f5fa8", "s", 9))
    for (name, values), (colour, marker, above) in zip(series.items(), styles):
        axes.plot(tasks, values, color=colour, marker=marker, label=name, linewidth=2)
        for task, value in zip(tasks, values):
            axes.annotate(
                f"{value:.1f}",
                (task, value),
                textcoords="offset points",
                xytext=(0, above),
                ha="center",
                color=colour,
                fontsize=9,
            )
    digits = (f"{t} ({(t - 1) * CLASSES_PER_TASK}, {t * 2 - 1})" for t in tasks)
    axes.set_xticks(list(tasks), list(digits))
    axes.set_xlim(0.6, len(tasks) + 0.4)
    lowest = min(value for values in series.values() for value in values)
    axes.set_ylim(max(0, min(70, lowest - 10)), 104)
    axes.set_xlabel("after training task (digits)")
    axes.set_ylabel("mean accuracy on the tasks seen so far, %")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _series(outcome: Outcome) -> dict[str, list[float]]:
    return {"class-incremental": outcome.class_il, "task-incremental": outcome.task_il}
