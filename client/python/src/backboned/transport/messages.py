"""Calls that carry tensors, and their messages, coded without an extra copy."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Callable, Generic, NamedTuple, Optional, TypeVar

from google.protobuf.message import DecodeError, Message

from backboned.errors import Aborted, MalformedAnswer
from backboned.transport import native
from backboned.transport.channel import Channel
from backboned.transport.traffic import Bar

CHUNK_BYTES = 1 << 20
"""Bytes of data in each message of a long stream."""

SINGLE_BYTES = 2 << 20
"""The most bytes of data that go into one message: the server takes no more."""

T = TypeVar("T")
R = TypeVar("R")

_LENGTH_DELIMITED = 2
_HEADER_TAG = b"\x0a"
_CHUNK_TAG = b"\x12"
_OFFSET_TAG = b"\x08"
_DATA_TAG = b"\x12"


class StreamMessage(NamedTuple):
    """The parts of one message of a stream.

    `header` is None if there is none, and `data` is empty if there is no chunk.
    """

    header: memoryview | None
    offset: int
    data: memoryview


def varint(value: int) -> bytes:
    """Encode a value that is not negative as a protobuf varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_header(header: bytes) -> bytes:
    """Put an encoded header into field 1 of a message."""
    return _HEADER_TAG + varint(len(header)) + header


def chunk_prefix(offset: int, size: int) -> bytes:
    """Encode what stands before the `size` data bytes of a chunk."""
    inner = _OFFSET_TAG + varint(offset) if offset else b""
    inner += _DATA_TAG + varint(size)
    return _CHUNK_TAG + varint(len(inner) + size) + inner


def total_bytes(parts: Iterable[memoryview]) -> int:
    """Add up the sizes of byte views."""
    return sum(part.nbytes for part in parts)


def encode_single(header: bytes, parts: Sequence[memoryview]) -> bytes:
    """Make the only message of a small call: header and all the bytes.

    `parts` are one-dimensional views of format B with at most `SINGLE_BYTES` in all.
    """
    size = total_bytes(parts)
    if not size:
        return encode_header(header)
    return b"".join((encode_header(header), chunk_prefix(0, size), *parts))


def encode_stream(
    header: bytes, parts: Sequence[memoryview], sent: Callable[[int], None]
) -> Iterator[bytes]:
    """Make the messages of a long call: the header, then chunks of the parts' bytes.

    `sent` is called with the number of bytes in each chunk after the transport has
    taken it.
    """
    yield encode_header(header)
    offset = 0
    for pieces in _cut(parts):
        size = total_bytes(pieces)
        yield b"".join((chunk_prefix(offset, size), *pieces))
        offset += size
        sent(size)


