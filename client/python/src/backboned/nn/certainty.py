"""What an error of a call says about what happened in the server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Callable

import grpc

from backboned.errors import BackbonedError, StaleVersion
from backboned.instance import Instance

# After these codes nothing has changed in the server.
NOTHING_CHANGED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


_ADVICE = "net.pull() takes the server's state, net.push() puts this one's"


@contextlib.contextmanager
def unless_certain(forget: Callable[[], None]) -> Iterator[None]:
    """Call `forget` if a call fails such that it may have happened."""
    try:
        yield
    except BackbonedError as error:
        if error.code not in NOTHING_CHANGED:
            forget()
        raise
    except BaseException:
        forget()
        raise


@contextlib.contextmanager
def advised_if_stale(instance: Instance) -> Iterator[None]:
    """Add what to do to the error that somebody else changed the instance."""
    try:
        yield
    except StaleVersion as error:
        if _ADVICE in error.message:
            raise
        raise StaleVersion(
            f"somebody else changed {instance.name!r} in the server: "
            f"{_ADVICE} [{error.message}]",
            error.code,
            error.reason,
        ) from error
