"""Mutants of the server, in C++, by GoogleTest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import tree_sitter_cpp
from tree_sitter import Language, Node, Parser

from mutation import ROOT, TOO_LONG, Fate, Mutant, copy_tree, fates, name, write

COPY = ROOT / "build/mutation"
TESTS = COPY / "build/release/tests/server"
RESULTS = ROOT / "results/mutation_cpp.json"


@dataclass(frozen=True)
class Module:
    """Sources, and what tests them, the likeliest first: programs, or cases of one."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


MODULES = {
    "tapes": Module(
        ("server/tapes/tape_store.cc",),
        ("tape_store_test", "server_test", "rpc/rpc_test"),
    ),
    "answers": Module(
        (
            "server/callers/answer_log.cc",
            "server/rpc/transport/once.cc",
            "server/rpc/transport/once.h",
        ),
        ("answer_log_test", "rpc/rpc_test RetriesTest.*", "rpc/rpc_test"),
    ),
    "limits": Module(
        (
            "server/callers/sessions.cc",
            "server/limits/memory_account.cc",
            "server/limits/quotas.cc",
            "server/rpc/transport/gate.cc",
        ),
        (
            "sessions_test",
            "budget_test",
            "payer_accounts_test",
            "memory_room_test",
            "rpc/rpc_test GateTest.*:LimitsTest.*",
            "rpc/rpc_test",
            "server_test",
        ),
    ),
    "ledger": Module(
        (
            "server/limits/budget.cc",
            "server/limits/ledger.h",
            "server/limits/payer_accounts.cc",
        ),
        (
            "budget_test",
            "ledger_test",
            "payer_accounts_test",
            "server_test",
            "rpc/rpc_test",
        ),
    ),
}

OPERATORS = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
    "&&": ("||",),
    "||": ("&&",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
    "+=": ("-=",),
    "-=": ("+=",),
}
SWAPS = {"std::max": "std::min", "std::min": "std::max"}
FLIPS = {"true": "false", "false": "true"}
# The compiler evaluates these, and constexpr declarations.
FIXED = {
    "template_argument_list",
    "static_assert_declaration",
    "enumerator_list",
    "preproc_include",
    "preproc_def",
    "array_declarator",
}
DECLARATIONS = ("declaration", "field_declaration")
SWITCH = """\
#ifndef BACKBONED_MUTANT_SWITCH
#define BACKBONED_MUTANT_SWITCH
#include <cstdlib>
inline const int backboned_mutant = [] {
  const char* chosen = std::getenv("BACKBONED_MUTANT");
  return chosen == nullptr ? 0 : std::atoi(chosen);
}();
#endif
"""


def parse(file: str) -> Node:
    """Parse a source of the repository."""
    parser = Parser(Language(tree_sitter_cpp.language()))
    root = parser.parse((ROOT / file).read_bytes()).root_node
    if root.has_error:
        raise SystemExit(f"mutate: cannot parse {file}")
    return root


def text(node: Node | None) -> str:
    """Give a node's text, on one line and without comments."""
    if node is None:
        return ""
    if not any(child.type == "comment" for child in descendants(node)):
        return " ".join(node.text.decode().split())
    return " ".join(text(child) for child in node.children if child.type != "comment")


def descendants(node: Node) -> Iterator[Node]:
    """Give a node, and all below it but what the compiler evaluates."""
    yield node
    for child in node.children:
        constant = child.type in DECLARATIONS and b"constexpr" in child.text
        if child.type not in FIXED and not constant:
            yield from descendants(child)


def changes(node: Node) -> Iterator[str | None]:
    """Give what a node's text may become; None where it is left out."""
    kind, children = node.type, node.children
    if kind == "condition_clause" and children[1].type == "declaration":
        return
    if kind in ("binary_expression", "assignment_expression"):
        left, right = (
            node.child_by_field_name("left"),
            node.child_by_field_name("right"),
        )
        old = children[1].text.decode()
        for operator in OPERATORS.get(old, ()):
            yield f"{text(left)} {operator} {text(right)}"
        if old in ("&&", "||"):
            yield text(left)
            yield text(right)
    elif kind == "condition_clause" and node.parent.type != "switch_statement":
        condition = children[1].type
        # The operator of an expression is negated instead.
        if condition not in ("binary_expression", "unary_expression", "true"):
            yield f"(!{text(node)})"
        if condition != "true":
            yield "(true)"
            yield "(false)"
    elif kind == "conditional_expression":
        condition, _, yes, _, no = (text(child) for child in children[:5])
        yield f"{condition} ? {no} : {yes}"
    elif kind == "unary_expression" and children[0].text in (b"!", b"-"):
        yield text(children[1])
    elif kind == "number_literal" and node.text.isdigit():
        yield str(int(node.text) + 1)
        if node.text != b"0":
            yield str(int(node.text) - 1)
    elif kind in FLIPS:
        yield FLIPS[kind]
    elif kind == "call_expression" and text(children[0]) in SWAPS:
        yield SWAPS[text(children[0])] + text(children[1])
    elif kind in ("expression_statement", "continue_statement", "break_statement"):
        yield None


