"""Calls through the front are the calls of the server: bytes, errors, ends."""

import queue
import time
import uuid

import grpc
import numpy as np
import pytest
from backboned.v1 import backbone_service_pb2 as backbone
from backboned.v1 import instance_service_pb2 as instances
from backboned.v1 import tensor_pb2 as tensor
from stand import GET_SERVER, LIMIT_S, reason_of, wait_until, who

BACKBONE = "/backboned.v1.BackboneService/"
INSTANCES = "/backboned.v1.InstanceService/"
CHUNK = 1 << 20


@pytest.fixture
def channel(stand):
    with stand.channel() as made:
        yield made


def create(channel, metadata, benchmark):
    """Make a network; give its name."""
    name = f"net-{uuid.uuid4().hex[:8]}"
    request = instances.CreateInstanceRequest(name=name, benchmark=benchmark, seed=0)
    channel.unary_unary(f"{INSTANCES}CreateInstance")(
        request.SerializeToString(), timeout=LIMIT_S, metadata=metadata
    )
    return name


@pytest.fixture
def net(channel, alice):
    """A perceptron of alice's."""
    return create(channel, alice, "seq-mnist")


def get_params(channel, metadata, net):
    """Give the parameters' bytes."""
    messages = channel.unary_stream(f"{BACKBONE}GetParams")(
        backbone.GetParamsRequest(instance=net).SerializeToString(),
        timeout=LIMIT_S,
        metadata=metadata,
    )
    parts = [backbone.GetParamsResponse.FromString(message) for message in messages]
    return b"".join(part.chunk.data for part in parts)


def upload(net, data):
    """Give the messages of SetParams."""
    spec = tensor.TensorSpec(dtype=tensor.DATA_TYPE_FLOAT32, shape=[len(data) // 4])
    header = backbone.SetParamsHeader(instance=net, spec=spec)
    yield backbone.SetParamsRequest(header=header).SerializeToString()
    for offset in range(0, len(data), CHUNK):
        chunk = tensor.Chunk(offset=offset, data=data[offset : offset + CHUNK])
        yield backbone.SetParamsRequest(chunk=chunk).SerializeToString()


def set_params(channel, metadata, messages):
    channel.stream_unary(f"{BACKBONE}SetParams")(
        messages, timeout=LIMIT_S, metadata=metadata
    )


def test_large_tensors_are_equal_to_the_bit(stand, channel, alice):
    net = create(channel, alice, "seq-cifar10")
    old = get_params(channel, alice, net)
    assert len(old) > 44_000_000
    new = np.random.default_rng(0).bytes(len(old))
    set_params(channel, alice, upload(net, new))
    assert get_params(channel, alice, net) == new
    with stand.admin() as admin:
        assert get_params(admin, (), f"alice/{net}") == new


def test_errors_have_their_details(channel, alice):
    request = instances.GetInstanceRequest(instance="not-there").SerializeToString()
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"{INSTANCES}GetInstance")(
            request, timeout=LIMIT_S, metadata=alice
        )
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert 'no instance "not-there"' in refused.value.details()
    assert reason_of(refused.value) == "ERROR_REASON_INSTANCE_NOT_FOUND"


def calls_of(channel, metadata):
    """Tell how many calls of a caller the server serves, besides this one."""
    answer = channel.unary_unary(GET_SERVER)(b"", timeout=LIMIT_S, metadata=metadata)
    return instances.GetServerResponse.FromString(answer).principal_usage.calls - 1


def open_upload(channel, metadata, net, timeout=None):
    """Begin a SetParams whose last messages wait; give it, its queue and them."""
    parts = upload(net, get_params(channel, metadata, net))
    messages = queue.Queue()
    messages.put(next(parts))
    call = channel.stream_unary(f"{BACKBONE}SetParams").future(
        iter(messages.get, None), timeout=timeout, metadata=metadata
    )
    wait_until(lambda: calls_of(channel, metadata) == 1)
    return call, messages, parts


def test_a_deadline_ends_both_sides(channel, alice, net):
    begin = time.monotonic()
    call, messages, _ = open_upload(channel, alice, net, timeout=2)
    assert call.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert 1.9 < time.monotonic() - begin < 10
    wait_until(lambda: calls_of(channel, alice) == 0)
    messages.put(None)


def test_a_cancelled_call_ends_in_the_server(channel, alice, net):
    call, messages, _ = open_upload(channel, alice, net)
    call.cancel()
    wait_until(lambda: calls_of(channel, alice) == 0)
    messages.put(None)


def test_a_lost_connection_ends_in_the_server(stand, channel, alice, net):
    with stand.channel() as lost:
        _, messages, _ = open_upload(lost, alice, net)
    wait_until(lambda: calls_of(channel, alice) == 0)
    messages.put(None)


def test_one_clients_mistake_ends_no_others_call(stand, channel, alice, bobs, net):
    call, messages, _ = open_upload(channel, alice, net)
    with stand.channel(bobs) as bob:
        for size in (3000, 9000, 70_000):
            who(bob, (("a-big", "b" * size),))
    assert not call.done()
    assert calls_of(channel, alice) == 1
    call.cancel()
    messages.put(None)
