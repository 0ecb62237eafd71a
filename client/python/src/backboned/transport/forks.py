"""Lets a process fork while it is connected, and its children call on their own.

grpcio survives a fork only if no call is under way: otherwise the child takes bytes
off the parent's connection. So a fork, such as the start of DataLoader workers, waits
for the running calls of other threads, and calls wait for the fork.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any, Callable

# Before grpc is loaded: DataLoader workers fork while the channel is open.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")

_PATIENCE_S = 30.0
_PAUSE_S = 0.001


class Gate:
    """Knows the threads that make a call, and closes for a fork.

    A context manager around each call. Thread-safe, and without a lock: Ctrl-C may
    end any of its methods at any instant. A thread that never left its last call, since
    it was interrupted there, counts until its next call ends, but not for a fork of its
    own.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a child where no other thread is left."""
        self._running: set[int] = set()
        self._forking = False

    def __enter__(self) -> None:
        """Begin a call, after a fork that is under way."""
        me = threading.get_ident()
        self._running.add(me)
        while self._forking:
            self._running.discard(me)
            time.sleep(_PAUSE_S)
            self._running.add(me)

    def __exit__(self, *_error: object) -> None:
        """End a call."""
        self._running.discard(threading.get_ident())

    def close(self) -> None:
        """Wait until no other thread makes a call, and let none begin.

        A call that takes longer than half a minute is not waited for.
        """
        self._forking = True
        me = {threading.get_ident()}
        end = time.monotonic() + _PATIENCE_S
        while not self._running <= me and time.monotonic() < end:
            time.sleep(_PAUSE_S)

    def open(self) -> None:
        """Let calls begin again."""
        self._forking = False


GATE = Gate()
"""The process's gate."""

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_registered = threading.Lock()


def lock() -> threading.Lock:
    """Make a lock that is free in a child, whichever thread held it at the fork."""
    made = threading.Lock()
    _locks.add(made)
    return made


def rlock() -> threading.RLock:
    """Make such a lock that its owner may take again."""
    made = threading.RLock()
    _locks.add(made)
    return made


_in_child = False


def is_child() -> bool:
    """Say whether this process was forked by one that was connected."""
    return _in_child


def prepare(in_child: Callable[[], None]) -> None:
    """Make forks wait for calls from now on; `in_child` runs in each child.

    To be called when grpc has registered its own handlers, which it does with the
    first channel: those registered last run first before a fork. Only the first call
    has an effect.
    """
    if not hasattr(os, "register_at_fork") or not _registered.acquire(blocking=False):
        return

    def after_in_child() -> None:
        global _in_child
        _in_child = True
        GATE.reset()
        _free_locks()
        in_child()

    os.register_at_fork(
        before=GATE.close, after_in_parent=GATE.open, after_in_child=after_in_child
    )


def _free_locks() -> None:
    """Free the locks of threads that are not in this child."""
    for each in list(_locks):
        if not getattr(each, "_is_owned", bool)():
            each._at_fork_reinit()
