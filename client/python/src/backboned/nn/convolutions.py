"""What the convolutions of an architecture do beside their weights' shapes.

The layout names tensors only. Sources: the files of backbones/, which name theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
    architecture = architecture.replace("_", "-")
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
