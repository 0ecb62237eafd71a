"""Tensors as streams of messages: a header, then chunks of the tensors' bytes."""

import math

from backboned.v1.tensor_pb2 import DataType

CHUNK_BYTES = 1 << 20  # The server takes at most 2 MiB.

ELEMENT_BYTES = {
    DataType.DATA_TYPE_FLOAT32: 4,
    DataType.DATA_TYPE_FLOAT64: 8,
    DataType.DATA_TYPE_FLOAT16: 2,
    DataType.DATA_TYPE_BFLOAT16: 2,
    DataType.DATA_TYPE_UINT8: 1,
    DataType.DATA_TYPE_INT64: 8,
}


class StreamError(Exception):
    """An answer is not a header and then exactly the bytes that it announces."""


def send(message_type, header, data):
    """Yield a request's messages: the header with the first chunk, then the others."""
    message = message_type(header=header)
    for offset in range(0, len(data), CHUNK_BYTES):
        message.chunk.offset = offset
        message.chunk.data = data[offset : offset + CHUNK_BYTES]
        yield message
        message = message_type()
    if not data:
        yield message


def receive(messages, specs_of):
    """Read an answer to its end.

    `specs_of` gives the specs of the tensors that a header announces. Returns the
    header, and the tensors' bytes back to back.
    """
    header = None
    pieces = []
    received = expected = 0
    for message in messages:
        if message.HasField("header"):
            header = message.header
            expected = sum(map(size_bytes, specs_of(header)))
        chunk = message.chunk
        if chunk.data and chunk.offset != received:
            raise StreamError(
                f"a chunk starts at byte {chunk.offset}, expected byte {received}"
            )
        pieces.append(chunk.data)
        received += len(chunk.data)
        if received > expected:
            raise StreamError(f"a chunk ends at byte {received} of {expected}")
    if header is None or received < expected:
        raise StreamError(f"the answer ends at byte {received} of {expected}")
    return header, b"".join(pieces)


def size_bytes(spec):
    """Return the number of bytes of a tensor."""
    return math.prod(spec.shape) * ELEMENT_BYTES[spec.dtype]
