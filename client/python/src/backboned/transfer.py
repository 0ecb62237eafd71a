"""Calls that carry tensors: which of grpc's call shapes to use, and progress.

On the wire each is a stream of messages both ways. Most are one message each way
though, and grpcio is up to three times faster when it is told so. Hence a small
request goes as a unary one; and once an answer was seen to be a single message, the
next answer to the same call of the same size is received as a unary one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Callable, TypeVar

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
        self._parts = parts
        self._sent = sent
        self.total = stream.total_bytes(parts)

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

    result, count = channel.patiently(attempt, timeout)
    if count == 1 and key is not None:
        known.add((path, key))
    return result


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
