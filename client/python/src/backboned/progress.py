"""A bar for transfers that take longer than a second."""

from __future__ import annotations

import time
from typing import Any

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

    Parameters
    ----------
    what : str
        What is under way, e.g. ``"get_params resnet18"``.
    shown : bool
        False: nothing is ever shown.
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
