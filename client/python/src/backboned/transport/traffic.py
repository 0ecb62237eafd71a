"""Counts what travels, and shows it while it does."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from backboned.transport import forks
from backboned.types import Traffic


class Meter:
    """Adds up the traffic of some calls. Thread-safe.

    - `whole`: counts the same besides.
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

    def moved(self, sent: int, received: int) -> None:
        """Count a call and its bytes."""
        with self._lock:
            self._calls += 1
            self._sent += sent
            self._received += received
        if self._whole is not None:
            self._whole.moved(sent, received)

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


_PATIENCE_S = 1.0


def require_tqdm() -> None:
    """Raise ImportError with a sentence if tqdm is not installed."""
    try:
        import tqdm  # noqa: F401
    except ImportError:
        raise ImportError(
            "progress=True needs tqdm: pip install 'backboned[progress]'"
        ) from None


class Bar:
    """Shows a tqdm bar once a transfer has taken more than a second.

    - `what`: what is under way, e.g. ``"get_params resnet18"``.
    - `shown`: false: nothing is ever shown.
    """

    def __init__(self, what: str, shown: bool) -> None:
        self._what = what
        self._shown = shown
        self._begin = time.monotonic()
        self._bar: Any | None = None

    def at(self, done: int, total: int) -> None:
        """Say that `done` of `total` bytes are through."""
        if not self._shown:
            return
        if self._bar is None:
            if time.monotonic() - self._begin < _PATIENCE_S or done >= total:
                return
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=total, desc=self._what, unit="B", unit_scale=True, leave=False
            )
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
