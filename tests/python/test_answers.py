"""Tests what the client makes of answers that a sound server never gives."""

import gc
import os
import signal
import threading

import backboned
import grpc
import numpy as np
import pytest
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import error_pb2, instance_pb2, tensor_pb2
from fake_server import (
    fake_instance,
    flat_spec,
    message_of,
    numbers,
    scripted_server,
)

pytestmark = pytest.mark.transports


@pytest.fixture
def fake():
    with scripted_server() as (script, channel):
        yield script, fake_instance(channel)


def params_answer(count=4, data=None, header=None, offset=0):
    header = header or pb.GetParamsResult(
        version=instance_pb2.Version(uid="u", params=1), spec=flat_spec(count)
    )
    data = numbers(4).tobytes() if data is None else data
    return [message_of(pb.GetParamsResponse, header, offset, data)]


def answer_with(script, method, messages):
    script.answers[method] = lambda _requests, _context: messages


def test_a_sound_answer_is_read(fake):
    script, instance = fake
    answer_with(script, "GetParams", params_answer())
    assert np.array_equal(instance.get_params(), numbers(4))
    assert instance.version.params == 1


def test_a_known_answer_is_received_as_one_message(fake):
    script, instance = fake
    answer_with(script, "GetParams", params_answer())
    for _ in range(3):
        assert np.array_equal(instance.get_params(), numbers(4))


def test_of_an_answer_that_broke_off_the_second_one_counts(fake):
    script, instance = fake
    script.answers["GetServer"] = lambda _requests, _context: [b""]
    calls = []

    def breaks_off_once(_requests, context):
        calls.append(1)
        if len(calls) > 1:
            yield from params_answer()
        else:
            yield from params_answer(data=b"\xff" * 8)
            context.abort(grpc.StatusCode.UNAVAILABLE, "")

    script.answers["GetParams"] = breaks_off_once
    assert np.array_equal(instance.get_params(), numbers(4))
    assert len(calls) == 2


def test_many_messages_make_one_tensor(fake):
    script, instance = fake
    head = message_of(
        pb.GetParamsResponse, pb.GetParamsResult(spec=flat_spec(4)), 0, b""
    )
    raw = numbers(4).tobytes()
    pieces = [
        message_of(pb.GetParamsResponse, None, at, raw[at : at + 3])
        for at in range(0, 16, 3)
    ]
    answer_with(script, "GetParams", [head, *pieces])
    for _ in range(2):
        assert np.array_equal(instance.get_params(), numbers(4))


@pytest.mark.parametrize(
    "messages, text",
    [
        ([], "empty"),
        (params_answer(data=b"abc"), "ends at byte 3, expected 16 bytes"),
        (params_answer(data=b"a" * 17), "ends at byte 17"),
        (params_answer(offset=4), "starts at byte 4, expected byte 0"),
        (params_answer() * 2, "second header"),
        ([b"\x0a\x02\xff\xff"], "cannot be decoded"),
        ([b"\xff\xff\xff"], "ends inside a number"),
        (params_answer(count=-1), "shape"),
        (params_answer(count=1 << 50), "shape"),
        (
            params_answer(
                header=pb.GetParamsResult(
                    spec=tensor_pb2.TensorSpec(
                        dtype=tensor_pb2.DATA_TYPE_INT64, shape=[2]
                    )
                )
            ),
            "floating-point elements of the unknown type 6",
        ),
    ],
)
def test_a_broken_answer_is_refused(fake, messages, text):
    script, instance = fake
    answer_with(script, "GetParams", messages)
    with pytest.raises(backboned.errors.MalformedAnswer, match=text):
        instance.get_params()


def test_a_unary_answer_that_cannot_be_decoded_is_refused(fake):
    script, instance = fake
    answer_with(script, "SetParams", [b"\xff\xff"])
    with pytest.raises(backboned.errors.MalformedAnswer, match="decoded"):
        instance.set_params(numbers(4))


def test_gradients_that_do_not_fit_the_layout_are_refused(fake):
    script, instance = fake
    for present, count, text in (
        ([True], 4, "of 1 parameters"),
        ([True, False], 4, "expected 3"),
    ):
        header = pb.BackwardResult()
        header.grads.spec.CopyFrom(flat_spec(count))
        header.grads.present.extend(present)
        message = message_of(pb.BackwardResponse, header, 0, bytes(4 * count))
        answer_with(script, "Backward", [message])
        with pytest.raises(backboned.errors.MalformedAnswer, match=text):
            instance.backward({"t": {"out": numbers(2)}})


def test_unknown_element_type_is_refused(fake):
    script, instance = fake
    header = pb.ForwardResult()
    header.outputs.add(name="out", dtype=77, shape=[1])
    answer_with(script, "Forward", [message_of(pb.ForwardResponse, header, 0, b"ab")])
    with pytest.raises(backboned.errors.MalformedAnswer, match="unknown type 77"):
        instance.forward(numbers(2))


