"""Counts what travels: bytes of messages, and calls."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Traffic(NamedTuple):
    """What travelled so far; the difference of two says what travelled in between.

    Bytes are those of gRPC's messages, without the few that HTTP/2 adds.
    """

    sent_bytes: int = 0
    received_bytes: int = 0
    round_trips: int = 0

    def __sub__(self, earlier: Traffic) -> Traffic:
        """Give what travelled since."""
        return Traffic(*(now - then for now, then in zip(self, earlier)))

    def __str__(self) -> str:
        """Say it in megabytes."""
        return (
            f"{self.sent_bytes / 1e6:.3f} MB sent, "
            f"{self.received_bytes / 1e6:.3f} MB received, "
            f"{self.round_trips} round trips"
        )


class Meter:
    """Adds up the traffic of some calls. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = self._received = self._calls = 0

    def read(self) -> Traffic:
        """Give what travelled so far."""
        with self._lock:
            return Traffic(self._sent, self._received, self._calls)

    def called(self) -> None:
        """Count a call."""
        with self._lock:
            self._calls += 1

    def sent(self, message: bytes) -> bytes:
        """Count a message on its way to the server, and give it."""
        with self._lock:
            self._sent += len(message)
        return message

    def received(self, message: bytes) -> bytes:
        """Count a message from the server, and give it."""
        with self._lock:
            self._received += len(message)
        return message

    def sending(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        """Count messages as the transport takes them."""
        return map(self.sent, messages)

    def receiving(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        """Count messages as they arrive."""
        return map(self.received, messages)
