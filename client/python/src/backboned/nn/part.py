"""The parts of a mirrored backbone: they hold tensors, and compute nothing."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

NOT_CALLED = (
    "the backbone is computed in the server, which calls no hook and no forward of its "
    "parts; hook the whole backbone, or take what is inside with returnt='full'"
)


class Part(nn.Module):
    """A part of a mirrored backbone: holds tensors, computes nothing."""

    def forward(self, *inputs: Any, **options: Any) -> NoReturn:
        """Raise: the parts' computation is in the server."""
        raise NotImplementedError(
            "this part of the backbone runs in the server only; call the whole "
            "backbone, with returnt='features' or 'full' for what is inside"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; raise if it is a forward, which nobody would call."""
        if name == "forward":
            raise NotImplementedError(NOT_CALLED)
        super().__setattr__(name, value)

    def register_forward_hook(self, *hook: Any, **options: Any) -> NoReturn:
        """Raise: nobody would call the hook."""
        raise NotImplementedError(NOT_CALLED)

    register_forward_pre_hook = register_forward_hook
    register_backward_hook = register_forward_hook
    register_full_backward_hook = register_forward_hook
    register_full_backward_pre_hook = register_forward_hook
