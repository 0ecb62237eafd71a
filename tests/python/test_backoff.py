"""Calls that a busy server refuses are made again, for a while."""

import time

import backboned
import grpc
import pytest
from backboned.transport import retries
from backboned.transport.channel import CONTROL
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import error_pb2, tensor_pb2
from fake_server import fake_instance, flat_spec, message_of, numbers, scripted_server

pytestmark = pytest.mark.transports


@pytest.fixture
def script_and_channel():
    with scripted_server() as pair:
        yield pair


@pytest.fixture
def pauses(monkeypatch):
    """Collects the seconds that would be slept, and passes them at once."""
    slept = []
    clock = time.monotonic
    monkeypatch.setattr(retries.time, "sleep", slept.append)
    monkeypatch.setattr(retries.time, "monotonic", lambda: clock() + sum(slept))
    return slept


def refuse(script, method, times, answer, limit="max-queued", delay_ms=400):
    """Refuse a method's first calls, and then answer it."""
    refusals = iter(range(times))

    def run(received, context):
        if next(refusals, None) is None:
            yield from answer
            return
        detail = error_pb2.ErrorDetail(
            reason=error_pb2.ERROR_REASON_LIMIT_REACHED,
            limit=limit,
            limit_value=3,
            requested_value=4,
            scope=error_pb2.LIMIT_SCOPE_RUN,
        )
        if delay_ms:
            detail.retry_delay.FromMilliseconds(delay_ms)
        status = error_pb2.StatusDetails(code=8)
        status.details.add().Pack(detail)
        details = status.SerializeToString()
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much waits")

    script.answers[method] = run


def forward_answer():
    header = pb.ForwardResult()
    header.outputs.add(name="out", dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1])
    return [message_of(pb.ForwardResponse, header, 0, b"1234")]


def set_answer():
    return [pb.SetParamsResponse().SerializeToString()]


def test_a_refused_forward_is_made_again_after_the_delay(script_and_channel, pauses):
    script, channel = script_and_channel
    refuse(script, "Forward", 3, forward_answer())
    fake_instance(channel).forward(numbers(2))
    assert len(script.requests) == 4
    assert len(pauses) == 3
    assert all(0.4 <= seconds <= 0.5 for seconds in pauses)


def test_a_long_upload_is_sent_again_from_its_beginning(script_and_channel, pauses):
    script, channel = script_and_channel
    refuse(script, "SetParams", 1, set_answer(), limit="max-in-flight-bytes")
    count = 1 << 20
    values = numbers(count)
    fake_instance(channel, count).set_params(values)
    for _, messages in script.requests:
        chunks = [pb.SetParamsRequest.FromString(m).chunk.data for m in messages]
        assert b"".join(chunks) == values.tobytes()
    assert len(script.requests) == 2


def test_an_answer_of_several_messages_is_asked_for_again(script_and_channel, pauses):
    script, channel = script_and_channel
    header = pb.GetParamsResult(spec=flat_spec(4))
    answer = [
        message_of(pb.GetParamsResponse, header),
        message_of(pb.GetParamsResponse, None, 0, numbers(4).tobytes()),
    ]
    refuse(script, "GetParams", 1, answer, limit="max-calls")
    assert fake_instance(channel).get_params().tolist() == [0, 1, 2, 3]


def test_a_single_message_is_sent_again(script_and_channel, pauses):
    script, channel = script_and_channel
    refuse(script, "GetServer", 2, [b""], limit="max-calls")
    assert channel.unary(CONTROL + "GetServer", b"") == b""
    assert len(pauses) == 2


def test_who_asks_is_told_place_and_wait(script_and_channel, pauses, capsys):
    script, channel = script_and_channel
    told = []
    channel.on_wait = told.append
    refuse(script, "Forward", 2, forward_answer(), limit="max-queued-by-run")
    fake_instance(channel).forward(numbers(2))
    first, second = told
    assert first[:4] == ("max-queued-by-run", "run", 4, 3)
    assert [each.pause for each in told] == pauses
    assert first.waited < 0.4 <= second.waited
    backboned.print_waiting(first)
    assert capsys.readouterr().err == (
        "backboned: the server is busy: max-queued-by-run of the run is 3, this would "
        f"be 4; again in {first.pause:.1f} s\n"
    )


def test_what_on_wait_raises_ends_the_call(script_and_channel, pauses):
    script, channel = script_and_channel

    def impatient(waiting):
        raise KeyboardInterrupt

    channel.on_wait = impatient
    refuse(script, "Forward", 2, forward_answer())
    with pytest.raises(KeyboardInterrupt):
        fake_instance(channel).forward(numbers(2))
    assert len(script.requests) == 1


def test_it_gives_up_after_the_retry_timeout(script_and_channel, pauses):
    script, channel = script_and_channel
    channel.retry_timeout = 1.5
    refuse(script, "Forward", 100, forward_answer())
    with pytest.raises(
        backboned.errors.ResourceExhausted, match="too much waits"
    ) as caught:
        fake_instance(channel).forward(numbers(2))
    assert caught.value.limit == "max-queued"
    assert len(script.requests) == len(pauses) + 1
    assert 2 <= len(pauses) <= 3
    assert sum(pauses) < 1.5


def test_it_gives_up_at_the_calls_own_timeout(script_and_channel, pauses):
    script, channel = script_and_channel
    refuse(script, "Forward", 100, forward_answer())
    with pytest.raises(backboned.errors.ResourceExhausted):
        fake_instance(channel).forward(numbers(2), timeout=1.0)
    assert sum(pauses) < 1.0


def test_without_retry_timeout_it_is_made_once(script_and_channel, pauses):
    script, channel = script_and_channel
    channel.retry_timeout = 0.0
    refuse(script, "Forward", 1, forward_answer())
    with pytest.raises(backboned.errors.ResourceExhausted):
        fake_instance(channel).forward(numbers(2))
    assert pauses == []


@pytest.mark.parametrize(
    ("limit", "delay_ms"),
    [
        ("max-queued", 0),  # A repetition does not help.
        ("max-tapes", 400),  # Only the caller can make room.
        ("max-memory-bytes", 400),  # It may have begun.
        ("", 400),
    ],
)
def test_what_may_have_begun_or_stays_refused_is_made_once(
    script_and_channel, pauses, limit, delay_ms
):
    script, channel = script_and_channel
    refuse(script, "Forward", 1, forward_answer(), limit, delay_ms)
    with pytest.raises(backboned.errors.ResourceExhausted):
        fake_instance(channel).forward(numbers(2))
    assert len(script.requests) == 1
    assert pauses == []


def test_a_real_queue_that_is_full_is_waited_for(start):
    import threading

    server = start(instances=["seq-cifar10"], options=["--max-queued", "1"])
    net = server.instance("seq-cifar10", module=False)
    x = numbers(2 * 3 * 32 * 32).reshape(2, 3, 32, 32) / 6144
    expected = net.forward(x).out.tobytes()
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(net.forward(x).out.tobytes()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [expected] * 8
