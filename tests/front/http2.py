"""Raw HTTP/2 of a client that does not keep to it. Loopback only, and bounded."""

import socket
import ssl
import time

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, body):
    """Give the bytes of a frame."""
    size = len(body).to_bytes(3, "big")
    return size + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def integer(value, bits=7):
    """Give a number as HPACK has it, behind a prefix of so many bits."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((value,))
    value -= most
    out = bytearray((most,))
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def field(name, value):
    """Give a header as HPACK has it: literal, without an index."""
    texts = (text.encode() for text in (name, value))
    return b"\0" + b"".join(integer(len(text)) + text for text in texts)


class Client:
    """One connection by TLS, behind the preface."""

    def __init__(self, port, ca, token=None, acknowledges=True):
        context = ssl.create_default_context(cadata=ca.decode())
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", port), 10)
        self._socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        self._token = token
        self.send(PREFACE + frame(SETTINGS, 0, 0, b""))
        if acknowledges:
            self.send(frame(SETTINGS, ACK, 0, b""))

    def send(self, data):
        """Send bytes; raises OSError where the other end has closed."""
        self._socket.settimeout(10)
        self._socket.sendall(data)

    def headers(self, *more, te="trailers", scheme="https", path=None):
        """Give the block of a call's headers."""
        fields = [
            (":method", "POST"),
            (":scheme", scheme),
            (":path", path or "/backboned.v1.InstanceService/GetServer"),
            (":authority", "127.0.0.1"),
            ("content-type", "application/grpc"),
            ("te", te),
        ]
        if self._token:
            fields.append(("authorization", f"Bearer {self._token}"))
        return b"".join(field(*pair) for pair in (*fields, *more))

    def frames(self, seconds):
        """Give the kinds of the frames that come, and "closed" at the end."""
        kinds, left = [], b""
        end = time.monotonic() + seconds
        while (wait := end - time.monotonic()) > 0:
            self._socket.settimeout(wait)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                break
            except OSError:
                data = b""
            if not data:
                return [*kinds, "closed"]
            left += data
            while len(left) >= 9 and len(left) >= (
                size := 9 + int.from_bytes(left[:3], "big")
            ):
                kinds.append(left[3])
                left = left[size:]
        return kinds

    def close(self):
        """End the connection."""
        self._socket.close()
