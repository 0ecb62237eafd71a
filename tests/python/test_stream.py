"""The wire against the generated code."""

import numpy as np
import pytest
from backboned.errors import MalformedAnswer
from backboned.transport import messages as stream
from backboned.v1 import backbone_service_pb2 as pb

pytestmark = pytest.mark.transports


def views(*arrays):
    return [memoryview(np.asarray(a, np.uint8)) for a in arrays]


def nothing(*_):
    pass


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**21, 2**32, 2**63 - 1])
def test_chunk_prefix_is_what_protobuf_writes(value):
    prefix = stream.chunk_prefix(value, 3)
    message = pb.SetParamsRequest.FromString(prefix + b"abc")
    assert (message.chunk.offset, message.chunk.data) == (value, b"abc")


def test_single_message_holds_header_and_all_parts():
    header = pb.SetParamsHeader(instance="a").SerializeToString()
    raw = stream.encode_single(header, views([1, 2], [], [3]))
    message = pb.SetParamsRequest.FromString(raw)
    assert message.header.instance == "a"
    assert message.chunk.data == b"\1\2\3"


def test_single_message_without_bytes_has_no_chunk():
    raw = stream.encode_single(b"", views([]))
    message = pb.SetParamsRequest.FromString(raw)
    assert message.HasField("header") and not message.HasField("chunk")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 23])
def test_stream_cuts_the_parts_into_chunks_without_gaps(size, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK_BYTES", 8)
    data = np.arange(size, dtype=np.uint8)
    parts = views(data[:3], data[3:4], data[4:])
    sent = []
    raw = list(stream.encode_stream(b"", parts, sent.append))
    messages = [pb.SetParamsRequest.FromString(message) for message in raw]
    assert [m.HasField("header") for m in messages] == [True] + [False] * -(-size // 8)
    together = b""
    for message in messages[1:]:
        assert message.chunk.offset == len(together)
        assert 0 < len(message.chunk.data) <= 8
        together += message.chunk.data
    assert together == data.tobytes()
    assert sum(sent) == size


def test_decode_reads_what_protobuf_writes():
    message = pb.GetParamsResponse()
    message.header.version.uid = "u"
    message.chunk.offset = 300
    message.chunk.data = b"abc"
    decoded = stream.decode(message.SerializeToString())
    assert pb.GetParamsResult.FromString(bytes(decoded.header)).version.uid == "u"
    assert (decoded.offset, bytes(decoded.data)) == (300, b"abc")


def test_decode_skips_unknown_fields():
    known = pb.GetParamsResponse()
    known.chunk.data = b"abc"
    unknown = b"\x98\x06\x05" + b"\x9d\x06" + b"\0" * 4 + b"\xa2\x06\x02xy"
    assert bytes(stream.decode(unknown + known.SerializeToString()).data) == b"abc"


def test_decode_refuses_a_message_cut_at_any_byte():
    message = pb.GetParamsResponse()
    message.header.version.uid = "uid"
    message.chunk.offset = 300
    message.chunk.data = b"abcdef"
    raw = message.SerializeToString()
    header_end = 2 + message.header.ByteSize()
    for end in range(1, len(raw)):
        if end == header_end:
            continue  # A whole message of its own.
        with pytest.raises(MalformedAnswer):
            stream.decode(raw[:end])


@pytest.mark.parametrize("raw", [b"\x0b", b"\x0c", b"\x0f", b"\x08\x01", b"\xff" * 11])
def test_decode_refuses_what_is_no_message(raw):
    with pytest.raises(MalformedAnswer):
        stream.decode(raw)


def test_receiver_fills_the_parts_back_to_back():
    first, second = bytearray(3), bytearray(4)
    receiver = stream.Receiver([memoryview(first), memoryview(second)])
    receiver.accept(0, memoryview(b"ab"))
    receiver.accept(2, memoryview(b"cdef"))
    receiver.accept(6, memoryview(b"g"))
    receiver.finish()
    assert bytes(first + second) == b"abcdefg"


@pytest.mark.parametrize("offset, size, text", [(3, 1, "expected byte 2"), (1, 1, "1")])
def test_receiver_refuses_gap_and_overlap(offset, size, text):
    receiver = stream.Receiver([memoryview(bytearray(8))])
    receiver.accept(0, memoryview(b"ab"))
    with pytest.raises(MalformedAnswer, match=text):
        receiver.accept(offset, memoryview(b"x" * size))


def test_receiver_refuses_an_overrun():
    receiver = stream.Receiver([memoryview(bytearray(2))])
    with pytest.raises(MalformedAnswer, match="ends at byte 3"):
        receiver.accept(0, memoryview(b"abc"))


def test_receiver_notices_missing_bytes():
    receiver = stream.Receiver([memoryview(bytearray(2))])
    receiver.accept(0, memoryview(b"a"))
    with pytest.raises(MalformedAnswer, match="ends at byte 1, expected 2"):
        receiver.finish()


def receive(messages, size=2):
    target = bytearray(size)
    stream.receive(messages, bytes, lambda _: [memoryview(target)], nothing)
    return bytes(target)


def test_receive_takes_header_and_chunk_together_or_apart():
    together = stream.encode_single(b"h", views([1, 2]))
    apart = stream.encode_stream(b"h", views([1, 2]), nothing)
    assert receive([together]) == receive(apart) == b"\1\2"


@pytest.mark.parametrize(
    "messages, text",
    [
        ([], "empty"),
        ([b""], "does not begin with a header"),
        ([stream.chunk_prefix(0, 2) + b"ab"], "does not begin with a header"),
        ([stream.encode_header(b"h")] * 2, "second header"),
        ([stream.encode_header(b"h")], "expected 2 bytes"),
    ],
)
def test_receive_refuses_what_is_no_answer(messages, text):
    with pytest.raises(MalformedAnswer, match=text):
        receive(messages)
