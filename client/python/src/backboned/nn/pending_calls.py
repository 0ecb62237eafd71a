"""What a hosted network has to tell its server, and how that ends."""

from __future__ import annotations

import functools
from concurrent.futures import wait
from typing import Any, Callable, NamedTuple, TypeVar, Union

import grpc
import torch

from backboned import calls
from backboned.calls import BackwardOptions
from backboned.errors import NOTHING_CHANGED, BackbonedError
from backboned.instance import Instance
from backboned.nn.link import Tape, rng_state, set_rng_state
from backboned.nn.watch import empty
from backboned.steps import StepInFlight, raise_unseen
from backboned.transport.messages import Recall, Recallable, fresh_id
from backboned.transport.retries import is_absence
from backboned.types import Array, Backward, StepOptions, Stepped, Version


class PendingBackward(NamedTuple):
    """The backward of one taped forward, as PyTorch asked for it.

    `task` is the number of the `backward()` that it is a part of; `token` keeps the
    tape.
    """

    task: int
    tape: Tape
    gradients: dict[str, Array]
    retain: bool
    token: torch.Tensor


Group = list[PendingBackward]


def grouped(queue: Group, nothing_before: bool) -> list[Group]:
    """Cut a queue into calls whose sums have the bits of PyTorch's.

    PyTorch adds up what one `backward()` gives, the newest forward first, and adds
    the sum to the gradients that are there. So each `backward()` is a call of its
    own, but for two single tapes with nothing before: the order of two does not
    matter.
    """
    groups: list[Group] = []
    for item in queue:
        if groups and groups[-1][0].task == item.task:
            groups[-1].append(item)
        else:
            groups.append([item])
    if nothing_before and [len(group) for group in groups] == [1, 1]:
        (first,), (second,) = groups
        if first.tape != second.tape and first.retain == second.retain:
            return [[first, second]]
    return groups


class StepsInFlight:
    """Takes note of training steps in the order in which they are made.

    A forked child has none of them in flight: those are its parent's. Not thread-safe.

    - `made`: told the version that a step left.
    - `unsure`: told a step that may have been made, as its answer is lost; None: a
      parent's.
    """

    def __init__(
        self,
        made: Callable[[Version], None],
        unsure: Callable[[StepInFlight | None], None],
    ) -> None:
        self._made = made
        self._unsure = unsure
        self._steps: list[StepInFlight] = []

    @property
    def count(self) -> int:
        """How many steps there are of which no note was taken yet."""
        if self._steps:
            self._leave_to_parent()
        return len(self._steps)

    @property
    def failed(self) -> bool:
        """Whether one of them has failed."""
        self._leave_to_parent()
        return any(step.error for step in self._steps)

    def begin(self, step: StepInFlight) -> None:
        """Add a step that was sent after all others."""
        while self._steps and self._steps[0].done() and not self._steps[0].error:
            self._note(self._steps.pop(0))
        self._steps.append(step)

    def land(self) -> None:
        """Wait for all steps.

        Raises BackbonedError: the first error among them, unless somebody has seen one.
        """
        if not self._steps:
            return
        self._leave_to_parent()
        wait(self._steps)
        ended = list(self._steps)
        while self._steps:
            self._note(self._steps[0])
            del self._steps[0]
        raise_unseen(ended)

    def _leave_to_parent(self) -> None:
        """Forget steps of another process, which end there."""
        if self._steps and self._steps[0].is_parents:
            self._steps.clear()
            self._unsure(None)

    def _note(self, step: StepInFlight) -> None:
        error = step.error
        if error is None:
            self._made(step.result().version)
        elif not (isinstance(error, BackbonedError) and error.code in NOTHING_CHANGED):
            self._unsure(step)


T = TypeVar("T", bound=Union[Backward, Stepped])

# After these codes a call has ended, and after all but the last of its own kind it
# makes no sense to make it again.
_DECIDED = NOTHING_CHANGED | {grpc.StatusCode.INTERNAL}
_LATE = grpc.StatusCode.DEADLINE_EXCEEDED
_LOST = _DECIDED - {grpc.StatusCode.RESOURCE_EXHAUSTED}


class Asking:
    """A call whose answer may be asked for; see `PendingCalls.asking`."""

    def __init__(
        self, lost: list[tuple[Recall, bytes]], generator: bytes, beside: bool
    ) -> None:
        self._lost = lost
        self._generator = generator
        self._beside = beside
        self._mine: list[tuple[Recall, bytes]] = []

    def __call__(self, recall: Recall) -> None:
        """Note how to ask."""
        self._mine.append((recall, self._generator))
        if not self._beside:
            self._lost.append(self._mine[-1])

    def __enter__(self) -> Recallable:
        """Begin the call."""
        return self

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        """Forget a call that has its answer, or has changed nothing."""
        code = error.code if isinstance(error, BackbonedError) else None
        if not self._beside and (error is None or code in NOTHING_CHANGED):
            self._lost[:] = [call for call in self._lost if call not in self._mine]
        elif self._beside and error is not None and code not in NOTHING_CHANGED:
            self._lost.extend(self._mine)


