"""Warns of optimizers that step a hosted network from here."""

from __future__ import annotations

import functools
import warnings
import weakref
from typing import Any

from torch.optim.optimizer import register_optimizer_step_pre_hook

from backboned.nn.lazy import LazyParameter

_warned: weakref.WeakSet[Any] = weakref.WeakSet()


@functools.cache
def warn_of_them() -> None:
    """Warn once of each optimizer of torch that steps what the server could step."""
    register_optimizer_step_pre_hook(_before_step)


def _before_step(optimizer: Any, _args: Any, _options: Any) -> None:
    if optimizer in _warned:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not isinstance(parameter, LazyParameter):
                continue
            keeper: Any = parameter.keeper
            if keeper.optimizer is not None and keeper.optimizer is not optimizer:
                _warned.add(optimizer)
                warnings.warn(
                    f"{type(optimizer).__name__} of torch.optim steps the hosted "
                    f"network {keeper.instance.name!r}, so that its gradients and "
                    "parameters travel in each step; use an optimizer of "
                    "backboned.optim, or call net.mirror()",
                    stacklevel=4,
                )
                return
