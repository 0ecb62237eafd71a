"""Mutants of the Python client, by pytest.

A module is a folder, of which SAMPLE mutants are taken, by their keys' hashes: the same
ones again, as far as the sources are the same. A first run of each test file notes
which mutants each test reaches; a mutant meets those that reach it, the quickest first,
as many as take MOST_SECONDS together.

mutmut 3 would fork a process that has run the tests, whose channels are dead then, and
passes over what has decorators; cosmic-ray starts Python and torch anew for each
mutant, and lets it meet every test.
"""

from __future__ import annotations

import ast
import hashlib
import json
import multiprocessing
import os
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mutation import ROOT, TOO_LONG, Fate, Mutant, copy_tree, fates, name, write
from mutation.python_source import instrument, mutants_of_file
from mutation.python_tests import COPY, LOADED, SOURCES, SWITCH, run_tests

MODULES = {
    "nn": f"{SOURCES}/backboned/nn",
    "optim": f"{SOURCES}/backboned/optim",
}
SAMPLE = 200
MOST_SECONDS = 60
RECORD = COPY / "reached.json"
RESULTS = ROOT / "results/mutation_python.json"
# Of what takes minutes, or does not reach the modules.
LEFT_OUT = {
    *("answers", "architectures", "backoff", "batch_norm", "budgets", "clients_doc"),
    *("converted", "demo", "demotion", "deploy", "devices", "ecosystem"),
    *("example_patch", "examples", "examples_python", "install", "interrupts"),
    *("layering", "lifecycle", "limits", "load", "malformed", "mammoth"),
    *("mammoth_faults", "mammoth_hosted", "mammoth_methods", "mammoth_programs"),
    *("mammoth_seams", "mammoth_vit", "mutation", "one_test", "package", "pages"),
    *("program", "release", "released", "scripts", "soak", "strangers", "stream"),
    *("weights", "wheel", "words"),
}


def build() -> list[Mutant]:
    """Write a copy of the tree with the sampled mutants, and give those."""
    trees = {
        file.relative_to(ROOT).as_posix(): (module, ast.parse(file.read_text()))
        for module, folder in MODULES.items()
        for file in sorted((ROOT / folder).glob("**/*.py"))
    }
    every = name(
        mutant
        for file, (module, tree) in trees.items()
        for mutant in mutants_of_file(module, file, tree)
    )
    every.sort(key=lambda mutant: hashlib.sha256(mutant.key.encode()).digest())
    mutants = [
        mutant
        for module in MODULES
        for mutant in [m for m in every if m.module == module][:SAMPLE]
    ]
    copy_tree(COPY, trees)
    for file, (_, tree) in trees.items():
        here = [mutant for mutant in mutants if mutant.file == file]
        write(COPY / file, instrument(tree, here))
    write(COPY / SOURCES / "mutant_switch.py", SWITCH)
    return mutants


def reached(file: str, lines: list[str]) -> dict[str, dict[str, Any]]:
    """Read what a run of a file noted of the tests that passed: seconds, and numbers.

    The test "FILE" stands for its imports.
    """
    tests: dict[str, dict[str, Any]] = {}
    current = file
    for line in lines:
        if line.startswith("> "):
            current = line[2:]
        elif line.startswith("< "):
            _, outcome, seconds = line.split()
            tests.setdefault(current, {"reaches": []})["seconds"] = float(seconds)
            if outcome != "passed":
                del tests[current]
            if outcome == "failed":
                tqdm.write(f"mutate: fails without a mutant: {current}")
            current = file
        else:
            tests.setdefault(current, {"reaches": []})["reaches"].append(line)
    return tests


