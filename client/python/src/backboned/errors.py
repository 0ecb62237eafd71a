"""Lets an error point to the line that asked, not to what lies below it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
from typing import Any, Callable, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError

from backboned.v1 import error_pb2

# ruff: noqa: N818


__all__ = [
    "Aborted",
    "AlreadyExists",
    "BackbonedError",
    "Cancelled",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "MalformedAnswer",
    "NotFound",
    "Refused",
    "ResourceExhausted",
    "ServerRestarted",
    "ServerStartError",
    "StaleVersion",
    "StepNotMade",
    "Unavailable",
]

NOTHING_CHANGED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""After these codes nothing has changed in the server."""

_DETAILS_KEY = "grpc-status-details-bin"


@dataclasses.dataclass(eq=False, repr=False)
class BackbonedError(Exception):
    """A call failed.

    - `message`: the sentence for people.
    - `code`: what kind of thing to do about it.
    - `reason`: which one it is, e.g. ``"STALE_VERSION"``; empty if the server gave
      none.
    - `limit`: the server's limit that was reached, e.g. ``"max-tapes"``; else empty.
    - `limit_value`, `requested_value`: the limit, and what the call would have made of
      it.
    - `limit_scope`: whose use the limit counts: ``"server"`` (all callers' together),
      ``"principal"``, ``"session"`` or ``"run"``; else empty.
    - `retry_delay`: seconds after which a retry may succeed; None if a retry does not
      help.
    """

    message: str
    code: grpc.StatusCode = None
    reason: str = ""
    limit: str = ""
    limit_value: int = 0
    requested_value: int = 0
    retry_delay: float | None = None
    limit_scope: str = ""

    default_code = grpc.StatusCode.UNKNOWN
    # The server was waited for already, and stayed away.
    was_waited_for = False

    def __post_init__(self) -> None:
        """Fill `code` in, and be an exception of the message."""
        super().__init__(self.message)
        self.code = self.code or self.default_code

    def __str__(self) -> str:
        """Give the message, then code and reason."""
        kind = ", ".join(filter(None, (self.code.name, self.reason)))
        return f"{self.message} ({kind})"


class InvalidArgument(BackbonedError, ValueError):
    """The call is malformed: a shape, a type, a name, or its stream. Fix the call."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(BackbonedError, LookupError):
    """No such instance, benchmark or architecture. Fix the name."""

    default_code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(BackbonedError):
    """The name is taken. Choose another."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(BackbonedError):
    """A step is missing: the tape is gone, or there are no gradients yet."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class ServerRestarted(FailedPrecondition):
    """The server was restarted, and what only it had is lost. Resume from a copy."""

    # With the reason SERVER_RESTARTED, which is the client's own, a call was lost
    # with the server that it was made to.


class StepNotMade(FailedPrecondition):
    """A training step in flight was not made, since one before it had failed.

    - `first`: the error of that one.
    """

    first: BaseException | None = None


class Aborted(BackbonedError):
    """Somebody else was faster. Read again and retry."""

    default_code = grpc.StatusCode.ABORTED


class StaleVersion(Aborted):
    """The instance is not in the version that the call demands."""


class ResourceExhausted(BackbonedError):
    """A limit of the server is reached; `limit` names it. Back off.

    The client has backed off already, for its `retry_timeout`, where that is safe.
    """

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(BackbonedError, ConnectionError):
    """Nothing answers: the server is not there, went away, or is shutting down.

    The client has waited for it already, for its `reconnect_timeout`, where that is
    safe: where the call may be made again.
    """

    default_code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(BackbonedError, TimeoutError):
    """The call took longer than its timeout."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(BackbonedError):
    """The call was ended before its answer."""

    default_code = grpc.StatusCode.CANCELLED


class Refused(BackbonedError, PermissionError):
    """The caller is nobody whom the server lets in, or may not do this."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class Internal(BackbonedError):
    """The server failed on input that it had checked. Report it."""

    default_code = grpc.StatusCode.INTERNAL


class MalformedAnswer(BackbonedError):
    """The server's answer breaks the contract. Report it."""

    default_code = grpc.StatusCode.DATA_LOSS


class ServerStartError(BackbonedError):
    """The server's program cannot be found, or did not come up."""

    default_code = grpc.StatusCode.UNAVAILABLE


_CLASSES: dict[Any, type[BackbonedError]] = {
    cls.default_code: cls
    for cls in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Aborted,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Refused,
        Internal,
        MalformedAnswer,
    )
}
_CLASSES[grpc.StatusCode.UNAUTHENTICATED] = Refused


def from_rpc(error: grpc.RpcError, hint: str = "") -> BackbonedError:
    """Make the exception that a failed call stands for.

    - `error`: what grpc raised; its trailer `grpc-status-details-bin` is read.
    - `hint`: what the client knows besides, e.g. that the server's process has ended.
    """
    code = error.code()
    details = b""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            details = value
    return from_details(code, error.details(), details, hint)


def from_details(
    code: grpc.StatusCode, message: str | None, details: bytes, hint: str = ""
) -> BackbonedError:
    """Make the exception of an encoded `StatusDetails`.

    - `message`: the sentence for people; unless given, that of the details.
    - `hint`: as in `from_rpc`.
    """
    status, detail = error_pb2.StatusDetails(), error_pb2.ErrorDetail()
    with contextlib.suppress(DecodeError):
        status = error_pb2.StatusDetails.FromString(details)
        any(item.Unpack(detail) for item in status.details)
    message = message or status.message or code.name.lower()
    if hint:
        message = f"{hint} [{message}]"
    reason = _name(error_pb2.ErrorReason, detail.reason)
    scope = _name(error_pb2.LimitScope, detail.scope)
    cls = _CLASSES.get(code, BackbonedError)
    if reason == "STALE_VERSION":
        cls = StaleVersion
    delay = None
    if detail.HasField("retry_delay"):
        delay = detail.retry_delay.ToNanoseconds() / 1e9
    return cls(
        message,
        code,
        reason,
        detail.limit,
        detail.limit_value,
        detail.requested_value,
        delay,
        "" if scope.isdigit() else scope.lower(),
    )


def _name(enum: Any, number: int) -> str:
    """Name a number without its enum's prefix: empty for 0, digits if it is unknown."""
    if number not in enum.values():
        return str(number)
    first: str = enum.Name(0)
    name: str = enum.Name(number)
    return name[len(first) - len("UNSPECIFIED") :] if number else ""


_log = logging.getLogger("backboned")

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


def verb(function: F) -> F:
    """Let a `BackbonedError` of a public function come without the frames below it.

    They are logged at DEBUG (logger ``backboned``).
    """

    @functools.wraps(function)
    def verb(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BackbonedError as error:
            _log.debug("%s failed", function.__qualname__, exc_info=True)
            raise error.with_traceback(None) from None

    return cast(F, verb)


def verbs(cls: C) -> C:
    """Make a `verb` of each public method that a class defines itself."""
    for name, value in list(vars(cls).items()):
        if not name.startswith("_") and inspect.isfunction(value):
            setattr(cls, name, verb(value))
    return cls
