"""What nobody refers to any more, and the server still keeps.

A finalizer must not call the server: it runs inside garbage collection, in any
thread, at any time. It only leaves a note on the connection. The next forward takes
the abandoned tapes along, and it, a training step or the next creation deletes the
abandoned instances. In a forked child nothing is noted: its copies are not the
parent's objects.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from typing import Any, TypeVar

from backboned.channel import Channel
from backboned.keepalive import keep_alive

_TAPES_A_CALL = 1000

T = TypeVar("T")


def release_tape_with(
    owner: Any, channel: Channel, tape_id: str
) -> weakref.finalize[Any, Any]:
    """Note the tape as abandoned when `owner` dies.

    Returns
    -------
    weakref.finalize
        Detach it once the tape is used up.
    """
    return _note_when_gone(owner, channel.connection.abandoned_tapes, tape_id)


class Life:
    """Stands for an unnamed instance: shared by all objects that speak for it."""


def begin_life(channel: Channel, address: str, uid: str) -> Life:
    """Note a new unnamed instance as abandoned when its `Life` is over.

    Until then the session that has it is kept alive.
    """
    life = Life()
    connection = channel.connection
    connection.lives[uid] = life
    keep_alive(connection)
    _note_when_gone(life, connection.abandoned_instances, (address, uid))
    return life


def share_life(channel: Channel, uid: str) -> Life | None:
    """Give the `Life` of an instance that this process made, unnamed, if there is."""
    return channel.connection.lives.get(uid)


def _note_when_gone(owner: Any, notes: deque[T], note: T) -> weakref.finalize[Any, Any]:
    finalizer = weakref.finalize(owner, _leave_note, notes, note, os.getpid())
    finalizer.atexit = False
    return finalizer


def _leave_note(notes: deque[T], note: T, pid: int) -> None:
    if os.getpid() == pid:
        notes.append(note)


def take_tapes(channel: Channel) -> list[str]:
    """Take the ids of abandoned tapes off, at most as many as fit a header."""
    return _take(channel.connection.abandoned_tapes, _TAPES_A_CALL)


def put_back_tapes(channel: Channel, tape_ids: list[str]) -> None:
    """Keep ids whose call failed for the next one: unknown ids do no harm."""
    if tape_ids and not channel.closed:
        channel.connection.abandoned_tapes.extend(tape_ids)


def take_instances(channel: Channel) -> list[tuple[str, str]]:
    """Take addresses and uids of abandoned instances off."""
    notes = channel.connection.abandoned_instances
    return _take(notes, len(notes))


def put_back_instances(channel: Channel, notes: list[tuple[str, str]]) -> None:
    """Keep instances that were not deleted for the next time."""
    if notes and not channel.closed:
        channel.connection.abandoned_instances.extend(notes)


def _take(notes: deque[T], limit: int) -> list[T]:
    taken: list[T] = []
    while notes and len(taken) < limit:
        try:
            taken.append(notes.popleft())
        except IndexError:  # Another thread took it.
            break
    return taken
