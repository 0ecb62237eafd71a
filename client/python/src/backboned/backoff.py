"""Waiting for a busy server: calls that it refused before they began."""

from __future__ import annotations

import random
import time
from typing import Callable, TypeVar

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


def patiently(attempt: Callable[[float], T], timeout: float, retry_timeout: float) -> T:
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
        time.sleep(pause)


def _pause(error: ResourceExhausted) -> float | None:
    """Give the seconds until a repetition; None if it does not help."""
    if error.limit not in AT_THE_DOOR or error.retry_delay is None:
        return None
    return error.retry_delay * random.uniform(1, 1 + _SPREAD)
