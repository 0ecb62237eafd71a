"""The gradients of a hosted network: waiting, in the server, or looked at here."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from typing import Any, Callable

import grpc
import numpy as np
import torch

from backboned import compute, state
from backboned.errors import BackbonedError
from backboned.instance import Instance
from backboned.nn.certainty import NOTHING_CHANGED
from backboned.nn.lazy import raw
from backboned.nn.mirror import Watch, as_array
from backboned.nn.queue import Group, Waiting, grouped
from backboned.optimizer import StepOptions, Stepped
from backboned.results import Empty


class Gradients:
    """What `p.grad` means while the gradients are in the server.

    `loss.backward()` only queues. A step sends the queue; so does whoever reads or
    writes a gradient. One that was read is *here*: in the tensor's own memory, where
    changes are noticed and pushed before the next use. What autograd accumulates here
    itself, of a loss that uses parameters, is added to the server's.

    A call whose fate is unknown is made again, under its id, before anything else.
    Not thread-safe.

    Parameters
    ----------
    instance : Instance
    names : sequence of str
        Of the parameters.
    tensors : callable
        Gives the parameters.
    stepped : callable
        Told the answer's version when the server made a step.

    Attributes
    ----------
    timeout : float or None
        Seconds for each call.
    """

    def __init__(
        self,
        instance: Instance,
        names: Sequence[str],
        tensors: Callable[[], list[torch.Tensor]],
        stepped: Callable[[Any], None],
    ) -> None:
        self.timeout: float | None = None
        self._instance = instance
        self._names = names
        self._tensors = tensors
        self._stepped = stepped
        self._queue: Group = []
        self._unsure: Callable[[], Stepped | None] | None = None
        # Whether the server may have gradients, and whether those do not count.
        self._there = False
        self._outdated = True
        self._forget_here()

    def _forget_here(self) -> None:
        self._here: set[int] = set()
        self._written: set[int] = set()
        self._placed: dict[int, torch.Tensor | None] = {}
        self._watch = Watch()
        self._asked_for_one = False

    def add(self, item: Waiting) -> None:
        """Queue the backward of a tape."""
        self._settle_here()
        self._queue.append(item)
        self._away()

    def add_now(self, item: Waiting, empty: Empty) -> None:
        """Send the backward of a tape at once; its input's gradient is made by `empty`.

        Raises
        ------
        BackbonedError
            If the server refuses or fails.
        """
        self._settle_here()
        self.flush()
        self._queue.append(item)
        self._away()
        self._surely(
            functools.partial(
                self._backward,
                [item],
                self._options([item], None, input_grad=True),
                empty,
            )
        )

    def _away(self) -> None:
        """Note that what is here is not the server's any more."""
        with raw():
            for i in self._here:
                self._tensors()[i].grad = None
        self._here.clear()
        self._asked_for_one = False

    def flush(self) -> None:
        """Send what waits, and wait for it.

        Raises
        ------
        BackbonedError
            If the server refuses or fails; what waited is then lost, unless its fate
            is unknown.
        """
        self._send(None)

    def _send(self, step: StepOptions | None) -> Stepped | None:
        """Send the queue, the step with its last call."""
        self._repeat()
        groups = grouped(self._queue, not self._there)
        result = None
        for group in groups:
            options = self._options(group, step if group is groups[-1] else None)
            call = functools.partial(self._backward, group, options, np.empty)
            result = self._surely(call)
        return result

    def _options(
        self, group: Group, step: StepOptions | None, input_grad: bool = False
    ) -> compute.BackwardOptions:
        return compute.BackwardOptions(
            return_grads=False,
            accumulate=True,
            input_grad=input_grad,
            retain=group[0].retain,
            zero_before=self._outdated,
            step=step,
            request_id=uuid.uuid4().hex,
        )

    def _backward(
        self, group: Group, options: compute.BackwardOptions, empty: Empty
    ) -> Stepped | None:
        try:
            result = compute.backward(
                self._instance,
                {item.tape_id: item.gradients for item in group},
                options,
                self.timeout,
                empty,
            )
        except BackbonedError as error:
            if error.code in _DECIDED:
                self._queue.clear()
            raise
        for item in group:
            item.done()
        del self._queue[: len(group)]
        self._there, self._outdated = True, False
        if result.step is not None:
            self._stepped(result.step.version)
        return result.step

    def _surely(self, call: Callable[[], Stepped | None]) -> Any:
        """Make a call; keep it if its fate is unknown."""
        self._unsure = call
        try:
            result = call()
        except BackbonedError as error:
            if error.code in _DECIDED:
                self._unsure = None
            raise
        self._unsure = None
        return result

    def _repeat(self) -> Stepped | None:
        """Make the call whose fate is unknown again."""
        return self._surely(self._unsure) if self._unsure else None

    def settle(self) -> None:
        """Make sure of a call whose fate is unknown."""
        self._repeat()

    def replaced(self) -> None:
        """Note that a training step left the server without gradients."""
        self.zero()
        self._outdated = False

    def step(
        self, options: StepOptions, covers_all: bool
    ) -> tuple[bool, Stepped | None]:
        """Make a step of the server's optimizer with all that waits.

        Parameters
        ----------
        options : StepOptions
        covers_all : bool
            Whether the optimizer has every parameter that may have a gradient.

        Returns
        -------
        whether there was anything to step with, what the step did
        """
        if self._unsure is not None:
            made = self._repeat()
            if made is not None:  # It was this step that failed last time.
                return True, made
        self._settle_here()
        if self._queue and covers_all:
            return self._unless_no_gradients(lambda: self._send(options))
        self.flush()
        if not self._there:
            return False, None
        call = functools.partial(self._bare_step, options, uuid.uuid4().hex)
        return self._unless_no_gradients(lambda: self._surely(call))

    def _unless_no_gradients(
        self, call: Callable[[], Stepped | None]
    ) -> tuple[bool, Stepped | None]:
        try:
            return True, call()
        except BackbonedError as error:
            if error.reason == "NO_GRADIENTS":
                return False, None
            raise

    def _bare_step(self, options: StepOptions, request_id: str) -> Stepped:
        result = self._instance.step(
            options, request_id=request_id, timeout=self.timeout
        )
        self._stepped(result.version)
        return result

    def zero(self, indices: Sequence[int] | None = None) -> None:
        """Take the gradients of some parameters away, or of all."""
        if indices is not None:
            self.flush()
            for i in indices:
                self.write(i, None)
            return
        self._repeat()
        self._queue.clear()
        self._outdated = self._outdated or self._there
        self._there = False
        with raw():
            for tensor in self._tensors():
                tensor.grad = None
        self._forget_here()

    def read(self, index: int) -> torch.Tensor | None:
        """Give a parameter's gradient, fetched if it has to be."""
        self._refuse_stray_writes()
        if self._additions():
            self._settle_here()
        self.flush()
        if self._there and index not in self._here:
            everything = range(len(self._names))
            wanted = everything if self._asked_for_one else [index]
            self._fetch([i for i in wanted if i not in self._here])
            self._asked_for_one = True
        with raw():
            return self._tensors()[index].grad

    def read_all(self) -> None:
        """Fetch every gradient."""
        self._asked_for_one = True
        self.read(0)
        self._asked_for_one = True

    def write(self, index: int, value: torch.Tensor | None) -> None:
        """Replace a parameter's gradient."""
        if self._additions():
            self._settle_here()
        self.flush()
        tensor = self._tensors()[index]
        with raw():
            if value is None and tensor.grad is None and not self._there:
                return
            tensor.grad = value
        self._here.add(index)
        self._written.add(index)
        self._placed[index] = value

    def _fetch(self, indices: Sequence[int]) -> None:
        """Place the server's gradients of some parameters here."""
        self._refuse_stray_writes()
        parts = self._server_side(indices)
        tensors = self._tensors()
        for i in indices:
            grad, old = parts[i], self._placed.get(i)
            if grad is not None and old is not None:
                with torch.no_grad():
                    grad = old.copy_(grad)
            with raw():
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
        grads = state.get_grads(
            self._instance, None if everything else names, True, self.timeout
        )
        parts: dict[int, torch.Tensor | None] = {}
        begin = 0
        for i, present in zip(indices, grads.present):
            parts[i] = None
            if present:
                spec = self._instance.layout.parameters[i]
                flat = grads.flat[begin : begin + spec.size]
                parts[i] = torch.from_numpy(flat.reshape(spec.shape).copy())
                begin += spec.size
        return parts

    def _additions(self) -> list[int]:
        """Find gradients that autograd left here on top of the server's."""
        with raw():
            return [
                i
                for i, tensor in enumerate(self._tensors())
                if tensor.grad is not None and i not in self._here
            ]

    def _settle_here(self) -> None:
        """Push the gradients that changed here."""
        self._refuse_stray_writes()
        additions = self._additions()
        if additions:
            self._merge(additions)
        with raw():
            grads = {i: self._tensors()[i].grad for i in self._here}
        changed = {i for i, grad in grads.items() if grad is not self._placed[i]}
        same = [i for i in grads if i not in changed and grads[i] is not None]
        present = {i: grad for i, grad in grads.items() if grad is not None}
        changed.update(self._watch.changed(present, same), self._written)
        if changed:
            self._push(sorted(changed))

    def _merge(self, indices: list[int]) -> None:
        """Add what autograd left here to what the server has."""
        self.flush()
        tensors = self._tensors()
        parts = self._server_side(indices) if self._there else {}
        for i in indices:
            theirs = parts.get(i)
            with raw(), torch.no_grad():
                mine = tensors[i].grad
                if theirs is not None and mine is not None:
                    tensors[i].grad = theirs.add_(mine)
                self._placed[i] = tensors[i].grad
            self._here.add(i)
            self._written.add(i)

    def _push(self, indices: list[int]) -> None:
        if self._outdated:
            state.zero_grads(self._instance, None, uuid.uuid4().hex, self.timeout)
            self._outdated = False
        with raw():
            grads = {i: self._tensors()[i].grad for i in indices}
        flats = [as_array(g).reshape(-1) for g in grads.values() if g is not None]
        if flats or self._there:
            everything = len(indices) == len(self._names)
            state.set_grads(
                self._instance,
                np.concatenate(flats) if flats else np.empty(0, np.float32),
                [grad is not None for grad in grads.values()],
                None if everything else [self._names[i] for i in indices],
                None,
                uuid.uuid4().hex,
                self.timeout,
            )
            self._there = True
        for i, grad in grads.items():
            self._note(i, grad)
        self._written.difference_update(indices)

    def _refuse_stray_writes(self) -> None:
        """Find writes to gradients that were read before the server changed them."""
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
        if self._queue or self._there or self._unsure:
            self.read_all()


# After these codes it is known what a backward or a step did.
_DECIDED = NOTHING_CHANGED | {grpc.StatusCode.INTERNAL}
