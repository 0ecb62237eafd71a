"""Mutants of the Python client, by pytest.

A module is a folder, of which SAMPLE mutants are taken, by their keys' hashes: the same
ones again, as far as the sources are the same. A first run of each test file notes which
mutants each test reaches; a mutant meets those that reach it, the quickest first, as
many as take MOST_SECONDS together. Each run is a process of its own, forked when torch
is loaded and nothing of ours.

mutmut 3 would fork a process that has run the tests, whose channels are dead then, and
passes over what has decorators; cosmic-ray starts Python and torch anew for each mutant,
and lets it meet every test.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mutation import ROOT, TOO_LONG, Fate, Mutant, copy_tree, fates, name, write

SOURCES = "client/python/src"
MODULES = {
    "nn": f"{SOURCES}/backboned/nn",
    "optim": f"{SOURCES}/backboned/optim",
}
SAMPLE = 200
MOST_SECONDS = 60
COPY = ROOT / "build/mutation_python"
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
LOADED = ["grpc", "hypothesis", "numpy", "pytest", "torch"]

OPERATORS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitAnd: (ast.BitOr,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
SWAPS = {"max": "min", "min": "max", "all": "any", "any": "all"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# What no test can tell: types, documentation, and what PyTorch does not run.
SKIPPED = ("annotation", "returns", "decorator_list", "bases", "keywords")

SWITCH = """\
import os

_at = os.environ.get("MUTANTS_REACHED")
_chosen = int(os.environ.get("MUTANT", "0"))
reached = set()


def note(line):
    log = os.open(_at, os.O_WRONLY | os.O_APPEND)
    os.write(log, f"{line}\\n".encode())
    os.close(log)


def _reach(number):
    if number not in reached:
        reached.add(number)
        note(number)
    return False


on = _reach if _at else _chosen.__eq__
"""


def text(node: ast.AST | None) -> str:
    """Give a node's text, on one line, and of a long one the beginning."""
    line = " ".join(ast.unparse(node).split()) if node else ""
    return line if len(line) <= 120 else line[:117] + "..."


def nodes(node: ast.AST, function: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Give what may have mutants below a node, each with its function's name."""
    yield function, node
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        function = f"{function}.{node.name}".lstrip(".")
    for field, value in ast.iter_fields(node):
        if field in SKIPPED and isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not is_for_types(child, field):
                yield from nodes(child, function)


def is_for_types(node: ast.AST, field: str) -> bool:
    """Tell whether nothing runs a node, or only for types and documentation."""
    return (
        field in ("annotation", "format_spec")
        or isinstance(node, ast.Assert)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in text(node.test))
        or (isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)
            and node.col_offset == 0)
    )  # fmt: skip


def is_text(node: ast.AST) -> bool:
    """Tell whether a node is a string, as far as it shows."""
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def changes(node: ast.AST, assigned: set[str]) -> Iterator[ast.AST | None]:
    """Give what may stand in a node's place; None where it is left out.

    - `assigned`: the variables that have values here.
    """

    def with_(**fields: Any) -> ast.AST:
        other = copy.deepcopy(node)
        for field, value in fields.items():
            setattr(other, field, value)
        return other

    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in OPERATORS.get(type(operator), ()):
                ops = [*node.ops]
                ops[place] = other()
                yield with_(ops=ops)
    elif isinstance(node, ast.BoolOp):
        yield with_(op=OPERATORS[type(node.op)][0]())
        for value in node.values:
            left = [other for other in node.values if other is not value]
            yield copy.deepcopy(left[0]) if len(left) == 1 else with_(values=left)
    elif isinstance(node, ast.BinOp):
        if not is_text(node.left) and not is_text(node.right):
            for other in OPERATORS.get(type(node.op), ()):
                yield with_(op=other())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1)
        if node.value:
            yield ast.Constant(node.value - 1)
    elif isinstance(node, ast.IfExp):
        yield with_(body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Call) and text(node.func) in SWAPS:
        yield with_(func=ast.Name(SWAPS[text(node.func)], ast.Load()))
    elif isinstance(node, ast.Return) and node.value and text(node.value) != "None":
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.AugAssign):
        for other in OPERATORS.get(type(node.op), ()):
            yield with_(op=other())
        yield None
    elif isinstance(node, ast.Assign):
        names = {n.id for n in ast.walk(node.targets[0]) if isinstance(n, ast.Name)}
        if names <= assigned:  # Otherwise nothing has a value without it.
            yield None
    elif isinstance(
        node, (ast.Expr, ast.Raise, ast.Delete, ast.Continue, ast.Break)
    ) and not isinstance(getattr(node, "value", None), (ast.Yield, ast.YieldFrom)):
        yield None


