"""Calls to one server: deadlines, repetitions, forks and errors."""

from __future__ import annotations

import copy
import logging
import re
import threading
import time
import weakref
from collections.abc import Generator, Sequence
from typing import Any, Callable, TypeVar

import grpc
from google.protobuf.message import DecodeError

from backboned.errors import (
    BackbonedError,
    InvalidArgument,
    MalformedAnswer,
    Refused,
    ServerRestarted,
    Unavailable,
    from_details,
    from_rpc,
)
from backboned.transport import forks, native, retries
from backboned.transport.connection import Connection
from backboned.transport.credentials import NO_TOKEN, Credentials
from backboned.transport.retries import (
    OnWait,
    Patience,
    forget_frames,
    is_absence,
)
from backboned.transport.traffic import Meter
from backboned.types import Waiting
from backboned.v1 import instance_service_pb2 as pb

DATA = "/backboned.v1.BackboneService/"
CONTROL = "/backboned.v1.InstanceService/"

DEFAULT_TIMEOUT_S = 120.0
RECONNECT_TIMEOUT_S = 300.0
"""Less than the ten minutes for which a server remembers request ids."""

T = TypeVar("T")

_NOTHING = Credentials()
_END_S = 1.0
_ANSWER_S = 5.0
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# About three years; grpc cannot count up to much more.
_FOR_EVER_S = 1e8

RESTARTED = "SERVER_RESTARTED"
"""The client's own reason: another server answered than the one that was called."""

# Codes of a server that is there, but takes its time.
_SLOW = {grpc.StatusCode.DEADLINE_EXCEEDED}

_log = logging.getLogger("backboned")

# Codes that grpc itself reports when a connection breaks; an error of the server's own
# has a reason.
_BROKEN = {
    grpc.StatusCode.UNAVAILABLE: "the server at {} does not answer",
    grpc.StatusCode.CANCELLED: "the server at {} ended the call: it shuts down, or an "
    "upload made no progress",
}


_CODES = {code.value[0]: code for code in grpc.StatusCode}
_FIELDS = {DATA + method: field for method, field in native.FIELDS.items()}


def _no_tensors(_result: bytes) -> Sequence[memoryview]:
    return ()


class _Line:
    """The part that all views of a channel share: this process's connection, if any."""

    def __init__(self) -> None:
        self.lock = forks.lock()
        self.connection: Connection | None = None
        self.closed = False
        self.explain: Callable[[], str] = str
        self.server_uid = ""
        self.compared = False
        _lines.add(self)

    def forget(self) -> None:
        """Leave the connection to the parent process."""
        self.connection = None


_lines: weakref.WeakSet[_Line] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for line in list(_lines):
        line.forget()


