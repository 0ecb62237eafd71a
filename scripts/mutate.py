#!/usr/bin/env python3
"""Seeds small faults into modules of the server, and counts those that its tests find.

A fault (a mutant) is an operator, a number, a condition or a statement that is changed
or left out. All mutants are compiled into one build of a copy of the tree, each behind
a look at BACKBONED_MUTANT, so that one costs a run of the tests and no compilation.
A mutant is killed when a test fails or takes far too long. tests/mutants.txt names
those that change nothing that the server promises, each with the reason.

Needs scripts/setup. Prints the survivors and each module's score, the share of killed
ones among those that are not named; writes results/mutation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tree_sitter_cpp
from tqdm import tqdm
from tree_sitter import Language, Node, Parser

ROOT = Path(__file__).resolve().parents[1]
COPY = ROOT / "build/mutation"
EQUIVALENT = ROOT / "tests/mutants.txt"
GOAL = 0.9


@dataclass(frozen=True)
class Module:
    """Sources, and what tests them: programs with filters, the likeliest first."""

    files: tuple[str, ...]
    tests: tuple[tuple[str, str], ...]


SERVER = ("server_test", "*")
RPC = ("rpc/rpc_test", "*")
MODULES = {
    "tapes": Module(
        ("server/tapes/tape_store.cc",),
        (("tape_store_test", "*"), SERVER, RPC),
    ),
    "answers": Module(
        ("server/callers/answer_log.cc", "server/rpc/transport/once.cc"),
        (("answer_log_test", "*"), RPC),
    ),
    "limits": Module(
        (
            "server/callers/sessions.cc",
            "server/limits/memory_account.cc",
            "server/limits/quotas.cc",
            "server/rpc/transport/gate.cc",
        ),
        (("sessions_test", "*"), ("memory_room_test", "*"), SERVER, RPC),
    ),
    "ledger": Module(
        (
            "server/limits/budget.cc",
            "server/limits/ledger.h",
            "server/limits/payer_accounts.cc",
        ),
        (("ledger_test", "*"), ("budget_test", "*"), SERVER, RPC),
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
# What the compiler evaluates.
FIXED = {
    "template_argument_list",
    "static_assert_declaration",
    "enumerator_list",
    "preproc_include",
    "preproc_def",
    "preproc_ifdef",
    "array_declarator",
}
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


@dataclass(frozen=True)
class Mutant:
    """A change of the text between two bytes of a file; without it, a deletion."""

    number: int
    module: str
    file: str
    line: int
    begin: int
    end: int
    old: str
    new: str | None

    @property
    def key(self) -> str:
        """Name the mutant, whatever line it stands on."""
        return f"{self.file}: {self.old} -> {self.new or '(nothing)'}"


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
    """Give a node, and all below it that the compiler does not evaluate."""
    yield node
    for child in node.children:
        constant = child.type == "declaration" and b"constexpr" in child.text
        if child.type not in FIXED and not constant:
            yield from descendants(child)


def changes(node: Node) -> Iterator[str | None]:
    """Give what a node's text may become; None where it is left out."""
    kind, children = node.type, node.children
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
    elif kind == "condition_clause" and len(children) == 3:
        yield f"(!{text(node)})"
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


def candidates(module: str) -> Iterator[Mutant]:
    """Give all mutants of a module, without numbers."""
    for file in MODULES[module].files:
        for node in descendants(parse(file)):
            for new in changes(node):
                yield Mutant(
                    number=0,
                    module=module,
                    file=file,
                    line=node.start_point[0] + 1,
                    begin=node.start_byte,
                    end=node.end_byte,
                    old=text(node),
                    new=new,
                )


def choose(modules: list[str], count: int, seed: int) -> list[Mutant]:
    """Draw `count` mutants of each module, or all where there are fewer."""
    chosen: list[Mutant] = []
    for module in modules:
        every = list(candidates(module))
        drawn = random.Random(seed).sample(every, min(count, len(every)))
        chosen += sorted(drawn, key=lambda m: (m.file, m.begin, m.end))
    return [
        Mutant(**{**vars(mutant), "number": number})
        for number, mutant in enumerate(chosen, start=1)
    ]


def instrument(file: str, mutants: list[Mutant]) -> str:
    """Give a source with all mutants in it, each behind a look at its number."""
    here: dict[tuple[int, int], list[Mutant]] = {}
    for mutant in mutants:
        here.setdefault((mutant.begin, mutant.end), []).append(mutant)
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
                result = f"(backboned_mutant == {n} ? ({mutant.new}) : ({result}))"
        return result

    return SWITCH + render(parse(file))


