"""Broken requests: a clear error at once, nothing changed, the next call served."""

import threading
import time

import backboned
import numpy as np
import pytest
from backboned.transport import messages
from backboned.transport.channel import CONTROL, DATA
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import tensor_pb2

ELEMENTS = 89610
BYTES = 4 * ELEMENTS


@pytest.fixture
def unchanged(mlp):
    """An instance that must be as before at the test's end, and serve."""
    before = mlp.info(digest=True)
    yield mlp
    after = mlp.info(digest=True)
    assert (after.version, after.digest) == (before.version, before.digest)
    assert mlp.forward(np.zeros((1, 1, 28, 28), np.float32)).out.shape == (1, 10)


def header(instance, shape=(ELEMENTS,), dtype=tensor_pb2.DATA_TYPE_FLOAT32):
    return pb.SetParamsHeader(
        instance=instance.address,
        spec=tensor_pb2.TensorSpec(dtype=dtype, shape=shape),
    )


def first(head, offset=0, data=None):
    message = pb.SetParamsRequest(header=head)
    if data is not None:
        message.chunk.offset, message.chunk.data = offset, data
    return message.SerializeToString()


def chunk(offset, data):
    return messages.chunk_prefix(offset, len(data)) + data


def send(instance, messages, method="SetParams", timeout=20):
    return instance.channel.invoke(
        "stream_unary", DATA + method, iter(messages), timeout
    )


def assert_refused(instance, messages, text, reason="MALFORMED_STREAM"):
    begin = time.monotonic()
    with pytest.raises(backboned.errors.InvalidArgument, match=text) as caught:
        send(instance, messages)
    assert caught.value.reason == reason
    assert time.monotonic() - begin < 10


def test_no_message_at_all(unchanged):
    assert_refused(unchanged, [], "header")


def test_no_header(unchanged):
    assert_refused(unchanged, [chunk(0, bytes(8))], "header")


def test_second_header(unchanged):
    head = header(unchanged)
    assert_refused(unchanged, [first(head, 0, bytes(8)), first(head)], "header")


@pytest.mark.parametrize("sent", [0, 1, 1000, BYTES - 1])
def test_truncated_stream_names_the_byte(unchanged, sent):
    messages = [first(header(unchanged))]
    if sent:
        messages.append(chunk(0, bytes(sent)))
    assert_refused(unchanged, messages, f"{sent}.*{BYTES}|{BYTES}.*{sent}")


def test_gap_and_overlap_name_both_bytes(unchanged):
    head = first(header(unchanged), 0, bytes(16))
    for offset in (20, 12, 0):
        text = f"chunk starts at byte {offset}, expected byte 16"
        assert_refused(unchanged, [head, chunk(offset, bytes(4))], text)


def test_overlong_stream_names_the_byte(unchanged):
    messages = [first(header(unchanged), 0, bytes(BYTES)), chunk(BYTES, bytes(4))]
    assert_refused(unchanged, messages, str(BYTES + 4))


@pytest.mark.parametrize(
    "garbage", [b"\xff\xff\xff", b"\x12\x7f", b"\x0b", b"\x12\x01\xff"]
)
def test_undecodable_message(unchanged, garbage):
    head = first(header(unchanged), 0, bytes(16))
    assert_refused(unchanged, [garbage], "decode")
    assert_refused(unchanged, [head, garbage], "decode")


def test_oversized_chunk(unchanged):
    message = chunk(0, bytes((2 << 20) + 1))
    assert_refused(unchanged, [first(header(unchanged)), message], "2097152")


def test_oversized_message(unchanged, server):
    import grpc
    from backboned.transport.channel import Channel

    wide = grpc.insecure_channel(
        server.target, options=[("grpc.max_send_message_length", -1)]
    )
    call = wide.stream_unary(DATA + "SetParams")
    with pytest.raises(grpc.RpcError) as caught:
        call(iter([first(header(unchanged)), bytes(5 << 20)]), timeout=20)
    assert caught.value.code() in (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INVALID_ARGUMENT,
    )
    wide.close()
    assert isinstance(unchanged.channel, Channel)


