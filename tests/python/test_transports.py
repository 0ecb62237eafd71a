"""Tests what calls go through: the stream of the C++ client, or grpcio."""

import ctypes.util
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import backboned
import numpy as np
import pytest
from backboned.transport import native
from backboned.transport.channel import DATA
from backboned.v1 import backbone_service_pb2 as pb
from fake_server import fake_instance, flat_spec, message_of, scripted_server
from test_forks import assert_children_start

X = np.zeros((1, 1, 28, 28), np.uint8)


@pytest.fixture
def connect(server, monkeypatch):
    """Connects to the tests' server by a transport."""
    made = []

    def connect_by(transport, **options):
        monkeypatch.setenv(native.VARIABLE, transport)
        made.append(backboned.connect(server.target, **options))
        return made[-1]

    yield connect_by
    for each in made:
        each.close()


def stream_of(instance):
    return instance.channel.connection.native


def test_calls_go_through_the_stream_where_there_is_the_library(server, monkeypatch):
    monkeypatch.delenv(native.VARIABLE, raising=False)
    with backboned.connect(server.target) as other:
        instance = other.create("seq-mnist", module=False)
        assert stream_of(instance) is not None


def test_the_variable_chooses_and_both_give_the_same_bits(connect, mlp):
    found = {}
    for transport in ("native", "grpcio"):
        instance = connect(transport).instance(mlp.address, module=False)
        assert (stream_of(instance) is not None) == (transport == "native")
        assert connect(transport).info().transport == transport
        forward = instance.forward(X, tape=True, request_id="one")
        found[transport] = forward.out
        instance.backward({forward.tape_id: {"out": np.ones((1, 10), np.float32)}})
        traffic = instance.channel.meter.read()
        assert traffic.round_trips >= 2 and traffic.sent_bytes > X.nbytes
    assert np.array_equal(found["native"], found["grpcio"])


def test_an_unknown_transport_is_refused(connect):
    with pytest.raises(backboned.errors.InvalidArgument, match="native or grpcio"):
        connect("quic")


def test_a_missing_library_is_told(connect, monkeypatch):
    monkeypatch.setattr(native, "_find", lambda: None)
    with pytest.raises(backboned.errors.InvalidArgument, match="is not found: pip"):
        connect("native")


def test_a_library_of_another_version_is_not_used(server, connect, monkeypatch):
    other = ctypes.util.find_library("m")
    monkeypatch.setattr(native, "_find", lambda: other)
    with pytest.raises(backboned.errors.InvalidArgument, match="of another version"):
        connect("native")
    monkeypatch.delenv(native.VARIABLE)
    with backboned.connect(server.target) as own:
        assert own.info().transport == "grpcio"


def test_without_the_library_calls_go_through_grpcio(server, monkeypatch):
    monkeypatch.delenv(native.VARIABLE, raising=False)
    monkeypatch.setattr(native, "_find", lambda: None)
    with backboned.connect(server.target) as other:
        instance = other.create("seq-mnist", module=False)
        assert stream_of(instance) is None
        assert instance.forward(X).out.shape == (1, 10)


def test_an_older_server_gets_rpcs(monkeypatch):
    monkeypatch.setenv(native.VARIABLE, "native")
    result = pb.GetParamsResult(spec=flat_spec(4))
    values = np.arange(4, dtype=np.float32)
    with scripted_server() as (script, channel):
        script.answers["GetParams"] = lambda _messages, _context: [
            message_of(pb.GetParamsResponse, result, 0, values.tobytes())
        ]
        instance = fake_instance(channel)
        assert stream_of(instance) is not None
        assert np.array_equal(instance.get_params(), values)
        assert stream_of(instance) is None
        assert np.array_equal(instance.get_params(), values)


def test_ctrl_c_ends_the_wait_and_the_call(connect, start):
    first = start()
    with backboned.connect(first.target) as server:
        assert stream_of(server.create("seq-mnist", module=False)) is not None
        instance = server.create("seq-mnist", module=False)
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            begin = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                instance.forward(X)
            assert time.monotonic() - begin < 10
            assert_children_start()
        finally:
            os.kill(first.process.pid, signal.SIGCONT)
        assert instance.forward(X).out.shape == (1, 10)


def test_closing_ends_the_calls_of_other_threads(start):
    first = start()
    server = backboned.connect(first.target)
    instance = server.create("seq-mnist", module=False)
    os.kill(first.process.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(instance.forward, X)
            time.sleep(0.2)
            server.close()
            with pytest.raises(backboned.errors.Unavailable, match="is closed"):
                waiting.result(30)
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    with pytest.raises(backboned.errors.Unavailable, match="is closed"):
        instance.forward(X)


def test_an_answer_that_was_refused_leaves_the_stream_alone(connect, mlp):
    instance = connect("native").instance(mlp.address, module=False)
    request = pb.GetParamsRequest(instance=mlp.address).SerializeToString()

    def refuse(_result):
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        instance.channel.call(DATA + "GetParams", request, (), 10, refuse)
    assert_children_start()
    assert instance.get_params().size == instance.layout.elements


def test_many_threads_share_a_stream(connect, mlp):
    instance = connect("native").instance(mlp.address, module=False)
    expected = instance.forward(X).out
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: instance.forward(X).out, range(64)))
    assert all(np.array_equal(each, expected) for each in found)


def test_memory_that_cannot_be_written_is_sent(connect, mlp):
    instance = connect("native").instance(mlp.address, module=False)
    params = instance.get_params()
    params.flags.writeable = False
    instance.set_params(params)
    assert np.array_equal(instance.get_params(), params)


def test_an_answers_errors_have_their_numbers(connect, mlp):
    instance = connect("native").instance(mlp.address, module=False)
    with pytest.raises(backboned.errors.InvalidArgument) as caught:
        instance.forward(np.zeros((1, 2), np.float32))
    assert caught.value.reason == "SHAPE_MISMATCH"
    with pytest.raises(backboned.errors.DeadlineExceeded):
        instance.forward(X, timeout=0)
