"""Calls through the C++ client: libbackboned_client.so, by ctypes.

All calls of a process share one stream. ctypes lets the interpreter's lock go while a
call waits, and addresses pass in and out: Python copies no tensor.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from backboned.errors import InvalidArgument
from backboned.transport.local import find_checkout
from backboned.v1 import backbone_service_pb2 as pb

VARIABLE = "BACKBONED_TRANSPORT"
"""``native`` or ``grpcio``. Unless set: native where there is the library."""

_NAME = "libbackboned_client.so"
# How long a signal, such as Ctrl-C, waits for its handler.
_SLICE_S = 0.05
_NOT_YET = -1

NO_TIMEOUT = -1.0

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
    if path is None:
        if not wanted:
            return None
        raise InvalidArgument(
            f"{VARIABLE} is native, and {_NAME} is not found: pip install "
            "backboned-server has it, and so does a built checkout"
        )
    return _load(path)


@functools.cache
def _load(path: Path) -> Any:
    loaded = ctypes.CDLL(str(path))
    address, size, seconds = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_double
    text = ctypes.c_char_p
    for name, result, arguments in (
        ("bb_open", address, (text, text, text)),
        ("bb_close", None, (address,)),
        ("bb_drop", None, (address,)),
        (
            "bb_begin",
            None,
            (address, ctypes.c_uint32, text, size, address, size, seconds, address),
        ),
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


class Native:
    """A stream of calls to one server, under one session. Thread-safe.

    It opens with the first call, and anew after its end.
    """

    def __init__(self, loaded: Any, target: str, session: str, label: str) -> None:
        self._library = loaded
        self._client = loaded.bb_open(target.encode(), session.encode(), label.encode())
        finalizer = weakref.finalize(self, _drop, loaded, self._client, os.getpid())
        finalizer.atexit = False

    def close(self) -> None:
        """End all calls, now and later. Idempotent."""
        self._library.bb_close(self._client)

    def call(
        self,
        field: int,
        header: bytes,
        parts: Sequence[memoryview],
        timeout: float,
        place: Place,
    ) -> tuple[bytes, tuple[int, int]]:
        """Make a call, and give its result, and the bytes that went and came.

        - `field`: the header's in `CallsRequest`.
        - `parts`: one-dimensional views of format B; they must not change meanwhile.
        - `timeout`: seconds, or `NO_TIMEOUT`.
        - `place`: is given the encoded result, and gives the memory for the tensors.

        Raises `CallError`.
        """
        loaded = self._library
        call, found = ctypes.c_void_p(), (ctypes.c_size_t * 2)()
        sent = _addresses(parts), len(parts)
        # Ctrl-C may come as soon as the call has begun: `call` has it by then.
        try:
            loaded.bb_begin(
                self._client,
                field,
                header,
                len(header),
                *sent,
                timeout,
                ctypes.byref(call),
            )
            code = loaded.bb_wait(call, _SLICE_S, found)
            while code == _NOT_YET:
                code = loaded.bb_wait(call, _SLICE_S, found)
            answer = ctypes.string_at(found[0], found[1])
            if code:
                raise CallError(code, answer)
            places = place(answer)
            memory, count = _addresses(places), len(places)
            code = loaded.bb_receive(call, memory, count, _SLICE_S, found)
            while code == _NOT_YET:
                code = loaded.bb_receive(call, memory, count, _SLICE_S, found)
            if code:
                raise CallError(code, ctypes.string_at(found[0], found[1]))
        finally:
            loaded.bb_free(call)
        sent_bytes = len(header) + sum(map(_size, parts))
        return answer, (sent_bytes, len(answer) + sum(map(_size, places)))


def _drop(loaded: Any, client: int, pid: int) -> None:
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
