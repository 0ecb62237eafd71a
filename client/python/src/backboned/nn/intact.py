"""Say whether the parts of a backbone are still those that the server computes."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from backboned.nn.parts import NOT_CALLED, Part
from backboned.nn.watch import ModulePaths
from backboned.types import BatchNorm, Layout


class Defaults(NamedTuple):
    """The arguments that the layers of an architecture are made with."""

    eps: float = 1e-5
    momentum: float = 0.1


_OF_ARCHITECTURE = {
    "efficientnet": Defaults(1e-3, 1 - 0.99),
    "resnet32": Defaults(eps=1e-4),
}


def defaults(architecture: str) -> Defaults:
    """Give what the layers of an architecture are made with."""
    return _OF_ARCHITECTURE.get(architecture, Defaults())


_SAME = (None, None, None, None, False)

HOOKS = (
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

    def __init__(self, root: nn.Module, layout: Layout, architecture: str) -> None:
        self._draws = layout.stochastic
        self._defaults = defaults(architecture)
        tensors: tuple[Any, ...] = (*layout.parameters, *layout.buffers)
        places = [tensor.name.rpartition(".") for tensor in tensors]
        self._norms = [above for above, _, key in places if key == "running_mean"]
        self._paths = ModulePaths(root, [above for above, *_ in places])

    def overrides(self) -> list[BatchNorm]:
        """Say how BatchNorm layers differ from what the next forward would assume."""
        if not self._norms:
            return []
        differing: dict[tuple[Any, ...], list[str]] = {}
        modules, (eps, momentum) = self._paths.find(), self._defaults
        root: Any = modules[""]
        for name in self._norms:
            layer = modules[name]
            if isinstance(layer, _BatchNorm):
                how = (  # What `BatchNorm` has, without the names.
                    layer.training if layer.training != root.training else None,
                    None if layer.track_running_stats else False,
                    layer.eps if layer.eps != eps else None,
                    layer.momentum if layer.momentum not in (None, momentum) else None,
                    layer.momentum is None,
                )
                if how != _SAME:
                    differing.setdefault(how, []).append(name)
        every = len(self._norms)
        return [
            BatchNorm(() if len(names) == every else tuple(names), *how)
            for how, names in differing.items()
        ]

    def check(self) -> None:
        """Refuse parts that the server does not compute as they are.

        Raises AttributeError if one is gone. Raises TypeError if one is of a class that
        computes something of its own. Raises NotImplementedError if one has hooks, or a
        forward of its own. Raises RuntimeError if the network drops out, and one that
        may is in another mode than it.
        """
        modules = self._paths.find()
        root: Any = modules.pop("")
        for path, module in modules.items():
            if module is None:
                raise AttributeError(f"the backbone has no {path!r} any more")
            if type(module).forward is not Part.forward:
                self._check_class(path, module)
            if not isinstance(module, Part):
                self._check_hooks(path, module)
            # A layer's own mode means nothing, but for BatchNorm's, which travels.
            if self._draws and module._modules and module.training != root.training:
                self._refuse_mode(path, module.training)

    def _check_class(self, path: str, module: nn.Module) -> None:
        """Raise TypeError unless a layer of PyTorch's computes what the server does."""
        plain = nn.BatchNorm2d if path in self._norms else nn.Linear
        if not isinstance(module, plain) or type(module).forward is not plain.forward:
            raise TypeError(
                f"{path} is a {type(module).__name__}, which may compute something "
                "else than the server does there; put its tensors into the part that "
                "was there (net.conv1.weight = conv.weight), or it behind the features"
            )

    def _check_hooks(self, path: str, module: nn.Module) -> None:
        """Raise if a module that somebody put there has hooks, or a forward."""
        attributes = vars(module)
        if "forward" in attributes or any(attributes[hooks] for hooks in HOOKS):
            what = "a forward of its own" if "forward" in attributes else "hooks"
            raise NotImplementedError(f"{path} has {what}: {NOT_CALLED}")

    def _refuse_mode(self, path: str, training: bool) -> NoReturn:
        modes = ("training", "evaluation") if training else ("evaluation", "training")
        raise RuntimeError(
            f"{path} is in {modes[0]} and the network in {modes[1]}, but the server "
            "drops out in the whole network or nowhere; call net.train() or "
            "net.eval(), and then train() or eval() of BatchNorm layers only"
        )
