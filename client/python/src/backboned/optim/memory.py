"""An optimizer's state, in torch's form and in the server's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from backboned.dtypes import Array
from backboned.optimizer import Optimizer


def to_server(
    state: Mapping[torch.Tensor, Mapping[str, Any]], names: Mapping[int, str]
) -> dict[str, Array]:
    """Name the tensors of a state as the server does."""
    tensors: dict[str, Array] = {}
    for parameter, its in state.items():
        for what, value in its.items():
            if value is not None:
                array = np.asarray(torch.as_tensor(value).detach(), np.float32, "C")
                tensors[f"{names[id(parameter)]}/{what}"] = array
    return tensors


def from_server(
    tensors: Mapping[str, Array], parameters: Mapping[str, torch.Tensor]
) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Give the state of each parameter that has one."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, array in tensors.items():
        parameter, _, what = name.rpartition("/")
        found.setdefault(parameter, {})[what] = torch.from_numpy(array)
    for name, its in found.items():
        yield parameters[name], its


def equal_but_lr(one: Optimizer, other: Optimizer) -> bool:
    """Whether two optimizers differ in nothing, or in learning rates only."""
    return _without_lr(one) == _without_lr(other)


def _without_lr(optimizer: Optimizer) -> Optimizer:
    groups = tuple(dataclasses.replace(group, lr=None) for group in optimizer.groups)
    return dataclasses.replace(optimizer, groups=groups)