def function_of(node: Node | None) -> str:
    """Give the name of the function that a node stands in."""
    function = ""
    while node is not None:
        if node.type == "function_definition":
            name = node.child_by_field_name("declarator")
            while name.child_by_field_name("declarator"):
                name = name.child_by_field_name("declarator")
            function = text(name).partition("(")[0].lstrip("&* ")
        node = node.parent
    return function


def all_mutants() -> list[Mutant]:
    """Give all mutants of all modules."""
    return name(
        Mutant(
            module=module,
            file=file,
            function=function_of(node),
            line=node.start_point[0] + 1,
            place=(node.start_byte, node.end_byte),
            old=text(node),
            new=new,
        )
        for module in MODULES
        for file in MODULES[module].files
        for node in descendants(parse(file))
        for new in changes(node)
    )


def is_logical(node: Node) -> bool:
    """Tell whether an expression takes anything that converts to bool."""
    operators = [child.text for child in node.children if not child.is_named]
    return bool({b"&&", b"||", b"!"} & set(operators))


def instrument(file: str, mutants: list[Mutant]) -> str:
    """Give a source with all mutants in it, each behind a look at its number."""
    here: dict[tuple[int, int], list[Mutant]] = {}
    for mutant in mutants:
        here.setdefault(mutant.place, []).append(mutant)
    source = (ROOT / file).read_bytes()

    def render(node: Node) -> str:
        span = (node.start_byte, node.end_byte)
        inside = any(span[0] <= b and e <= span[1] for b, e in here)
        if not inside:
            return source[span[0] : span[1]].decode()
        pieces, at = [], span[0]
        for child in node.children:
            pieces += [source[at : child.start_byte].decode(), render(child)]
            at = child.end_byte
        pieces.append(source[at : span[1]].decode())
        result = "".join(pieces)
        mine = [m for m in here.get(span, ()) if m.old == text(node)]
        if not mine:
            return result
        # One line, so that a compiler's error tells the number.
        result = " ".join(re.sub(r"//.*", "", result).split())
        for mutant in mine:
            n = mutant.number
            if mutant.new is None:
                result = f"{{ if (backboned_mutant != {n}) {{ {result} }} }}"
            elif node.type == "condition_clause":
                # A pair of parentheses is part of the clause.
                other = mutant.new if mutant.new in ("(true)", "(false)") else None
                result = (
                    f"(backboned_mutant == {n} ? {other} : static_cast<bool>{result})"
                    if other
                    else f"((backboned_mutant == {n}) != static_cast<bool>{result})"
                )
            else:
                cast = "static_cast<bool>" if is_logical(node) else ""
                other = f"{cast}({mutant.new})"
                result = f"(backboned_mutant == {n} ? {other} : {cast}({result}))"
        return result

    return SWITCH + render(parse(file))