class PendingCalls:
    """Sends backwards and steps, each once.

    Before anything else the training steps in flight are waited for, and a backward or
    step whose answer is lost is made again, under its id. Of another call whose answer
    is lost the answer is asked for, so that the call has ended. Not thread-safe, but
    for `asking` beside others.

    - `stepped`: told the answer's version when the server made a step.

    - `in_flight`: the training steps in flight.
    - `timeout`: seconds for each call.
    - `there`: whether the server may hold gradients.
    - `outdated`: whether it may hold some that do not count any more.
    - `held`: if it may hold gradients, of which parameters; empty: not known.
    """

    def __init__(
        self,
        instance: Instance,
        stepped: Callable[[Version], None],
        in_flight: StepsInFlight,
    ) -> None:
        self.in_flight = in_flight
        self.timeout: float | None = None
        self.there = False
        self.outdated = True
        self.held: tuple[bool, ...] = ()
        self._instance = instance
        self._stepped = stepped
        self._queue: Group = []
        self._unsure: Callable[[], Backward | Stepped] | None = None
        self._lost: list[tuple[Recall, bytes]] = []

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing is unsure."""
        return not (self._queue or self._unsure or self._lost)

    def add(self, item: PendingBackward) -> None:
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

        Raises BackbonedError if the server refuses or fails. What waited is then lost,
        unless its fate is unknown, or the server was too busy.
        """
        self.make_sure()
        result = None
        groups = grouped(self._queue, not self.there) if self._queue else []
        for group in groups:
            result = self._send(group, step if group is groups[-1] else None).step
        return result

    def send_now(self, item: PendingBackward) -> Array:
        """Send one backward alone; give its input's gradient."""
        self.flush()
        self._queue.append(item)
        return self._send([item], input_grad=True).input_grads[0]

    def make_sure(self) -> Stepped | None:
        """Let all that was sent come to its end; give the step that was unsure."""
        self.in_flight.land()
        if self._lost:
            self._ask_again()
        ended = self._surely(self._unsure) if self._unsure else None
        return ended.step if isinstance(ended, Backward) else ended

    def asking(self, generator: bytes = b"", beside: bool = False) -> Asking:
        """Make a call; if it ends otherwise than well, its answer is asked for later.

        - `generator`: the state that the call draws from: if it was made, and nobody
          drew since, the generator goes on as the call left it.
        - `beside`: whether others may use this meanwhile: the call counts as lost when
          it has ended so, not before.

        Gives a context, and with it the call's `recallable`.
        """
        return Asking(self._lost, generator, beside)

    def lost(self, recall: Recall) -> None:
        """Note a call that has ended without an answer."""
        self._lost.append((recall, b""))

    def _ask_again(self) -> None:
        """Let calls come to their end whose answers were lost, made or not."""
        self._instance.steps.wait()
        while self._lost:
            recall, generator = self._lost[0]
            try:
                state = recall(self.timeout)
            except BackbonedError as error:
                if is_absence(error) or error.code == _LATE:
                    raise
            else:
                if generator and rng_state() == generator:
                    set_rng_state(state)
            del self._lost[0]

    def step(self, options: StepOptions, with_backward: bool) -> Stepped | None:
        """Send what waits, and a step of the optimizer, if there are gradients.

        `with_backward` says whether the step may go with the last backward.
        """
        try:
            if self._queue and with_backward:
                return self.flush(options)
            self.flush()
            if not self.there:
                return None
            call = functools.partial(self._bare_step, options, fresh_id())
            return self._surely(call)
        except BackbonedError as error:
            if error.reason == "NO_GRADIENTS":
                return None
            raise

    def _send(
        self, group: Group, step: StepOptions | None = None, input_grad: bool = False
    ) -> Backward:
        options: BackwardOptions = {
            "return_grads": False,
            "accumulate": True,
            "input_grad": input_grad,
            "retain": group[0].retain,
            "zero_before": self.outdated,
            "step": step,
            "request_id": fresh_id(),
        }
        return self._surely(functools.partial(self._backward, group, options))

    def _backward(self, group: Group, options: BackwardOptions) -> Backward:
        try:
            result = calls.backward(
                self._instance,
                {item.tape.tape_id: item.gradients for item in group},
                options,
                self.timeout,
                empty,
            )
        except BackbonedError as error:
            if error.code in _LOST:
                self._queue.clear()
            raise
        for item in group:
            if not item.retain:
                item.tape.done()
        sent = {id(item) for item in group}
        self._queue = [item for item in self._queue if id(item) not in sent]
        self.there, self.outdated, self.held = True, False, result.held
        if result.step is not None:
            self._stepped(result.step.version)
        return result

    def _bare_step(self, options: StepOptions, request_id: str) -> Stepped:
        result = self._instance.step(
            options, request_id=request_id, timeout=self.timeout
        )
        self._stepped(result.version)
        return result

    def _surely(self, call: Callable[[], T]) -> T:
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
