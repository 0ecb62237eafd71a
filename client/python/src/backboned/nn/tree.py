"""A tree of modules that holds the mirrored tensors under a layout's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from backboned.errors import MalformedAnswer
from backboned.nn import intact, parts
from backboned.nn.parts import Part
from backboned.nn.watch import torch_dtype
from backboned.types import Layout

Shapes = Mapping[str, "tuple[int, ...]"]
"""The weights of an architecture's convolutions, in order, by module."""

# The first block of every stage but the first halves the sides.
_HALVES = re.compile(r"(lateral_)?layer[2-9]\.0\.(conv\d|shortcut(\.0)?|downsample\.0)")
# Strides of EfficientNet's groups of blocks.
_GROUPS = (1, 2, 2, 2, 1, 2, 1)


def options(architecture: str, shapes: Shapes) -> dict[str, dict[str, Any]]:
    """Give `stride`, `padding` and `groups` of convolutions, as `nn.Conv2d` takes them.

    EfficientNet's have the padding 0, as in Python: they pad by themselves.
    """
    if architecture == "efficientnet":
        return _efficientnet(shapes)
    if architecture.startswith("vit"):
        return {name: {"stride": shape[2:]} for name, shape in shapes.items()}
    return {
        name: {"stride": _stride(name, shape, shapes), "padding": (shape[2] - 1) // 2}
        for name, shape in shapes.items()
    }


def _stride(name: str, shape: tuple[int, ...], shapes: Shapes) -> int:
    """Give the stride of a convolution of a residual network."""
    if shape[2] == 7:
        return 2
    if not _HALVES.fullmatch(name):
        return 1
    block, _, last = name.rpartition(".")
    if not last.startswith("conv"):
        return 2
    # A bottleneck has three, and halves in the second.
    return 2 if last == ("conv2" if f"{block}.conv3" in shapes else "conv1") else 1


def _efficientnet(shapes: Shapes) -> dict[str, dict[str, Any]]:
    given: dict[str, dict[str, Any]] = {name: {} for name in shapes}
    given["_conv_stem"] = {"stride": 2}
    group, planes = -1, 0
    for name, shape in shapes.items():
        if not name.endswith("_depthwise_conv"):
            continue
        out = shapes[name.replace("_depthwise_conv", "_project_conv")][0]
        stride = 1
        if out != planes:  # Each group of blocks is wider than the one before.
            group, planes = group + 1, out
            stride = _GROUPS[group]
        given[name] = {"stride": stride, "groups": shape[0]}
    return given


_LAYER_NORM_EPS = 1e-6  # Of vision transformers.


def plant(root: nn.Module, layout: Layout, architecture: str, dtype: Any) -> None:
    """Add uninitialised parameters, of `dtype`, and buffers under the layout's names.

    `root.named_parameters()` and `root.named_buffers()` then give exactly the
    layout's names in its order. The modules are of the classes of `backboned.nn.part`.
    Parameters of the narrow types need no gradient: the server has none of them.

    Raises MalformedAnswer if no tree of modules has this order.
    """
    kinds = _Kinds(layout, architecture)
    trains = dtype in (torch.float32, torch.float64)
    for parameter in layout.parameters:
        module, key = _descend(root, parameter.name, kinds)
        empty = torch.empty(parameter.shape, dtype=dtype, device="cpu")
        module.register_parameter(key, nn.Parameter(empty, requires_grad=trains))
    for buffer in layout.buffers:
        module, key = _descend(root, buffer.name, kinds)
        kind = torch_dtype(buffer.dtype)
        empty = torch.empty(buffer.shape, dtype=kind, device="cpu")
        module.register_buffer(key, empty)
    _check([name for name, _ in root.named_parameters()], layout.parameters)
    _check([name for name, _ in root.named_buffers()], layout.buffers)


class _Kinds:
    """Makes the module of a name: of the class that its tensors speak for."""

    def __init__(self, layout: Layout, architecture: str) -> None:
        self._norms = intact.defaults(architecture)
        self._sizes = {b.name: b.shape for b in layout.buffers}
        self._shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        for parameter in layout.parameters:
            name, _, key = parameter.name.rpartition(".")
            self._shapes.setdefault(name, {})[key] = parameter.shape
        self._convolutions = options(
            architecture,
            {
                name: shapes["weight"]
                for name, shapes in self._shapes.items()
                if len(shapes.get("weight", ())) == 4
            },
        )

    def make(self, name: str, child: str) -> nn.Module:
        """Make a module, of which `child` is one; its tensors have no values yet."""
        module = self._layer(name)
        if module is None:
            module = parts.Sequential() if child.isdigit() else Part()
        module.path = name  # type: ignore[assignment]
        return module

    def _layer(self, name: str) -> nn.Module | None:
        shapes = self._shapes.get(name, {})
        mean = self._sizes.get(f"{name}.running_mean")
        if mean is not None:
            eps, momentum = self._norms
            affine = "weight" in shapes
            return parts.BatchNorm2d(mean[0], eps, momentum, affine, device="meta")
        if list(shapes) not in (["weight"], ["weight", "bias"]):
            return None
        weight, bias = shapes["weight"], "bias" in shapes
        if len(weight) == 2:
            return parts.Linear(weight[1], weight[0], bias, device="meta")
        if len(weight) == 4:
            given = self._convolutions[name]
            planes = weight[1] * given.get("groups", 1)
            size: Any = weight[2:]
            return parts.Conv2d(
                planes, weight[0], size, bias=bias, device="meta", **given
            )
        if len(weight) == 1 and bias:
            return parts.LayerNorm(list(weight), _LAYER_NORM_EPS, device="meta")
        return None


def _descend(root: nn.Module, name: str, kinds: _Kinds) -> tuple[nn.Module, str]:
    """Give the module that holds a tensor, made where missing, and the last word."""
    *path, key = name.split(".")
    module = root
    for depth, step in enumerate(path, 1):
        child = module._modules.get(step)
        if child is None:
            child = kinds.make(".".join(path[:depth]), "".join(path[depth : depth + 1]))
            module.add_module(step, child)
        module = child
    return module, key


def _check(found: list[str], expected: Any) -> None:
    names = [item.name for item in expected]
    if found != names:
        raise MalformedAnswer(
            f"the layout's order {names} is not the order {found} of a module tree"
        )