def record(mutants: list[Mutant], jobs: int) -> dict[str, dict[str, Any]]:
    """Give per test how long it takes, and the keys of the mutants that it reaches."""
    folder = ROOT / "tests/python"
    shared = digest(
        [
            *(COPY / SOURCES).glob("**/*.py"),
            *(path for path in folder.glob("*.py") if "test_" not in path.name),
        ]
    )
    known = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    keys = {str(mutant.number): mutant.key for mutant in mutants}
    files = {
        path: f"{shared} {digest([path])}"
        for path in sorted(folder.glob("test_*.py"))
        if path.stem.removeprefix("test_") not in LEFT_OUT
    }

    def look(path: Path) -> dict[str, Any]:
        file = path.relative_to(ROOT).as_posix()
        if file in known and known[file]["of"] == files[path]:
            return known[file]
        with tempfile.NamedTemporaryFile("r") as log:
            run_tests([file], MUTANTS_REACHED=log.name)
            lines = log.read().splitlines()
        tests = reached(file, lines)
        for test in tests.values():
            test["reaches"] = [keys[number] for number in test["reaches"]]
        return {"of": files[path], "tests": tests}

    with ThreadPoolExecutor(jobs) as pool:
        looks = tqdm(pool.map(look, files), total=len(files), disable=None)
        for path, seen in zip(files, looks):
            known[path.relative_to(ROOT).as_posix()] = seen
            write(RECORD, json.dumps(known, indent=1))
    return {
        test: seen
        for path in files
        for test, seen in known[path.relative_to(ROOT).as_posix()]["tests"].items()
    }


def digest(paths: list[Path]) -> str:
    """Name the content of files."""
    content = hashlib.sha256()
    for path in sorted(paths):
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def tests_of(mutant: Mutant, seen: dict[str, dict[str, Any]], peers: set[str]) -> list:
    """Give the tests that a mutant meets, a file's first, and the quickest first.

    - `peers`: the mutants of its file, for one that an import reaches: the first test
      that uses the file imports it.
    """

    def reaching(keys: set[str]) -> list[str]:
        return [t for t, its in seen.items() if not keys.isdisjoint(its["reaches"])]

    found = reaching({mutant.key})
    if found and (mutant.at_import or not any("::" in test for test in found)):
        found = reaching(peers)
    found = [test for test in found if "::" in test]
    if not found:
        return []
    chosen, total = [], 0.0
    for test in sorted(found, key=lambda test: seen[test]["seconds"]):
        total += seen[test]["seconds"]
        if chosen and total > MOST_SECONDS:
            break
        chosen.append(test)
    files = Counter(test.partition("::")[0] for test in chosen)
    likely = [test for test in chosen if test.startswith(max(files, key=files.get))]
    first = [likely, [test for test in chosen if test not in likely]]
    return [tests for tests in first if tests]


def run(
    modules: list[str], jobs: int, again: bool
) -> tuple[list[Mutant], dict[str, str]]:
    """Give the sampled mutants of modules, and the fate of each."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["PYTHONPATH"] = str(COPY / SOURCES)
    os.environ.setdefault("BACKBONED_BIN", str(ROOT / "build/release/backboned"))
    multiprocessing.get_context("forkserver").set_forkserver_preload(LOADED)
    every = build()
    mutants = [mutant for mutant in every if mutant.module in modules]
    built = digest(
        [
            *(COPY / SOURCES).glob("**/*.py"),
            *(ROOT / "tests/python").glob("*.py"),
        ]
    )

    def start() -> Fate:
        seen = record(every, jobs)
        seconds = {test: its.get("seconds", 0.0) for test, its in seen.items()}

        def fate(mutant: Mutant) -> str:
            peers = {other.key for other in every if other.file == mutant.file}
            number = str(mutant.number)
            for tests in tests_of(mutant, seen, peers):
                while tests:
                    failed = run_tests(tests, seconds, MUTANT=number)
                    if not failed:
                        break
                    # One that fails at times, with a mutant and without, kills nothing.
                    alone = failed.removesuffix(f": {TOO_LONG}")
                    alone = alone if "::" in alone else tests[0]
                    if run_tests([alone], seconds, MUTANT=number):
                        return failed
                    tests = tests[tests.index(alone) + 1 :]
            return ""

        return fate

    return mutants, fates(mutants, RESULTS, built, start, jobs, again)
