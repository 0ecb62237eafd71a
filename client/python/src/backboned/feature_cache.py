"""For which inputs a feature cache is asked before they are uploaded.

A question that is answered saves the upload and the forward; one in vain costs a
round trip. So what was kept in the present version is remembered, by digest, and only
that is asked for; or everything, while others are seen to have filled the cache.
Questions in vain, one after another, make them rarer.
"""

from __future__ import annotations

import hashlib
import struct

from backboned.transport import forks
from backboned.transport.tensors import as_bytes, make_spec
from backboned.types import Array, Version
from backboned.v1 import backbone_service_pb2 as pb

ASK_BYTES = 16 << 10
"""Smaller inputs are sent at once: a question is hardly shorter."""

_MAX_KNOWN = 1 << 16
_MAX_PAUSE = 64


def input_digest(x: Array) -> bytes:
    """Give what names an input in a feature cache: 32 bytes (see docs/wire.md).

    `x` is C-contiguous.
    """
    spec = make_spec(x)
    numbers = (1, 0, spec.dtype, x.ndim, *x.shape)
    sha256 = hashlib.sha256(struct.pack(f"<{len(numbers)}q", *numbers))
    sha256.update(as_bytes(x))
    return sha256.digest()


class KnownAnswers:
    """Remembers what is known of an instance's feature cache. Thread-safe.

    - `enabled`: whether there is one.
    - `filled`: whether it has answers already.
    """

    def __init__(self, enabled: bool, filled: bool = False) -> None:
        self.enabled = enabled
        self._lock = forks.lock()
        self._filled = filled
        self._version: Version | None = None
        self._known: dict[bytes, None] = {}
        self._vain = 0
        self._pause = 0

    def is_worth(self, version: Version, key: bytes) -> bool:
        """Say whether to ask for the answer `key` of a forward in this version."""
        with self._lock:
            known = version == self._version and key in self._known
            if not known and not self._filled:
                return False
            if self._pause:
                self._pause -= 1
                return False
            return True

    def missed(self, key: bytes) -> None:
        """Note a question in vain."""
        with self._lock:
            self._known.pop(key, None)
            self._filled = False
            self._vain += 1
            self._pause = min(2**self._vain, _MAX_PAUSE) - 1

    def answered(self, version: Version, key: bytes, use: pb.CacheUse) -> None:
        """Note what an answer said of the cache."""
        with self._lock:
            if version != self._version:
                self._filled = self._filled and self._version is None
                self._version = version
                self._known.clear()
                self._vain = self._pause = 0
            was_known = key in self._known
            self._known.pop(key, None)
            if use in (pb.CACHE_USE_HIT, pb.CACHE_USE_KEPT):
                self._known[key] = None
                if len(self._known) > _MAX_KNOWN:
                    del self._known[next(iter(self._known))]
            if use == pb.CACHE_USE_HIT:
                self._filled = self._filled or not was_known
                self._vain = self._pause = 0
