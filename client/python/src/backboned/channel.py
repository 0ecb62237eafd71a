"""The connection to one server: options, metadata, deadlines, forks and errors."""

from __future__ import annotations

import collections
import copy
import os
import threading
import uuid
import weakref
from collections.abc import Generator, Hashable
from typing import Any, Callable, TypeVar

# Before grpc is loaded: DataLoader workers fork while the channel is open.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")

import grpc  # noqa: E402

from backboned import forks  # noqa: E402
from backboned.backoff import RETRY_TIMEOUT_S, OnWait, patiently  # noqa: E402
from backboned.errors import BackbonedError, Unavailable, from_rpc  # noqa: E402
from backboned.traffic import Meter  # noqa: E402

DATA = "/backboned.v1.BackboneService/"
CONTROL = "/backboned.v1.InstanceService/"

DEFAULT_TIMEOUT_S = 120.0
RECONNECT_TIMEOUT_S = 30.0

T = TypeVar("T")

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

_END_S = 1.0

# What grpc itself reports when a connection breaks; an error of the server's own has
# a reason.
_BROKEN = {
    grpc.StatusCode.UNAVAILABLE: "the server at {} does not answer",
    grpc.StatusCode.CANCELLED: "the server at {} ended the call: it shuts down, or an "
    "upload made no progress",
}


class Connection:
    """What belongs to one process: grpc's channel, its session, its garbage.

    Attributes
    ----------
    session : str
        Under which the server knows this process.
    one_message_answers : set
        Keys of calls whose answers are known to be one message; see transfer.py.
    abandoned_tapes, abandoned_instances : collections.deque
        What finalizers left: tape ids, and (address, uid); see garbage.py.
    lives : weakref.WeakValueDictionary
        By uid, what keeps the unnamed instances of this process; see garbage.py.
    """

    def __init__(self, target: str, label: str | None) -> None:
        self.session = uuid.uuid4().hex
        self.one_message_answers: set[Hashable] = set()
        self.abandoned_tapes: collections.deque[str] = collections.deque()
        self.abandoned_instances: collections.deque[tuple[str, str]] = (
            collections.deque()
        )
        self.lives: weakref.WeakValueDictionary[str, Any] = (
            weakref.WeakValueDictionary()
        )
        self._grpc = grpc.insecure_channel(target, options=_OPTIONS)
        forks.prepare(_after_fork_in_child)
        self._metadata: tuple[tuple[str, str], ...] = (
            ("backboned-session", self.session),
        )
        if label:
            self._metadata += (("backboned-label", label),)
        self._methods: dict[tuple[str, str], Callable[..., Any]] = {}

    def call(self, shape: str, path: str, body: Any, timeout: float) -> Any:
        """Call grpc's `shape`, e.g. ``"unary_stream"``, of a method with bytes."""
        method = self._methods.get((shape, path))
        if method is None:
            method = getattr(self._grpc, shape)(
                path, request_serializer=None, response_deserializer=None
            )
            self._methods[shape, path] = method
        return method(body, timeout=timeout, metadata=self._metadata)

    def close(self) -> None:
        """End all calls. Idempotent."""
        self._grpc.close()


