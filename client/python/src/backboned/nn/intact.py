"""Whether the parts of a backbone are still those that the server computes."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from backboned.nn.parts import NOT_CALLED, Part
from backboned.nn.watch import ModulePaths
from backboned.types import BatchNorm, Layout

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
    """The BatchNorm layers of a network."""

    def __init__(self, root: nn.Module, layout: Layout, architecture: str) -> None:
        self._root = weakref.ref(root)
        self._names = layer_names(layout)
        self._defaults = defaults(architecture)
        self._paths = ModulePaths(root, self._names)
        self._layers: list[nn.Module | None] = []

    def overrides(self) -> list[BatchNorm]:
        """Say how the layers differ from what the next forward would assume."""
        root = self._root()
        assert root is not None  # It asks.
        differing: dict[tuple[Any, ...], list[str]] = {}
        if self._paths.changed():  # Whoever replaced what.
            found = self._paths.find()
            self._layers = [found[name] for name in self._names]
        for name, layer in zip(self._names, self._layers):
            if isinstance(layer, _BatchNorm):
                difference = self._difference(layer, root.training)
                if any(value is not None for value in difference):
                    differing.setdefault(difference, []).append(name)
        return [self._override(how, names) for how, names in differing.items()]

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


_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


class Parts:
    """The modules that lead to a layout's tensors.

    The architecture says what the server computes with the tensors. A module that
    would compute something else here is refused, whoever put it there.
    """

    def __init__(self, root: nn.Module, layout: Layout) -> None:
        self._root = weakref.ref(root)
        self._draws = layout.stochastic
        self._norms = set(layer_names(layout))
        names = [parameter.name for parameter in layout.parameters]
        names += [buffer.name for buffer in layout.buffers]
        self._paths = ModulePaths(root, [name.rpartition(".")[0] for name in names])
        self._fine = False
        self._others: list[tuple[str, nn.Module]] = []
        self._holders: list[tuple[str, nn.Module]] = []

    def check(self) -> None:
        """Refuse parts that the server does not compute as they are.

        Raises AttributeError if one is gone. Raises TypeError if one is of a class that
        computes something of its own. Raises NotImplementedError if one has hooks, or a
        forward of its own. Raises RuntimeError if the network drops out, and one that
        may is in another mode than it.
        """
        root = self._root()
        assert root is not None  # It asks.
        if not self._fine or self._paths.changed():
            self._fine = False
            self._look()
            self._fine = True
        for path, module in self._others:
            self._check_hooks(path, module)
        if self._draws:
            self._check_modes(root.training)

    def _look(self) -> None:
        """Find the modules, and check their classes."""
        found = []
        for path, module in self._paths.find().items():
            if module is None:
                raise AttributeError(f"the backbone has no {path!r} any more")
            if path:
                self._check_class(path, module)
                found.append((path, module))
        self._others = [(p, m) for p, m in found if not isinstance(m, Part)]
        # A layer's own mode means nothing, but for BatchNorm's, which travels.
        self._holders = [(p, m) for p, m in found if m._modules]

    def _check_class(self, path: str, module: nn.Module) -> None:
        """Raise TypeError unless a module computes what the server computes there."""
        plain = nn.BatchNorm2d if path in self._norms else nn.Linear
        forward = type(module).forward
        known = isinstance(module, plain) and forward is plain.forward
        if forward is not Part.forward and not known:
            raise TypeError(
                f"{path} is a {type(module).__name__}, which may compute something "
                "else than the server does there; put its tensors into the part that "
                "was there (net.conv1.weight = conv.weight), or it behind the features"
            )

    def _check_hooks(self, path: str, module: nn.Module) -> None:
        """Raise if a module that somebody put there has hooks, or a forward."""
        attributes = vars(module)
        if "forward" in attributes or any(attributes[hooks] for hooks in _HOOKS):
            what = "a forward of its own" if "forward" in attributes else "hooks"
            raise NotImplementedError(f"{path} has {what}: {NOT_CALLED}")

    def _check_modes(self, training: bool) -> None:
        """Raise if a part that may draw random numbers is in a mode of its own."""
        for path, module in self._holders:
            if module.training != training:
                mode, other = "training", "evaluation"
                if training:
                    mode, other = other, mode
                raise RuntimeError(
                    f"{path} is in {mode} and the network in {other}, but the server "
                    "drops out in the whole network or nowhere; call net.train() or "
                    "net.eval(), and then train() or eval() of BatchNorm layers only"
                )
