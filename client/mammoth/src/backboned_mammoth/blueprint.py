"""Remembers what a network was when it was made, and says whether it still is."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from backboned.nn.intact import HOOKS
from backboned.nn.lazy import as_plain
from torch import nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# These may change from forward to forward, and travels with each.
_TRAVELS = {"training", "return_prerelu"}
_TRAVELS_OF_NORMS = _TRAVELS | {"eps", "momentum", "track_running_stats"}
_PLAIN = (bool, int, float, str, type(None))


class UnsuitableError(Exception):
    """The server cannot compute this; says why, or nothing if no one need know."""


class Tensor(NamedTuple):
    """Name, shape and type of a parameter or a buffer."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class Part:
    """A module as it was: where it is, its class, its settings, its tensors' names.

    `first` is the number of the part whose path leads to the same module: the earliest
    one, which may be this.
    """

    def __init__(self, path: str, module: nn.Module, first: int) -> None:
        self.path = path
        self.above, _, self.key = path.rpartition(".")
        self.first = first
        self.is_norm = isinstance(module, _NORMS)
        self.has_prerelu = "return_prerelu" in vars(module)
        self._type = type(module)
        self._content = _content(module)
        travels = _TRAVELS_OF_NORMS if self.is_norm else _TRAVELS
        self._settings = tuple(
            (name, value)
            for name, value in vars(module).items()
            if name not in travels and _is_plain(value)
        )

    def check(self, module: Any, first: Any) -> None:
        """Raise UnsuitableError if the module that is there now is otherwise."""
        if type(module) is not self._type or module is not first:
            raise UnsuitableError(f"{self.path} is another module")
        attributes = vars(module)
        if any(attributes[hooks] for hooks in HOOKS):
            raise UnsuitableError(f"{self.path} has hooks")
        if "forward" in attributes:
            raise UnsuitableError(f"{self.path} has a forward of its own")
        if _content(module) != self._content:
            raise UnsuitableError(f"{self.path} has other parts")
        for name, value in self._settings:
            if name not in attributes or attributes[name] != value:
                raise UnsuitableError(f"{self.path}.{name} was changed")


class Blueprint:
    """The structure of a network just made, without its values. It never changes.

    `head` names the submodule that may be replaced. `tensors` are the parameters, then
    the buffers, in order.
    """

    def __init__(self, net: nn.Module, head: str) -> None:
        named = (*net.named_parameters(), *net.named_buffers())
        self.tensors = [Tensor(name, t.shape, t.dtype) for name, t in named]
        self._head = head
        self._head_shapes = [p.shape for p in getattr(net, head).parameters()]
        self._trunk_parts: list[Part] = []
        self._head_parts: list[Part] = []
        in_head = set(getattr(net, head).modules())
        numbers: dict[nn.Module, int] = {}
        for path, module in net.named_modules(remove_duplicate=False):
            within = path == head or path.startswith(f"{head}.")
            if within or (path and module not in in_head):
                parts = self._head_parts if within else self._trunk_parts
                first = numbers.setdefault(module, len(parts))
                parts.append(Part(path, module, first))

    def find(self, net: nn.Module) -> tuple[list[tuple[Part, nn.Module]], bool]:
        """Give the network's modules as they are now, and whether it has its own head.

        Raises UnsuitableError if anything but its head is otherwise.
        """
        with as_plain():
            modules = _find(net, self._trunk_parts)
            try:
                _find(net, self._head_parts)
            except UnsuitableError:
                return modules, False
            shapes = [p.shape for p in getattr(net, self._head).parameters()]
            return modules, shapes == self._head_shapes


def _find(net: nn.Module, parts: list[Part]) -> list[tuple[Part, nn.Module]]:
    by_path: dict[str, Any] = {"": net}
    found: list[tuple[Part, nn.Module]] = []
    for part in parts:
        module = by_path[part.above]._modules.get(part.key)
        found.append((part, module))
        part.check(module, found[part.first][1])
        by_path[part.path] = module
    return found


def _content(module: nn.Module) -> list[tuple[str, bool]]:
    """List the names of what a module has, and whether that is nothing."""
    kinds = (module._modules, module._parameters, module._buffers)
    return [(name, part is None) for kind in kinds for name, part in kind.items()]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)
