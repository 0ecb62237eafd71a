"""The BatchNorm layers of a module tree, and how they differ from their defaults."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from backboned.layout import Layout
from backboned.norms import BatchNorm

_MEAN = ".running_mean"


class Defaults(NamedTuple):
    """What the layers of an architecture are made with."""

    eps: float = 1e-5
    momentum: float = 0.1


_OF_ARCHITECTURE = {
    "efficientnet": Defaults(1e-3, 1 - 0.99),
    "resnet32": Defaults(eps=1e-4),
}


def layer_names(layout: Layout) -> list[str]:
    """Name the BatchNorm layers of a layout."""
    names = (buffer.name for buffer in layout.buffers)
    return [name[: -len(_MEAN)] for name in names if name.endswith(_MEAN)]


def defaults(architecture: str) -> Defaults:
    """Give what the layers of an architecture are made with."""
    return _OF_ARCHITECTURE.get(architecture.replace("_", "-"), Defaults())


class Norms:
    """The BatchNorm layers of a network.

    Parameters
    ----------
    root : torch.nn.Module
    layout : Layout
    architecture : str
    """

    def __init__(self, root: nn.Module, layout: Layout, architecture: str) -> None:
        self._root = weakref.ref(root)
        self._names = layer_names(layout)
        self._defaults = defaults(architecture)
        self._links: list[tuple[dict[str, Any], str, nn.Module | None]] = []
        self._layers: list[nn.Module | None] = []

    def overrides(self) -> list[BatchNorm]:
        """Say how the layers differ from what the next forward would assume."""
        root = self._root()
        assert root is not None  # It asks.
        differing: dict[tuple[Any, ...], list[str]] = {}
        for name, layer in zip(self._names, self._found(root)):
            if isinstance(layer, _BatchNorm):
                difference = self._difference(layer, root.training)
                if any(value is not None for value in difference):
                    differing.setdefault(difference, []).append(name)
        return [self._override(how, names) for how, names in differing.items()]

    def _found(self, root: nn.Module) -> list[nn.Module | None]:
        """Find the layers, whoever replaced what."""
        intact = all(modules.get(key) is child for modules, key, child in self._links)
        if not self._layers or not intact:
            self._links = []
            self._layers = [self._walk(root, name) for name in self._names]
        return self._layers

    def _walk(self, root: nn.Module, name: str) -> nn.Module | None:
        module: nn.Module | None = root
        for step in name.split("."):
            if module is None:
                break
            child = module._modules.get(step)
            link = (module._modules, step, child)
            if link not in self._links:
                self._links.append(link)
            module = child
        return module

    def _difference(self, layer: _BatchNorm, training: bool) -> tuple[Any, ...]:
        usual = self._defaults
        momentum = layer.momentum
        return (
            layer.training if layer.training != training else None,
            None if layer.track_running_stats else False,
            layer.eps if layer.eps != usual.eps else None,
            momentum if momentum not in (None, usual.momentum) else None,
            True if momentum is None else None,
        )

    def _override(self, how: Sequence[Any], names: list[str]) -> BatchNorm:
        training, track, eps, momentum, cumulative = how
        everywhere = len(names) == len(self._names)
        return BatchNorm(
            globs=() if everywhere else names,
            training=training,
            track_running_stats=track,
            eps=eps,
            momentum=momentum,
            cumulative=bool(cumulative),
        )
