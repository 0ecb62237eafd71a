"""What a network was when it was made, and whether it still is."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# What may change from forward to forward, and travels with each.
_TRAVELS = {"training", "return_prerelu"}
_TRAVELS_OF_NORMS = _TRAVELS | {"eps", "momentum", "track_running_stats"}
_PLAIN = (bool, int, float, str, type(None))


class Tensor(NamedTuple):
    """Name, shape and type of a parameter or a buffer."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class _Part:
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
        self._children = tuple(module._modules)
        self._tensors = _tensor_names(module)
        travels = _TRAVELS_OF_NORMS if self.is_norm else _TRAVELS
        self._settings = tuple(
            (name, value)
            for name, value in vars(module).items()
            if name not in travels and _is_plain(value)
        )

    def difference(self, module: Any, first: Any) -> str:
        """Say what is different about the module that is there now; or nothing."""
        if type(module) is not self._type or module is not first:
            return f"{self.path} is another module"
        attributes = vars(module)
        if any(attributes[hooks] for hooks in _HOOKS):
            return f"{self.path} has hooks"
        if "forward" in attributes:
            return f"{self.path} has a forward of its own"
        if (
            tuple(module._modules) != self._children
            or _tensor_names(module) != self._tensors
        ):
            return f"{self.path} has other parts"
        for name, value in self._settings:
            if name not in attributes or attributes[name] != value:
                return f"{self.path}.{name} was changed"
        return ""


class Found(NamedTuple):
    """A network's modules as they are now; `difference` says why they do not count."""

    difference: str
    modules: list[tuple[_Part, nn.Module]]
    own_head: bool

    def one_mode(self, training: bool) -> bool:
        """Whether every module is in training, or none is, BatchNorm aside."""
        return all(
            part.is_norm or module.training == training for part, module in self.modules
        )

    def one_prerelu(self, enabled: bool) -> bool:
        """Whether all blocks keep what is before their ReLU, or none does."""
        return all(
            vars(module)["return_prerelu"] == enabled
            for part, module in self.modules
            if part.has_prerelu
        )


class Blueprint:
    """The structure of a network just made, without its values. It never changes.

    `head` names the submodule that may be replaced. `parameters` and `buffers` are in
    order.
    """

    def __init__(self, net: nn.Module, head: str) -> None:
        parameters, buffers = net.named_parameters(), net.named_buffers()
        self.parameters = [Tensor(n, p.shape, p.dtype) for n, p in parameters]
        self.buffers = [Tensor(n, b.shape, b.dtype) for n, b in buffers]
        self._head = head
        self._head_shapes = [p.shape for p in getattr(net, head).parameters()]
        self._trunk_parts: list[_Part] = []
        self._head_parts: list[_Part] = []
        in_head = set(getattr(net, head).modules())
        numbers: dict[nn.Module, int] = {}
        for path, module in net.named_modules(remove_duplicate=False):
            within = path == head or path.startswith(f"{head}.")
            if within or (path and module not in in_head):
                parts = self._head_parts if within else self._trunk_parts
                first = numbers.setdefault(module, len(parts))
                parts.append(_Part(path, module, first))

    def compare(self, net: nn.Module) -> Found:
        """Look at the network as it is now."""
        difference, modules = _compare(net, self._trunk_parts)
        own_head = (
            not difference
            and not _compare(net, self._head_parts)[0]
            and [p.shape for p in getattr(net, self._head).parameters()]
            == self._head_shapes
        )
        return Found(difference, modules, own_head)


def _compare(
    net: nn.Module, parts: list[_Part]
) -> tuple[str, list[tuple[_Part, nn.Module]]]:
    """Find modules, as far as they are as they were; say what is different."""
    by_path: dict[str, nn.Module] = {"": net}
    found: list[tuple[_Part, Any]] = []
    for part in parts:
        module = by_path[part.above]._modules.get(part.key)
        found.append((part, module))
        difference = part.difference(module, found[part.first][1])
        if difference or module is None:
            return difference, found
        by_path[part.path] = module
    return "", found


def _tensor_names(module: nn.Module) -> tuple[tuple[str, bool], ...]:
    return tuple(
        (name, tensor is None)
        for tensors in (module._parameters, module._buffers)
        for name, tensor in tensors.items()
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)
