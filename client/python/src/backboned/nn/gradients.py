"""The gradients of a hosted network: waiting, in the server, or looked at here."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np
import torch

from backboned.instance import Instance
from backboned.nn.lazy import LazyTensor, as_plain, make_lazy, make_plain
from backboned.nn.pending_calls import PendingCalls
from backboned.nn.values import Values
from backboned.nn.watch import Watch, as_array, as_tensor
from backboned.types import Grads


class Gradients:
    """Gives `p.grad` its meaning while the gradients are in the server.

    `loss.backward()` only queues. A step sends the queue; so does whoever reads or
    writes a gradient. ``p.grad`` gives a tensor whose values are brought when somebody
    looks at them: a *promise*. One that was brought is *here*: in the tensor's own
    memory, where changes are noticed and pushed before the next use. Gradients
    that autograd accumulates here itself, of a loss that uses parameters, are added to
    the server's.

    Not thread-safe.

    - `pending`: sends what waits.
    - `read`: makes a call that looks at the gradients.
    - `change`: makes a call that changes them, told whether it replaces all, and with
      how many bytes.
    """

    def __init__(
        self,
        instance: Instance,
        parameters: Values,
        pending: PendingCalls,
        read: Callable[[Callable[[], Grads]], Grads],
        change: Callable[[Callable[[], Any], bool, int], None],
    ) -> None:
        self._read, self._change = read, change
        self._instance = instance
        self._names = [spec.name for spec in instance.layout.parameters]
        self._tensors, self._own = parameters.tensors, parameters.own
        self._pending = pending
        self._watch = Watch()
        self._promises: dict[int, weakref.ref[torch.Tensor]] = {}
        self._forget_here()

    def _forget_here(self) -> None:
        self._here: set[int] = set()
        self._written: set[int] = set()
        self._placed: dict[int, torch.Tensor | None] = {}
        self._watch.forget()
        self._asked_for_one = False

    def settle(self) -> None:
        """Push the gradients that changed here."""
        self._refuse_stray_writes()
        additions = self._additions()
        if additions:
            self._merge(additions)
        changed = self._changed_here()
        if changed:
            self._push(sorted(changed))

    def hand_over(self) -> None:
        """Push what changed here, and leave it to the server, which is to add to it."""
        self.settle()
        for i in self._here:
            self._leave(i)
        self._here.clear()
        self._asked_for_one = False

    def _leave(self, index: int) -> None:
        """Let a gradient here be a promise of what the server makes of it.

        If nobody holds it, its memory is kept: a view of that may be written.
        """
        with as_plain():
            parameter = self._tensors()[index]
            grad, parameter.grad = parameter.grad, None
            if grad is None:
                return
            self._placed[index] = grad.detach()
        if type(grad) is torch.Tensor and not grad.requires_grad:
            self._pledge(index, grad)

    @property
    def none(self) -> bool:
        """Say whether there are none, and none wait."""
        pending = self._pending
        idle = pending.empty and not pending.there
        return idle and not self._here and not self._additions()

    def zero(self, indices: Sequence[int] | None = None) -> None:
        """Take the gradients of some parameters away, or of all."""
        self.keep_promises(indices)
        if indices is not None:
            for i in indices:
                self.write(i, None)
            return
        self._pending.drop()
        with as_plain():
            for tensor in self._tensors():
                tensor.grad = None
        self._forget_here()

    def read(self, index: int) -> torch.Tensor | None:
        """Give a parameter's gradient, whose values come if somebody looks."""
        self._refuse_stray_writes()
        if self._additions():
            self.settle()
        self._pending.flush()
        held = self._pending.held
        away = self._pending.there and index not in self._here
        if away and (not held or self._placed.get(index) is not None):
            self._bring([index])
        elif away:
            return self._promise(index) if held[index] else None
        with as_plain():
            return self._tensors()[index].grad

    def _promise(self, index: int) -> torch.Tensor:
        """Give a tensor for the values of a gradient that the server has."""
        promised = self._promised(index)
        if promised is None:
            with as_plain(), torch.inference_mode(False):
                promised = torch.empty_like(self._tensors()[index].detach())
                # Code that takes the memory unasked, `torch.tensor(p.grad)`, sees it.
                promised.view(-1)[:1] = math.nan
            self._pledge(index, promised)
        return promised

    def _pledge(self, index: int, tensor: torch.Tensor) -> None:
        """Make a tensor the promise of a gradient."""
        parameter: Any = self._tensors()[index]
        make_lazy(tensor, parameter.keeper, f"the gradient of {self._names[index]}")
        self._promises[index] = weakref.ref(tensor)

    def _promised(self, index: int) -> torch.Tensor | None:
        """Give the promise of a gradient, if somebody holds it and it is not kept."""
        promise = self._promises.get(index)
        return promise() if promise else None

    def _redeem(self, index: int) -> torch.Tensor | None:
        """Give the promise of a gradient as a plain tensor, for its values."""
        promised = self._promised(index)
        self._promises.pop(index, None)
        if promised is not None:
            make_plain(promised)
        return promised

    def keep_promises(self, indices: Sequence[int] | None = None) -> None:
        """Bring the values that somebody may still look at, before they are gone."""
        if self._promises:
            among = list(self._promises) if indices is None else indices
            self._bring_all([i for i in among if self._promised(i) is not None])

    def show(self, tensors: Sequence[torch.Tensor]) -> None:
        """Bring the values of promises."""
        found = {id(tensor) for tensor in tensors}
        looked_at = [i for i in self._promises if id(self._promised(i)) in found]
        if looked_at:
            self._bring(looked_at)

    def overwritten(self, tensor: torch.Tensor) -> None:
        """Note that a promise got new values as a whole."""
        for i in list(self._promises):
            if self._promised(i) is tensor:
                self._put(i, self._redeem(i))

    def read_all(self) -> None:
        """Fetch every gradient that is not here."""
        self._bring(range(len(self._names)))

    def _bring(self, indices: Sequence[int]) -> None:
        """Fetch gradients that are not here: the second time all of them."""
        if not self._here.issuperset(indices):
            again = self._asked_for_one
            self._bring_all(range(len(self._names)) if again else indices)
            self._asked_for_one = True

    def _bring_all(self, indices: Sequence[int]) -> None:
        """Fetch those of some gradients that are not here."""
        if not indices:
            return
        self._refuse_stray_writes()
        if self._additions():
            self.settle()
        self._pending.flush()
        away = [i for i in indices if i not in self._here]
        if self._pending.there and away:
            self._fetch(away)

    def write(self, index: int, value: torch.Tensor | None) -> None:
        """Replace a parameter's gradient."""
        if value is not None and value is self._promised(index):
            return
        if isinstance(value, LazyTensor):
            value.keeper.show([value])
        self.keep_promises([index])
        if self._additions():
            self.settle()
        self._pending.flush()
        with as_plain():
            present = self._tensors()[index].grad
        if value is not None or present is not None or self._pending.there:
            self._put(index, value)

    def _put(self, index: int, value: torch.Tensor | None) -> None:
        """Note that a gradient is what somebody wrote here."""
        with as_plain():
            self._tensors()[index].grad = value
        self._here.add(index)
        self._written.add(index)
        self._placed[index] = value

    def _fetch(self, indices: Sequence[int]) -> None:
        """Place the server's gradients of some parameters here."""
        parts = self._server_side(indices)
        tensors = self._tensors()
        for i in indices:
            grad, old = parts[i], self._redeem(i)
            if old is None:
                old = self._placed.get(i)
            if grad is not None and old is not None:
                with torch.no_grad():
                    grad = old.copy_(grad)
            with as_plain():
                tensors[i].grad = grad
            self._note(i, grad)

    def _note(self, index: int, grad: torch.Tensor | None) -> None:
        """Note that the gradient here is the server's."""
        self._placed[index] = grad
        self._here.add(index)
        self._watch.forget([index])
        if grad is not None:
            self._watch.saw(self._watch.look({index: grad}, [index]))

    def _server_side(self, indices: Sequence[int]) -> dict[int, torch.Tensor | None]:
        """Get the server's gradients."""
        everything = len(indices) == len(self._names)
        names = [self._names[i] for i in indices]
        timeout = self._pending.timeout
        grads = self._read(
            lambda: self._instance.read_grads(
                None if everything else names, timeout=timeout
            )
        )
        specs = [self._instance.layout.parameters[i] for i in indices]
        there = [(i, s) for i, s, yes in zip(indices, specs, grads.present) if yes]
        parts: dict[int, torch.Tensor | None] = dict.fromkeys(indices)
        with torch.inference_mode(False):  # They may be written outside of it.
            flats = torch.split(as_tensor(grads.flat), [spec.size for _, spec in there])
            for (i, spec), flat in zip(there, flats):
                parts[i] = flat.view(spec.shape).clone()
        return parts

    def _additions(self) -> list[int]:
        """Find gradients that autograd left here on top of the server's."""
        found = []
        with as_plain():
            for i, tensor in enumerate(self._own()):
                if i not in self._here and tensor is not None:
                    if tensor.grad is not None:
                        found.append(i)
        return found

    def _changed_here(self) -> set[int]:
        """Find the gradients here that the server has to get."""
        if not self._here:
            return set()
        tensors = self._tensors()
        with as_plain():
            grads = {i: tensors[i].grad for i in self._here}
        changed = {i for i, grad in grads.items() if grad is not self._placed[i]}
        same = {i: g for i, g in grads.items() if g is not None and i not in changed}
        return changed.union(self._watch.changed(same, list(same)), self._written)

    def _merge(self, indices: list[int]) -> None:
        """Add what autograd left here to what the server has."""
        self._pending.flush()
        tensors = self._tensors()
        parts = self._server_side(indices) if self._pending.there else {}
        for i in indices:
            theirs = parts.get(i)
            with as_plain():
                mine = tensors[i].grad
                if theirs is not None and mine is not None:
                    promised = self._redeem(i)
                    if promised is not None:
                        theirs = promised.copy_(theirs)
                    # In a graph if autograd made one (`create_graph`).
                    with torch.set_grad_enabled(mine.requires_grad):
                        mine = theirs.add_(mine)
            self._put(i, mine)

    def _push(self, indices: list[int]) -> None:
        self._pending.make_sure()
        tensors = self._tensors()
        with as_plain():
            grads = {i: tensors[i].grad for i in indices}
        held = list(self._pending.held)
        if not self._pending.there:
            held = [False] * len(self._names)
        for i, grad in grads.items():
            if held:
                held[i] = grad is not None
        if held and not any(held) and self._pending.empty:
            self._pending.drop()
            self._forget_here()
            return
        self._pending.held = ()
        if self._pending.outdated:
            timeout = self._pending.timeout
            zero = functools.partial(self._instance.zero_grads, timeout=timeout)
            self._change(zero, True, 0)
            self._pending.outdated = False
        flats = [as_array(g).reshape(-1) for g in grads.values() if g is not None]
        if flats or self._pending.there:
            everything = len(indices) == len(self._names)
            self._pending.there = True  # Also if the answer is lost.
            flat = np.concatenate(flats) if flats else np.empty(0, np.float32)
            put = functools.partial(
                self._instance.set_grads,
                flat,
                None if everything else [self._names[i] for i in indices],
                present=[grad is not None for grad in grads.values()],
                timeout=self._pending.timeout,
            )
            self._change(put, everything, flat.nbytes)
        self._pending.held = tuple(held)
        for i, grad in grads.items():
            self._note(i, grad)
        self._written.difference_update(indices)

    def _refuse_stray_writes(self) -> None:
        """Find writes to gradients that were read before the server changed them."""
        if not self._placed:
            return
        away = [i for i in self._watch.known() if i not in self._here]
        placed = {i: grad for i in away if (grad := self._placed[i]) is not None}
        changed = self._watch.changed(placed, list(placed))
        if changed:
            self._watch.forget(changed)
            raise RuntimeError(
                f"the gradient of {self._names[changed[0]]} was written through a "
                "tensor that was taken before the next backward, so the write is "
                "lost; read p.grad again and write then"
            )

    def end(self) -> None:
        """Place everything here, for good."""
        if self._pending.there or not self._pending.empty:
            self.read_all()
