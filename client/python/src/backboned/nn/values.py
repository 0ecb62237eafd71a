"""The parameters, or the buffers, of a network whose truth is in the server."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Callable

import torch

from backboned.dtypes import Array
from backboned.nn.lazy import Keeper, make_lazy, make_plain, raw
from backboned.nn.mirror import Watch, as_tensor
from backboned.nn.slots import Slots

Fetch = Callable[[Sequence[int]], "list[Array]"]
"""Gets the values of tensors, by index, from the server."""


class Values:
    """Tensors that are fetched when somebody looks, and pushed when somebody wrote.

    Each is *here*, equal to the server's but for what was written since, or *away*:
    its memory holds an earlier state. Not thread-safe.

    Parameters
    ----------
    slots : Slots
        Where the tensors are.
    names : sequence of str
    fetch : callable
        Gets values from the server.

    Attributes
    ----------
    watch : Watch
        Knows the tensors that were here at some time.
    """

    def __init__(self, slots: Slots, names: Sequence[str], fetch: Fetch) -> None:
        self.names = names
        self.watch = Watch()
        self._slots = slots
        self._fetch = fetch
        self._tensors: list[torch.Tensor] = []
        self._index: dict[int, int] = {}
        self._here: set[int] = set()
        # Tensors that the server has to get whether they look changed or not.
        self._written: set[int] = set()
        # Tensors whose memory somebody may hold by another reference.
        self._shared: set[int] = set()
        # Whether one may no longer have the type or shape it must have.
        self._doubtful = False
        self._asked_for_one = False

    def begin(self, keeper: Keeper, watch: Watch | None) -> None:
        """Make the tensors lazy.

        Parameters
        ----------
        keeper : Keeper
        watch : Watch, optional
            If they are all here, what is known of them; else all are away.

        Raises
        ------
        TypeError
            If one is no plain parameter or tensor; none is lazy then.
        """
        tensors = self._slots.tensors() if self.names else []
        try:
            for name, tensor in zip(self.names, tensors):
                make_lazy(tensor, keeper, name)
        except TypeError:
            for tensor in tensors:
                if getattr(tensor, "keeper", None) is keeper:
                    make_plain(tensor)
            raise
        self._keeper = keeper
        self._set(list(tensors))
        if watch is not None:
            self.watch = watch
            self._here = set(range(len(tensors)))

    def end(self) -> None:
        """Make the tensors plain, all here."""
        self.show(range(len(self.names)))
        self.release()

    def release(self) -> None:
        """Make the tensors plain as they are."""
        for tensor in self._tensors:
            make_plain(tensor)

    def _set(self, tensors: list[torch.Tensor]) -> None:
        self._tensors = tensors
        self._index = {id(tensor): i for i, tensor in enumerate(tensors)}

    def set_strict(self, strict: bool) -> None:
        """Compare every element of what is here, or only some."""
        changed = set(self.changed())
        self.watch.strict = strict
        with raw():
            same = sorted(self._here - changed)
            self.watch.saw(self.watch.look(self._tensors, same))

    def tensors(self) -> list[torch.Tensor]:
        """Give the tensors in order; those that replaced others become lazy too.

        Raises
        ------
        AttributeError, TypeError, ValueError
            If one is gone, or is not what it must be.
        """
        if not self.names:
            return []
        found = self._slots.found()
        known = self._tensors
        if self._doubtful or any(map(operator.is_not, found, known)):
            with raw():
                self._slots.tensors()
            self._doubtful = False
            replaced = [i for i, tensor in enumerate(found) if tensor is not known[i]]
            if replaced:
                self._adopt(found, replaced)
        return self._tensors

    def _adopt(self, found: list[torch.Tensor], replaced: list[int]) -> None:
        """Take tensors that somebody put in the place of others."""
        self.show(replaced)  # Whoever holds the others keeps their values.
        for i in replaced:
            make_lazy(found[i], self._keeper, self.names[i])
            make_plain(self._tensors[i])
        self._set(list(found))
        self.watch.forget(replaced)
        self._shared.difference_update(replaced)
        self._written.update(replaced)

    def index(self, tensor: torch.Tensor) -> int | None:
        """Say which one a tensor is; None if it is none any more."""
        return self._index.get(id(tensor))

    def show(self, indices: Sequence[int]) -> None:
        """Bring what is away.

        The first time after the server moved on that is what was asked for; the
        second time it is everything: somebody goes through all of it.
        """
        away = [i for i in dict.fromkeys(indices) if i not in self._here]
        if not away:
            return
        if self._asked_for_one:
            away = [i for i in range(len(self.names)) if i not in self._here]
        self._refuse_stray_writes()
        values = self._fetch(away)
        with torch.no_grad(), raw():
            for i, value in zip(away, values):
                tensor = self._tensors[i]
                tensor.copy_(as_tensor(value).view_as(tensor))
            self.watch.saw(self.watch.look(self._tensors, away))
        self._asked_for_one = True
        self._here.update(away)

    def overwritten(self, index: int) -> None:
        """Note that a tensor got new values as a whole."""
        self._here.add(index)
        self._written.add(index)
        self._doubtful = True

    def shared(self, index: int) -> None:
        """Note that somebody may hold another reference to a tensor's memory."""
        self._shared.add(index)

    def changed(self) -> list[int]:
        """Give the indices of the tensors that the server has to get.

        Raises
        ------
        RuntimeError
            If one that is away was written.
        """
        tensors = self.tensors()
        self._refuse_stray_writes()
        here = self._here - self._written
        if not here:
            return sorted(self._written)
        closely = here if self.watch.strict else here & self._shared
        with raw():
            changed = self.watch.changed(tensors, sorted(closely))
            changed += self.watch.moved(tensors, here - closely)
        return sorted({*changed, *self._written})

    def pushed(self, indices: Sequence[int]) -> None:
        """Note that the server has these as they are."""
        with raw():
            self.watch.saw(self.watch.look(self._tensors, indices))
        self._written.difference_update(indices)
        self._here.update(indices)

    def moved(self) -> None:
        """Note that the server moved on: everything is away."""
        self._here.clear()
        self._asked_for_one = False

    def drop(self) -> None:
        """Forget everything, also what was written here."""
        self.moved()
        self.watch.forget()
        self._written.clear()
        self._look_at_away(self._shared)

    def _look_at_away(self, indices: Iterable[int]) -> None:
        """Note the memory of tensors that are away, to find writes from now on."""
        with raw():
            self.watch.saw(self.watch.look(self._tensors, indices))

    def doubt(self) -> None:
        """Note that it is unknown whether the last push arrived."""
        self._written.update(self._here)

    def _refuse_stray_writes(self) -> None:
        """Find writes to memory that held an earlier state."""
        away = sorted(self._shared - self._here)
        if not away:
            return
        with raw():
            changed = self.watch.changed(self._tensors, away)
        if not changed:
            return
        self._look_at_away(changed)
        raise RuntimeError(
            f"{self.names[changed[0]]} was written through a tensor that was taken "
            "from it before the server changed it, so the write is lost; take it "
            "again (p.data, p.detach(), p.view()) and write then"
        )