class _Line:
    """What all views of a channel share: the connection of this process, if any."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: Connection | None = None
        self.closed = False
        self.explain: Callable[[], str] = str
        _lines.add(self)

    def forget(self) -> None:
        """Leave the connection to the parent process."""
        self.lock = threading.Lock()
        self.connection = None


_lines: weakref.WeakSet[_Line] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for line in list(_lines):
        line.forget()


class Channel:
    """Calls one server. Thread-safe.

    In a forked child the first call opens a connection and a session of the child's
    own; the parent's are left alone.

    Parameters
    ----------
    target : str
        gRPC's name of the server: ``unix:/path`` or ``host:port``.
    timeout : float
        Seconds that a call may take unless it says otherwise.
    label : str, optional
        Name of the run: for its share of the device, and the server's log.
    progress : bool
        Show a bar for transfers over one second.
    reconnect_timeout : float
        Seconds that a mirrored network waits for a server that went away.
    retry_timeout : float
        Seconds in which a call is made again that a busy server did not begin.
    on_wait : callable, optional
        Is told, before each pause, what such a call waits for (`Waiting`).

    Attributes
    ----------
    meter : Meter
        Counts what travels through this channel.
    """

    def __init__(
        self,
        target: str,
        timeout: float = DEFAULT_TIMEOUT_S,
        label: str | None = None,
        progress: bool = False,
        reconnect_timeout: float = RECONNECT_TIMEOUT_S,
        retry_timeout: float = RETRY_TIMEOUT_S,
        on_wait: OnWait = None,
    ) -> None:
        self.target = target
        self.timeout = timeout
        self.progress = progress
        self.reconnect_timeout = reconnect_timeout
        self.retry_timeout = retry_timeout
        self.on_wait = on_wait
        self.meter = Meter()
        self._label = label
        self._line = _Line()

    def metered(self, meter: Meter) -> Channel:
        """Give the same channel with another meter."""
        view = copy.copy(self)
        view.meter = meter
        return view

    @property
    def explain(self) -> Callable[[], str]:
        """Says what is known of a server that went away; empty if nothing is."""
        return self._line.explain

    @explain.setter
    def explain(self, value: Callable[[], str]) -> None:
        self._line.explain = value

    @property
    def connection(self) -> Connection:
        """The connection of this process.

        Raises
        ------
        Unavailable
            After `close`.
        """
        line = self._line
        connection = line.connection
        if connection is not None:
            return connection
        with line.lock:
            if line.closed:
                raise Unavailable(f"the connection to {self.target} is closed")
            if line.connection is None:
                line.connection = Connection(self.target, self._label)
            return line.connection

    @property
    def is_open(self) -> bool:
        """Whether this process has a connection."""
        return self._line.connection is not None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._line.closed

    def close(self) -> None:
        """End the connection; later calls raise Unavailable. Idempotent."""
        line = self._line
        with line.lock:
            line.closed = True
            connection, line.connection = line.connection, None
        if connection is not None:
            connection.close()

    def unary(self, path: str, request: bytes, timeout: float | None = None) -> bytes:
        """Call a method with one message each way.

        Raises
        ------
        BackbonedError
            If the call fails.
        """
        return self.patiently(
            lambda left: self.invoke("unary_unary", path, request, left), timeout
        )

    def patiently(
        self, attempt: Callable[[float], T], timeout: float | None = None
    ) -> T:
        """Make a call, and again while the server is too busy to begin it.

        Parameters
        ----------
        attempt : callable
            Makes the call, in the seconds that it is given.
        timeout : float, optional
            Seconds for all of it; the channel's unless given.
        """
        seconds = self.timeout if timeout is None else timeout
        return patiently(attempt, seconds, self.retry_timeout, self.on_wait)

    def invoke(
        self, shape: str, path: str, body: Any, timeout: float | None = None
    ) -> bytes:
        """Call a method whose answer is one message.

        Parameters
        ----------
        shape : {"unary_unary", "stream_unary"}
        path : str
            The method: `DATA` or `CONTROL` and its name.
        body : bytes or iterator of bytes
            The request's message or messages.
        timeout : float, optional
            Seconds; the channel's unless given.
        """
        with forks.GATE:
            try:
                answer: bytes = self._call(shape, path, body, timeout)
            except grpc.RpcError as error:
                raise self._translate(error) from None
        return self.meter.received(answer)

    def stream(
        self, shape: str, path: str, body: Any, timeout: float | None = None
    ) -> Generator[bytes, None, None]:
        """Call a method whose answer is several messages, and give them.

        The call ends with the generator; close one that is left early, since forks
        wait for it. Parameters as in `invoke`, with the shapes ``unary_stream`` and
        ``stream_stream``.
        """
        call = None
        with forks.GATE:
            try:
                call = self._call(shape, path, body, timeout)
                yield from self.meter.receiving(call)
            except grpc.RpcError as error:
                raise self._translate(error) from None
            finally:
                if call is not None:
                    _end(call)

    def _call(self, shape: str, path: str, body: Any, timeout: float | None) -> Any:
        seconds = self.timeout if timeout is None else timeout
        self.meter.called()
        if isinstance(body, bytes):
            self.meter.sent(body)
        else:
            body = self.meter.sending(body)
        try:
            return self.connection.call(shape, path, body, seconds)
        except ValueError:  # grpc's word for a closed channel.
            if not self.closed:
                raise
            raise Unavailable(f"the connection to {self.target} is closed") from None

    def _translate(self, error: grpc.RpcError) -> BackbonedError:
        """Make our exception of grpc's, and say what else is known."""
        plain = from_rpc(error)
        if plain.reason or plain.code not in _BROKEN:
            return plain
        if self.closed:
            return Unavailable(f"the connection to {self.target} is closed")
        end = self.explain()
        if end:
            return Unavailable(f"{end} [{plain.message}]")
        return from_rpc(error, _BROKEN[plain.code].format(self.target))


def _end(call: Any) -> None:
    """End a call if it is under way, and wait until grpc has let go of it."""
    ended = threading.Event()
    call.add_done_callback(lambda _call: ended.set())
    call.cancel()
    ended.wait(_END_S)