def conditions(node: ast.AST) -> list[ast.expr]:
    """Give the conditions of a statement or of a comprehension."""
    if isinstance(node, (ast.If, ast.While)):
        return [node.test]
    return node.ifs if isinstance(node, ast.comprehension) else []


def of_condition(test: ast.expr) -> Iterator[ast.expr]:
    """Give what a condition may become, besides what its operators may."""
    if isinstance(test, ast.Constant):
        return
    if not isinstance(test, (ast.BoolOp, ast.Compare, ast.UnaryOp)):
        yield ast.UnaryOp(ast.Not(), copy.deepcopy(test))
    yield ast.Constant(True)
    yield ast.Constant(False)


def assigned_before(function: ast.AST, line: int) -> set[str]:
    """Give the variables that a function assigns above a line, its arguments too."""
    return {
        node.arg if isinstance(node, ast.arg) else node.id
        for node in ast.walk(function)
        if isinstance(node, ast.arg)
        or (isinstance(node, ast.Name) and node.lineno < line)
    }


def mutants_of_file(module: str, file: str, tree: ast.Module) -> Iterator[Mutant]:
    """Give all mutants of a file; their place is a node, and what it becomes."""
    scopes: dict[str, ast.AST] = {"": tree}
    for function, node in nodes(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            scopes[f"{function}.{node.name}".lstrip(".")] = node
        assigned: set[str] = set()
        if isinstance(node, ast.Assign) and isinstance(scopes[function], FUNCTIONS):
            assigned = assigned_before(scopes[function], node.lineno)
        found = [(node, new) for new in changes(node, assigned)]
        found += [
            (test, new) for test in conditions(node) for new in of_condition(test)
        ]
        for old, new in found:
            yield Mutant(
                module=module,
                file=file,
                function=function,
                line=getattr(old, "lineno", 0),
                place=(old, new),
                old=text(old),
                new=text(new) if new else None,
            )


def instrument(tree: ast.Module, mutants: list[Mutant]) -> str:
    """Give a source with mutants in it, each behind a look at its number."""
    here: dict[int, list[Mutant]] = {}
    for mutant in mutants:
        here.setdefault(id(mutant.place[0]), []).append(mutant)

    class Instrument(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            result = self.generic_visit(node)
            for mutant in here.get(id(node), ()):
                new = mutant.place[1]
                chosen = ast.parse(f"_mutant({mutant.number})", mode="eval").body
                if isinstance(node, ast.stmt):
                    result = ast.If(chosen, [new or ast.Pass()], [result])
                else:
                    result = ast.IfExp(chosen, new, result)
            return result

    tree = Instrument().visit(tree)
    after = 1 + max(
        (i for i, node in enumerate(tree.body)
         if isinstance(node, ast.ImportFrom) and node.module == "__future__"),
        default=-1,
    )  # fmt: skip
    tree.body[after:after] = ast.parse("from mutant_switch import on as _mutant").body
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


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


class Told:
    """Tells which test runs: a plugin of pytest, in the process of a run."""

    def __init__(self, to: Connection) -> None:
        self._to = to
        self._outcome, self._seconds = "passed", 0.0

    def _note(self, line: str) -> None:
        switch = sys.modules.get("mutant_switch")
        if switch is not None and "MUTANTS_REACHED" in os.environ:
            switch.note(line)
            switch.reached.clear()

    def pytest_collectreport(self, report: Any) -> None:
        """Tell what cannot be collected."""
        if report.failed:
            self._to.send(report.nodeid)

    def pytest_collection_finish(self) -> None:
        """See that the copy is what runs."""
        import backboned

        assert Path(backboned.__file__).is_relative_to(COPY), backboned.__file__

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tell which test comes."""
        self._to.send(nodeid)
        self._note(f"> {nodeid}")
        self._outcome, self._seconds = "passed", 0.0

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Sum up a test's parts."""
        self._seconds += report.duration
        if report.failed and "LOG" in os.environ:
            Path(os.environ["LOG"]).open("a").write(
                f"{report.nodeid} {report.longrepr}"
            )
        if not report.passed:
            self._outcome = report.outcome

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note how the test went."""
        self._note(f"< {self._outcome} {self._seconds:.3f}")


def child(to: Connection, tests: list[str], environment: dict[str, str]) -> None:
    """Run tests, in a process of their own."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # As where nothing set it.
    os.environ |= environment
    os.chdir(COPY)
    sys.path.insert(0, str(COPY / SOURCES))
    sys.dont_write_bytecode = False  # Rewriting the tests' assertions takes a while.
    silence = os.open(
        os.environ.get("MUTATE_LOG", os.devnull), os.O_WRONLY | os.O_APPEND
    )
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    import pytest

    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    if "MUTANT" in environment:
        options.append("-x")
    status = int(pytest.main([*options, *tests], plugins=[Told(to)]))
    sys.stdout.flush()
    to.send(status)


def run_tests(
    tests: list[str], seconds: dict[str, float] | None = None, **environment: str
) -> str:
    """Run tests; give the one that fails, or ''.

    - `seconds`: what each took; one that takes far longer has failed. None: no limit.
    """
    context = multiprocessing.get_context("forkserver")
    got, to = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment |= {"TMPDIR": folder}
        process = context.Process(target=child, args=(to, tests, environment))
        process.start()
        to.close()
        current, status, limit = "", None, 120.0
        while status is None:
            ready = wait([got, process.sentinel], limit if seconds else None)
            if not ready:
                current += f": {TOO_LONG}"
                break
            try:
                heard = got.recv() if got in ready else None
            except EOFError:
                heard = None
            if isinstance(heard, str):
                current = heard
                limit = 20 + 10 * (seconds or {}).get(current, 0)
            else:
                status = -1 if heard is None else heard
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.join()
    return "" if status == 0 else current or f"exit code {process.exitcode}"


def record(mutants: list[Mutant], jobs: int) -> dict[str, dict[str, Any]]:
    """Give per test how long it takes, and the keys of the mutants that it reaches.

    The test "FILE" alone stands for the file's imports.
    """
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
        tests = {file: {"seconds": 0.0, "reaches": set()}}
        current = file
        for line in lines:
            if line.startswith("> "):
                current = line[2:]
                tests[current] = {"seconds": 0.0, "reaches": set()}
            elif line.startswith("< "):
                _, outcome, took = line.split()
                if outcome == "failed":
                    tqdm.write(f"mutate: fails without a mutant: {current}")
                if outcome == "passed":
                    tests[current]["seconds"] = float(took)
                else:
                    del tests[current]
                current = file
            else:
                tests[current]["reaches"].add(keys[line])
        for test in tests.values():
            test["reaches"] = sorted(test["reaches"])
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
    """Give the tests that a mutant meets, the quickest first.

    - `peers`: the mutants of its file, for one that only imports reach.
    """
    for keys in ({mutant.key}, peers):
        found = [
            test
            for test, its in seen.items()
            if "::" in test and not keys.isdisjoint(its["reaches"])
        ]
        if found or not any(mutant.key in its["reaches"] for its in seen.values()):
            break
    chosen, total = [], 0.0
    for test in sorted(found, key=lambda test: seen[test]["seconds"]):
        total += seen[test]["seconds"]
        if chosen and total > MOST_SECONDS:
            break
        chosen.append(test)
    return chosen


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
        seconds = {test: its["seconds"] for test, its in seen.items()}

        def fate(mutant: Mutant) -> str:
            peers = {other.key for other in every if other.file == mutant.file}
            tests = tests_of(mutant, seen, peers)
            number = str(mutant.number)
            while tests:
                failed = run_tests(tests, seconds, MUTANT=number)
                # A test that fails at times, with and without the mutant, kills nothing.
                if not failed or failed.endswith(TOO_LONG):
                    return failed
                alone = failed if "::" in failed else tests[0]
                if run_tests([alone], seconds, MUTANT=number):
                    return failed
                tests = tests[tests.index(alone) + 1 :]
            return ""

        return fate

    return mutants, fates(mutants, RESULTS, built, start, jobs, again)