def build(mutants: list[Mutant], programs: set[str]) -> list[Mutant]:
    """Build the programs with all mutants that compile, and give those."""
    copy_tree()
    while True:
        for file in {file for module in MODULES.values() for file in module.files}:
            own = [mutant for mutant in mutants if mutant.file == file]
            write(
                COPY / file, instrument(file, own) if own else (ROOT / file).read_text()
            )
        print(f"mutate: builds {len(mutants)} mutants", file=sys.stderr)
        done = subprocess.run(
            ["ninja", "-C", COPY / "build/release", "-k", "0", *sorted(programs)],
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return mutants
        wrong = refused(done.stdout)
        if not wrong:
            print(done.stdout[-4000:], file=sys.stderr)
            raise SystemExit("mutate: the build failed")
        mutants = [mutant for mutant in mutants if mutant.number not in wrong]


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


def copy_tree() -> None:
    """Copy the tracked files, and configure a build of the copy."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    mutated = {file for module in MODULES.values() for file in module.files}
    for file in listed:
        if file not in mutated and (ROOT / file).is_file():
            write(COPY / file, (ROOT / file).read_bytes())
    torch = next((ROOT / ".venv/lib").glob("python3*/site-packages/torch"))
    subprocess.run(
        ["cmake", "--preset", "release", f"-DBACKBONED_TORCH_DIR={torch}"]
        + ["-DBACKBONED_BENCHMARKS=OFF", "-DBACKBONED_EXAMPLES=OFF"]
        + ["-DCMAKE_CXX_FLAGS=-w"],
        cwd=COPY,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def write(path: Path, content: str | bytes) -> None:
    """Write a file, unless that is what it has."""
    data = content.encode() if isinstance(content, str) else content
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def passes(test: tuple[str, str], number: int, timeout: float | None) -> bool:
    """Run a program's tests with one mutant, or with none: 0."""
    program, chosen = test
    environment = os.environ | {
        "BACKBONED_MUTANT": str(number),
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": "1",
    }
    command = [
        COPY / "build/release/tests/server" / program,
        f"--gtest_filter={chosen}",
    ]
    try:
        done = subprocess.run(
            [*command, "--gtest_fail_fast", "--gtest_brief=1"],
            cwd=COPY,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def time_limits(tests: set[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Run the tests without a mutant, and give the time that each may take with one."""
    limits = {}
    for test in sorted(tests):
        start = time.monotonic()
        if not passes(test, 0, None):
            raise SystemExit(f"mutate: {test[0]} fails without a mutant")
        limits[test] = 20 + 5 * (time.monotonic() - start)
    return limits


def equivalents() -> dict[str, str]:
    """Read the mutants that change nothing, and why."""
    pairs: dict[str, str] = {}
    for line in EQUIVALENT.read_text().splitlines():
        if line and not line.startswith("#"):
            key, _, reason = line.partition("  # ")
            pairs[key.strip()] = reason
    return pairs


def main() -> int:
    """Run the mutants; 1 if a module's score is below the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--count", type=int, default=200, help="mutants of a module")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    modules = options.modules or list(MODULES)
    for module in modules:
        if module not in MODULES:
            parser.error(f"there is no module {module}; there are {', '.join(MODULES)}")
    tests = {test for module in modules for test in MODULES[module].tests}
    drawn = choose(modules, options.count, options.seed)
    mutants = build(drawn, {f"tests/server/{program}" for program, _ in tests})
    limits = time_limits(tests)
    known = equivalents()

    def survives(mutant: Mutant) -> bool:
        own = MODULES[mutant.module].tests
        return all(passes(test, mutant.number, limits[test]) for test in own)

    left = [mutant for mutant in mutants if mutant.key not in known]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        alive = list(tqdm(pool.map(survives, left), total=len(left), disable=None))
    survivors = [mutant for mutant, lives in zip(left, alive) if lives]
    for mutant in survivors:
        print(f"survived: {mutant.file}:{mutant.line}: {mutant.key.partition(': ')[2]}")
    scores = {}
    for module in modules:
        total = sum(mutant.module == module for mutant in left)
        lost = sum(mutant.module == module for mutant in survivors)
        equal = sum(m.module == module for m in mutants) - total
        scores[module] = (total - lost) / total
        print(
            f"{module}: {total - lost} of {total} killed, {scores[module]:.2f}"
            f" ({equal} that change nothing)"
        )
    results = ROOT / "results/mutation.json"
    results.parent.mkdir(exist_ok=True)
    shown = [f"{mutant.file}:{mutant.line}: {mutant.key}" for mutant in survivors]
    results.write_text(json.dumps({"scores": scores, "survivors": shown}, indent=1))
    return 1 if min(scores.values()) < GOAL else 0


if __name__ == "__main__":
    if not shutil.which("ninja"):
        raise SystemExit("mutate: run scripts/setup first")
    sys.exit(main())
