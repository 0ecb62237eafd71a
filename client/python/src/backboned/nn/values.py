"""The parameters, or the buffers, of a network whose truth is in the server."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Callable

import torch
from torch import nn

from backboned.nn.lazy import as_plain, make_lazy, make_plain
from backboned.nn.watch import Slots, Tensors, Watch

Fetch = Callable[[Sequence[int]], "Sequence[torch.Tensor]"]
"""Gets the elements of tensors, by index, from the server."""


class Values:
    """Tensors that are fetched when somebody looks, and pushed when somebody wrote.

    Each is *here*, equal to the server's but for what was written since, or *away*:
    its memory holds an earlier state. Not thread-safe.

    Raises TypeError if one is no plain parameter or tensor; none is lazy then.

    - `slots`: where the tensors are.
    - `keeper`: that of the lazy tensors; not kept alive.
    - `fetch`: gets values from the server.
    - `watch`: if all are here, what is known of them; else all are away. It knows the
      tensors that were here at some time.
    """

    def __init__(
        self, slots: Slots, keeper: Any, fetch: Fetch, watch: Watch | None
    ) -> None:
        self.watch = watch or Watch()
        self._slots = slots
        self._keeper = weakref.ref(keeper)
        self._fetch = fetch
        tensors: list[torch.Tensor] = slots.tensors()
        made = []
        try:
            for name, tensor in zip(slots.names, tensors):
                make_lazy(tensor, keeper, name)
                made.append(tensor)
        except TypeError:
            for tensor in made:
                make_plain(tensor)
            raise
        self._set(tensors)
        self._here = set(range(len(tensors))) if watch else set()
        # Tensors that the server has to get whether they look changed or not.
        self._written: set[int] = set()
        # Tensors whose memory somebody may refer to: known by all of their elements.
        self._shared = set(self._here)
        # Among these those that are for ever.
        self._foreign: set[int] = set()
        # One may no longer have the type or shape it must have.
        self._doubtful = False
        self._asked_for_one = False

    def end(self) -> None:
        """Make the tensors plain, all here."""
        self.show_all()
        self.release()

    def release(self) -> None:
        """Make the tensors plain as they are."""
        for tensor in self._tensors.values():
            make_plain(tensor)

    @property
    def _tensors(self) -> dict[int, torch.Tensor]:
        """The tensors that there still are, by index."""
        found = {}
        with as_plain():
            for i, own in enumerate(self._own):
                if (tensor := own()) is not None:
                    # C++ may have been the only one to have it.
                    tensor._fix_weakref()  # type: ignore[attr-defined]
                    found[i] = tensor
        return found

    def _set(self, tensors: list[torch.Tensor]) -> None:
        # Not kept alive: they keep this, so that what is dropped is freed at once.
        self._own = [weakref.ref(tensor) for tensor in tensors]
        self._index = {id(tensor): i for i, tensor in enumerate(tensors)}

    def tensors(self) -> list[torch.Tensor]:
        """Give the tensors in order; those that replaced others become lazy too.

        Raises AttributeError, TypeError, ValueError if one is gone, or is not what it
        must be.
        """
        return self._checked(self._slots.found())

    def _checked(self, found: list[torch.Tensor]) -> list[torch.Tensor]:
        replaced = []
        for i, own in enumerate(self._own):
            if own() is not found[i]:
                replaced.append(i)
        if self._doubtful or replaced:
            with as_plain():
                self._slots.tensors()
            self._doubtful = False
            if replaced:
                self._adopt(found, replaced)
        return found

    @property
    def known(self) -> dict[int, torch.Tensor]:
        """The network's own tensors by index, also while others are in their places.

        Without one that was replaced, and that nobody has any more.
        """
        return self._tensors

    def own(self) -> list[torch.Tensor | None]:
        """Give what `tensors` gave last; None where nobody has it any more."""
        return [reference() for reference in self._own]

    def unless_lent(self) -> list[torch.Tensor] | None:
        """Give `tensors`; None if others than parameters are in the places of some.

        Only for the time of a forward: `torch.func.functional_call` puts them there.
        """
        found = self._slots.found()
        for tensor, own in zip(found, self._own):
            if own() is not tensor and not isinstance(tensor, nn.Parameter):
                return None
        return self._checked(found)

    def _adopt(self, found: list[torch.Tensor], replaced: list[int]) -> None:
        """Take tensors that somebody put in the place of others."""
        self._show(replaced)  # Whoever holds the others keeps their values.
        keeper = self._keeper()
        own = self._tensors
        for i in replaced:
            make_lazy(found[i], keeper, self._slots.names[i])
            if i in own:
                make_plain(own[i])
        self._set(found)
        self.watch.forget(replaced)
        for i in replaced:
            self._share_new(i)
        self._written.update(replaced)

    def index(self, tensor: torch.Tensor) -> int | None:
        """Say which one a tensor is; None if it is none of them."""
        return self._index.get(id(tensor))

    def show(self, tensors: Iterable[torch.Tensor]) -> bool:
        """Bring those of some tensors that are away; say whether there were any."""
        found = (self.index(tensor) for tensor in tensors)
        return self._show([i for i in found if i is not None])

    def show_all(self) -> None:
        """Bring everything that is away."""
        self._show(range(len(self._own)))

    def _show(self, indices: Iterable[int]) -> bool:
        """Bring what is away; say whether there was any.

        The first time after the server moved on that is what was asked for, and all
        that somebody has a view of: a kept state dict never holds values of two
        moments. The second time it is everything: somebody goes through all of it.
        """
        away = {i for i in indices if i not in self._here}
        if not away:
            return False
        self._refuse_stray_writes()
        if self._asked_for_one:
            away.update(range(len(self._own)))
        away.update(self._shared)
        self._bring(away - self._here)
        self._asked_for_one = True
        return True

    def show_shared(self) -> None:
        """Bring what is away and somebody has a view of."""
        self._refuse_stray_writes()
        self._bring(self._shared - self._here)

    def _bring(self, indices: Iterable[int]) -> None:
        tensors = self._tensors
        away = sorted(i for i in indices if i in tensors)
        if not away:
            return
        values = self._fetch(away)
        with torch.no_grad(), as_plain():
            for i, value in zip(away, values):
                tensors[i].copy_(value.view_as(tensors[i]))
        self._look(away)
        self._here.update(away)

    def overwritten(self, tensor: torch.Tensor) -> None:
        """Note that a tensor got new values as a whole, perhaps somebody's memory."""
        index = self.index(tensor)
        if index is None:
            return
        self._here.add(index)
        self._written.add(index)
        self._share_new(index)
        self._doubtful = True

    def _share_new(self, index: int) -> None:
        """Note that a tensor may have got memory that somebody has."""
        self._shared.add(index)
        tensors = self._tensors
        with as_plain():
            if self.watch.foreign(tensors, index):
                self._foreign.add(index)

    def shared(self, tensor: torch.Tensor) -> None:
        """Note that somebody may refer to a tensor's memory from now on."""
        index = self.index(tensor)
        if index is None or index in self._shared:
            return
        self._shared.add(index)
        with as_plain():
            written = self.watch.moved(self._tensors, [index])
        if index in self._here and written:
            self._written.add(index)
        else:
            self._look([index])

    def changed(self, adopt: bool = True) -> list[int]:
        """Give the indices of the tensors that the server has to get.

        - `adopt`: take those over that replaced others.

        Raises RuntimeError if one that is away was written.
        """
        tensors: Tensors | None = self.tensors() if adopt and self._own else None
        self._refuse_stray_writes()
        changed, here = set(self._written), self._here - self._written
        if tensors is None and (changed or here):
            tensors = known = self.known
            changed &= known.keys()
            here &= known.keys()
        if here:
            assert tensors is not None
            closely = here & self._shared
            with as_plain():
                changed.update(self.watch.moved(tensors, here - closely))
            changed.update(self._compare(closely))
        return sorted(changed)

    def _compare(self, indices: set[int]) -> list[int]:
        """Give those of shared tensors that changed; unshare what nobody holds."""
        if not indices:
            return []
        tensors = self._tensors
        indices = indices & tensors.keys()
        with as_plain():
            # First, since whoever writes now may have let go when it is asked.
            held = self.watch.held(tensors, indices)
            changed = self.watch.changed(tensors, sorted(indices))
        free = indices - held - set(changed) - self._foreign
        self.watch.relax(free)
        self._shared -= free
        return changed

    def _look(self, indices: Iterable[int]) -> None:
        """Note tensors as they are now."""
        tensors = self._tensors
        with as_plain():
            there = [i for i in indices if i in tensors]
            self.watch.saw(self.watch.look(tensors, there, self._shared))

    def pushed(self, indices: Sequence[int]) -> None:
        """Note that the server has these as they are."""
        self._look(indices)
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
        self._look(self._shared)

    def doubt(self) -> None:
        """Note that it is unknown whether the last push arrived."""
        self._written.update(self._here)

    def _refuse_stray_writes(self) -> None:
        """Find writes to memory that held an earlier state."""
        changed = self._compare(self._shared - self._here - self._written)
        if not changed:
            return
        self._look(changed)
        name = self._slots.names[changed[0]]
        raise RuntimeError(
            f"{name} was written through a tensor that was taken "
            "from it before the server changed it, so the write is lost; take it "
            "again (p.data, p.detach(), p.view()) and write then"
        )
