"""An optimizer of torch that has some of its parameters stepped in the server."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Callable

import torch
from backboned.optim import HostedOptimizer


class SplitOptimizer(torch.optim.Optimizer):
    """Mixed into an optimizer of torch whose network's head is not the server's.

    Its groups have all parameters and rule; `_remote` steps those in the server.
    """

    _remote: HostedOptimizer

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
        groups = [
            group
            for group in self.param_groups
            if any(id(tensor) in mine for tensor in group["params"])
        ]
        for group, remote in zip(groups, self._remote.param_groups):
            remote.update({k: v for k, v in group.items() if k != "params"})

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


def split(optimizer: torch.optim.Optimizer, remote: HostedOptimizer) -> Any:
    """Let `remote` step those parameters of an optimizer that it has."""
    cls = type(optimizer)
    optimizer.__class__ = type(cls.__name__, (SplitOptimizer, cls), {})
    optimizer._remote = remote  # type: ignore[attr-defined]
    return optimizer
