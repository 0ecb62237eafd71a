"""Mutants, the same for each language: names, fates, reasons, and the report."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENT = ROOT / "tests/mutants.txt"
GOAL = 0.9
TOO_LONG = "too long"

# Gives the test that kills a mutant, or '' for a survivor.
Fate = Callable[["Mutant"], str]


@dataclass
class Mutant:
    """A change of one place of a file; without new text, a deletion."""

    module: str
    file: str
    function: str
    line: int
    place: Any  # Of the file's syntax.
    old: str
    new: str | None
    at_import: bool = False  # No function runs it, but the import of its file.
    key: str = ""  # Names the mutant, whatever line it stands on.
    number: int = 0


def name(mutants: Iterable[Mutant]) -> list[Mutant]:
    """Give mutants their keys, and numbers from 1 on."""
    named = list(mutants)
    seen: Counter[str] = Counter()
    for number, mutant in enumerate(named, start=1):
        new = (mutant.new or "").replace(mutant.old, "_")
        key = f"{mutant.file}: {mutant.function}: {mutant.old} -> {new}".strip()
        seen[key] += 1
        mutant.key = key + (f" #{seen[key]}" if seen[key] > 1 else "")
        mutant.number = number
    return named


def write(path: Path, content: str | bytes) -> None:
    """Write a file, unless that is what it has."""
    data = content.encode() if isinstance(content, str) else content
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def copy_tree(copy: Path, but: Iterable[str]) -> None:
    """Copy the tracked files but some."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for file in set(listed) - set(but):
        if (ROOT / file).is_file():
            write(copy / file, (ROOT / file).read_bytes())


def fates(
    mutants: list[Mutant],
    results: Path,
    built: str,
    start: Callable[[], Fate],
    jobs: int,
    again: bool,
) -> dict[str, str]:
    """Give each mutant's fate by its key: what `results` keeps, and else a run's.

    - `built`: names the sources and the tests; with others, fates are made anew.
    - `again`: mutants that others killed stay dead.
    """
    known: dict[str, str] = {}
    if results.is_file():
        earlier = json.loads(results.read_text())
        if earlier["built"] == built:
            known = earlier["fates"]
        elif again:
            known = {key: fate for key, fate in earlier["fates"].items() if fate}
    left = [mutant for mutant in mutants if mutant.key not in known]
    if left:
        results.parent.mkdir(exist_ok=True)
        with ThreadPoolExecutor(jobs) as pool:
            fate = start()
            runs = {pool.submit(fate, mutant): mutant for mutant in left}
            for run in tqdm(as_completed(runs), total=len(runs), disable=None):
                known[runs[run].key] = run.result()
                state = {"built": built, "fates": known}
                write(results, json.dumps(state, indent=1))
    return {mutant.key: known[mutant.key] for mutant in mutants}


def equivalents() -> dict[str, str]:
    """Read the mutants that change nothing, and why."""
    lines = EQUIVALENT.read_text().splitlines()
    pairs = [line.partition("  # ") for line in lines if not line.startswith("#")]
    return {key.strip(): reason for key, _, reason in pairs if key}


def report(mutants: list[Mutant], ends: dict[str, str]) -> bool:
    """Print survivors and scores; True if each module's score reaches the goal."""
    named = equivalents()
    wrong = [key for key in named if ends.get(key, "")]
    for key in wrong:
        print(f"named in {EQUIVALENT.name}, but killed by {ends[key]}: {key}")
    for mutant in mutants:
        if not ends[mutant.key] and mutant.key not in named:
            print(f"survived, line {mutant.line}: {mutant.key}")
    low = False
    for module in dict.fromkeys(mutant.module for mutant in mutants):
        keys = [mutant.key for mutant in mutants if mutant.module == module]
        killed = sum(bool(ends[key]) for key in keys)
        equal = sum(key in named and not ends[key] for key in keys)
        score = killed / (len(keys) - equal)
        low = low or score < GOAL
        print(
            f"{module}: {len(keys)} mutants, {killed} killed, {equal} equivalent:"
            f" {killed / len(keys):.3f} of all, {score:.3f} of the others"
        )
    return not low and not wrong