def fail_with(script, method, code, detail=None, trailer=None):
    def answer(_requests, context):
        if detail is not None:
            status = error_pb2.StatusDetails(code=code.value[0])
            status.details.add().Pack(detail)
            raw = status.SerializeToString()
            context.set_trailing_metadata((("grpc-status-details-bin", raw),))
        if trailer is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", trailer),))
        context.abort(code, "the sentence")

    script.answers[method] = answer


def test_an_error_carries_code_reason_limit_and_delay(fake):
    import grpc

    script, instance = fake
    detail = error_pb2.ErrorDetail(
        reason=error_pb2.ERROR_REASON_LIMIT_REACHED,
        limit="max-tapes",
        limit_value=8,
        requested_value=9,
    )
    detail.retry_delay.FromMilliseconds(1500)
    fail_with(script, "Forward", grpc.StatusCode.RESOURCE_EXHAUSTED, detail)
    with pytest.raises(backboned.errors.ResourceExhausted) as caught:
        instance.forward(numbers(2))
    error = caught.value
    assert (error.code, error.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "LIMIT_REACHED",
    )
    assert (error.limit, error.limit_value, error.requested_value) == (
        "max-tapes",
        8,
        9,
    )
    assert error.retry_delay == 1.5
    assert error.message == "the sentence"
    assert str(error) == "the sentence (RESOURCE_EXHAUSTED, LIMIT_REACHED)"


@pytest.mark.parametrize("trailer", [b"\xff\xff\xff", b"", b"\x1a\x02\x0a\x00"])
def test_broken_or_missing_details_leave_the_code(fake, trailer):
    import grpc

    script, instance = fake
    fail_with(script, "GetParams", grpc.StatusCode.NOT_FOUND, trailer=trailer)
    with pytest.raises(backboned.errors.NotFound, match="the sentence") as caught:
        instance.get_params()
    assert caught.value.reason == ""


def test_a_reason_of_a_newer_server_stays_a_number(fake):
    import grpc

    script, instance = fake
    fail_with(
        script, "GetParams", grpc.StatusCode.ABORTED, error_pb2.ErrorDetail(reason=77)
    )
    with pytest.raises(backboned.errors.Aborted) as caught:
        instance.get_params()
    assert caught.value.reason == "77"


def test_a_stale_version_has_its_own_class(fake):
    import grpc

    script, instance = fake
    detail = error_pb2.ErrorDetail(reason=error_pb2.ERROR_REASON_STALE_VERSION)
    fail_with(script, "GetParams", grpc.StatusCode.ABORTED, detail)
    with pytest.raises(backboned.errors.StaleVersion):
        instance.get_params()


def test_every_call_has_a_deadline(fake):
    import time

    script, instance = fake

    def never(_requests, context):
        while context.is_active():
            time.sleep(0.01)
        return []

    script.answers["GetParams"] = never
    with pytest.raises(backboned.errors.DeadlineExceeded):
        instance.get_params(timeout=0.2)


def hang_after(script, messages):
    """Answer GetParams with some messages and no end; give events for its life."""
    begun, ended = threading.Event(), threading.Event()

    def answer(_requests, context):
        context.add_callback(ended.set)
        yield from messages
        begun.set()
        ended.wait(30)

    script.answers["GetParams"] = answer
    return begun, ended


def test_a_refused_answer_ends_its_call(fake):
    script, instance = fake
    _, ended = hang_after(script, params_answer(offset=4))
    with pytest.raises(backboned.errors.MalformedAnswer) as caught:
        instance.get_params()
    # Also while somebody keeps the error, with all that its frames refer to.
    assert caught.value.__traceback__ is not None
    assert ended.wait(30)


def test_ctrl_c_ends_a_call_that_waits_for_its_answer(fake):
    script, instance = fake
    begun, ended = hang_after(script, [])

    def interrupt():
        begun.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            instance.get_params()
    finally:
        thread.join()
    assert ended.wait(30)


def test_abandoned_tapes_wait_for_a_forward_that_succeeds(fake):
    import grpc
    from backboned.transport import session

    script, instance = fake
    token = np.empty(1)
    session.release_tape_with(token, instance.channel, "t1")
    del token
    gc.collect()
    fail_with(script, "Forward", grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(backboned.errors.Unavailable):
        instance.forward(numbers(2))
    header = pb.ForwardResult()
    header.outputs.add(name="out", dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1])
    answer_with(script, "Forward", [message_of(pb.ForwardResponse, header, 0, b"1234")])
    instance.forward(numbers(2))
    instance.forward(numbers(2))
    sent = [
        pb.ForwardRequest.FromString(messages[0]).header.release_tapes
        for name, messages in script.requests
        if name == "Forward"
    ]
    assert sent == [["t1"], ["t1"], []]


def test_calls_carry_session_and_label():
    from backboned.transport.channel import Channel

    with scripted_server() as (script, channel):
        labelled = Channel(channel.target, label="run-7")
        answer_with(script, "GetParams", params_answer())
        fake_instance(labelled).get_params()
        labelled.close()
    assert script.metadata[-1]["backboned-label"] == "run-7"
    assert 1 <= len(script.metadata[-1]["backboned-session"]) <= 64
