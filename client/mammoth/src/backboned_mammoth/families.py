"""Mammoth's backbones that a server can compute, and what their classes return.

As in github.com/aimagelab/mammoth at commit e75a491. A network of a checkout that
differs in a class's name, tensors or modules runs here, with a warning that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

LAYERS = "layers"  # In an answer: the list of every stage's output.


class Family(NamedTuple):
    """Classes of Mammoth that are called alike.

    - `module`, `name`: the class.
    - `answers`: for each `returnt` what the class gives: a tensor if it is one word,
      else a tuple. The class refuses what is not there with an error of its own.
    - `head`: the submodule that makes logits of features.
    - `before_head`: a submodule that features pass on their way to the head; empty:
      none.
    - `otherwise`: what it gives for every other `returnt`; empty: an error.
    - `flattens`: it begins with a view of the input as vectors, which fails on some
      strides.
    """

    module: str
    name: str
    answers: Mapping[str, tuple[str, ...]]
    head: str = "classifier"
    before_head: str = ""
    otherwise: tuple[str, ...] = ()
    flattens: bool = False


class Known(NamedTuple):
    """A registered backbone: its family, and which arguments the server takes."""

    family: Family
    arguments: tuple[str, ...]


_LIST = {
    "out": ("out",),
    "features": ("features",),
    "both": ("out", "features"),
    "full": ("out", LAYERS),
}
_PAIR = {"out": ("out",), "features": ("features",), "full": ("out", "features")}

_RESNET = Family("backbone.ResNetBlock", "ResNet", _LIST)
_BOTTLENECK = Family("backbone.ResNetBottleneck", "ResNet", _LIST)
_RESNET32 = Family(
    "backbone.ResNet32",
    "ResNet32",
    {"features": ("features",), "both": ("out", "features")},
    otherwise=("out",),
)
_PERCEPTRON = Family("backbone.MNISTMLP", "BaseMNISTMLP", _PAIR, flattens=True)
_EFFICIENTNET = Family(
    "backbone.EfficientNet", "EfficientNet", _PAIR, before_head="_dropout"
)
_VIT = Family("backbone.vit", "VisionTransformer", _LIST, head="head")

KNOWN: Mapping[str, Known] = {
    "mnistmlp": Known(_PERCEPTRON, ("num_classes", "mlp_hidden_size")),
    "resnet18": Known(_RESNET, ("num_classes", "num_filters")),
    "resnet34": Known(_RESNET, ("num_classes", "num_filters")),
    "preact-resnet18": Known(_RESNET, ("num_classes", "num_filters")),
    "reduced-resnet18": Known(_RESNET, ("num_classes",)),
    "resnet18-spr": Known(_RESNET, ("num_classes",)),
    "resnet18-7x7-pt": Known(_RESNET, ("num_classes",)),
    "resnet32": Known(_RESNET32, ("num_classes", "depth")),
    "resnet50": Known(_BOTTLENECK, ("num_classes",)),
    "resnet50-pt": Known(_BOTTLENECK, ("num_classes",)),
    "efficientnet": Known(_EFFICIENTNET, ("num_classes", "efficientnet_type")),
    "vit": Known(_VIT, ("num_classes",)),
}
"""By Mammoth's name, which is the server's. Later columns of progressive networks
(`mnistmlp-pnn`, `resnet18-pnn`) are made by their method, not by the registry."""