@pytest.mark.parametrize(
    "shape",
    [(1 << 40,), (1 << 62, 4), (-1,), (1 << 31, 1 << 31, 1 << 31), (1,) * 100],
)
def test_huge_and_negative_shapes(unchanged, shape):
    messages = [first(header(unchanged, shape))]
    assert_refused(unchanged, messages, "shape|dimension", "SHAPE_MISMATCH")


def test_huge_inputs_allocate_nothing(unchanged):
    spec = tensor_pb2.TensorSpec(
        dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1 << 30, 1, 28, 28]
    )
    head = pb.ForwardHeader(instance=unchanged.address, inputs=[spec])
    message = pb.ForwardRequest(header=head).SerializeToString()
    with pytest.raises(backboned.errors.ResourceExhausted) as caught:
        send(unchanged, [message], "Forward")
    assert caught.value.limit == "max-in-flight-bytes"


@pytest.mark.parametrize(
    "dtype", [tensor_pb2.DATA_TYPE_UINT8, tensor_pb2.DATA_TYPE_INT64, 0, 99]
)
def test_wrong_element_type(unchanged, dtype):
    messages = [first(header(unchanged, dtype=dtype))]
    assert_refused(unchanged, messages, "expected float32", "DTYPE_MISMATCH")


@pytest.mark.parametrize("method", ["GetParams", "GetBuffers", "ReleaseTapes"])
def test_undecodable_request_of_one_message(unchanged, method):
    with pytest.raises(backboned.errors.InvalidArgument, match="decode"):
        unchanged.channel.unary(DATA + method, b"\xff\xff\xff")


def test_undecodable_control_request(unchanged):
    with pytest.raises(backboned.BackbonedError):
        unchanged.channel.unary(CONTROL + "GetInstance", b"\xff\xff\xff")


def test_bad_request_id(unchanged):
    for request_id in ("a b", "x" * 65, "ä"):
        with pytest.raises(backboned.errors.InvalidArgument, match="request_id"):
            unchanged.set_params(np.zeros(ELEMENTS), request_id=request_id)


def test_client_that_goes_away(unchanged):
    """The call is cancelled in the middle: the connection or the program is gone."""
    sending = threading.Event()
    release = threading.Event()

    def messages():
        yield first(header(unchanged), 0, bytes(1 << 16))
        sending.set()
        release.wait(10)

    connection = unchanged.channel.connection
    method = connection._wire.method("stream_unary", DATA + "SetParams")
    call = method.future(messages(), timeout=30)
    assert sending.wait(10)
    call.cancel()
    release.set()


def test_client_that_stalls(start):
    server = start(options=["--stall-timeout=1s"])
    instance = server.create("seq-mnist", module=False)
    release = threading.Event()

    def messages():
        yield first(header(instance), 0, bytes(1 << 16))
        release.wait(20)

    begin = time.monotonic()
    with pytest.raises(
        (backboned.errors.DeadlineExceeded, backboned.errors.Cancelled)
    ) as caught:
        send(instance, messages(), timeout=20)
    assert time.monotonic() - begin < 10
    # Where the server must cancel the call, gRPC drops the details.
    assert caught.value.reason in ("CLIENT_STALLED", "")
    release.set()
    assert instance.version == instance.info().version
    instance.set_params(np.zeros(ELEMENTS))


def test_client_that_trickles_holds_nobody_up(start):
    server = start(options=["--stall-timeout=30s"])
    slow = server.create("seq-mnist", module=False)
    release = threading.Event()

    def messages():
        yield first(header(slow), 0, bytes(4))
        release.wait(20)

    thread = threading.Thread(
        target=lambda: pytest.raises(
            backboned.BackbonedError, send, slow, messages(), timeout=20
        )
    )
    thread.start()
    begin = time.monotonic()
    slow.set_params(np.ones(ELEMENTS))
    assert (slow.get_params() == 1).all()
    assert time.monotonic() - begin < 10
    release.set()
    thread.join()
    assert (slow.get_params() == 1).all()
