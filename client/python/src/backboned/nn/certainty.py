"""What an error of a call says about what happened in the server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc

from backboned.errors import BackbonedError, StaleVersion
from backboned.instance import Instance
from backboned.layout import Version

# After these codes nothing has changed in the server.
NOTHING_CHANGED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


_ADVICE = "net.pull() takes the server's state, net.push() puts this one's"


class Versioned:
    """Knows in what version the server has what is here, or may be expected there.

    What is not known is None: then the next use writes, or takes, without a condition.
    """

    _version: Version

    @contextlib.contextmanager
    def _changing(self, *parts: str) -> Iterator[Version]:
        """Forget a version before a call that changes it, which notes the new one.

        So whatever ends the call, at whatever instant, nothing wrong is believed. If
        the server says that nothing changed, what was known is known again.

        Parameters
        ----------
        *parts : {"params", "buffers"}

        Yields
        ------
        Version
            What was known before.
        """
        known = self._version
        self._version = known._replace(**dict.fromkeys(parts))
        try:
            yield known
        except BackbonedError as error:
            if error.code in NOTHING_CHANGED:
                self._version = known
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
