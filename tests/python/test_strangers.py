"""Clients that break off, set no deadline or speak nonsense leave nothing behind."""

import os
import re
import socket
import struct
import subprocess
import sys

import backboned
import numpy as np
import pytest
from backboned.transport.messages import chunk_prefix
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import tensor_pb2
from test_lifecycle import wait_until

ELEMENTS = 11173962  # Of seq-cifar10's parameters.

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
DATA, HEADERS, RST_STREAM, GOAWAY = 0, 1, 3, 7
END_STREAM, END_HEADERS = 1, 4
CANCEL = struct.pack(">I", 8)

NONSENSE = {
    "nothing": b"",
    "http1": b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "noise": bytes(i * 7919 % 251 for i in range(1 << 16)),
    "half a preface": HTTP2_PREFACE[:10],
    "unknown frames": HTTP2_PREFACE
    + SETTINGS
    + b"\x00\x00\x04\xfe\xff\x00\x00\x00\x01ABCD",
    "a frame of 16 MB": HTTP2_PREFACE
    + SETTINGS
    + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "headers that are none": HTTP2_PREFACE
    + SETTINGS
    + b"\x00\x00\x04\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff",
}


@pytest.fixture
def narrow(start):
    """A server that serves one call at a time: none is served beside a lost one."""
    return start(
        retry_timeout=0,
        options=["--listen=127.0.0.1:0", "--max-calls=1", "--stall-timeout=60s"],
    )


