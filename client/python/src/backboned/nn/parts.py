"""The parts of a mirrored backbone: they hold tensors, and compute nothing.

Each is also what code asks for by type, an `nn.Linear` with its `in_features`, say. The
names of the classes are PyTorch's, for code that asks for those.
"""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

NOT_CALLED = (
    "the backbone is computed in the server, which calls no hook and no forward of its "
    "parts; hook the whole backbone, or take what is inside with returnt='full'"
)

_PARAMETERS_ONLY = "the server computes with the parameter itself"

# Parts that torch.nn.utils puts in a parameter's place, by the ending of its name.
_TAKERS = {
    "_orig": "torch.nn.utils.prune or spectral_norm",
    "_g": "torch.nn.utils.weight_norm",
    "_v": "torch.nn.utils.weight_norm",
}


class Part(nn.Module):
    """A part of a mirrored backbone: holds tensors, computes nothing."""

    path = ""
    """Its name in the backbone."""

    # Attributes that say what the server computes, and cannot be changed.
    _fixed: tuple[str, ...] = ()

    def forward(self, *inputs: Any, **options: Any) -> NoReturn:
        """Raise: the parts' computation is in the server."""
        raise NotImplementedError(
            "this part of the backbone runs in the server only; call the whole "
            "backbone, with returnt='features' or 'full' for what is inside"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; raise if the server would compute otherwise with it."""
        if name == "forward":
            raise NotImplementedError(NOT_CALLED)
        if name in self._fixed and self.__dict__.get(name, value) != value:
            raise NotImplementedError(
                f"{self.path}.{name} is {self.__dict__[name]} in the server, and "
                "cannot be changed"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        """Delete an attribute; raise if it is a parameter."""
        if self._parameters.get(name) is not None:
            raise NotImplementedError(
                f"{self.path}.{name} cannot be deleted, or replaced by a "
                f"parametrization of torch.nn.utils: {_PARAMETERS_ONLY}; assign "
                "another parameter, or write its values"
            )
        super().__delattr__(name)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Set a parameter; raise if it is to take another one's place."""
        for ending, taker in _TAKERS.items():
            if name.endswith(ending) and param is not None:
                replaced = name[: -len(ending)]
                raise NotImplementedError(
                    f"{self.path}.{replaced} cannot be replaced by {taker}: "
                    f"{_PARAMETERS_ONLY}; write its values in place, e.g. under "
                    "torch.no_grad() after each step"
                )
        super().register_parameter(name, param)

    def register_forward_hook(self, *hook: Any, **options: Any) -> NoReturn:
        """Raise: nobody would call the hook."""
        raise NotImplementedError(NOT_CALLED)

    register_forward_pre_hook = register_forward_hook
    register_backward_hook = register_forward_hook
    register_full_backward_hook = register_forward_hook
    register_full_backward_pre_hook = register_forward_hook


class Linear(Part, nn.Linear):
    """A linear layer of a backbone."""

    _fixed = tuple(nn.Linear.__constants__)


class Conv2d(Part, nn.Conv2d):
    """A convolution of a backbone."""

    _fixed = tuple(nn.Conv2d.__constants__)


class LayerNorm(Part, nn.LayerNorm):
    """A LayerNorm of a backbone."""

    _fixed = tuple(nn.LayerNorm.__constants__)


class BatchNorm2d(Part, nn.BatchNorm2d):
    """A BatchNorm layer of a backbone, for its tensors and its settings.

    `training`, `track_running_stats`, `eps` and `momentum` count in the server's
    forwards, with PyTorch's meaning.
    """

    _fixed = ("num_features", "affine")


class Sequential(Part, nn.Sequential):
    """Numbered parts of a backbone."""

    def append(self, *modules: Any) -> NoReturn:
        """Raise: the server would not compute what is added."""
        raise NotImplementedError(
            f"{self.path} is computed in the server, which knows of no further "
            "modules; put them behind the features"
        )

    insert = extend = __iadd__ = append  # type: ignore[assignment]
