"""Shows what an optimizer in the server remembers, as `torch.optim` shows it."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import torch

from backboned.nn.watch import as_array, version_of
from backboned.types import Array

Slots = Mapping[torch.Tensor, Sequence[str]]
"""Which tensors the server remembers of each parameter, in torch's words."""

Place = tuple[torch.Tensor, str]
"""A parameter, and one of these words."""


def _of_entries(name: str) -> Any:
    """Make a method that brings the entries, and asks them."""

    def method(self: HostedState, *arguments: Any) -> Any:
        return getattr(self.bring(), name)(*arguments)

    return method


class HostedState(MutableMapping[Any, Any]):
    """`Optimizer.state` of an optimizer in the server.

    It is *here* from the first look at it until the next step: fetched, and pushed
    before that step if it changed. Otherwise it is *away*, and what was taken from it
    has old values until somebody looks again. Entries that the server does not know,
    such as those of an optimizer wrapped around this one, stay here.

    Not thread-safe.

    - `entries`: what it has, by parameter; new for the server. This very object is
      used.
    - `owner`: the optimizer, which has `fetch`. It is not kept alive.
    - `here`: whether it holds what the optimizer remembers now.
    """

    def __init__(self, entries: MutableMapping[Any, Any], owner: Any) -> None:
        self._entries = entries
        self._owner = weakref.ref(owner)
        self.here = True
        # The server's values, while this is here; None: something else than this.
        self._there: dict[Place, Array] | None = None
        # Tensors made here, and not by somebody who may go on to write them.
        self._made: dict[Place, torch.Tensor] = {}
        # When it went away: what the server remembered, what was there, and the
        # version counters of what was made.
        self._slots: Slots = {}
        self._left: dict[Place, tuple[Any, int | None]] = {}

    def bring(self) -> MutableMapping[Any, Any]:
        """Fetch it if it is away; give its entries.

        Raises BackbonedError if the server refuses or fails. Raises RuntimeError if the
        optimizer has no network any more, or if what was taken earlier was written
        since.
        """
        if not self.here:
            owner = self._owner()
            if owner is None:
                raise RuntimeError("the optimizer that had this state is gone")
            self._refuse_stray_writes()
            fetched = owner.fetch()
            known = self._known(self._slots)
            self._made = _place(self._entries, known, fetched, self._made)
            self.here, self._there = True, fetched
        return self._entries

    def snapshot(self) -> dict[Any, Any]:
        """Fetch it, and leave it away; the tensors are the caller's."""
        owner: Any = self._owner()
        entries = {key: dict(its) for key, its in self._entries.items()}
        _place(entries, self._known(self._slots), owner.fetch(), {})
        return entries

    def changed(self, slots: Slots) -> bool:
        """Say whether the server has to get it.

        Raises RuntimeError if it is away, and what was taken from it was written since.
        """
        if self.here:
            return self._there is None or not _same(self.remembered(slots), self._there)
        self._refuse_stray_writes()
        return False

    def remembered(self, slots: Slots) -> dict[Place, Array]:
        """Give what the server has to know."""
        result = {}
        for place, value in self._known(slots).items():
            parameter, what = place
            dtype = torch.float32 if what == "step" else parameter.dtype
            result[place] = as_array(torch.as_tensor(value).detach().to(dtype))
        return result

    def leave(self, slots: Slots) -> None:
        """Note that the server has it, and moves it on."""
        if slots is self._slots and not self.here:
            return
        self.here, self._there, self._slots = False, None, slots
        self._left = {}
        for place, value in self._known(slots).items():
            made = value is self._made.get(place)
            self._left[place] = value, version_of(value) if made else None

    def _known(self, slots: Slots) -> dict[Place, Any]:
        """Give the values of the entries that the server remembers, too."""
        if not self._entries:
            return {}
        return {
            (parameter, what): its[what]
            for parameter, names in slots.items()
            if (its := self._entries.get(parameter))
            for what in names
            if its.get(what) is not None
        }

    def _refuse_stray_writes(self) -> None:
        """Find writes to what was taken before the server moved on."""
        found = self._known(self._slots)
        same = found.keys() == self._left.keys() and all(
            found[place] is value and (version is None or version_of(value) == version)
            for place, (value, version) in self._left.items()
        )
        if not same:
            self.here = True
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
        self.here, self._there = True, None

    def copy(self) -> Any:
        """Make a shallow copy, of the kind of the mapping that it was made of."""
        return copy.copy(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be copied and pickled as the mapping that it was made of."""
        return copy.copy, (self.bring(),)

    def __repr__(self) -> str:
        """Print as the mapping that it was made of."""
        return repr(self.bring())


def _place(
    entries: MutableMapping[Any, Any],
    known: Iterable[Place],
    fetched: dict[Place, Array],
    made: dict[Place, torch.Tensor],
) -> dict[Place, torch.Tensor]:
    """Put what the server remembers into its places, and take away what it does not.

    Values go into the tensors of `made` that are still there, or else into new ones.
    Gives all of these.
    """
    for parameter, what in known:
        if (parameter, what) not in fetched:
            del entries[parameter][what]
    result = {}
    with torch.inference_mode(False), torch.no_grad():
        for place, array in fetched.items():
            parameter, what = place
            if not entries.get(parameter):
                entries[parameter] = {}
            its = entries[parameter]
            values = torch.from_numpy(array)
            ours = made.get(place)
            if ours is None or ours is not its.get(what):
                ours = torch.empty_like(values)
            its[what] = result[place] = ours.copy_(values)
    return result


def _same(one: dict[Place, Array], other: dict[Place, Array]) -> bool:
    """Say whether two have the same values to the bit."""
    return one.keys() == other.keys() and all(
        array.shape == other[place].shape and array.tobytes() == other[place].tobytes()
        for place, array in one.items()
    )
