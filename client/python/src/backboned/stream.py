"""The wire: headers and chunks, encoded and decoded without an extra copy.

Every streaming message of the contract is ``header = 1, chunk = 2`` and a chunk is
``offset = 1, data = 2``. The header goes through protobuf; the chunk, which carries
the bytes, is read and written by hand over `memoryview`. Knows no call and no tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Callable, NamedTuple, TypeVar

from backboned.errors import MalformedAnswer

CHUNK_BYTES = 1 << 20
"""Bytes of data in each message of a long stream."""

SINGLE_BYTES = 2 << 20
"""The most bytes of data that go into one message: the server takes no more."""

T = TypeVar("T")

_LENGTH_DELIMITED = 2
_HEADER_TAG = b"\x0a"
_CHUNK_TAG = b"\x12"
_OFFSET_TAG = b"\x08"
_DATA_TAG = b"\x12"


class Message(NamedTuple):
    """What one message of a stream holds.

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
    header: bytes,
    parts: Sequence[memoryview],
    sent: Callable[[int], None],
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


def decode(message: bytes) -> Message:
    """Take one message of an answer apart; the views point into `message`.

    Raises
    ------
    MalformedAnswer
        If it is not a message of the contract.
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
    return Message(header, offset, data)


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

    Parameters
    ----------
    parts : sequence of memoryview
        Writable one-dimensional views of format B, filled back to back.
    """

    def __init__(self, parts: Sequence[memoryview]) -> None:
        self._parts = [part for part in parts if part.nbytes]
        self.total = total_bytes(self._parts)
        self.received = 0
        self._index = 0
        self._at = 0

    def accept(self, offset: int, data: memoryview) -> None:
        """Copy a chunk's bytes to their place.

        Raises
        ------
        MalformedAnswer
            If the chunk does not start where the last one ended, or runs past the
            end.
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
