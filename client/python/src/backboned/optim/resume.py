"""Goes on with the optimizer that an instance in the server has."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch

from backboned import types
from backboned.nn.module import RemoteBackbone
from backboned.optim.base import HostedOptimizer


def make_like(
    kinds: dict[str, type[HostedOptimizer]], network: RemoteBackbone
) -> HostedOptimizer:
    """Make the optimizer that the network's instance has, with what it remembers."""
    instance = network._link.instance
    there = instance.get_optimizer_state(timeout=network._link.timeout)
    made = kinds[there.optimizer.kind]
    specs = instance.layout.parameters
    parameters = dict(zip([s.name for s in specs], network.layout_parameters()))
    takes = inspect.signature(made).parameters
    groups = []
    for group in there.optimizer.groups:
        given = {k: v for k, v in dataclasses.asdict(group).items() if k in takes}
        given = {name: value for name, value in given.items() if value is not None}
        names = _selected(group.select, specs)
        groups.append({**given, "params": [parameters[name] for name in names]})
    optimizer = made(groups)
    for key, array in there.tensors.items():
        name, _, what = key.rpartition("/")
        optimizer.state[parameters[name]][what] = torch.from_numpy(array.copy())
    return optimizer


def _selected(select: types.Select, specs: Any) -> list[str]:
    """Give the names of the parameters that a group has."""
    if isinstance(select, range):
        return [spec.name for spec in specs if spec.offset in select]
    names = [spec.name for spec in specs]
    return names if select is None else types.matching(list(select), names)
