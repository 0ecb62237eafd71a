"""What a hosted network has to tell its server about gradients, and how that ends."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Callable, Optional

import grpc
import numpy as np

from backboned import compute
from backboned.backoff import is_absence
from backboned.errors import BackbonedError
from backboned.instance import Instance
from backboned.layout import Version
from backboned.nn import randomness
from backboned.nn.certainty import NOTHING_CHANGED
from backboned.nn.flight import Flight
from backboned.nn.loss import advised
from backboned.nn.queue import Group, Waiting, grouped
from backboned.optimizer import StepOptions, Stepped
from backboned.results import Empty
from backboned.transfer import Recall, Recallable, fresh_id

Call = Callable[[], Optional[Stepped]]

# After these codes a call has ended, and after all but the last of its own kind it
# makes no sense to make it again.
_DECIDED = NOTHING_CHANGED | {grpc.StatusCode.INTERNAL}
_LATE = grpc.StatusCode.DEADLINE_EXCEEDED
_LOST = _DECIDED - {grpc.StatusCode.RESOURCE_EXHAUSTED}


class Outbox:
    """Sends backwards and steps, each once.

    Before anything else the training steps in flight are waited for, and a backward or
    step whose answer is lost is made again, under its id. Of another call whose answer
    is lost the answer is asked for, so that the call has ended. Not thread-safe, but
    for `asking_if_lost`.

    Parameters
    ----------
    instance : Instance
    stepped : callable
        Told the answer's version when the server made a step.
    flight : Flight

    Attributes
    ----------
    flight : Flight
        The training steps in flight.
    timeout : float or None
        Seconds for each call.
    there : bool
        Whether the server may hold gradients.
    outdated : bool
        Whether it may hold some that do not count any more.
    held : tuple of bool
        If it may hold gradients, of which parameters; empty: not known.
    """

    def __init__(
        self, instance: Instance, stepped: Callable[[Version], None], flight: Flight
    ) -> None:
        self.flight = flight
        self.timeout: float | None = None
        self.there = False
        self.outdated = True
        self.held: tuple[bool, ...] = ()
        self._instance = instance
        self._stepped = stepped
        self._queue: Group = []
        self._unsure: Call | None = None
        self._lost: list[tuple[Recall, bytes]] = []

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing is unsure."""
        return not (self._queue or self._unsure or self._lost)

    def add(self, item: Waiting) -> None:
        """Let the backward of a tape wait."""
        self._queue.append(item)

    def drop(self) -> None:
        """Make sure of the last call, and forget what waits and what the server has."""
        self.make_sure()
        self._queue.clear()
        self.outdated = self.outdated or self.there
        self.there = False

    def flush(self, step: StepOptions | None = None) -> Stepped | None:
        """Send what waits, the step with the last of it.

        Raises
        ------
        BackbonedError
            If the server refuses or fails. What waited is then lost, unless its fate
            is unknown, or the server was too busy.
        """
        self.make_sure()
        result = None
        groups = grouped(self._queue, not self.there)
        for group in groups:
            options = self._options(group, step if group is groups[-1] else None)
            call = functools.partial(self._backward, group, options, np.empty)
            result = self._surely(call)
        return result

    def send_now(self, item: Waiting, empty: Empty) -> None:
        """Send one backward alone; its input's gradient is made by `empty`."""
        self.flush()
        self._queue.append(item)
        options = self._options([item], None, input_grad=True)
        self._surely(functools.partial(self._backward, [item], options, empty))

    def make_sure(self) -> Stepped | None:
        """Let all that was sent come to its end.

        Returns
        -------
        What the call did whose fate was unknown, if it made a step.
        """
        self.flight.land()
        self._ask_again()
        return self._surely(self._unsure) if self._unsure else None

    @contextlib.contextmanager
    def asking_again(self, generator: bytes = b"") -> Iterator[Recallable]:
        """Make a call; if it ends otherwise than well, its answer is asked for later.

        Parameters
        ----------
        generator : bytes
            The generator's state that the call was given: if it was made, and nobody
            drew since, the generator goes on as the call left it.

        Yields
        ------
        callable
            The call's `recallable`.
        """
        mine: list[tuple[Recall, bytes]] = []

        def recallable(recall: Recall) -> None:
            mine.append((recall, generator))
            self._lost.append(mine[-1])

        try:
            yield recallable
        except BackbonedError as error:
            if error.code in NOTHING_CHANGED:
                self._settled(mine)
            raise
        self._settled(mine)

    @contextlib.contextmanager
    def asking_if_lost(self, generator: bytes = b"") -> Iterator[Recallable]:
        """Make a call beside others, as `asking_again` does.

        It counts as lost when it has ended so, not before.
        """
        mine: list[tuple[Recall, bytes]] = []
        try:
            yield lambda recall: mine.append((recall, generator))
        except BaseException as error:
            code = error.code if isinstance(error, BackbonedError) else None
            if code not in NOTHING_CHANGED:
                self._lost.extend(mine)
            raise

    def lost(self, recall: Recall) -> None:
        """Note a call that has ended without an answer."""
        self._lost.append((recall, b""))

    def _settled(self, calls: list[tuple[Recall, bytes]]) -> None:
        self._lost = [call for call in self._lost if call not in calls]

    def _ask_again(self) -> None:
        """Let calls come to their end whose answers were lost, made or not."""
        if self._lost:
            self._instance.steps.wait()
        while self._lost:
            recall, generator = self._lost[0]
            try:
                state = recall(self.timeout)
            except BackbonedError as error:
                if is_absence(error) or error.code == _LATE:
                    raise
            else:
                if generator and randomness.state() == generator:
                    randomness.set_state(state)
            del self._lost[0]

    def step(
        self, options: StepOptions, with_backward: bool
    ) -> tuple[bool, Stepped | None]:
        """Send what waits, and a step of the optimizer.

        Parameters
        ----------
        options : StepOptions
        with_backward : bool
            Whether the step may go with the last backward.

        Returns
        -------
        whether there was anything to step with, what the step did
        """
        try:
            if self._queue and with_backward:
                return True, self.flush(options)
            self.flush()
            if not self.there:
                return False, None
            call = functools.partial(self._bare_step, options, fresh_id())
            return True, self._surely(call)
        except BackbonedError as error:
            if error.reason == "NO_GRADIENTS":
                return False, None
            raise

    def _options(
        self, group: Group, step: StepOptions | None, input_grad: bool = False
    ) -> compute.BackwardOptions:
        return compute.BackwardOptions(
            return_grads=False,
            accumulate=True,
            input_grad=input_grad,
            retain=group[0].retain,
            zero_before=self.outdated,
            step=step,
            request_id=fresh_id(),
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
            if error.code in _LOST:
                self._queue.clear()
            raise
        for item in group:
            item.done()
        sent = {id(item) for item in group}
        self._queue = [item for item in self._queue if id(item) not in sent]
        self.there, self.outdated, self.held = True, False, result.held
        if result.step is not None:
            self._stepped(result.step.version)
        return result.step

    def _bare_step(self, options: StepOptions, request_id: str) -> Stepped:
        result = self._instance.step(
            options, request_id=request_id, timeout=self.timeout
        )
        self._stepped(result.version)
        return result

    def _surely(self, call: Call) -> Any:
        """Make a call; keep it if its fate is unknown."""
        self._unsure = call
        try:
            with advised(self._instance):
                result = call()
        except BackbonedError as error:
            if error.code in _DECIDED:
                self._unsure = None
            raise
        self._unsure = None
        return result
