"""Sends what a hosted network has to tell its server, and takes the answers."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any, Callable, NamedTuple

import grpc
import torch

from backboned import calls
from backboned.calls import BackwardOptions
from backboned.errors import NOTHING_CHANGED, BackbonedError, ServerRestarted
from backboned.instance import Instance
from backboned.nn.journal import Change, Journal, Record
from backboned.nn.link import Tape, rng_state, set_rng_state
from backboned.steps import StepInFlight, raise_unseen
from backboned.transport.messages import Prepared, Recall, Recallable, fresh_id
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


def _backward(
    instance: Instance,
    timeout: float | None,
    records: Sequence[Record],
    gradients: Sequence[dict[str, Array]],
    options: BackwardOptions,
    _find: Version,
) -> Prepared[Backward]:
    """Prepare a backward of the tapes that some forwards have now."""
    tapes = {record.tape_id: grads for record, grads in zip(records, gradients)}
    asked: BackwardOptions = {**options, "request_id": fresh_id()}
    return calls.backward(instance, tapes, asked, timeout)


def _step(
    instance: Instance,
    timeout: float | None,
    options: StepOptions | None,
    find: Version,
) -> Prepared[Stepped]:
    """Prepare a step of a version."""
    asked: calls.WriteOptions = {
        "request_id": fresh_id(),
        "timeout": timeout,
        "if_version": find,
    }
    return calls.step(instance, options, asked)


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
        """The number of steps of which no note was taken yet."""
        if self._steps:
            self._leave_to_parent()
        return len(self._steps)

    @property
    def failed(self) -> bool:
        """Say whether one of them has failed."""
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


# After these codes a call has ended, and after all but the last of its own kind it
# makes no sense to make it again.
_DECIDED = NOTHING_CHANGED | {grpc.StatusCode.INTERNAL}
_LATE = grpc.StatusCode.DEADLINE_EXCEEDED
_BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED

_Gradients = tuple[bool, bool, tuple[bool, ...]]
"""`there`, `outdated` and `held` of `PendingCalls`."""


class SentCall:
    """A backward, a step, or both, whose answer was not taken yet.

    - `group`: the backwards that it makes.
    - `number`: of the step that it belongs to; 0: none.
    - `steps`: whether it makes the step.
    - `before`: what was known of the gradients before it.
    - `change`: what it is in the journal.

    - `step`: what the step did, once the answer was taken.
    - `dropped`: whether its gradients were taken away since.
    """

    step: Stepped | None = None
    dropped = False

    def __init__(
        self,
        call: Prepared[Any],
        group: Group,
        number: int,
        steps: bool,
        before: _Gradients,
        change: Change,
    ) -> None:
        self.call = call
        self.group = group
        self.number = number
        self.steps = steps
        self.before = before
        self.change = change
        self._process = os.getpid()

    @property
    def is_parents(self) -> bool:
        """Say whether this is the copy of a forked child, which has no part in it."""
        return self._process != os.getpid()

    def name(self, error: BackbonedError) -> None:
        """Say in an error which step it is of."""
        if self.number:
            text = f"step {self.number}, which was not awaited: {error.message}"
            error.message, error.args = text, (text,)

    def end(self) -> None:
        """Let go of the tapes, and of what was sent."""
        self.group = []
        del self.call, self.change


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

    A step is not awaited: the forward behind it is sent before its answer came. Before
    anything else the answers are taken, and the training steps in flight waited for. A
    backward or step whose answer is lost is made again, under its id. Of another call
    whose answer is lost the answer is asked for, so that the call has ended. Not
    thread-safe, but for `asking` beside others.

    - `stepped`: told the answer's version when the server made a step.
    - `unsure`: told that a step may have been made of which nothing will be known.
    - `journal`: takes note of all that is sent.
    - `version`: gives the one that the instance has before that.
    - `came_back`: asked after an error whether that was a restart of the server, after
      which each change under way has its answer.

    - `in_flight`: the training steps in flight.
    - `timeout`: seconds for each call.
    - `there`: whether the server may hold gradients.
    - `outdated`: whether it may hold some that do not count any more.
    - `held`: if it may hold gradients, of which parameters; empty: not known.
    - `sent`: what was sent, and its answer not taken.
    """

    def __init__(
        self,
        instance: Instance,
        stepped: Callable[[Version], None],
        unsure: Callable[[None], None],
        in_flight: StepsInFlight,
        journal: Journal,
        version: Callable[[], Version],
        came_back: Callable[[BackbonedError], bool],
    ) -> None:
        self.in_flight = in_flight
        self._journal = journal
        self._version = version
        self._came_back = came_back
        self.timeout: float | None = None
        self.there = False
        self.outdated = True
        self.held: tuple[bool, ...] = ()
        self._instance = instance
        self._stepped = stepped
        self._unsure = unsure
        self._queue: Group = []
        self.sent: list[SentCall] = []
        # The error of a step that was waited for at once, for whoever is next.
        self._failed: BackbonedError | None = None
        self._lost: list[tuple[Recall, bytes]] = []

    @property
    def empty(self) -> bool:
        """Say whether nothing waits and nothing is unsure."""
        return not (self._queue or self.sent or self._failed or self._lost)

    @property
    def has_gradients(self) -> bool:
        """Say whether a step may find some."""
        return bool(self._queue) or self.there

    def leads(self) -> int:
        """Say how many steps there are behind which a call may be sent, by `behind`.

        0 if something else has to end first.
        """
        self._leave_to_parent()
        if self._queue or self._lost or self.in_flight.count:
            return 0
        return sum([sent.steps for sent in self.sent])

    def add(self, item: PendingBackward) -> None:
        """Let the backward of a tape wait."""
        self._queue.append(item)

    def drop(self) -> None:
        """Forget what waits and what the server has."""
        if self._lost or self.in_flight.count:
            self.make_sure()
        for sent in self.sent:
            sent.dropped = True
        self._queue.clear()
        self.outdated = self.outdated or self.there
        self.there = False

    def flush(self) -> None:
        """Send what waits, and take the answers.

        Raises BackbonedError if the server refuses or fails. The backwards are then
        lost, unless their fate is unknown, or the server was too busy.
        """
        self.make_sure()
        self.send_queue()

    def send_queue(self) -> None:
        """Do so once all that was sent has come to its end."""
        if self._queue:
            for group in grouped(self._queue, not self.there):
                self._prepare(group)
            self.take_sent()

    def send_now(self, item: PendingBackward) -> Array:
        """Send one backward alone; give its input's gradient."""
        self.flush()
        self._queue.append(item)
        self._prepare([item], input_grad=True)
        result: Backward | None = self._take(self.sent[0])
        if result is None:
            raise ServerRestarted(
                "the server was restarted. It had made this backward, but the "
                "gradient of the input is lost; begin the step anew"
            )
        return result.input_grads[0]

    def step(self, options: StepOptions, with_backward: bool, number: int) -> SentCall:
        """Send what waits, and a step of the optimizer, which may find gradients.

        Does not wait for the answers. An error is raised by whoever uses this next.

        `with_backward` says whether the step may go with the last backward.
        """
        self.make_sure()
        groups = grouped(self._queue, not self.there) if self._queue else []
        for group in groups:
            last = with_backward and group is groups[-1]
            self._prepare(group, number, options if last else None)
        if not (groups and with_backward):
            self._prepare([], number, options)
        made = self.sent[-1]
        self._begin()
        return made

    def behind(self, call: Prepared[Any]) -> None:
        """Send a call, which is made if all before it are, and take their answers."""
        if self.sent:
            call.begin(self.sent[-1].call)
        self.take_sent()

    def make_sure(self) -> None:
        """Let all that was sent come to its end."""
        self.in_flight.land()
        if self._lost:
            self._ask_again()
        self.take_sent()

    def take_sent(self) -> None:
        """Take the answers to backwards and steps.

        Raises BackbonedError: the first one that failed; it names the step's number.
        Those behind it are lost too, unless the fate of it is unknown.
        """
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        if self.sent:
            self._leave_to_parent()
        while self.sent:
            self._take(self.sent[0])

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

    def _prepare(
        self,
        group: Group,
        number: int = 0,
        step: StepOptions | None = None,
        input_grad: bool = False,
    ) -> None:
        """Prepare a backward, a step, or both. From now on they are made."""
        records = [self._journal.record_of(item.tape) for item in group]
        gradients = [item.gradients for item in group]
        make: Callable[[Version], Prepared[Any]]
        if group:
            options: BackwardOptions = {
                "return_grads": False,
                "accumulate": True,
                "input_grad": input_grad,
                "retain": group[0].retain,
                "zero_before": self.outdated,
                "step": step,
            }
            what = (records, gradients, options)
            make = functools.partial(_backward, self._instance, self.timeout, *what)
        else:
            make = functools.partial(_step, self._instance, self.timeout, step)
        version = self._version()
        call = make(version._replace(buffers=None))
        change = Change(
            lambda find: make(find).take(),
            (int(step is not None), 0),
            gradients=("replaces" if self.outdated else "adds") if group else "",
            size=sum(array.nbytes for each in gradients for array in each.values()),
            needs=records,
            uses_up=not (group and group[0].retain),
            is_chained=True,
            if_lost=lambda _: None,
        )
        self._journal.add(change, version)
        before = (self.there, self.outdated, self.held)
        made = SentCall(call, group, number, step is not None, before, change)
        mine = set(map(id, group))
        rest = [item for item in self._queue if id(item) not in mine]
        sent, held = [*self.sent, made], () if group else self.held
        # At once: Ctrl-C comes between calls.
        self._queue, self.sent = rest, sent
        self.there, self.outdated, self.held = True, False, held

    def _begin(self) -> None:
        """Send what was prepared; where that takes waiting, wait, and keep an error."""
        before: Prepared[Any] | None = None
        used: set[str] = set()
        for sent in self.sent:
            tapes = {item.tape.tape_id for item in sent.group}
            # The server has a tape in use as soon as it has read of it.
            if not used.isdisjoint(tapes) or not sent.call.begin(before):
                break
            sent.call.request.keep()
            before = sent.call
            used |= tapes
        else:
            return
        try:
            self.take_sent()
        except BackbonedError as error:
            self._failed = error.with_traceback(None)

    def _take(self, sent: SentCall) -> Any:
        """Take the answer to the first call that was sent. None: it is lost."""
        try:
            result = self._answer(sent)
        except BackbonedError as error:
            if error.code in _DECIDED:
                self._undo(sent, error.code == _BUSY)
            if error.reason == "NO_GRADIENTS" and sent.steps:
                return None
            sent.name(error)
            raise
        for item in sent.group:
            if not item.retain:
                item.tape.done()
        if sent.group:
            sent.step = result and result.step
            if not sent.dropped:
                self.held = result.held if result else ()
        else:
            sent.step = result
        if sent.step is not None:
            self._stepped(sent.step.version)
        self.sent.remove(sent)
        sent.end()
        return result

    def _answer(self, sent: SentCall) -> Any:
        """Wait for the answer to a call; None if a restart of the server took it."""
        change = sent.change
        if change.is_open:
            try:
                self._journal.made(change, sent.call.take())
            except BackbonedError as error:
                if not self._came_back(error):
                    raise
        return change.result()

    def _undo(self, sent: SentCall, again: bool) -> None:
        """Forget a call that was not made, and those behind it.

        - `again`: let its backwards wait again.
        """
        lost = [item for each in self.sent for item in each.group]
        queue = [*lost, *self._queue] if again and not sent.dropped else self._queue
        if not sent.dropped:
            self.there, self.outdated, self.held = sent.before
        self._journal.drop(sent.change)
        ended = self.sent
        self._queue, self.sent = queue, []
        for each in ended:
            each.end()

    def _leave_to_parent(self) -> None:
        """Forget what this process's parent sent, which ends there."""
        if self.sent and self.sent[0].is_parents:
            self.sent = []
            self._unsure(None)