class Channel:
    """Calls one server. Thread-safe.

    In a forked child the first call opens a connection and a session of the child's
    own; the parent's are left alone.

    - `target`: gRPC's name of the server: ``unix:/path`` or ``host:port``.
    - `timeout`: seconds that a call may take unless it says otherwise.
    - `label`: name of the run: for its share of the device, and the server's log.
    - `progress`: show a bar for transfers over one second.
    - `reconnect_timeout`: seconds that a call waits for a server that does not answer.
    - `retry_timeout`: seconds in which a call is made again that a busy server did not
      begin.
    - `on_wait`: is told, before each pause, what a call waits for (`Waiting`).
    - `credentials`: what is shown to the server, and how it is known.

    Raises InvalidArgument if the label, a number of seconds or the credentials are
    none.

    - `meter`: counts what travels through this channel.
    """

    def __init__(
        self,
        target: str,
        timeout: float = DEFAULT_TIMEOUT_S,
        label: str | None = None,
        progress: bool = False,
        reconnect_timeout: float = RECONNECT_TIMEOUT_S,
        retry_timeout: float = retries.RETRY_TIMEOUT_S,
        on_wait: OnWait = retries.show_waiting,
        credentials: Credentials = _NOTHING,
    ) -> None:
        credentials.check()
        if label is not None and not _LABEL.fullmatch(label):
            raise InvalidArgument(
                f"the label is {label!r}; it is 1 to 64 characters of [A-Za-z0-9_.-]"
            )
        check_seconds(timeout, "timeout")
        check_seconds(reconnect_timeout, "reconnect_timeout")
        check_seconds(retry_timeout, "retry_timeout")
        self.target = target
        self.timeout = timeout
        self.progress = progress
        self.reconnect_timeout = reconnect_timeout
        self.retry_timeout = retry_timeout
        self.on_wait = on_wait
        self.meter = Meter()
        self._label = label
        self._credentials = credentials
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

        Raises Unavailable: after `close`.
        """
        line = self._line
        connection = line.connection
        if connection is not None:
            return connection
        with line.lock:
            if line.closed:
                raise Unavailable(f"the connection to {self.target} is closed")
            if line.connection is None:
                line.connection = Connection(
                    self.target, self._label, self._credentials
                )
                forks.prepare(_after_fork_in_child)
            return line.connection

    def when_dropped(self, function: Callable[[], object]) -> None:
        """Call a function when nobody has this channel, or a view of it, any more."""
        finalizer = weakref.finalize(self._line, function)
        finalizer.atexit = False

    @property
    def compared(self) -> bool:
        """Say whether it was said on what the bits of server and client depend."""
        return self._line.compared

    @compared.setter
    def compared(self, value: bool) -> None:
        self._line.compared = value

    @property
    def transport(self) -> str:
        """The carrier of the calls: ``native`` or ``grpcio``."""
        return "native" if self.connection.native else "grpcio"

    @property
    def is_open(self) -> bool:
        """Say whether this process has a connection."""
        return self._line.connection is not None

    @property
    def closed(self) -> bool:
        """Say whether `close` was called."""
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
        """Call a method with one message each way, which is safe to repeat.

        Raises BackbonedError if the call fails.
        """

        def attempt(left: float) -> bytes:
            result = self.call(path, request, (), left)
            if result is not None:
                return result
            return self.invoke("unary_unary", path, request, left)

        return self.patiently(attempt, timeout)

    def call(
        self,
        path: str,
        header: bytes,
        parts: Sequence[memoryview],
        timeout: float | None,
        place: native.Place = _no_tensors,
    ) -> bytes | None:
        """Make a call through the stream of the C++ client; give its result.

        Parameters and None as in `begin` and `land`.
        """
        call = self.begin(path, header, parts, timeout)
        return None if call is None else self.land(path, call, place)

    def begin(
        self,
        path: str,
        header: bytes,
        parts: Sequence[memoryview],
        timeout: float | None,
        after: native.Call | None = None,
    ) -> native.Call | None:
        """Begin a call through the stream of the C++ client, and do not wait for it.

        Gives None if the call must be an RPC of its own: there is no C++ client, or the
        server is older than streams; or if `after` is not of this stream.

        - `header`, `parts`: the request's header, encoded, and the bytes behind it.
        - `after`: a call that must succeed, else this one is not begun in the server.
          Its seconds count for this one too.
        """
        stream, field = self.connection.native, _FIELDS.get(path)
        if stream is None or field is None:
            return None
        seconds = self.timeout if timeout is None else timeout
        limit = max(seconds, 0.0) if seconds < _FOR_EVER_S else native.NO_TIMEOUT
        if after is not None:
            if after.stream is not stream:
                return None
            if limit != native.NO_TIMEOUT:
                whole = limit + after.timeout
                limit = whole if after.timeout >= 0 else native.NO_TIMEOUT
        with forks.GATE:
            return native.Call(stream, field, header, parts, limit, after)

    def land(
        self, path: str, call: native.Call, place: native.Place = _no_tensors
    ) -> bytes | None:
        """Wait for a call that was begun; give its result.

        Gives None if the server is older than streams, and has not made it.

        - `place`: is given the result, and gives views for the bytes behind it.

        Raises BackbonedError if the call failed.
        """
        meter, begin = self._call_meter(), time.monotonic()
        with forks.GATE:
            try:
                result, sizes = call.wait(place)
            except native.CallError as error:
                if _CODES[error.code] == grpc.StatusCode.UNIMPLEMENTED:
                    self.connection.native = None
                    return None
                raise self._translate(error) from None
        meter.moved(*sizes)
        _say_call(path, meter, begin)
        return result

    def ask_server(self, timeout: float | None = None) -> pb.GetServerResponse:
        """Ask what the server is; does not wait for one that is away.

        Raises BackbonedError if the call fails.
        """
        raw = self._while_busy(
            lambda left: self.invoke("unary_unary", CONTROL + "GetServer", b"", left),
            timeout,
        )
        try:
            answer = pb.GetServerResponse.FromString(raw)
        except DecodeError as error:
            raise MalformedAnswer("the server's answer cannot be decoded") from error
        self._line.server_uid = answer.server_uid
        return answer

    def patiently(
        self,
        attempt: Callable[[float], T],
        timeout: float | None = None,
        repeatable: bool = True,
    ) -> T:
        """Make a call, and again while the server is busy or does not answer.

        - `attempt`: makes the call, in the seconds that it is given.
        - `timeout`: seconds that the server has for it, and how long a busy one is
          waited for. Unless given, those of the channel, and `retry_timeout`.
        - `repeatable`: whether a call may be made again whose answer is lost: it
          changes nothing, or is applied once, having a request id.

        Raises ServerRestarted if the server was restarted before it answered. Raises
        BackbonedError if the call fails otherwise, or the server stays away.
        """
        before = self._line.server_uid
        patience = Patience(self.reconnect_timeout)
        while True:
            try:
                return self._while_busy(attempt, timeout)
            except BackbonedError as error:
                if not (repeatable and is_absence(error)):
                    raise
                forget_frames(error)
                found = self.await_server(error, patience).server_uid
                if found != before and before:
                    raise ServerRestarted(
                        f"the server at {self.target} was restarted before it answered "
                        f"[{error.message}]",
                        reason=RESTARTED,
                    ) from error

    def await_server(
        self, error: BackbonedError, patience: Patience
    ) -> pb.GetServerResponse:
        """Wait until the server answers, after a call that failed for its absence.

        Raises BackbonedError: `error`, or a later one, if it stays away or cannot come
        back.
        """
        probe = self.metered(Meter())
        while True:
            pause = patience.pause()
            if self.closed or self.explain() or not patience.seconds:
                raise error
            if pause is None:
                raise patience.tired(error)
            _log.info("%s; asked again in %.1f s", error.message, pause)
            if self.on_wait is not None:
                self.on_wait(
                    Waiting("", "", 0, 0, pause, patience.waited, error.message)
                )
            time.sleep(pause)
            try:
                return probe.ask_server(_ANSWER_S)
            except BackbonedError as again:
                if isinstance(again, Refused):  # The token may have expired meanwhile.
                    raise
                if not is_absence(again) and again.code not in _SLOW:
                    raise error from None
                forget_frames(again)
                error = again.with_traceback(None)  # Which has this frame.

    def _while_busy(self, attempt: Callable[[float], T], timeout: float | None) -> T:
        """Make a call, and again while the server is too busy to begin it."""
        if timeout is None:
            return retries.patiently(
                attempt, self.timeout, self.retry_timeout, self.on_wait
            )
        check_seconds(timeout, "timeout")
        patience = min(timeout, self.retry_timeout)
        begin = time.monotonic()
        return retries.patiently(
            lambda seconds: attempt(seconds - (time.monotonic() - begin)),
            timeout,
            patience,
            self.on_wait,
        )

    def invoke(
        self, shape: str, path: str, body: Any, timeout: float | None = None
    ) -> bytes:
        """Call a method whose answer is one message.

        - `path`: the method: `DATA` or `CONTROL` and its name.
        - `body`: the request's message or messages.
        - `timeout`: seconds; the channel's unless given.
        """
        connection, meter = self.connection, self._call_meter()
        begin = time.monotonic()
        with forks.GATE:
            try:
                answer: bytes = self._call(
                    connection, meter, shape, path, body, timeout
                )
            except grpc.RpcError as error:
                raise self._translate(error) from None
            except BackbonedError:
                raise
            except BaseException:
                connection.interrupted = True
                raise
        meter.received(answer)
        _say_call(path, meter, begin)
        return answer

    def stream(
        self, shape: str, path: str, body: Any, timeout: float | None = None
    ) -> Generator[bytes, None, None]:
        """Call a method whose answer is several messages, and give them.

        The call ends with the generator; close one that is left early, since forks
        wait for it. Parameters as in `invoke`, with the shapes ``unary_stream`` and
        ``stream_stream``.
        """
        connection, meter = self.connection, self._call_meter()
        begin = time.monotonic()
        call = None
        with forks.GATE:
            try:
                try:
                    call = self._call(connection, meter, shape, path, body, timeout)
                    yield from meter.receiving(call)
                finally:
                    if call is not None:
                        _end(call)
            except grpc.RpcError as error:
                raise self._translate(error) from None
            except (BackbonedError, GeneratorExit):
                raise
            except BaseException:
                connection.interrupted = True
                raise
        _say_call(path, meter, begin)

    def _call_meter(self) -> Meter:
        """Give the meter of a call: one of its own if it will be told."""
        debugging = _log.isEnabledFor(logging.DEBUG)
        return Meter(self.meter) if debugging else self.meter

    def _call(
        self,
        connection: Connection,
        meter: Meter,
        shape: str,
        path: str,
        body: Any,
        timeout: float | None,
    ) -> Any:
        seconds = self.timeout if timeout is None else timeout
        meter.called()
        if isinstance(body, bytes):
            meter.sent(body)
        else:
            body = meter.sending(body)
        try:
            return connection.call(
                shape, path, body, seconds if seconds < _FOR_EVER_S else None
            )
        except ValueError:  # grpc's word for a closed channel.
            if not self.closed:
                raise
            raise Unavailable(f"the connection to {self.target} is closed") from None

    def _translate(self, error: grpc.RpcError | native.CallError) -> BackbonedError:
        """Make our exception of a transport's, and say what else is known."""
        plain, shown = _made(error), self._credentials
        if (
            plain.code == grpc.StatusCode.UNAUTHENTICATED
            and not plain.reason
            and not plain.message.startswith(NO_TOKEN)
        ):
            return _made(error, shown.why_refused(self.target))
        if plain.reason or plain.code not in _BROKEN:
            return plain
        if self.closed:
            return Unavailable(f"the connection to {self.target} is closed")
        end = self.explain()
        if end:
            return Unavailable(f"{end} [{plain.message}]")
        why = shown.why_broken(self.target, plain.message, bool(self._line.server_uid))
        return _made(error, _BROKEN[plain.code].format(self.target) + why)


def _made(error: grpc.RpcError | native.CallError, hint: str = "") -> BackbonedError:
    if not isinstance(error, native.CallError):
        return from_rpc(error, hint)
    return from_details(_CODES[error.code], None, error.details, hint)


def _end(call: Any) -> None:
    """End a call if it is under way, and wait until grpc has let go of it."""
    ended = threading.Event()
    call.add_done_callback(lambda _call: ended.set())
    call.cancel()
    ended.wait(_END_S)


def check_seconds(seconds: float, what: str) -> None:
    """Refuse what is no number of seconds; infinity is one.

    Raises InvalidArgument if it is negative, or not a number.
    """
    try:
        fine = seconds >= 0
    except TypeError:
        fine = False
    if not fine:
        raise InvalidArgument(f"{what} is {seconds!r}; it is a number of seconds")


def _say_call(path: str, meter: Meter, begin: float) -> None:
    """Log a call that has ended well."""
    if not _log.isEnabledFor(logging.DEBUG):
        return
    traffic = meter.read()
    _log.debug(
        "%s: %d bytes sent, %d received, %.4f s",
        path.rsplit("/", 1)[1],
        traffic.sent_bytes,
        traffic.received_bytes,
        time.monotonic() - begin,
    )
