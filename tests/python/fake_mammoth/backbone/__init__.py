"""A package as Mammoth's `backbone` is one: a registry of functions that build nets."""

import importlib

from torch import nn

REGISTERED_BACKBONES = {}


class MammothBackbone(nn.Module):
    """The parts that all networks have in common."""

    def __init__(self):
        super().__init__()
        self.device = "cpu"

    def features(self, x):
        return self.forward(x, returnt="features")


def register_backbone(name):
    def register(function):
        REGISTERED_BACKBONES[name] = {"class": function, "parsable_args": {}}
        return function

    return register


def build(name, **arguments):
    """Build a network as Mammoth's `get_backbone` does."""
    return REGISTERED_BACKBONES[name]["class"](**arguments)


for _module in ("MNISTMLP", "ResNetBlock", "Strange"):
    importlib.import_module(f"backbone.{_module}")
