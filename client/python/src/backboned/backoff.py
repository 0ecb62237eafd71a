"""Waiting for a busy server: calls that it refused before they began."""

from __future__ import annotations

import random
import sys
import time
from typing import Callable, NamedTuple, Optional, TypeVar

from backboned.errors import ResourceExhausted

RETRY_TIMEOUT_S = 30.0

AT_THE_DOOR = frozenset(
    ("max-calls", "max-queued", "max-queued-by-run", "max-in-flight-bytes")
)
"""Limits that refuse a call before anything of it is done, whatever it is: it may be
made again. They are reached because others are served, not for what the caller keeps.
"""

# So that those who were refused together do not come back together.
_SPREAD = 0.25

T = TypeVar("T")


class Waiting(NamedTuple):
    """What a call waits for that the server was too busy to begin.

    `limit`, of `scope`, is reached: the call would be number `place` of `limit_value`.
    It is made again after `pause` seconds, and has waited `waited` seconds so far.
    """

    limit: str
    scope: str
    place: int
    limit_value: int
    pause: float
    waited: float

    def __str__(self) -> str:
        """Give a line for people."""
        return (
            f"the server is busy: {self.limit} of the {self.scope or 'server'} is "
            f"{self.limit_value}, this would be {self.place}; again in "
            f"{self.pause:.1f} s"
        )


OnWait = Optional[Callable[[Waiting], object]]


def print_waiting(waiting: Waiting) -> None:
    """Say on standard error what a call waits for; an `on_wait` for terminals."""
    print(f"backboned: {waiting}", file=sys.stderr)


def patiently(
    attempt: Callable[[float], T],
    timeout: float,
    retry_timeout: float,
    on_wait: OnWait = None,
) -> T:
    """Make a call, and again while the server is too busy to begin it.

    Before each repetition passes the time that the server asks for, or a little more.

    Parameters
    ----------
    attempt : callable
        Makes the call, in the seconds that it is given.
    timeout : float
        Seconds for all of it.
    retry_timeout : float
        Seconds in which it is made again. 0: it is not.
    on_wait : callable, optional
        Is told before each pause; what it raises ends the call.

    Raises
    ------
    ResourceExhausted
        As the server said last, if there is no time left to try again.
    """
    begin = time.monotonic()
    patience = min(timeout, retry_timeout)
    while True:
        try:
            return attempt(timeout - (time.monotonic() - begin))
        except ResourceExhausted as error:
            pause = _pause(error)
            waited = time.monotonic() - begin
            if pause is None or waited + pause >= patience:
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
    return error.retry_delay * random.uniform(1, 1 + _SPREAD)
