"""The server in which a network lives: whether it is there, and still the same."""

from __future__ import annotations

import time

import grpc

from backboned.channel import CONTROL, Channel
from backboned.describe import ServerInfo, read_server
from backboned.errors import (
    BackbonedError,
    Cancelled,
    DeadlineExceeded,
    Unavailable,
)
from backboned.handle import Handle
from backboned.traffic import Meter
from backboned.transfer import decoded
from backboned.v1 import instance_service_pb2 as pb

_PAUSE_S = 0.1
_ANSWER_S = 5.0

# What calls report that find another server, in which the instance or tape is not.
_STRANGE = {"INSTANCE_NOT_FOUND", "STALE_VERSION", "TAPE_NOT_FOUND"}


class Patience:
    """How long a call that fails is made again: counted from its first failure.

    Not thread-safe; one for each call.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end: float | None = None

    @property
    def seconds(self) -> float:
        """The whole time."""
        return self._seconds

    @property
    def has_begun(self) -> bool:
        """Whether the call has failed before."""
        return self._end is not None

    def is_over(self) -> bool:
        """Whether the time is over; it begins with the first question."""
        now = time.monotonic()
        if self._end is None:
            self._end = now + self._seconds
        return now >= self._end


class Home:
    """The server that has an instance, as it was when it was last asked.

    Thread-safe.

    Parameters
    ----------
    channel : Channel
        To that server. What is asked here is not counted as the network's traffic.

    Attributes
    ----------
    info : ServerInfo
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel.metered(Meter())
        self.info = self._ask(None)

    def _ask(self, timeout: float | None) -> ServerInfo:
        request = pb.GetServerRequest().SerializeToString()
        raw = self._channel.unary(CONTROL + "GetServer", request, timeout)
        return read_server(decoded(pb.GetServerResponse.FromString, raw))

    def was_restarted(self, error: BackbonedError) -> bool:
        """Whether a call failed since the server is not the one that it was."""
        if error.reason not in _STRANGE:
            return False
        try:
            return self._ask(_ANSWER_S).server_uid != self.info.server_uid
        except BackbonedError:
            return False

    def await_again(self, error: BackbonedError, patience: Patience) -> ServerInfo:
        """Wait until the server is there, after a call that failed for its absence.

        Raises
        ------
        BackbonedError
            `error` if it says something else, or if the server stays away.
        """
        absent = is_absence(error)
        if not absent and not self.was_restarted(error):
            raise error
        if patience.has_begun:
            time.sleep(_PAUSE_S)
        while True:
            over = patience.is_over()
            if absent and (over or self._is_gone_for_good()):
                raise _tired(error, patience) if over and patience.seconds else error
            try:
                return self._ask(_ANSWER_S)
            except (Unavailable, Cancelled, DeadlineExceeded) as again:
                absent, error = True, again
            time.sleep(_PAUSE_S)

    def _is_gone_for_good(self) -> bool:
        """Whether nobody can come back: closed, or our own server that has ended."""
        return self._channel.closed or bool(self._channel.explain())


def home_of(handle: Handle) -> Home:
    """Give the server of an instance; asked for with the first question."""
    if handle.home is None:
        handle.home = Home(handle.channel)
    return handle.home


def is_absence(error: BackbonedError) -> bool:
    """Whether nothing answers, or the server shuts down."""
    if error.code == grpc.StatusCode.UNAVAILABLE:
        return True
    return error.code == grpc.StatusCode.CANCELLED and not error.reason


def _tired(error: BackbonedError, patience: Patience) -> BackbonedError:
    return type(error)(
        f"{error.message}; waited {patience.seconds:g} s for it to come back",
        error.code,
        error.reason,
    )
