"""Lets an error point to the line that asked, not to what lies below it."""

from __future__ import annotations

import functools
import inspect
import logging
from typing import Any, Callable, TypeVar, cast

from backboned.errors import BackbonedError

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
