"""Waiting for a server that is busy, or does not answer."""

from __future__ import annotations

import random
import sys
import time
import traceback
from typing import Callable, Optional, TypeVar

import grpc

from backboned.errors import BackbonedError, ResourceExhausted
from backboned.types import Waiting

RETRY_TIMEOUT_S = 12 * 3600.0
"""A night: what trains on a shared machine outlives that others use it too."""

AT_THE_DOOR = frozenset(
    ("max-calls", "max-queued", "max-queued-by-run", "max-in-flight-bytes")
)
"""Limits that refuse a call before anything of it is done, whatever it is: it may be
made again. They are reached because others are served, not for what the caller keeps.
"""

# So that those who were refused together do not come back together.
_SPREAD = 0.25

# Seconds between two questions whether a server is there again.
_FIRST_PAUSE_S = 0.1
_LAST_PAUSE_S = 5.0

# Seconds between two lines on a terminal.
_QUIET_S = 10.0

# Python's own generator is the program's: a pause must not move it.
_dice = random.SystemRandom()

T = TypeVar("T")


OnWait = Optional[Callable[[Waiting], object]]


def print_waiting(waiting: Waiting) -> None:
    """Say on standard error what a call waits for; an `on_wait` for terminals."""
    print(f"backboned: {waiting}", file=sys.stderr)


class _OnTerminal:
    """Prints on a terminal what calls wait for, now and then."""

    def __init__(self) -> None:
        self._last = -_QUIET_S

    def __call__(self, waiting: Waiting) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._last >= _QUIET_S:
            self._last = now
            print_waiting(waiting)

    def __repr__(self) -> str:
        return "show_waiting"


show_waiting: OnWait = _OnTerminal()
"""The `on_wait` unless another is given: says on standard error, if that is a terminal,
at most every ten seconds what a call waits for."""


class Patience:
    """The time that a silent server is waited for: from the first failure.

    Not thread-safe; one for each call.

    - `seconds`: the whole time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._begin: float | None = None
        self._pause = _FIRST_PAUSE_S

    @property
    def waited(self) -> float:
        """Seconds since the first failure."""
        return 0.0 if self._begin is None else time.monotonic() - self._begin

    def pause(self) -> float | None:
        """Give the seconds until the next attempt; None if the time is over."""
        if self._begin is None:
            self._begin = time.monotonic()
        left = self.seconds - self.waited
        if left <= 0:
            return None
        pause = min(self._pause, left)
        self._pause = min(2 * self._pause, _LAST_PAUSE_S)
        return pause * _dice.uniform(1 - _SPREAD, 1)

    def tired(self, error: BackbonedError) -> BackbonedError:
        """Make the error that says how long was waited."""
        tired = type(error)(
            f"{error.message}; waited {self.seconds:g} s for it to come back",
            error.code,
            error.reason,
        )
        tired.was_waited_for = True
        return tired


def forget_frames(error: BaseException | None) -> None:
    """Let go of the variables of the calls that an error ended.

    An error of grpc's is a variable of its own frames. Such a circle would keep what
    the callers have, a graph of autograd say, until Python's collector comes.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
        if error is not None:
            # Its frames know those that call them, which are under way still.
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = None


def is_absence(error: BackbonedError) -> bool:
    """Say whether nothing answers, or the server shuts down."""
    if error.code == grpc.StatusCode.UNAVAILABLE:
        return True
    return error.code == grpc.StatusCode.CANCELLED and not error.reason


def patiently(
    attempt: Callable[[float], T],
    timeout: float,
    retry_timeout: float,
    on_wait: OnWait = None,
) -> T:
    """Make a call, and again while the server is too busy to begin it.

    Before each repetition passes the time that the server asks for, or a little more.

    - `attempt`: makes the call, in the seconds that it is given.
    - `timeout`: seconds for each attempt.
    - `retry_timeout`: seconds in which it is made again. 0: it is not.
    - `on_wait`: is told before each pause; what it raises ends the call.

    Raises ResourceExhausted: as the server said last, if there is no time left to try
    again.
    """
    begin = time.monotonic()
    while True:
        try:
            return attempt(timeout)
        except ResourceExhausted as error:
            pause = _pause(error)
            waited = time.monotonic() - begin
            if pause is None or waited + pause >= retry_timeout:
                raise
            told = Waiting(
                error.limit,
                error.limit_scope,
                error.requested_value,
                error.limit_value,
                pause,
                waited,
            )
        if on_wait is not None:
            on_wait(told)
        time.sleep(pause)


def _pause(error: ResourceExhausted) -> float | None:
    """Give the seconds until a repetition; None if it does not help."""
    if error.limit not in AT_THE_DOOR or error.retry_delay is None:
        return None
    return error.retry_delay * _dice.uniform(1, 1 + _SPREAD)
