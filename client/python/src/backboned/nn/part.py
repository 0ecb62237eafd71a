"""The parts of a mirrored backbone: they hold tensors, and compute nothing."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn


class Part(nn.Module):
    """A part of a mirrored backbone: holds tensors, computes nothing."""

    def forward(self, *inputs: Any, **options: Any) -> NoReturn:
        """Raise: the parts' computation is in the server."""
        raise NotImplementedError(
            "this part of the backbone runs in the server only; call the whole "
            "backbone, with returnt='features' or 'full' for what is inside"
        )
