"""Several training steps on their way at once, made in the order of submission."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future, wait
from typing import Callable

from backboned import errors
from backboned.errors import StaleVersion, StepNotMade
from backboned.transport import forks
from backboned.types import TrainStep, Version

Call = Callable[[], TrainStep]
Prepare = Callable[[Version, Callable[[], None]], Call]
"""Makes the call of a step, given the version that it must find, and what to call when
the request has been handed to the connection."""


@errors.verbs
class StepInFlight(Future):  # type: ignore[type-arg]
    """A training step that is under way: a `concurrent.futures.Future`.

    `result` gives the `TrainStep`. It cannot be cancelled.

    - `find`: what it must find.
    - `sent`: set once the request has been handed to the connection, or never will be.
    - `seen`: whether somebody asked for the result, or the error, and got it.
    - `recall`: asks for the answer if it is lost, for a network in torch; see
      messages.py.
    """

    recall: Callable[[float | None], bytes] | None = None

    def __init__(self, find: Version) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self.find = find
        self.sent = threading.Event()
        self.seen = False
        self._process = os.getpid()

    @property
    def is_parents(self) -> bool:
        """Say whether this is the copy of a forked child, where nobody ends it."""
        return self._process != os.getpid()

    def result(self, timeout: float | None = None) -> TrainStep:
        """Wait for the step.

        - `timeout`: seconds; for ever unless given.

        Raises BackbonedError if the step failed, or was not made since one before it
        had failed. Raises concurrent.futures.TimeoutError if it is still under way.
        """
        try:
            step: TrainStep = super().result(timeout)
            return step
        finally:
            self.seen = self.seen or self.done()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the step; give its error, None if it was made."""
        try:
            return super().exception(timeout)
        finally:
            self.seen = self.seen or self.done()

    @property
    def error(self) -> BaseException | None:
        """The error of a step that has failed, unseen; None if there is none yet."""
        return super().exception() if self.done() else None

    @property
    def leaves(self) -> Version:
        """The version of the parameters that it leaves."""
        assert self.find.params is not None
        return Version(self.find.uid, self.find.params + 1)


def ended(find: Version, call: Call) -> StepInFlight:
    """Make a step, and wait for it. Raises BackbonedError if it fails."""
    step = StepInFlight(find)
    step.sent.set()
    step.set_result(call())
    return step


class Pipeline:
    """The training steps of an instance that are in flight.

    Each demands the version of the parameters that the one before it leaves, so that
    the server makes them in the order of `submit`, whatever arrives first: one that
    comes too early is refused, and sent again when the one before it has been made.
    One is sent when the one before it has been handed to the connection.

    Once a step has failed, those behind it are not made. It goes on when somebody has
    seen the error. In a forked child none is in flight.

    Thread-safe.

    - `depth`: how many may be in flight.
    """

    def __init__(self, depth: int = 4) -> None:
        self.depth = depth
        self._lock = forks.lock()
        self._steps: collections.deque[StepInFlight] = collections.deque()

    def submit(
        self,
        first: Callable[[], Version],
        prepare: Prepare,
        made: Callable[[TrainStep], None],
    ) -> StepInFlight:
        """Send a step, after waiting for others if too many are in flight.

        - `first`: says what it must find if none is in flight.
        - `made`: told what the step did before anybody else.

        Raises BackbonedError: of a step that has failed, and whose error nobody has
        seen. This one is not made then.
        """
        with self._lock:
            self._make_room()
            before = self._steps[-1] if self._steps else None
            step = StepInFlight(before.leaves if before else first())
            call = prepare(step.find, step.sent.set)
            turn = threading.Lock()
            thread = threading.Thread(
                target=_run, args=(turn, step, before, call, made), name="train-step"
            )
            self._steps.append(step)
            try:
                thread.start()
            except BaseException:
                if turn.acquire(blocking=False):  # It has not begun, and will not.
                    self._steps.remove(step)
                raise
            return step

    def wait(self) -> None:
        """Wait for all that are in flight."""
        wait([step for step in list(self._steps) if not step.is_parents])

    def _make_room(self) -> None:
        while self._steps:
            oldest = self._steps[0]
            if oldest.is_parents:
                self._steps.clear()
            elif oldest.done() and not oldest.error:
                self._steps.popleft()
            elif any(step.error for step in self._steps):
                wait(self._steps)
                ended, self._steps = self._steps, collections.deque()
                raise_unseen(ended)
            elif len(self._steps) < self.depth:
                return
            else:
                wait([oldest])


def raise_unseen(steps: Iterable[StepInFlight]) -> None:
    """Raise the first error of steps that have ended, unless one was seen."""
    failed = [step for step in steps if step.error]
    if failed and not any(step.seen for step in failed):
        failed[0].result()


def _run(
    turn: threading.Lock,
    step: StepInFlight,
    before: StepInFlight | None,
    call: Call,
    made: Callable[[TrainStep], None],
) -> None:
    """Make a step, and let it end after the one before it.

    Not if somebody else has the `turn`, who gave it up.
    """
    if not turn.acquire(blocking=False):
        return
    try:
        result = _in_turn(step, before, call)
        made(result)
    except BaseException as error:
        step.set_exception(error)
    else:
        step.set_result(result)
    finally:
        step.sent.set()


def _in_turn(step: StepInFlight, before: StepInFlight | None, call: Call) -> TrainStep:
    if before is None:
        return call()
    before.sent.wait()
    _go_on_after(before)
    try:
        return call()
    except StaleVersion:
        step.sent.clear()
        wait([before])
        _go_on_after(before)
        return call()
    finally:
        wait([before])


def _go_on_after(before: StepInFlight) -> None:
    error = before.error
    if error is None:
        return
    first = error.first if isinstance(error, StepNotMade) else error
    refusal = StepNotMade(
        f"the training step was not made, since one before it failed [{first}]"
    )
    refusal.first = first
    raise refusal from first
