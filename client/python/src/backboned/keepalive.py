"""Lets a server hear of this process now and then, while it holds what dies with it.

A server drops a session that made no call for its `session_ttl`, and with it the
unnamed instances: in a lunch break, at a breakpoint, or in a long computation here.
"""

from __future__ import annotations

import threading
import weakref

import grpc
from google.protobuf.message import DecodeError

from backboned import forks
from backboned.channel import CONTROL, Connection
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
        if connection.lives:
            try:
                ttl = _ask_ttl(connection)
            except (grpc.RpcError, DecodeError, ValueError):
                pass  # It is away, or closes: the next call will tell whoever makes it.
        del connection


def _ask_ttl(connection: Connection) -> float:
    """Ask the server how long a session lives, which keeps this one alive: seconds."""
    with forks.GATE:
        raw = connection.call("unary_unary", CONTROL + "GetServer", b"", _ANSWER_S)
    limits = pb.GetServerResponse.FromString(raw).limits
    seconds: float = limits.session_ttl.ToMilliseconds() / 1e3
    return seconds