def build(mutants: list[Mutant], tests: set[str]) -> list[Mutant]:
    """Build the tests with all mutants that compile, and give those."""
    copy_tree(COPY, mutated_files())
    record = COPY / "refused.json"  # Of earlier builds.
    wrong = set(json.loads(record.read_text())) if record.is_file() else set()
    while True:
        mutants = [mutant for mutant in mutants if mutant.key not in wrong]
        instrument_copy(mutants)
        if not (COPY / "build/release/build.ninja").is_file():
            configure()
        print(f"mutate: builds {len(mutants)} mutants", file=sys.stderr)
        done = subprocess.run(
            ["cmake", "--build", COPY / "build/release", "--target"]
            + [f"tests/server/{program}" for program in programs_of(tests)]
            + ["--", "-k", "0"],
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return mutants
        numbers = refused(done.stdout)
        if not numbers:
            print(done.stdout[-4000:], file=sys.stderr)
            raise SystemExit("mutate: the build failed")
        new = {mutant.key for mutant in mutants if mutant.number in numbers}
        print("mutate: do not compile:", *sorted(new), sep="\n", file=sys.stderr)
        wrong |= new
        write(record, json.dumps(sorted(wrong), indent=1))


def refused(output: str) -> set[int]:
    """Give the numbers of the mutants in the lines that the compiler refuses."""
    numbers: set[int] = set()
    for file, line in re.findall(r"^(\S+?):(\d+):\d+: error", output, re.MULTILINE):
        lines = (COPY / "build/release" / file).read_text().splitlines()
        for shown in lines[int(line) - 1 : int(line) + 3]:
            found = re.findall(r"backboned_mutant [!=]= (\d+)", shown)
            if found:
                numbers |= {int(number) for number in found}
                break
    return numbers


def mutated_files() -> set[str]:
    """Give the files that have mutants."""
    return {file for module in MODULES.values() for file in module.files}


def instrument_copy(mutants: list[Mutant]) -> None:
    """Write the files of the copy that have mutants."""
    for file in mutated_files():
        here = [mutant for mutant in mutants if mutant.file == file]
        write(COPY / file, instrument(file, here))


def configure() -> None:
    """Configure the build of the copy."""
    torch = next((ROOT / ".venv/lib").glob("python3*/site-packages/torch"))
    subprocess.run(
        ["cmake", "--preset", "release", f"-DBACKBONED_TORCH_DIR={torch}"]
        + ["-DBACKBONED_BENCHMARKS=OFF", "-DBACKBONED_EXAMPLES=OFF"]
        + ["-DCMAKE_CXX_FLAGS=-w"],
        cwd=COPY,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def programs_of(tests: set[str]) -> list[str]:
    """Give the programs of tests."""
    return sorted({test.partition(" ")[0] for test in tests})


def run_test(test: str, number: int, timeout: float | None = None) -> str:
    """Run tests with one mutant, or none: 0. Give the case that fails, or ''."""
    program, _, chosen = test.partition(" ")
    environment = os.environ | {
        "BACKBONED_MUTANT": str(number),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [TESTS / program, f"--gtest_filter={chosen or '*'}"]
                + ["--gtest_fail_fast", "--gtest_brief=1"],
                cwd=COPY,
                env=environment | {"TMPDIR": folder, "TEST_TMPDIR": folder},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            return f"{program}: {TOO_LONG}"
    if done.returncode == 0:
        return ""
    failed = re.search(rb"FAILED  \] ([\w/]+\.[\w/]+)", done.stdout)
    how = failed[1].decode() if failed else f"exit code {done.returncode}"
    return f"{program}: {how}"


def time_limits(tests: set[str]) -> dict[str, float]:
    """Run tests without a mutant, and give the time that each may take with one."""
    limits = {}
    for test in sorted(tests):
        start = time.monotonic()
        if failed := run_test(test, 0):
            raise SystemExit(f"mutate: fails without a mutant: {failed}")
        limits[test] = 10 + 5 * (time.monotonic() - start)
    return limits


def run(
    modules: list[str], jobs: int, again: bool
) -> tuple[list[Mutant], dict[str, str]]:
    """Give the mutants of modules that compile, and the fate of each."""
    if not shutil.which("ninja"):
        raise SystemExit("mutate: run scripts/setup first")
    tests = {test for module in modules for test in MODULES[module].tests}
    mutants = [m for m in build(all_mutants(), tests) if m.module in modules]
    built = hashlib.sha256()
    for program in programs_of(tests):
        built.update((TESTS / program).read_bytes())

    def start() -> Fate:
        limits = time_limits(tests)

        def fate(mutant: Mutant) -> str:
            for test in MODULES[mutant.module].tests:
                failed = run_test(test, mutant.number, limits[test])
                # A test that fails at times, with a mutant and without, kills nothing.
                if failed and (
                    failed.endswith(TOO_LONG)
                    or run_test(test, mutant.number, limits[test])
                ):
                    return failed
            return ""

        return fate

    return mutants, fates(mutants, RESULTS, built.hexdigest(), start, jobs, again)
