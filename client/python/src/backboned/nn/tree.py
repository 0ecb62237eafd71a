"""A tree of modules that holds the mirrored tensors under a layout's names."""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import nn

from backboned.errors import MalformedAnswer
from backboned.layout import Layout
from backboned.nn.mirror import torch_dtype
from backboned.nn.norm import BatchNorm2d, Defaults, layer_names
from backboned.nn.part import Part

Make = Callable[[str], nn.Module]
"""Makes the module of a name."""


def plant(root: nn.Module, layout: Layout, norms: Defaults, dtype: torch.dtype) -> None:
    """Add uninitialised parameters, of `dtype`, and buffers under the layout's names.

    `root.named_parameters()` and `root.named_buffers()` then give exactly the
    layout's names in its order; aliases appear in the state dict only. Parameters of
    the narrow types need no gradient: the server has none of them.

    Parameters
    ----------
    root : torch.nn.Module
    layout : Layout
    norms : Defaults
        Of the BatchNorm layers.
    dtype : torch.dtype

    Raises
    ------
    MalformedAnswer
        If no tree of modules has this order.
    """
    sizes = {b.name: b.shape for b in layout.buffers}
    layers = set(layer_names(layout))
    names = {p.name for p in layout.parameters}

    def make(name: str) -> nn.Module:
        if name not in layers:
            return Part()
        size = sizes[f"{name}.running_mean"][0]
        trains = f"{name}.weight" in names
        return BatchNorm2d(size, norms.eps, norms.momentum, affine=trains)

    for parameter in layout.parameters:
        module, key = _descend(root, parameter.name, make)
        empty = torch.empty(parameter.shape, dtype=dtype)
        trains = dtype in (torch.float32, torch.float64)
        module.register_parameter(key, nn.Parameter(empty, requires_grad=trains))
    for buffer in layout.buffers:
        module, key = _descend(root, buffer.name, make)
        kind = torch_dtype(buffer.dtype)
        module.register_buffer(key, torch.empty(buffer.shape, dtype=kind))
    for parameter in layout.parameters:
        for alias in parameter.aliases:
            _share(root, parameter.name, alias)
    _check([name for name, _ in root.named_parameters()], layout.parameters)
    _check([name for name, _ in root.named_buffers()], layout.buffers)


def _share(root: nn.Module, name: str, alias: str) -> None:
    """Make a parameter known under a further name: its whole module, if it can be."""
    module, key = _descend(root, name)
    path, _, alias_key = alias.rpartition(".")
    if key == alias_key and path:
        parent, last = _descend(root, path)
        if parent._modules.setdefault(last, module) is module:
            return
    place, _ = _descend(root, alias)
    place.register_parameter(alias_key, module._parameters[key])


def _descend(
    root: nn.Module, name: str, make: Make = lambda name: Part()
) -> tuple[nn.Module, str]:
    """Give the module that holds a tensor, made where missing, and the last word."""
    *path, key = name.split(".")
    module = root
    for depth, step in enumerate(path, 1):
        child = module._modules.get(step)
        if child is None:
            child = make(".".join(path[:depth]))
            module.add_module(step, child)
        module = child
    return module, key


def _check(found: list[str], expected: Any) -> None:
    names = [item.name for item in expected]
    if found != names:
        raise MalformedAnswer(
            f"the layout's order {names} is not the order {found} of a module tree"
        )
