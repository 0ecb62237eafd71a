"""Says in the log what moves between a network and its server, and why."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from backboned.dtypes import Array

_log = logging.getLogger("backboned")
_NAMES = 4


def say_push(
    names: Sequence[str], arrays: Sequence[Array], version: int | None
) -> None:
    """Log at DEBUG that tensors are pushed.

    Parameters
    ----------
    names : sequence of str
    arrays : sequence of ndarray
    version : int or None
        That the server was known to have; None: it was not known.
    """
    why = "it is not known what the server has" if version is None else "changed here"
    _say("push", names, sum(array.nbytes for array in arrays), why)


def say_fetch(names: Sequence[str], size: int) -> None:
    """Log at DEBUG that tensors of so many bytes are fetched."""
    _say("fetch", names, size, "read here after the server changed them")


def _say(what: str, names: Sequence[str], size: int, why: str) -> None:
    if not _log.isEnabledFor(logging.DEBUG):
        return
    shown = ", ".join(names[:_NAMES]) + (", ..." if len(names) > _NAMES else "")
    _log.debug("%s %d tensors, %d bytes: %s (%s)", what, len(names), size, why, shown)
