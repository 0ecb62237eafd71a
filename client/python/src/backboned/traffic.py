"""Counts what travels: bytes of messages, and calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from backboned import forks


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What travelled so far; the difference of two says what travelled in between.

    Bytes are those of gRPC's messages, without the few that HTTP/2 adds.
    """

    sent_bytes: int = 0
    received_bytes: int = 0
    round_trips: int = 0

    def __sub__(self, earlier: Traffic) -> Traffic:
        """Give what travelled since."""
        return Traffic(
            self.sent_bytes - earlier.sent_bytes,
            self.received_bytes - earlier.received_bytes,
            self.round_trips - earlier.round_trips,
        )

    def __add__(self, other: Traffic) -> Traffic:
        """Give what travelled in both, e.g. for two networks."""
        if not isinstance(other, Traffic):
            return NotImplemented
        return Traffic(
            self.sent_bytes + other.sent_bytes,
            self.received_bytes + other.received_bytes,
            self.round_trips + other.round_trips,
        )

    def __radd__(self, nothing: int) -> Traffic:
        """Let `sum` begin with its 0."""
        return self if nothing == 0 else NotImplemented

    def __str__(self) -> str:
        """Say it in megabytes."""
        return (
            f"{self.sent_bytes / 1e6:.3f} MB sent, "
            f"{self.received_bytes / 1e6:.3f} MB received, "
            f"{self.round_trips} round trips"
        )


class Meter:
    """Adds up the traffic of some calls. Thread-safe.

    Parameters
    ----------
    whole : Meter, optional
        Counts the same besides.
    """

    def __init__(self, whole: Meter | None = None) -> None:
        self._whole = whole
        self._lock = forks.lock()
        self._sent = self._received = self._calls = 0

    def read(self) -> Traffic:
        """Give what travelled so far."""
        with self._lock:
            return Traffic(self._sent, self._received, self._calls)

    def called(self) -> None:
        """Count a call."""
        with self._lock:
            self._calls += 1
        if self._whole is not None:
            self._whole.called()

    def sent(self, message: bytes) -> bytes:
        """Count a message on its way to the server, and give it."""
        with self._lock:
            self._sent += len(message)
        return message if self._whole is None else self._whole.sent(message)

    def received(self, message: bytes) -> bytes:
        """Count a message from the server, and give it."""
        with self._lock:
            self._received += len(message)
        return message if self._whole is None else self._whole.received(message)

    def sending(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        """Count messages as the transport takes them."""
        return map(self.sent, messages)

    def receiving(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        """Count messages as they arrive."""
        return map(self.received, messages)
