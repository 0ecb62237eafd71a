"""Methods that are handed to one's own parts, without a circle of references.

Python's collector frees what a circle holds, some time or never. A dropped
network is to leave the server at once.
"""

from __future__ import annotations

import weakref
from typing import Any, Callable, TypeVar

T = TypeVar("T")


def weakly(method: Callable[..., T]) -> Callable[..., T]:
    """Give a bound method as a function that does not keep its object alive.

    It is called as long as the object lives.
    """
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> T:
        bound = reference()
        assert bound is not None
        return bound(*arguments)

    return call


class Weak:
    """An attribute that does not keep its object alive; None if it is gone."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Take the attribute's name."""
        self._name = f"_weak{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Give the object, or None."""
        reference = instance.__dict__.get(self._name)
        return None if reference is None else reference()

    def __set__(self, instance: Any, value: Any) -> None:
        """Note the object."""
        instance.__dict__[self._name] = weakref.ref(value)
