"""What the demo shows at its end: a table and a plot."""

from __future__ import annotations

from pathlib import Path

from backboned.demo.replay import CLASSES_PER_TASK, Accuracy

_CLASS_IL = "class-incremental"
_TASK_IL = "task-incremental"


def table(accuracies: list[Accuracy]) -> str:
    """Format the accuracies after each task, in percent."""
    width = len(_CLASS_IL)
    head = "".join(f"{f'task {i + 1}':>9}" for i in range(len(accuracies)))
    lines = [f"{'accuracy % after':<{width}}{head}"]
    for name, values in _series(accuracies):
        lines.append(f"{name:<{width}}" + "".join(f"{v:9.2f}" for v in values))
    rule = "-" * len(lines[0])
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def plot(accuracies: list[Accuracy], title: str, path: Path) -> None:
    """Draw the accuracies after each task into a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), dpi=150)
    tasks = range(1, len(accuracies) + 1)
    styles = (("#b3441e", "o", -16), ("#1f5fa8", "s", 9))
    for (name, values), (colour, marker, above) in zip(_series(accuracies), styles):
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
    axes.set_xlim(0.6, len(accuracies) + 0.4)
    lowest = min(value for _, values in _series(accuracies) for value in values)
    axes.set_ylim(max(0, min(70, lowest - 10)), 104)
    axes.set_xlabel("after training task (digits)")
    axes.set_ylabel("mean accuracy on the tasks seen so far, %")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def _series(accuracies: list[Accuracy]) -> list[tuple[str, list[float]]]:
    return [
        (_CLASS_IL, [a.class_il for a in accuracies]),
        (_TASK_IL, [a.task_il for a in accuracies]),
    ]
