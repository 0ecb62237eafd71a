"""Lets a process fork while it is connected, and its children call on their own.

grpcio survives a fork only if no call is under way: otherwise the child takes bytes
off the parent's connection. So a fork, such as the start of DataLoader workers, waits
for the running calls of other threads, and calls wait for the fork.
"""

from __future__ import annotations

import os
import threading
from typing import Callable

_PATIENCE_S = 30.0


class Gate:
    """Counts the running calls of this process, and closes for a fork.

    A context manager around each call. Thread-safe.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a child where no other thread is left."""
        self._condition = threading.Condition()
        self._running = 0
        self._forking = False

    def __enter__(self) -> None:
        """Begin a call, after a fork that is under way."""
        with self._condition:
            while self._forking:
                self._condition.wait()
            self._running += 1

    def __exit__(self, *_error: object) -> None:
        """End a call."""
        with self._condition:
            self._running -= 1
            if self._forking:
                self._condition.notify_all()

    def close(self) -> None:
        """Wait until no call runs, and let none begin.

        A call that takes longer than half a minute is not waited for.
        """
        with self._condition:
            self._forking = True
            self._condition.wait_for(lambda: self._running == 0, _PATIENCE_S)

    def open(self) -> None:
        """Let calls begin again."""
        with self._condition:
            self._forking = False
            self._condition.notify_all()


GATE = Gate()
"""The process's gate."""

_registered = threading.Lock()


def prepare(in_child: Callable[[], None]) -> None:
    """Make forks wait for calls from now on; `in_child` runs in each child.

    To be called when grpc has registered its own handlers, which it does with the
    first channel: those registered last run first before a fork. Only the first call
    has an effect.
    """
    if not hasattr(os, "register_at_fork") or not _registered.acquire(blocking=False):
        return

    def after_in_child() -> None:
        GATE.reset()
        in_child()

    os.register_at_fork(
        before=GATE.close, after_in_parent=GATE.open, after_in_child=after_in_child
    )
