"""Lets the server make the steps of Mammoth's methods, where that is all they do."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import torch
from backboned import optim

from backboned_mammoth import seams
from backboned_mammoth.counterpart import UnsuitableError
from backboned_mammoth.network import OnServer
from backboned_mammoth.run import RUN, Run, mode
from backboned_mammoth.split import split

STEPPING = frozenset(
    {
        "der",
        "derpp",
        "er",
        "er_ace",
        "er_ace_tricks",
        "er_tricks",
        "fdr",
        "rpc",
        "sgd",
        "xder",
        "xder_ce",
    }
)
"""Methods of Mammoth that leave parameters and gradients to their optimizer."""

_KINDS: dict[type, type[optim.HostedOptimizer]] = {
    torch.optim.SGD: optim.SGD,
    torch.optim.Adam: optim.Adam,
    torch.optim.AdamW: optim.AdamW,
}
# With these an optimizer of torch computes other bits, or what the server cannot.
_LOCAL = ("capturable", "differentiable", "foreach", "fused")
_SETTINGS = (
    *("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"),
    *("betas", "eps", "amsgrad"),
)


def route_optimizers(module: ModuleType, run: Run = RUN) -> None:
    """Let Mammoth's methods get optimizers that step in the server. Idempotent.

    Raises
    ------
    SeamError
        If they get theirs elsewhere, and `BACKBONED_MODE` is ``hosted``; otherwise that
        is a warning.
    """
    if missing := seams.missing_of_optimizers(module):
        if mode() == "hosted":
            raise seams.SeamError(f"no network can be hosted: {missing}")
        run.warn(f"every network is mirrored: {missing}")
        return
    cls = module.ContinualModel
    get = cls.get_optimizer
    if hasattr(get, "__wrapped__"):
        return

    @functools.wraps(get)
    def get_optimizer(self: Any, params: Any = None, *args: Any, **options: Any) -> Any:
        optimizer = get(self, params, *args, **options)
        return optimizer if params is not None else route(self, optimizer)

    cls.get_optimizer = get_optimizer


def route(model: Any, optimizer: Any) -> Any:
    """Give the optimizer that is to step a method's network.

    It is the one of torch if the method does more than step, or if the server's would
    not compute its bits.
    """
    net = getattr(model, "net", None)
    if not isinstance(net, OnServer) or not _wanted(model) or not _fits(optimizer):
        return optimizer
    try:
        known = {id(p) for p in net.known_parameters()}
    except UnsuitableError:
        return optimizer
    groups = [
        {**group, "params": [p for p in group["params"] if id(p) in known]}
        for group in optimizer.param_groups
    ]
    remote = [group for group in groups if group["params"]]
    if not remote:
        return optimizer
    settings = {k: v for k, v in optimizer.defaults.items() if k in _SETTINGS}
    hosted = _KINDS[type(optimizer)](remote, **settings)
    net._counterpart.run.counts["hosted"] += 1
    if groups == optimizer.param_groups:
        return hosted
    return split(optimizer, hosted)


def _wanted(model: Any) -> bool:
    chosen = mode()
    return chosen == "hosted" or (
        chosen == "auto" and getattr(model, "NAME", "").replace("-", "_") in STEPPING
    )


def _fits(optimizer: Any) -> bool:
    return (
        type(optimizer) in _KINDS
        and not optimizer.state
        and not any(g.get(key) for g in optimizer.param_groups for key in _LOCAL)
        and not any(isinstance(g["lr"], torch.Tensor) for g in optimizer.param_groups)
    )
