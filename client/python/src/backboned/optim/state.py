"""What an optimizer in the server remembers, as `torch.optim` shows it."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from backboned.nn.watch import as_array, version_of
from backboned.types import Array

Slots = Mapping[torch.Tensor, Sequence[str]]
"""Which tensors the server remembers of each parameter, in torch's words."""

Remembered = dict[torch.Tensor, dict[str, Array]]
"""Their values."""


Place = tuple[torch.Tensor, str]
Places = dict[Place, torch.Tensor]


class Owner(Protocol):
    """The optimizer that a `HostedState` is the state of."""

    def fetch(self) -> Remembered:
        """Get what the server remembers."""


def _of_entries(name: str) -> Any:
    """Make a method that brings the entries, and asks them."""

    def method(self: HostedState, *arguments: Any) -> Any:
        return getattr(self.bring(), name)(*arguments)

    return method


class HostedState(MutableMapping[Any, Any]):
    """`Optimizer.state` of an optimizer in the server.

    It is *here* from the first look at it until the next step: fetched, and pushed
    before that step if it changed. Otherwise it is *away*, and what was taken from it
    has old values until somebody looks again. What the server does not know, such as
    an entry of an optimizer wrapped around this one, stays here.

    Not thread-safe.

    - `entries`: what it has, by parameter; new for the server. This very object is
      used.
    - `owner`: is not kept alive.
    """

    def __init__(self, entries: MutableMapping[Any, Any], owner: Owner) -> None:
        self._entries = entries
        self._owner = weakref.ref(owner)
        self._here = True
        # What the server has, while this is here; None: something else than this.
        self._there: Remembered | None = None
        # What was made here, and not by somebody who may go on to write it.
        self._made: Places = {}
        # When it went away: what the server remembered, what was there, and the
        # version counters of what was made.
        self._slots: Slots = {}
        self._left: dict[Place, tuple[Any, int | None]] = {}

    @property
    def here(self) -> bool:
        """Whether it holds what the optimizer remembers now."""
        return self._here

    def bring(self) -> MutableMapping[Any, Any]:
        """Fetch it if it is away; give its entries.

        Raises BackbonedError if the server refuses or fails. Raises RuntimeError if the
        optimizer has no network any more, or if what was taken earlier was written
        since.
        """
        if not self._here:
            owner = self._owner()
            if owner is None:
                raise RuntimeError("the optimizer that had this state is gone")
            self._refuse_stray_writes()
            fetched = owner.fetch()
            self._made = _place(self._entries, fetched, self._slots, self._made)
            self._here, self._there = True, fetched
        return self._entries

    def snapshot(self) -> dict[Any, Any]:
        """Fetch it, and leave it away; the tensors are the caller's."""
        owner = self._owner()
        assert owner is not None
        entries = {key: dict(its) for key, its in self._entries.items()}
        _place(entries, owner.fetch(), self._slots, {})
        return entries

    def changed(self, slots: Slots) -> bool:
        """Whether the server has to get it.

        Raises RuntimeError if it is away, and what was taken from it was written since.
        """
        if self._here:
            return self._there is None or not _same(self.remembered(slots), self._there)
        self._refuse_stray_writes()
        return False

    def remembered(self, slots: Slots) -> Remembered:
        """Give what the server has to know."""
        result: Remembered = {}
        for parameter, names in slots.items():
            its = self._entries.get(parameter) or {}
            for what in names:
                value = its.get(what)
                if value is not None:
                    dtype = torch.float32 if what == "step" else parameter.dtype
                    tensor = torch.as_tensor(value).detach().to(dtype)
                    result.setdefault(parameter, {})[what] = as_array(tensor)
        return result

    def leave(self, slots: Slots) -> None:
        """Note that the server has it, and moves it on."""
        self._here, self._there, self._slots = False, None, slots
        self._left = {
            place: (value, version_of(value) if self._is_made(place, value) else None)
            for place, value in self._known()
        }

    def _is_made(self, place: Place, value: Any) -> bool:
        return self._made.get(place) is value

    def _known(self) -> Iterator[tuple[Place, Any]]:
        for parameter, names in self._slots.items():
            its = self._entries.get(parameter) or {}
            for what in names:
                if its.get(what) is not None:
                    yield (parameter, what), its[what]

    def _refuse_stray_writes(self) -> None:
        """Find writes to what was taken before the server moved on."""
        left, found = self._left, dict(self._known())
        same = found.keys() <= left.keys() and all(
            place in found
            and found[place] is value
            and (version is None or version_of(value) == version)
            for place, (value, version) in left.items()
        )
        if not same:
            self.leave(self._slots)
            raise RuntimeError(
                "the optimizer's state was written through what was taken from "
                "opt.state before the last step, so the write is lost; take "
                "opt.state[p] again and write then"
            )

    __getitem__ = _of_entries("__getitem__")
    __setitem__ = _of_entries("__setitem__")
    __delitem__ = _of_entries("__delitem__")
    __iter__ = _of_entries("__iter__")
    __len__ = _of_entries("__len__")
    __contains__ = _of_entries("__contains__")
    # Those of the class ask `__getitem__`, which may make an entry.
    get = _of_entries("get")
    pop = _of_entries("pop")
    setdefault = _of_entries("setdefault")

    def clear(self) -> None:
        """Forget everything; nothing is fetched."""
        self._entries.clear()
        self._here, self._there = True, None

    def copy(self) -> Any:
        """Make a shallow copy, of the kind of the mapping that it was made of."""
        return copy.copy(self.bring())

    __copy__ = copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be copied and pickled as the mapping that it was made of."""
        return _itself, (self.bring(),)

    def __repr__(self) -> str:
        """Print as the mapping that it was made of."""
        return repr(self.bring())


def _itself(entries: Any) -> Any:
    return entries


def _place(
    entries: MutableMapping[Any, Any], fetched: Remembered, slots: Slots, made: Places
) -> Places:
    """Put what the server remembers into its places, and take away what it does not.

    Values go into the tensors of `made` that are still there, or else into new ones.
    Gives all of these.
    """
    result: Places = {}
    for parameter, names in slots.items():
        its = entries.get(parameter) or {}
        for what in names:
            if what not in fetched.get(parameter, {}) and its.get(what) is not None:
                del its[what]
    with torch.inference_mode(False), torch.no_grad():
        for parameter, arrays in fetched.items():
            if not entries.get(parameter):
                entries[parameter] = {}
            its = entries[parameter]
            for what, array in arrays.items():
                values = torch.from_numpy(array)
                ours = made.get((parameter, what))
                if ours is None or ours is not its.get(what):
                    ours = torch.empty_like(values)
                its[what] = result[parameter, what] = ours.copy_(values)
    return result


def _same(one: Remembered, other: Remembered) -> bool:
    """Whether two have the same values to the bit."""
    return one.keys() == other.keys() and all(
        its.keys() == other[parameter].keys()
        and all(_equal(a, other[parameter][what]) for what, a in its.items())
        for parameter, its in one.items()
    )


def _equal(one: Array, other: Array) -> bool:
    return one.shape == other.shape and np.array_equal(
        one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8)
    )
