"""Calls that carry tensors: which of grpc's call shapes to use, and progress.

On the wire each is a stream of messages both ways. Most are one message each way
though, and grpcio is up to three times faster when it is told so. Hence a small
request goes as a unary one; and once an answer was seen to be a single message, the
next answer to the same call of the same size is received as a unary one.
"""

from __future__ import annotations

import contextlib
import copy
import uuid
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Callable, Optional, TypeVar

from google.protobuf.message import DecodeError, Message

from backboned import stream
from backboned.channel import Channel
from backboned.errors import MalformedAnswer
from backboned.progress import Bar

_AT_ONCE_BYTES = 32 << 10
"""The most bytes that a connection takes at once. Of a longer message grpc says when it
was taken only if it is one of a stream."""

Parts = Sequence[memoryview]
M = TypeVar("M", bound=Message)

Recall = Callable[[Optional[float]], bytes]
"""Asks, in so many seconds, for the answer to a call that was lost. Does not make the
call if it was not made: then raises a `BackbonedError`. Gives the state that the call
left the generator in whose state it was given, if any."""

Recallable = Callable[[Recall], object]
"""Is told, before a call, how to ask for its answer if it is lost."""


def fresh_id() -> str:
    """Make the id of a request, with which it may be repeated: it is applied once."""
    return uuid.uuid4().hex


class Request:
    """A header and the bytes that follow it.

    Parameters
    ----------
    header : protobuf message
        E.g. a `ForwardHeader`.
    parts : sequence of memoryview
        One-dimensional views of format B; they must not change during the call.
    sent : callable, optional
        Called when all of it has been handed to the connection.
    """

    def __init__(
        self,
        header: Message,
        parts: Parts = (),
        sent: Callable[[], None] | None = None,
    ) -> None:
        self._header = header.SerializeToString()
        self._begin(parts, sent)

    def _begin(self, parts: Parts, sent: Callable[[], None] | None) -> None:
        self._parts = parts
        self._sent = sent
        self.total = stream.total_bytes(parts)

    def bare(self) -> Request:
        """Give the same request without its bytes.

        The server answers as it answered the request with this id; one that it has not
        made it refuses, since the bytes are missing, and does not make.
        """
        twin = copy.copy(self)
        twin._begin((), None)
        return twin

    def body(self, bar: Bar) -> tuple[str, Any]:
        """Give grpc's word for the request's shape, and the message or messages."""
        limit = stream.SINGLE_BYTES if self._sent is None else _AT_ONCE_BYTES
        if self.total <= limit:
            message = stream.encode_single(self._header, self._parts)
            self._was_sent()
            return "unary", message
        return "stream", self._messages(bar)

    def _messages(self, bar: Bar) -> Iterator[bytes]:
        sent = 0

        def count(size: int) -> None:
            nonlocal sent
            sent += size
            bar.at(sent, self.total)

        yield from stream.encode_stream(self._header, self._parts, count)
        self._was_sent()

    def _was_sent(self) -> None:
        if self._sent is not None:
            self._sent()


class Query(Request):
    """A request that is a single message without bytes, such as GetParamsRequest."""

    def __init__(self, message: Message) -> None:
        self._message = message.SerializeToString()

    def body(self, bar: Bar) -> tuple[str, Any]:
        """Give the message."""
        return "unary", self._message


def send(
    channel: Channel,
    path: str,
    request: Request,
    answer: Callable[[bytes], M],
    timeout: float | None = None,
) -> M:
    """Send a header and bytes; receive one message, decoded by `answer`.

    The call is safe to repeat: its header has a request id.

    Raises
    ------
    BackbonedError
        If the call fails.
    """

    def attempt(left: float) -> bytes:
        bar = Bar(f"{_name(path)} up", channel.progress)
        try:
            shape, body = request.body(bar)
            return channel.invoke(f"{shape}_unary", path, body, left)
        finally:
            bar.close()

    return decoded(answer, channel.patiently(attempt, timeout))


def exchange(
    channel: Channel,
    path: str,
    request: Request,
    header: Callable[[bytes], M],
    place: Callable[[M], Parts],
    timeout: float | None = None,
    key: Hashable = None,
    repeatable: bool = True,
) -> M:
    """Send a request; receive a header and its bytes.

    Parameters
    ----------
    header : callable
        Decodes the answer's header, e.g. ``ForwardResult.FromString``.
    place : callable
        Gives writable views for the bytes that the header announces.
    key : hashable, optional
        Everything that the number of bytes in the answer depends on.
    repeatable : bool
        Whether the call may be made again whose answer is lost: it changes nothing, or
        its header has a request id.

    Raises
    ------
    BackbonedError
        If the call fails; `MalformedAnswer` if its answer breaks the contract.
    """
    known = channel.connection.one_message_answers

    def attempt(left: float) -> tuple[M, int]:
        up = Bar(f"{_name(path)} up", channel.progress)
        down = Bar(f"{_name(path)} down", channel.progress)

        def receive(messages: Iterable[bytes]) -> tuple[M, int]:
            return stream.receive(
                messages, lambda raw: decoded(header, raw), place, down.at
            )

        try:
            shape, body = request.body(up)
            if key is not None and (path, key) in known:
                return receive((channel.invoke(f"{shape}_unary", path, body, left),))
            messages = channel.stream(f"{shape}_stream", path, body, left)
            with contextlib.closing(messages):
                return receive(messages)
        finally:
            up.close()
            down.close()

    result, count = channel.patiently(attempt, timeout, repeatable)
    if count == 1 and key is not None:
        known.add((path, key))
    return result


def recall(
    channel: Channel,
    path: str,
    request: Request,
    answer: Callable[[bytes], M],
    timeout: float | None = None,
) -> bytes:
    """Ask for the answer, one message, to a request that was lost: a `Recall`."""
    send(channel, path, request.bare(), answer, timeout)
    return b""


def decoded(parse: Callable[[bytes], M], raw: bytes) -> M:
    """Decode a message of the server.

    Raises
    ------
    MalformedAnswer
        If it cannot be decoded.
    """
    try:
        return parse(raw)
    except DecodeError as error:
        raise MalformedAnswer("the server's answer cannot be decoded") from error


def _name(path: str) -> str:
    return path.rsplit("/", 1)[1]
