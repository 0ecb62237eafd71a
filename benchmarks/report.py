"""Tables of the results: on the terminal, and in docs/performance.md."""

import re
from pathlib import Path
from statistics import median
from typing import Any

Result = dict[str, Any]


def number(value: float) -> str:
    """Write a number with three digits that count."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def spread(value: list[float]) -> str:
    """Write a median with its minimum and maximum."""
    return f"{number(value[0])} ({number(value[1])} to {number(value[2])})"


def _holds(row: Result, key: str) -> str:
    bound = row[key]
    if bound is None:
        return ""
    value = row["value"][0]
    holds = value <= bound if row["lower_is_better"] else value >= bound
    return "yes" if holds else "NO"


_TARGET_HEADINGS = [
    "id",
    "case",
    "measured",
    "median (min to max)",
    "from",
    "floor",
    "holds",
    "goal",
    "reached",
]


def _target_rows(results: dict[str, Result]) -> list[list[str]]:
    """Give one line for each figure that has a floor or a goal."""
    lines = []
    for key, result in results.items():
        for row in result["rows"]:
            value = spread(row["value"])
            lines.append(
                [
                    key,
                    row["case"],
                    row["what"],
                    f"{value} {row['unit']}".strip(),
                    row["absolute"],
                    "" if row["floor"] is None else f"{row['floor']:g}",
                    _holds(row, "floor"),
                    "" if row["goal"] is None else f"{row['goal']:g}",
                    _holds(row, "goal"),
                ]
            )
    return lines


def terminal(results: dict[str, Result]) -> str:
    """Give all figures with a floor or a goal as a table of fixed width."""
    lines = [_TARGET_HEADINGS, *_target_rows(results)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        for line in lines
    ]
    for key, result in results.items():
        for what, count in result.get("bytes", {}).items():
            text.append(f"{count / 1e6:10.2f} MB  {what}")
        if key == "OMP":
            text.append(_policy_table(result))
    return "\n".join(text)


def failed_floors(results: dict[str, Result]) -> list[str]:
    """Name the figures whose floor does not hold."""
    return [
        f"{key} {row['case']}"
        for key, result in results.items()
        for row in result["rows"]
        if _holds(row, "floor") == "NO"
    ]


def markdown(headings: list[str], lines: list[list[str]]) -> str:
    return "\n".join(
        "| " + " | ".join(cells) + " |"
        for cells in [headings, ["---"] * len(headings), *lines]
    )


def _case_table(result: Result) -> str:
    """Give all sides of all cases, with absolute values."""
    moves = any(case["bytes"] for case in result["cases"])
    headings = ["case", "side", "call, ms", "p90", "p99", "calls"]
    if moves:
        headings.insert(3, "GB/s")
    lines = []
    for case in result["cases"]:
        for side, figures in case["sides"].items():
            medians = figures["round_medians_s"]
            of_calls = figures["percentiles_s"]
            values = [1e3 * f(medians) for f in (median, min, max)]
            line = [
                case["name"],
                side,
                spread(values),
                number(of_calls["90"] * 1e3),
                number(of_calls["99"] * 1e3),
                str(figures["calls"]),
            ]
            if moves:
                line.insert(3, f"{case['bytes'] / median(medians) / 1e9:.2f}")
            lines.append(line)
    return markdown(headings, lines)


def _phase_table(result: Result) -> str:
    """Give where the time of a call goes; empty if no side says so."""
    sides = [
        (case["name"], side, figures)
        for case in result["cases"]
        for side, figures in case["sides"].items()
        if figures["phases_s"]
    ]
    names = dict.fromkeys(name for *_, each in sides for name in each["phases_s"])
    lines = []
    for case, side, figures in sides:
        phases = figures["phases_s"]
        whole = number(figures["percentiles_s"]["50"] * 1e3)
        cells = [number(phases[n] * 1e3) if n in phases else "" for n in names]
        lines.append([case, side, whole, *cells])
    return markdown(["case", "side", "call, ms", *names], lines) if lines else ""


def _policy_table(result: Result) -> str:
    """Give the policies' latencies side by side."""
    cases = result["cases"]
    sides = dict.fromkeys(side for case in cases for side in case["sides"])
    lines = []
    for side in sides:
        line = [side]
        for case in cases:
            figures = case["sides"].get(side)
            medians = figures["round_medians_s"] if figures else []
            line.append(
                spread([1e3 * f(medians) for f in (median, min, max)])
                if medians
                else ""
            )
        lines.append(line)
    return markdown(["ms", *(case["name"] for case in cases)], lines)


def _memory_table(result: Result) -> str:
    lines = [[what, f"{count:,}"] for what, count in result["bytes"].items()]
    return markdown(["what", "bytes"], lines)


def sections(
    results: dict[str, Result], about: dict[str, str], plots: dict[str, str]
) -> dict[str, str]:
    """Give the text of every generated part of docs/performance.md, by its name."""
    parts = {
        "machine": markdown(["", ""], [[k, v] for k, v in about.items()]),
        "targets": markdown(_TARGET_HEADINGS, _target_rows(results)),
    }
    for key, result in results.items():
        if key == "OMP":
            text = _policy_table(result)
        elif "bytes" in result:
            text = _memory_table(result)
        else:
            text = _case_table(result)
            phases = _phase_table(result)
            if phases:
                text += "\n\nWhere the median call's time goes, ms:\n\n" + phases
        if key in plots:
            text = f"![{result['title']}](performance/{plots[key]})\n\n" + text
        parts[key] = text
    return parts


def fill(document: Path, parts: dict[str, str]) -> None:
    """Replace what lies between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Raises
    ------
    ValueError
        If the document has no such place.
    """
    text = document.read_text()
    for name, part in parts.items():
        place = re.compile(
            rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL
        )
        text, count = place.subn(
            lambda m, part=part: f"{m[1]}{part}\n{m[2]}", text, count=1
        )
        if not count:
            raise ValueError(f"{document} has no place for {name}")
    document.write_text(text)
