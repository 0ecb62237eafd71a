"""Calls through the C++ client: libbackboned_client.so, by ctypes.

All calls of a process share one stream. ctypes lets the interpreter's lock go while a
call waits, and addresses pass in and out: Python copies no tensor.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib.util
import logging
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from backboned.errors import InvalidArgument, Refused
from backboned.transport import forks
from backboned.transport.credentials import NO_TOKEN, Credentials
from backboned.transport.local import find_checkout
from backboned.v1 import backbone_service_pb2 as pb

VARIABLE = "BACKBONED_TRANSPORT"
"""``native`` or ``grpcio``. Unless set: native where there is the library."""

_NAME = "libbackboned_client.so"
# The longest time that a signal, such as Ctrl-C, waits for its handler.
_SLICE_S = 0.05
_NOT_YET = -1
_VERSION = 3
_CANCELLED = 1
# The time that a call has which is kept, and for which nobody waits.
_KEPT_S = 10.0

NO_TIMEOUT = -1.0

_log = logging.getLogger("backboned")

Place = Callable[[bytes], Sequence[memoryview]]


class CallError(Exception):
    """A call failed.

    - `code`: the number of gRPC's code.
    - `details`: an encoded `StatusDetails`.
    """

    def __init__(self, code: int, details: bytes) -> None:
        super().__init__(code)
        self.code = code
        self.details = details


def _fields() -> dict[str, int]:
    fields = {}
    for field in pb.CallsRequest.DESCRIPTOR.oneofs_by_name["header"].fields:
        method = "".join(word.capitalize() for word in field.name.split("_"))
        fields[method] = field.number
    return fields


FIELDS = _fields()
"""By the names of the methods that a stream carries: their fields in CallsRequest."""


def library() -> Any:
    """Give the library; None if there is none, or `VARIABLE` says not to use it.

    Raises InvalidArgument if `VARIABLE` names no transport, or one that is missing.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "native", "grpcio"):
        raise InvalidArgument(f"{VARIABLE} is {wanted!r}; it is native or grpcio")
    if wanted == "grpcio":
        return None
    path = _find()
    loaded = path and _load(path)
    if loaded is None and wanted:
        found = f"{path} is of another version" if path else f"{_NAME} is not found"
        raise InvalidArgument(
            f"{VARIABLE} is native, and {found}: pip install backboned-server has "
            "it, and so does a built checkout"
        )
    return loaded


@functools.cache
def _load(path: Path) -> Any:
    loaded = ctypes.CDLL(str(path))
    if not hasattr(loaded, "bb_version") or loaded.bb_version() != _VERSION:
        return None
    address, size, seconds = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_double
    text = ctypes.c_char_p
    for name, result, arguments in (
        ("bb_open", text, (text, text, text, address, address)),
        ("bb_close", None, (address,)),
        ("bb_drop", None, (address,)),
        (
            "bb_begin",
            None,
            (
                *(address, ctypes.c_uint32, text, size, address, size, seconds),
                *(address, address),
            ),
        ),
        ("bb_flush", ctypes.c_int, (address, seconds)),
        ("bb_wait", ctypes.c_int, (address, seconds, address)),
        ("bb_receive", ctypes.c_int, (address, address, size, seconds, address)),
        ("bb_free", None, (address,)),
    ):
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


@functools.cache
def _find() -> Path | None:
    """Find the library: in this package, the server's, or a built checkout."""
    places = [Path(__file__).with_name(_NAME)]
    server = importlib.util.find_spec("backboned_server")
    if server is not None and server.origin is not None:
        places.append(Path(server.origin).parent / "lib" / _NAME)
    checkout = find_checkout()
    if checkout is not None:
        places.append(checkout / "build" / "release" / _NAME)
    return next((place for place in places if place.is_file()), None)


_TOKEN = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_size_t)


