"""Knows what a session holds in the server: kept while it is used, given up after."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from backboned.errors import BackbonedError
from backboned.transport import forks
from backboned.transport.channel import CONTROL, Channel
from backboned.transport.connection import Connection
from backboned.v1 import instance_service_pb2 as pb

_ANSWER_S = 5.0
_PARTS = 3
# Of a server that did not say its own yet: the shortest that is of use.
_FIRST_TTL_S = 6.0
_MAX_PERIOD_S = 3600.0


def keep_alive(connection: Connection) -> None:
    """Call the server three times in a session's life, in a thread of its own.

    Only while there are unnamed instances of this process. The thread ends with the
    connection, which it does not keep. Only the first call has an effect.
    """
    if connection.keeper is not None:
        return
    ended = threading.Event()
    finalizer = weakref.finalize(connection, ended.set)
    finalizer.atexit = False
    connection.keeper = threading.Thread(
        target=_run,
        args=(weakref.ref(connection), ended),
        name="backboned-keepalive",
        daemon=True,
    )
    connection.keeper.start()


def _run(reference: weakref.ref[Connection], ended: threading.Event) -> None:
    ttl = _FIRST_TTL_S
    while not ended.wait(min(ttl / _PARTS, _MAX_PERIOD_S)):
        connection = reference()
        if connection is None or connection.closed:
            return
        if connection.guards:
            try:
                ttl = _ask_ttl(connection)
            except (grpc.RpcError, DecodeError, ValueError, BackbonedError):
                pass  # It is away, or closes: the next call will tell whoever makes it.
        del connection


def _ask_ttl(connection: Connection) -> float:
    """Ask the server how long a session lives, which keeps this one alive: seconds."""
    with forks.GATE:
        raw = connection.call("unary_unary", CONTROL + "GetServer", b"", _ANSWER_S)
    limits = pb.GetServerResponse.FromString(raw).limits
    seconds: float = limits.session_ttl.ToMilliseconds() / 1e3
    return seconds


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


class InstanceGuard:
    """Stands for an unnamed instance: shared by all objects that speak for it."""


def guard(channel: Channel, address: str, uid: str) -> InstanceGuard:
    """Note a new unnamed instance as abandoned when its guard dies.

    Until then the session that has it is kept alive.
    """
    made = InstanceGuard()
    connection = channel.connection
    connection.guards[uid] = made
    keep_alive(connection)
    _note_when_gone(made, connection.abandoned_instances, (address, uid))
    return made


def share_guard(channel: Channel, uid: str) -> InstanceGuard | None:
    """Give the guard of an instance that this process made, unnamed, if there is."""
    return channel.connection.guards.get(uid)


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
