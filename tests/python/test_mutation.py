"""The mutants that scripts/mutate.py makes of the Python client."""

import ast
import sys
import types

import pytest
from checkout import ROOT

sys.path.append(str(ROOT / "scripts"))
pytest.importorskip("tree_sitter_cpp")
from mutation import name, python_source  # noqa: E402

SOURCE = '''
"""A module."""
from __future__ import annotations
from typing import TYPE_CHECKING, Union

Number = Union[int, float]
if TYPE_CHECKING:
    from fractions import Fraction

def room(bytes: int = 3, *, most: Number = 8) -> bool:
    """Say whether there is room: 1."""
    assert bytes != 5
    left = most - bytes
    if left < 0:
        raise ValueError(f"{bytes + 1:>4}")
    return left > 2 and bytes > 1
'''


def mutants():
    tree = ast.parse(SOURCE)
    return tree, name(python_source.mutants_of_file("nn", "room.py", tree))


def room_of(chosen, monkeypatch):
    """The function with one mutant, or none: 0."""
    tree, every = mutants()
    switch = types.ModuleType("mutant_switch")
    switch.on = lambda number: number == chosen
    monkeypatch.setitem(sys.modules, "mutant_switch", switch)
    scope = {}
    exec(python_source.instrument(tree, every), scope)
    return scope["room"]


def outcome(room, *arguments, **options):
    try:
        return room(*arguments, **options)
    except Exception as error:
        return repr(error)


def test_mutants_are_named_without_lines():
    keys = {mutant.key for mutant in mutants()[1]}
    promised = {
        "room.py: room: most - bytes -> most + bytes",
        "room.py: room: left < 0 -> left <= 0",
        "room.py: room: left < 0 -> True",
        "room.py: room: left > 2 and bytes > 1 -> left > 2",
        "room.py: room: return left > 2 and bytes > 1 -> return None",
        "room.py: room: raise ValueError(f'{bytes + 1:>4}') ->",
        "room.py: room: bytes + 1 -> bytes - 1",
        "room.py: room: 3 -> 4",
        "room.py: room: 1 -> 2",
        "room.py: room: 1 -> 2 #2",
    }
    assert promised - keys == set()
    assert not {key for key in keys if "5" in key or "TYPE" in key or "Union" in key}


def test_nothing_changes_without_a_chosen_mutant(monkeypatch):
    scope = {}
    exec(SOURCE, scope)
    room = room_of(0, monkeypatch)
    for arguments in ((), (1,), (2,), (6,), (8,), (9,)):
        assert outcome(room, *arguments) == outcome(scope["room"], *arguments)


def test_each_chosen_mutant_is_the_one_that_runs(monkeypatch):
    calls = [((b,), {"most": m}) for b in range(5) for m in range(8)]
    calls += [((b,), {}) for b in range(10)] + [((), {"most": m}) for m in range(9)]
    plain = room_of(0, monkeypatch)
    alive = [
        mutant.key
        for mutant in mutants()[1]
        if all(
            outcome(plain, *arguments, **options)
            == outcome(room_of(mutant.number, monkeypatch), *arguments, **options)
            for arguments, options in calls
        )
    ]
    assert alive == [], "these change nothing"