def _cut(parts: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    """Group the bytes of `parts`, back to back, into lists of `CHUNK_BYTES`."""
    pieces: list[memoryview] = []
    room = CHUNK_BYTES
    for part in parts:
        begin = 0
        while begin < part.nbytes:
            piece = part[begin : begin + room]
            pieces.append(piece)
            begin += piece.nbytes
            room -= piece.nbytes
            if not room:
                yield pieces
                pieces, room = [], CHUNK_BYTES
    if pieces:
        yield pieces


def decode(message: bytes) -> StreamMessage:
    """Take one message of an answer apart; the views point into `message`.

    Raises MalformedAnswer if it is not a message of the contract.
    """
    view = memoryview(message)
    header = None
    offset, data = 0, view[:0]
    for number, field in _fields(view):
        if number == 1:
            header = _bytes_of(field)
        elif number == 2:
            for inner_number, inner in _fields(_bytes_of(field)):
                if inner_number == 1 and isinstance(inner, int):
                    offset = inner
                elif inner_number == 2:
                    data = _bytes_of(inner)
    return StreamMessage(header, offset, data)


def _bytes_of(field: int | memoryview) -> memoryview:
    if isinstance(field, int):
        raise MalformedAnswer("the answer has a number where bytes belong")
    return field


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Walk over the fields of an encoded message: number, and value or bytes."""
    at = 0
    while at < len(view):
        tag, at = _read_varint(view, at)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            size, at = _read_varint(view, at)
            if size > len(view) - at:
                raise MalformedAnswer(
                    f"the answer's message is cut: {size} bytes announced, "
                    f"{len(view) - at} there"
                )
            yield tag >> 3, view[at : at + size]
            at += size
        elif kind == 0:
            value, at = _read_varint(view, at)
            yield tag >> 3, value
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise MalformedAnswer(f"the answer has a field of the unknown kind {kind}")


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 64:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise MalformedAnswer("the answer's message ends inside a number")


class Receiver:
    """Places the chunks of an answer into memory that the caller provides.

    Not thread-safe; one receiver serves one stream.

    - `parts`: writable one-dimensional views of format B, filled back to back.
    """

    def __init__(self, parts: Sequence[memoryview]) -> None:
        self._parts = [part for part in parts if part.nbytes]
        self.total = total_bytes(self._parts)
        self.received = 0
        self._index = 0
        self._at = 0

    def accept(self, offset: int, data: memoryview) -> None:
        """Copy a chunk's bytes to their place.

        Raises MalformedAnswer if the chunk does not start where the last one ended, or
        runs past the end.
        """
        if not data.nbytes:
            return
        if offset != self.received:
            raise MalformedAnswer(
                f"the answer's chunk starts at byte {offset}, "
                f"expected byte {self.received}"
            )
        if offset + data.nbytes > self.total:
            raise MalformedAnswer(
                f"the answer's chunk ends at byte {offset + data.nbytes}, "
                f"expected at most byte {self.total}"
            )
        self.received += data.nbytes
        while data.nbytes:
            part = self._parts[self._index]
            size = min(data.nbytes, part.nbytes - self._at)
            part[self._at : self._at + size] = data[:size]
            data = data[size:]
            self._at += size
            if self._at == part.nbytes:
                self._index, self._at = self._index + 1, 0

    def finish(self) -> None:
        """Raise MalformedAnswer if bytes are still missing."""
        if self.received != self.total:
            raise MalformedAnswer(
                f"the answer ends at byte {self.received}, expected {self.total} bytes"
            )


def receive(
    messages: Iterable[bytes],
    parse: Callable[[bytes], T],
    place: Callable[[T], Sequence[memoryview]],
    received: Callable[[int, int], None],
) -> tuple[T, int]:
    """Read a whole answer.

    Parameters
    ----------
    messages : iterable of bytes
        The answer's messages.
    parse : callable
        Decodes the header; raises ValueError or protobuf's DecodeError.
    place : callable
        Gives the memory for the bytes that the header announces.
    received : callable
        Told (bytes so far, bytes in all) after each message.

    Returns
    -------
    header, message_count

    Raises
    ------
    MalformedAnswer
        If the answer is not one header and then exactly the announced bytes.
    """
    header: T | None = None
    receiver = Receiver(())
    count = 0
    for raw in messages:
        count += 1
        message = decode(raw)
        if message.header is not None:
            if header is not None:
                raise MalformedAnswer("the answer has a second header")
            header = parse(bytes(message.header))
            receiver = Receiver(place(header))
        elif header is None:
            raise MalformedAnswer("the answer does not begin with a header")
        receiver.accept(message.offset, message.data)
        received(receiver.received, receiver.total)
    if header is None:
        raise MalformedAnswer("the answer is empty")
    receiver.finish()
    return header, count


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
    return os.urandom(16).hex()


class Request:
    """A header and the bytes that follow it.

    - `header`: e.g. a `ForwardHeader`, or its bytes.
    - `parts`: one-dimensional views of format B; they must not change during the call.
    - `sent`: called when all of it has been handed to the connection.
    """

    def __init__(
        self,
        header: Message | bytes,
        parts: Parts = (),
        sent: Callable[[], None] | None = None,
    ) -> None:
        if not isinstance(header, bytes):
            header = header.SerializeToString()
        self._header: bytes = header
        self._begin(parts, sent)

    def _begin(self, parts: Parts, sent: Callable[[], None] | None) -> None:
        self._parts = parts
        self._sent = sent
        self._is_bare = False
        self._begun: native.Call | None = None
        self.total = total_bytes(parts)

    def bare(self) -> Request:
        """Give the same request without its bytes.

        The server answers as it answered the request with this id; one that it has not
        made it refuses, since the bytes are missing, and does not make.
        """
        twin = copy.copy(self)
        twin._begin((), None)
        twin._is_bare = True
        return twin

    def begin(
        self,
        channel: Channel,
        path: str,
        timeout: float | None,
        after: Request | None = None,
    ) -> bool:
        """Begin the call through the channel's stream, so that `call` only waits.

        Says whether it has begun; if not, `call` makes it.

        - `after`: a request that has begun, and must succeed. Its answer must be taken
          before this one's.
        """
        first = None
        if not self._streams(channel):
            return False
        if after is not None:
            first = after._begun
            if first is None:
                return False
        data = (self._header, self._parts)
        self._begun = channel.begin(path, *data, timeout, first)
        return self._begun is not None

    def keep(self) -> None:
        """Send all of a call that has begun; it is made also if nobody waits for it."""
        if self._begun is not None:
            self._begun.stream.keep(self._begun)
            self._begun.flush()

    def _streams(self, channel: Channel) -> bool:
        """Say whether the call may go through a stream.

        A bare request has no end there, nobody knows there when all was sent, and
        there are no bars.
        """
        return not (self._is_bare or self._sent is not None or channel.progress)

    def call(
        self,
        channel: Channel,
        path: str,
        timeout: float,
        place: Callable[[bytes], Parts] | None = None,
    ) -> bytes | None:
        """Make the call through the channel's stream, and give its result.

        Gives None if it must be an RPC of its own.
        """
        if not self._streams(channel):
            return None
        extra = () if place is None else (place,)
        begun, self._begun = self._begun, None
        if begun is not None and not begun.is_parents:
            try:
                return channel.land(path, begun, *extra)
            except Aborted as error:
                # The call before it failed at first, and has succeeded by now.
                if error.reason != "NOT_BEGUN":
                    raise
        return channel.call(path, self._header, self._parts, timeout, *extra)

    def body(self, bar: Bar) -> tuple[str, Any]:
        """Give grpc's word for the request's shape, and the message or messages."""
        limit = SINGLE_BYTES if self._sent is None else _AT_ONCE_BYTES
        if self.total <= limit:
            message = encode_single(self._header, self._parts)
            self._was_sent()
            return "unary", message
        return "stream", self._messages(bar)

    def _messages(self, bar: Bar) -> Iterator[bytes]:
        sent = 0

        def count(size: int) -> None:
            nonlocal sent
            sent += size
            bar.at(sent, self.total)

        yield from encode_stream(self._header, self._parts, count)
        self._was_sent()

    def _was_sent(self) -> None:
        if self._sent is not None:
            self._sent()


class Prepared(Generic[T]):
    """A call that can be sent now, and its answer be taken later.

    - `make`: makes the call, or takes its answer if the request has begun.
    """

    def __init__(
        self,
        channel: Channel,
        path: str,
        request: Request,
        timeout: float | None,
        make: Callable[[], T],
    ) -> None:
        self.request = request
        self.take = make
        self._where = channel, path, request, timeout

    def begin(self, after: Prepared[Any] | None = None) -> bool:
        """Send the call; says whether that was done, as `Request.begin`."""
        first = None if after is None else after.request
        channel, path, _, timeout = self._where
        return self.request.begin(channel, path, timeout, first)

    def then(self, read: Callable[[T], R]) -> Prepared[R]:
        """Give the same call, whose answer is read further."""
        return Prepared(*self._where, lambda: read(self.take()))


class Query(Request):
    """A request that is a single message without bytes, such as GetParamsRequest."""

    def body(self, bar: Bar) -> tuple[str, Any]:
        """Give the message."""
        return "unary", self._header


def send(
    channel: Channel,
    path: str,
    request: Request,
    answer: Callable[[bytes], M],
    timeout: float | None = None,
) -> M:
    """Send a header and bytes; receive one message, decoded by `answer`.

    The call is safe to repeat: its header has a request id.

    Raises BackbonedError if the call fails.
    """

    def attempt(left: float) -> bytes:
        result = request.call(channel, path, left)
        if result is not None:
            return result
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

    - `header`: decodes the answer's header, e.g. ``ForwardResult.FromString``.
    - `place`: gives writable views for the bytes that the header announces.
    - `key`: everything that the number of bytes in the answer depends on.
    - `repeatable`: whether the call may be made again whose answer is lost: it changes
      nothing, or its header has a request id.

    Raises BackbonedError if the call fails; `MalformedAnswer` if its answer breaks the
    contract.
    """
    known = channel.connection.one_message_answers

    def attempt(left: float) -> tuple[M, int]:
        answers: list[M] = []

        def views_of(raw: bytes) -> Parts:
            answers.append(decoded(header, raw))
            return place(answers[0])

        if request.call(channel, path, left, views_of) is not None:
            return answers[0], 0
        up = Bar(f"{_name(path)} up", channel.progress)
        down = Bar(f"{_name(path)} down", channel.progress)

        def received(messages: Iterable[bytes]) -> tuple[M, int]:
            return receive(messages, lambda raw: decoded(header, raw), place, down.at)

        try:
            shape, body = request.body(up)
            if key is not None and (path, key) in known:
                return received((channel.invoke(f"{shape}_unary", path, body, left),))
            messages = channel.stream(f"{shape}_stream", path, body, left)
            with contextlib.closing(messages):
                return received(messages)
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

    Raises MalformedAnswer if it cannot be decoded.
    """
    try:
        return parse(raw)
    except DecodeError as error:
        raise MalformedAnswer("the server's answer cannot be decoded") from error


def _name(path: str) -> str:
    return path.rsplit("/", 1)[1]
