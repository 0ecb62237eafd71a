"""Writes docs/gpu-results.md by the results of scripts/gpu-check (its --report)."""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from report import fill, markdown, number, spread

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gpu-results.md"
PARTS = ("machine", "promises", "speed", "questions", "pytest")
FAILURES_SHOWN = 5


def is_dry(results: dict[str, Any]) -> bool:
    """Say whether results are not of a GPU."""
    parts = results["parts"].values()
    rows = results["parts"].get("machine", {}).get("items", {}).get("machine", {})
    cards = [row for row in rows.get("rows", ()) if row["case"] == "card"]
    return results["dry_run"] or any(p.get("dry_run") for p in parts) or not cards


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return spread(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value) if value else "0"
    return str(value).replace("|", "/").replace("\n", " ")


def _table(rows: list[dict[str, Any]]) -> str:
    """Give cases with their figures, and whether what is promised holds."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if all(row["holds"] is None for row in rows):
        names.remove("holds")
    lines = []
    for row in rows:
        cells = {name: "" if row[name] is None else _cell(row[name]) for name in row}
        cells["holds"] = {None: "", True: "yes", False: "**NO**"}[row["holds"]]
        lines.append([cells.get(name, "") for name in names])
    return markdown(names, lines)


def _part(part: dict[str, Any]) -> str:
    """Give a table of each item; of failures of one item only the first few."""
    texts = []
    for name, item in part["items"].items():
        rows = item["rows"]
        if rows and rows[-1].get("failed"):  # Of pytest.
            rows = [*rows[:-1][:FAILURES_SHOWN], rows[-1]]
        if rows:
            texts.append(f"{name}:\n\n{_table(rows)}")
    return "\n\n".join(texts) or "Nothing was measured."


def _missing(parts: dict[str, Any]) -> str:
    """List what was not done, or failed, with the command for it."""
    lines = []
    for part in PARTS:
        found = parts.get(part, {"state": "not run", "items": {}})
        command = f"`run.py {part}`"
        if found["state"] != "ended":
            lines.append([part, "", found["state"], "", command])
        for name, item in found["items"].items():
            if item["state"] != "done":
                error = _cell(item.get("error", ""))
                lines.append([part, name, item["state"], error, command])
    table = markdown(["part", "item", "state", "error", "command"], lines)
    return table if lines else "Nothing: each item was done, and what it checks held."


def sections(results: dict[str, Any]) -> dict[str, str]:
    """Give the text of every generated part of the page, by its name."""
    parts, dry = results["parts"], is_dry(results)
    machine = parts.get("machine", {"items": {}})["items"].get("machine", {"rows": []})
    rows = [[row["case"], _cell(row["value"])] for row in machine["rows"]]
    return {
        "state": "**These are figures of a dry run: they say nothing of a GPU.**"
        if dry
        else "These are the figures of one run on the card below.",
        "machine": markdown(["", ""], rows),
        **{name: _part(parts.get(name, {"items": {}})) for name in PARTS[1:]},
        "missing": _missing(parts),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="a gpu-results.json")
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    arguments = parser.parse_args()
    results, page = json.loads(arguments.results.read_text()), arguments.page.resolve()
    if is_dry(results) and ROOT / "docs" in page.parents:
        print("gpu_page.py: these results are not of a GPU: name a page outside docs/")
        return 1
    if page != PAGE:
        shutil.copy(PAGE, page)
    fill(page, sections(results))
    page.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {page} and its .json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
