"""Memory for large answers, used again as soon as nobody looks at it any more.

A fresh buffer of 45 MB costs a page fault for every 4 KiB, which takes longer than
the transfer itself. So a buffer comes back here when the array that lay over it dies.
"""

from __future__ import annotations

import collections
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALL_BYTES = 1 << 20
_KEPT_BYTES = 256 << 20


class BufferPool:
    """Hands out vectors over recycled memory.

    Thread-safe without a lock: only single operations on a deque, since finalizers
    may run in the middle of anything.
    """

    def __init__(self, kept_bytes: int = _KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._free: collections.deque[bytearray] = collections.deque()

    def take(self, count: int, dtype: Any = np.float32) -> NDArray[Any]:
        """Give a vector of `count` elements with arbitrary values.

        Its memory is its own until it and every view of it are gone.
        """
        dtype = np.dtype(dtype)
        size = count * dtype.itemsize
        if size < _SMALL_BYTES:
            return np.empty(count, dtype)
        buffer = self._find(size)
        if buffer is None:
            buffer = bytearray(size)
        # A view of `array` refers to `array`, since its own base is no array.
        array: NDArray[Any] = np.frombuffer(buffer, dtype)
        weakref.finalize(array, self._free.append, buffer).atexit = False
        return array

    def _find(self, size: int) -> bytearray | None:
        """Take a buffer of this size out, and drop the oldest beyond the budget."""
        found = None
        others: list[bytearray] = []
        kept = 0
        while self._free:
            try:
                buffer = self._free.pop()
            except IndexError:  # Another thread took it.
                break
            if found is None and len(buffer) == size:
                found = buffer
            elif kept + len(buffer) <= self._kept_bytes:
                others.append(buffer)
                kept += len(buffer)
        self._free.extendleft(others)
        return found


POOL = BufferPool()
"""The process's pool."""