def open_files(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def allocated_bytes(server):
    return server.info().devices[0].allocated_bytes


def served(server):
    try:
        return server.info().version
    except backboned.errors.ResourceExhausted:
        return ""


def tcp_address(server):
    return re.search(r"(127\.0\.0\.1):(\d+)", server.process.banner).groups()


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_bytes_that_are_no_call_end_with_their_connection(narrow, nonsense):
    assert served(narrow)
    before = open_files(narrow)
    host, port = tcp_address(narrow)
    for _ in range(10):
        with socket.create_connection((host, port), timeout=10) as connection:
            connection.sendall(nonsense)
            assert served(narrow)
    wait_until(lambda: open_files(narrow) <= before)


# Calls without a deadline, and says when the call is under way.
STRANGER = """
import sys, time
import grpc
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import tensor_pb2

target, method, instance = sys.argv[1:]
# Takes little ahead, so that the server has to wait for it.
options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)]
channel = grpc.insecure_channel(target, options)

def half_an_upload():
    spec = tensor_pb2.TensorSpec(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[11173962])
    header = pb.SetParamsHeader(instance=instance, spec=spec)
    yield pb.SetParamsRequest(header=header).SerializeToString()
    for offset in range(0, 20 << 20, 1 << 20):
        chunk = tensor_pb2.Chunk(offset=offset, data=bytes(1 << 20))
        yield pb.SetParamsRequest(chunk=chunk).SerializeToString()
    print("under way", flush=True)
    time.sleep(600)

name = "/backboned.v1.BackboneService/" + method
if method == "SetParams":
    channel.stream_unary(name)(half_an_upload())
else:
    request = pb.GetParamsRequest(instance=instance).SerializeToString()
    answer = channel.unary_stream(name)(request)
    next(answer)
    print("under way", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("method", ["SetParams", "GetParams"])
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_client_without_deadline_that_is_killed(narrow, method, transport):
    instance = narrow.create("seq-cifar10", seed=0, module=False)
    info = instance.info(digest=True)
    allocated = allocated_bytes(narrow)
    files = open_files(narrow)
    target = ":".join(tcp_address(narrow)) if transport == "tcp" else narrow.target
    stranger = subprocess.Popen(
        [sys.executable, "-c", STRANGER, target, method, instance.address],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert stranger.stdout.readline() == "under way\n"
        assert not served(narrow)  # It takes up the only place.
    finally:
        stranger.kill()
        stranger.communicate()
    wait_until(lambda: served(narrow))
    wait_until(lambda: allocated_bytes(narrow) == allocated)
    wait_until(lambda: open_files(narrow) <= files)
    after = instance.info(digest=True)
    assert (after.version, after.digest) == (info.version, info.digest)
    instance.set_params(np.zeros(ELEMENTS, np.float32))


def frame(kind, flags, payload, claimed=None):
    """Give an HTTP/2 frame of stream 1, or of the connection."""
    size = len(payload) if claimed is None else claimed
    number = 0 if kind == GOAWAY else 1
    return (
        struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, number) + payload
    )


def header_block(**fields):
    """Give headers as HPACK's literals without index and without Huffman's code."""
    block = b""
    for name, value in fields.items():
        name = name.replace("pseudo_", ":").replace("_", "-")
        for word in (name, value):
            block += b"\0" * (word is name) + bytes([len(word)]) + word.encode()
    return block


def begin_upload(instance):
    """Give the frames of a SetParams up to the middle of its first chunk."""
    spec = tensor_pb2.TensorSpec(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[ELEMENTS])
    head = pb.SetParamsHeader(instance=instance.address, spec=spec)
    messages = b"".join(
        struct.pack(">BI", 0, len(message)) + message
        for message in (
            pb.SetParamsRequest(header=head).SerializeToString(),
            chunk_prefix(0, 1 << 20) + bytes(1 << 20),
        )
    )
    headers = header_block(
        pseudo_method="POST",
        pseudo_scheme="http",
        pseudo_path="/backboned.v1.BackboneService/SetParams",
        pseudo_authority="localhost",
        te="trailers",
        content_type="application/grpc",
    )
    return (
        HTTP2_PREFACE
        + SETTINGS
        + frame(HEADERS, END_HEADERS, headers)
        + frame(DATA, 0, messages[:16000])
        + frame(DATA, 0, messages[16000:32000])
    )


def reset(connection):
    """Close so that the other side sees a reset in place of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def say(*frames):
    return lambda connection: connection.sendall(b"".join(frames))


def say_and_shut(*frames):
    def end(connection):
        connection.sendall(b"".join(frames))
        connection.shutdown(socket.SHUT_WR)

    return end


# Of these only the connection's ends close it here: otherwise it stays open.
ENDS = {
    "stream reset": say(frame(RST_STREAM, 0, CANCEL)),
    "stream ended": say(frame(DATA, END_STREAM, b"")),
    "stream of another message": say(frame(DATA, END_STREAM, b"\xff" * 64)),
    "a second head": say(frame(HEADERS, END_HEADERS, b"\xff" * 64)),
    "noise": say(bytes(i * 7919 % 251 for i in range(1 << 16))),
    "farewell and end": say_and_shut(frame(GOAWAY, 0, bytes(8))),
    "end": say_and_shut(),
    "end within a frame": say_and_shut(frame(DATA, 0, bytes(100), claimed=16000)),
    "close": socket.socket.close,
    "reset": reset,
}


@pytest.mark.cpu
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_upload_that_ends_within_a_chunk(start, end):
    calls = 4
    server = start(
        retry_timeout=15,
        options=["--listen=127.0.0.1:0", f"--max-calls={calls}", "--stall-timeout=60s"],
    )
    instance = server.create("seq-cifar10", seed=0, module=False)
    info = instance.info(digest=True)
    before, files = allocated_bytes(server), open_files(server)
    for _ in range(calls):  # One that stays would leave the server a place less.
        with socket.create_connection(tcp_address(server), timeout=10) as connection:
            connection.sendall(begin_upload(instance))
            wait_until(lambda: allocated_bytes(server) > before)
            end(connection)
            wait_until(lambda: allocated_bytes(server) == before)
    wait_until(lambda: open_files(server) <= files)
    after = instance.info(digest=True)
    assert (after.version, after.digest) == (info.version, info.digest)
    instance.set_params(np.zeros(ELEMENTS, np.float32))
