"""Lets the server make the steps of Mammoth's methods, where that is all they do."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from backboned import optim

from backboned_mammoth.blueprint import UnsuitableError
from backboned_mammoth.network import OnServer
from backboned_mammoth.run import RUN, Run, SeamError, mode, on_rollback

# Methods of Mammoth that leave parameters and gradients to their optimizer.
_STEPPING = frozenset(
    "der derpp er er_ace er_ace_tricks er_tricks fdr rpc sgd xder xder_ce".split()
)
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

    They get theirs from ``ContinualModel.get_optimizer(self, params=None, ...)``.

    Raises SeamError if they do not, and `BACKBONED_MODE` is ``hosted``; otherwise that
    is a warning.
    """
    cls: Any = getattr(module, "ContinualModel", None)
    get: Any = getattr(cls, "get_optimizer", None)
    missing = ""
    if not callable(get):
        missing = f"{module} has no ContinualModel.get_optimizer"
    elif "params" not in inspect.signature(get).parameters:
        missing = f"ContinualModel.get_optimizer of {module} takes no params"
    if missing:
        if mode() == "hosted":
            raise SeamError(f"no network can be hosted: {missing}")
        run.warn(f"every network is mirrored: {missing}")
        return
    if hasattr(get, "__wrapped__"):
        return

    @functools.wraps(get)
    def get_optimizer(self: Any, params: Any = None, *args: Any, **options: Any) -> Any:
        optimizer = get(self, params, *args, **options)
        return optimizer if params is not None else _route(self, optimizer)

    cls.get_optimizer = get_optimizer


def _route(model: Any, optimizer: Any) -> Any:
    """Give the optimizer that is to step a method's network.

    It is the one of torch if the method does more than step, or if the server's would
    not compute its bits.
    """
    net = getattr(model, "net", None)
    if not isinstance(net, OnServer) or not _wanted(model) or not _fits(optimizer):
        return optimizer
    net._counterpart.lasting = on_rollback() == "replay"
    try:
        known = {id(p) for p in net._counterpart.known_parameters()}
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
    cls = type(optimizer)
    optimizer.__class__ = type(cls.__name__, (SplitOptimizer, cls), {})
    optimizer._remote = hosted
    return optimizer


def _wanted(model: Any) -> bool:
    chosen = mode()
    return chosen == "hosted" or (
        chosen == "auto" and getattr(model, "NAME", "").replace("-", "_") in _STEPPING
    )


def _fits(optimizer: Any) -> bool:
    return (
        type(optimizer) in _KINDS
        and not optimizer.state
        and not any(g.get(key) for g in optimizer.param_groups for key in _LOCAL)
        and not any(isinstance(g["lr"], torch.Tensor) for g in optimizer.param_groups)
    )


class SplitOptimizer(torch.optim.Optimizer):
    """Mixed into an optimizer of torch whose network's head is not the server's.

    Its groups have all parameters and rule; `_remote` steps those in the server.
    """

    _remote: optim.HostedOptimizer

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore
        """Step in the server, then here."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._pass_settings_on()
        self._remote.step()
        with self._local_only():
            super().step()  # type: ignore[call-arg]
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Take the gradients away, or make those that there are zero."""
        self._remote.zero_grad(set_to_none)
        with self._local_only():
            super().zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Give the state dict that the optimizer of torch would have."""
        states = self._remote.state_dict()["state"]
        mine = self._in_server()
        try:
            self.state.update({mine[i]: state for i, state in states.items()})
            result = super().state_dict()
            result["state"] = dict(sorted(result["state"].items()))
            return result
        finally:
            for tensor in mine:
                self.state.pop(tensor, None)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state dict, also one that the optimizer of torch gave."""
        super().load_state_dict(state_dict)
        mine = [tensor for tensor in self._in_server() if tensor in self.state]
        self._remote.state = defaultdict(dict, {t: self.state.pop(t) for t in mine})

    def _in_server(self) -> list[torch.Tensor]:
        return [t for group in self._remote.param_groups for t in group["params"]]

    def _pass_settings_on(self) -> None:
        """Give the server's groups what the groups here say."""
        mine = {id(tensor) for tensor in self._in_server()}
        groups = (
            {key: value for key, value in group.items() if key != "params"}
            for group in self.param_groups
            if any(id(tensor) in mine for tensor in group["params"])
        )
        for group, remote in zip(groups, self._remote.param_groups):
            remote.update(group)

    @contextlib.contextmanager
    def _local_only(self) -> Iterator[None]:
        """Have only the parameters that are stepped here."""
        groups = self.param_groups
        mine = {id(tensor) for tensor in self._in_server()}
        self.param_groups = [
            {**group, "params": [t for t in group["params"] if id(t) not in mine]}
            for group in groups
        ]
        try:
            yield
        finally:
            self.param_groups = groups
