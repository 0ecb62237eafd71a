"""Keeps what belongs to the connection of one process: grpc's channel, and more."""

from __future__ import annotations

import collections
import threading
import uuid
import weakref
from collections.abc import Hashable
from typing import Any, Callable

from backboned.transport import forks, native
from backboned.transport.credentials import Credentials

_MESSAGE_BYTES = 4 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.http2.max_frame_size", _MESSAGE_BYTES),
    ("grpc.http2.lookahead_bytes", _MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A server that comes back is found at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
# Not grpc's SingleThreadedUnaryStream: of a call that is left early nobody would take
# the end off its queue, and a forked child would wait for that for ever.


class Connection:
    """The parts that belong to one process: grpc's channel, its session, its garbage.

    - `session`: under which the server knows this process.
    - `one_message_answers`: keys of calls whose answers are known to be one message;
      see messages.py.
    - `abandoned_tapes`, `abandoned_instances`: what finalizers left: tape ids, and
      (address, uid); see session.py.
    - `guards`: by uid, what keeps the unnamed instances of this process; see
      session.py.
    - `interrupted`: whether somebody was interrupted inside of grpc, which may have
      left a lock held (grpc/grpc#19973): the next call takes another channel of grpc's,
      under the same session. The calls of other threads end on the old one, and nobody
      closes it, since that would wait for the lock.
    - `keeper`: keeps the session alive; see session.py.
    - `native`: the stream of calls of the C++ client; None: calls go through grpc.
    """

    def __init__(
        self, target: str, label: str | None, credentials: Credentials
    ) -> None:
        self.session = uuid.uuid4().hex
        self.one_message_answers: set[Hashable] = set()
        self.abandoned_tapes: collections.deque[str] = collections.deque()
        self.abandoned_instances: collections.deque[tuple[str, str]] = (
            collections.deque()
        )
        self.guards: weakref.WeakValueDictionary[str, Any] = (
            weakref.WeakValueDictionary()
        )
        self.interrupted = False
        self.keeper: threading.Thread | None = None
        self.closed = False
        self._target = target
        self._credentials = credentials
        self._wire = _Wire(target, credentials)
        self._metadata: tuple[tuple[str, str], ...] = (
            ("backboned-session", self.session),
        )
        if label:
            self._metadata += (("backboned-label", label),)
        self.native: native.Native | None = None
        # A child of fork goes on with what it has loaded, which gRPC in C++ may not.
        library = None if forks.is_child() else native.library()
        if library is not None:
            self.native = native.Native(
                library, target, self.session, label or "", credentials
            )

    def call(self, shape: str, path: str, body: Any, timeout: float | None) -> Any:
        """Call grpc's `shape`, e.g. ``"unary_stream"``, of a method with bytes.

        Raises Refused if there is no token, though there is to be one.
        """
        if self.interrupted:
            self._wire = _Wire(self._target, self._credentials)
            self.interrupted = False
        method = self._wire.method(shape, path)
        metadata = self._metadata + self._credentials.metadata()
        return method(body, timeout=timeout, metadata=metadata)

    def close(self) -> None:
        """End all calls. Idempotent."""
        self.closed = True
        if self.native is not None:
            self.native.close()
        if not self.interrupted:
            self._wire.channel.close()


class _Wire:
    """A channel of grpc's, and what was asked of it before."""

    def __init__(self, target: str, credentials: Credentials) -> None:
        self.channel = credentials.channel(target, _OPTIONS)
        self._methods: dict[tuple[str, str], Callable[..., Any]] = {}

    def method(self, shape: str, path: str) -> Callable[..., Any]:
        """Give what calls a method; bytes go in and come out."""
        method = self._methods.get((shape, path))
        if method is None:
            method = getattr(self.channel, shape)(
                path, request_serializer=None, response_deserializer=None
            )
            self._methods[shape, path] = method
        return method