class _Shown(ctypes.Structure):
    """The credentials, as the library takes them."""

    _fields_ = (
        ("ca", ctypes.c_char_p),
        ("certificate", ctypes.c_char_p),
        ("key", ctypes.c_char_p),
        ("token", _TOKEN),
    )

    def __init__(self, credentials: Credentials, writer: _TokenWriter) -> None:
        super().__init__(
            credentials.ca,
            credentials.certificate,
            credentials.key,
            _TOKEN() if credentials.ask_token is None else _TOKEN(writer),
        )


class _TokenWriter:
    """Writes the token where the library wants it, when a stream opens.

    - `interrupt`: what ended it from outside, such as Ctrl-C, which cannot pass through
      the library.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self.interrupt: BaseException | None = None

    def __call__(self, place: int, size: int) -> int:
        """Write it to an address; give its length, or minus that of a refusal."""
        sign, text = 1, b""
        try:
            text = self._credentials.token().encode()
        except Refused as error:
            sign, text = -1, error.message.removeprefix(f"{NO_TOKEN}: ").encode()
        except BaseException as error:
            self.interrupt = error
        text = text[:size]
        ctypes.memmove(place, text, len(text))
        return sign * len(text)

    def reraise(self) -> None:
        """Raise what ended it from outside, if anything did."""
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            raise interrupt


class Native:
    """A stream of calls to one server, under one session. Thread-safe.

    It opens with the first call, and anew after its end.
    """

    def __init__(
        self,
        loaded: Any,
        target: str,
        session: str,
        label: str,
        credentials: Credentials,
    ) -> None:
        self.library = loaded
        self.client = ctypes.c_void_p()
        # The library calls it as long as the stream lives.
        self.token_writer = _TokenWriter(credentials)
        self._shown = _Shown(credentials, self.token_writer)
        refusal = loaded.bb_open(
            target.encode(),
            session.encode(),
            label.encode(),
            ctypes.byref(self._shown),
            ctypes.byref(self.client),
        )
        if refusal is not None:
            raise InvalidArgument(refusal.decode())
        self._lock = forks.lock()
        self._kept: weakref.WeakSet[Call] = weakref.WeakSet()
        self._ends_at_exit = False
        finalizer = weakref.finalize(self, _drop, loaded, self.client, os.getpid())
        finalizer.atexit = False

    def keep(self, call: Call) -> None:
        """Let a call be made also if nobody waits for it."""
        call.kept = True
        with self._lock:
            self._kept.add(call)
        if not self._ends_at_exit:
            _end_at_exit(self)
            self._ends_at_exit = True

    def end_kept(self) -> None:
        """Wait for the calls that are to be made, for a while."""
        with self._lock:
            kept = list(self._kept)
        for call in kept:
            call.end()

    def close(self) -> None:
        """End all calls, now and later; those that are kept are made. Idempotent."""
        self.end_kept()
        self.library.bb_close(self.client)


class Call:
    """A call that has begun. One thread at a time.

    It ends with `end`, or when nobody refers to it.

    - `field`: the header's in `CallsRequest`.
    - `parts`: one-dimensional views of format B; they must not change before the end.
    - `timeout`: seconds, or `NO_TIMEOUT`.
    - `after`: a call of the same stream, which must succeed; else this one fails with
      NOT_BEGUN, or, if the stream breaks, as that one.

    - `kept`: whether it is to be made also if nobody waits for it.
    """

    kept = False

    def __init__(
        self,
        stream: Native,
        field: int,
        header: bytes,
        parts: Sequence[memoryview],
        timeout: float,
        after: Call | None = None,
    ) -> None:
        self.stream = stream
        self.timeout = timeout
        self._header, self._parts = header, parts
        self._library = stream.library
        self._process = os.getpid()
        self._turn = threading.Lock()
        # Ctrl-C may come as soon as the call has begun: this has it by then.
        self._call = ctypes.c_void_p()
        if after is not None and not after._call:
            return  # That has ended, nobody knows how: this one counts as cancelled.
        self._library.bb_begin(
            stream.client,
            field,
            header,
            len(header),
            _addresses(parts),
            len(parts),
            timeout,
            None if after is None else after._call,
            ctypes.byref(self._call),
        )

    @property
    def is_parents(self) -> bool:
        """Say whether this is the copy of a forked child."""
        return self._process != os.getpid()

    def flush(self) -> None:
        """Wait until the request has gone, or the call has ended."""
        with self._turn:
            while self._call and self._library.bb_flush(self._call, _SLICE_S):
                pass

    def wait(self, place: Place) -> tuple[bytes, tuple[int, int]]:
        """Wait for the end; give the result, and the bytes that went and came.

        - `place`: is given the encoded result, and gives the memory for the tensors.

        Raises `CallError`.
        """
        with self._turn:
            if not self._call:
                raise CallError(_CANCELLED, b"")
            self.kept = False
            return self._wait(place)

    def _wait(self, place: Place) -> tuple[bytes, tuple[int, int]]:
        loaded, call, found = self._library, self._call, (ctypes.c_size_t * 2)()
        try:
            code = loaded.bb_wait(call, _SLICE_S, found)
            while code == _NOT_YET:
                code = loaded.bb_wait(call, _SLICE_S, found)
            answer = ctypes.string_at(found[0], found[1])
            if code:
                self.stream.token_writer.reraise()
                raise CallError(code, answer)
            places = place(answer)
            memory, count = _addresses(places), len(places)
            code = loaded.bb_receive(call, memory, count, _SLICE_S, found)
            while code == _NOT_YET:
                code = loaded.bb_receive(call, memory, count, _SLICE_S, found)
            if code:
                raise CallError(code, ctypes.string_at(found[0], found[1]))
        finally:
            self._free()
        sent_bytes = len(self._header) + sum(map(_size, self._parts))
        return answer, (sent_bytes, len(answer) + sum(map(_size, places)))

    def end(self) -> None:
        """End the call at once; one that is kept when it is made.

        Does nothing while another thread waits for it.
        """
        if self.is_parents or not self._turn.acquire(blocking=False):
            return
        try:
            if self.kept and self._call:
                self.kept = False
                found = (ctypes.c_size_t * 2)()
                if self._library.bb_wait(self._call, _KEPT_S, found):
                    _log.warning(
                        "a step that nobody waited for failed, or is not made yet"
                    )
            self._free()
        finally:
            self._turn.release()

    def __del__(self) -> None:
        """End the call."""
        if self._call:
            self.end()

    def _free(self) -> None:
        self._library.bb_free(ctypes.byref(self._call))


# Streams with calls that are to be made before the process ends.
_keeping: weakref.WeakSet[Native] = weakref.WeakSet()
_keeping_lock = forks.lock()


def _end_at_exit(stream: Native) -> None:
    with _keeping_lock:
        # The last one that registers is the first: before a local server is stopped.
        atexit.unregister(_end_all_kept)
        atexit.register(_end_all_kept)
        _keeping.add(stream)


def _end_all_kept() -> None:
    with _keeping_lock:
        streams = list(_keeping)
    for stream in streams:
        stream.end_kept()


def _drop(loaded: Any, client: ctypes.c_void_p, pid: int) -> None:
    if os.getpid() == pid:  # A child has nothing of it.
        loaded.bb_drop(client)


def _size(view: memoryview) -> int:
    return view.nbytes


def _addresses(views: Sequence[memoryview]) -> Any:
    """Give address and size of each view, as an array."""
    pairs: list[int] = []
    for view in views:
        if not view.nbytes:
            pairs += (0, 0)
        elif view.readonly:
            array = np.frombuffer(view, np.uint8)
            pairs += (array.__array_interface__["data"][0], view.nbytes)
        else:
            byte = ctypes.c_char.from_buffer(view)
            pairs += (ctypes.addressof(byte), view.nbytes)
    return (ctypes.c_size_t * len(pairs))(*pairs)
