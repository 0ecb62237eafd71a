"""Hostile HTTP/2 ends at the front: the server and other clients do not notice."""

import socket
import time
import zlib

import pytest
from http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    Client,
    field,
    frame,
    integer,
)
from stand import Running, cpu_seconds, resident_mib, wait_until

BIG = ("x-big", "b" * 9000)
BLOCK = 16_384
# Seconds of the processor that the calls of the other client may take.
OTHERS_CPU_S = 0.3
NOISE_MIB = 8


def call(client, block):
    """Send one call's headers."""
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))


def te_and_large_metadata(client):
    """CVE-2023-1428."""
    call(client, client.headers(BIG, te="x"))


def scheme_and_large_metadata(client):
    call(client, client.headers(BIG, scheme="x"))


def statistics_and_large_metadata(client):
    call(client, client.headers(("grpclb_client_stats", "x"), BIG))


def endless(client, first, block, count):
    """Send a block of headers that goes on and on."""
    client.send(frame(HEADERS, 0, 1, client.headers() + first))
    for _ in range(count):
        client.send(frame(CONTINUATION, 0, 1, block))


def string_of_12_mib(client):
    """CVE-2023-33953: a string is buffered before it is refused."""
    first = b"\0\1a" + b"\x7f" + integer((12 << 20) - 127)[1:]
    endless(client, first, b"x" * BLOCK, (12 << 20) // BLOCK)


def integer_of_4_mib(client):
    """CVE-2023-33953: an integer has no end."""
    endless(client, b"\0\1a\x7f\x80", b"\x80" * BLOCK, (4 << 20) // BLOCK)


def headers_of_16_mib(client):
    """CVE-2023-33953: the limit is one frame's."""
    endless(client, b"", field("a", "y" * 4096), 4000)


def metadata_before_settings(client):
    block = client.headers(("x-big", "y" * 200_000))
    parts = [block[at : at + BLOCK] for at in range(0, len(block), BLOCK)]
    client.send(frame(HEADERS, END_STREAM, 1, parts[0]))
    for part in parts[1:-1]:
        client.send(frame(CONTINUATION, 0, 1, part))
    client.send(frame(CONTINUATION, END_HEADERS, 1, parts[-1]))


def rapid_reset(client):
    """CVE-2023-44487."""
    block = client.headers()
    for stream in range(1, 8001, 2):
        client.send(
            frame(HEADERS, END_HEADERS, stream, block)
            + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
        )


def compressed_bomb(client):
    """A message of 4 KB that unpacks to 4 MB."""
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    message = pack.compress(bytes(4 << 20)) + pack.flush()
    client.send(
        frame(HEADERS, END_HEADERS, 1, client.headers(("grpc-encoding", "gzip")))
    )
    size = len(message).to_bytes(4, "big")
    client.send(frame(DATA, END_STREAM, 1, b"\1" + size + message))


def pings(client):
    for _ in range(4000):
        client.send(frame(PING, 0, 0, b"12345678"))


def settings(client):
    """CVE-2019-9515."""
    for _ in range(4000):
        client.send(frame(SETTINGS, 0, 0, b""))


def empty_frames(client):
    """CVE-2019-9518."""
    path = "/backboned.v1.BackboneService/Forward"
    client.send(frame(HEADERS, END_HEADERS, 1, client.headers(path=path)))
    for _ in range(3000):
        client.send(frame(DATA, 0, 1, b""))


# These end with the connection, or their stream.
CUT = [
    te_and_large_metadata,
    scheme_and_large_metadata,
    string_of_12_mib,
    integer_of_4_mib,
    headers_of_16_mib,
    metadata_before_settings,
    statistics_and_large_metadata,
    rapid_reset,
    settings,
    empty_frames,
]


class Watch:
    """The server is as it was when a `with` block ends, and bob was served."""

    def __init__(self, stand, bobs):
        self._stand, self._bobs = stand, bobs

    def __enter__(self):
        self._channel = self._stand.channel(self._bobs)
        self._bob = Running(self._channel, pause=0.1).__enter__()
        self._pid = self._stand.server.pid
        self._cpu, self._mib = cpu_seconds(self._pid), resident_mib(self._pid)
        return self

    def __exit__(self, *_):
        self._bob.__exit__()
        self._channel.close()
        self._bob.assert_all("bob")
        assert cpu_seconds(self._pid) - self._cpu < OTHERS_CPU_S
        assert resident_mib(self._pid) - self._mib < NOISE_MIB
        assert self._stand.envoy.poll() is None
        assert resident_mib(self._stand.envoy.pid) < 400


@pytest.mark.parametrize("insider", [False, True], ids=["stranger", "insider"])
@pytest.mark.parametrize("attack", CUT)
def test_it_is_cut(stand, alice, bobs, attack, insider):
    token = token_of(alice) if insider else None
    waits = attack is not metadata_before_settings
    with Watch(stand, bobs):
        ends = attacked(Client(stand.port, stand.ca, token, waits), attack)
        assert {"closed", GOAWAY, RST_STREAM} & set(ends), ends


def attacked(client, attack):
    """Attack; give the kinds of the frames that come back."""
    try:
        attack(client)
        return client.frames(2)
    except OSError:
        return ["closed"]
    finally:
        client.close()


def token_of(metadata):
    return metadata[0][1].removeprefix("Bearer ")


def test_pings_are_the_fronts_to_answer(stand, bobs):
    with Watch(stand, bobs):
        attacked(Client(stand.port, stand.ca), pings)


def test_a_compressed_message_is_refused(stand, alice, bobs):
    with Watch(stand, bobs):
        client = Client(stand.port, stand.ca, token_of(alice))
        assert HEADERS in attacked(client, compressed_bomb)


def test_idle_connections(stand, alice, bobs):
    """CVE-2023-4785: a server without descriptors accepts no more."""
    with Watch(stand, bobs):
        idle = [socket.socket() for _ in range(150)]
        for connection in idle:
            connection.settimeout(5)
            connection.connect(("127.0.0.1", stand.port))
        time.sleep(1)
        for connection in idle:
            connection.close()
        wait_until(lambda: stand.who(alice) == "alice")
