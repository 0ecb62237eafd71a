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
    """A module as it was: where it is, its class, its settings, its tensors' names."""

    def __init__(self, path: str, module: nn.Module, first: int | None) -> None:
        self.path = path
        self.above, _, self.key = path.rpartition(".")
        self.first = first
        """If an earlier path leads to the same module, that part's number."""
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

    def difference(self, module: Any) -> str:
        """Say what is different about the module that is there now; or nothing."""
        if type(module) is not self._type:
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
    modules: list[nn.Module]
    own_head: bool


class Blueprint:
    """The structure of a network just made, without its values. It never changes.

    Parameters
    ----------
    net : torch.nn.Module
    head : str
        The submodule that may be replaced.

    Attributes
    ----------
    parameters, buffers : list of Tensor
        In order.
    """

    def __init__(self, net: nn.Module, head: str) -> None:
        self.parameters = [_describe(n, p) for n, p in net.named_parameters()]
        self.buffers = [_describe(n, b) for n, b in net.named_buffers()]
        self._head = head
        self._root_type = type(net)
        self._trunk_parts: list[_Part] = []
        self._head_parts: list[_Part] = []
        self._record(net)

    def _record(self, net: nn.Module) -> None:
        in_head = set(getattr(net, self._head).modules())
        numbers: dict[nn.Module, int] = {}
        for path, module in net.named_modules(remove_duplicate=False):
            if not path:
                continue
            if _within(path, self._head):
                self._head_parts.append(_Part(path, module, None))
            elif module not in in_head:
                first = numbers.setdefault(module, len(self._trunk_parts))
                is_first = first == len(self._trunk_parts)
                self._trunk_parts.append(
                    _Part(path, module, None if is_first else first)
                )

    def compare(self, net: nn.Module) -> Found:
        """Look at the network as it is now."""
        by_path: dict[str, nn.Module] = {"": net}
        modules: list[nn.Module] = []
        for part in self._trunk_parts:
            module = _child(by_path, part)
            difference = part.difference(module)
            if part.first is not None and module is not modules[part.first]:
                difference = difference or f"{part.path} is another module"
            if difference or module is None:
                return Found(difference, [], False)
            by_path[part.path] = module
            modules.append(module)
        return Found("", modules, self._has_own_head(net))

    def _has_own_head(self, net: nn.Module) -> bool:
        by_path: dict[str, nn.Module] = {"": net}
        for part in self._head_parts:
            module = _child(by_path, part)
            if module is None or part.difference(module):
                return False
            by_path[part.path] = module
        shapes = [(p.name, p.shape) for p in self.parameters]
        head = net._modules[self._head]
        assert head is not None
        named = {f"{self._head}.{n}": p for n, p in head.named_parameters()}
        return all(
            tuple(named[name].shape) == shape
            for name, shape in shapes
            if _within(name, self._head)
        )

    def one_mode(self, found: Found, training: bool) -> bool:
        """Whether every module is in training, or none is, BatchNorm aside."""
        return all(
            part.is_norm or module.training == training
            for part, module in zip(self._trunk_parts, found.modules)
        )

    def one_prerelu(self, found: Found, enabled: bool) -> bool:
        """Whether all blocks keep what is before their ReLU, or none does."""
        return all(
            vars(module)["return_prerelu"] == enabled
            for part, module in zip(self._trunk_parts, found.modules)
            if part.has_prerelu
        )


def _child(by_path: dict[str, nn.Module], part: _Part) -> nn.Module | None:
    above = by_path.get(part.above)
    return None if above is None else above._modules.get(part.key)


def _within(name: str, head: str) -> bool:
    return name == head or name.startswith(head + ".")


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


def _describe(name: str, tensor: torch.Tensor) -> Tensor:
    return Tensor(name, tuple(tensor.shape), tensor.dtype)
