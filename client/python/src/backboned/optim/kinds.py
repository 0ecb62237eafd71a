"""SGD, Adam and AdamW, with the signatures of `torch.optim`."""

from __future__ import annotations

from typing import Any

import torch

from backboned.optim.hosted import HostedOptimizer, expanded, refuse_local

# torch's annotations of `params` differ between its versions.
_base: Any = torch.optim


class SGD(HostedOptimizer, torch.optim.SGD):
    """`torch.optim.SGD`, in the server.

    Parameters
    ----------
    params : RemoteBackbone, or what torch.optim takes
        All of one network. `foreach` counts for nothing.
    lr, momentum, dampening, weight_decay, nesterov, maximize
        As in `torch.optim.SGD`.
    """

    kind = "sgd"

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refuse_local(differentiable=differentiable, fused=fused)
        _base.SGD.__init__(
            self,
            expanded(params),
            lr,
            momentum,
            dampening,
            weight_decay,
            nesterov,
            maximize=maximize,
            foreach=foreach,
        )
        self._settle_in()


class Adam(HostedOptimizer, torch.optim.Adam):
    """`torch.optim.Adam`, in the server.

    Parameters
    ----------
    params : RemoteBackbone, or what torch.optim takes
        All of one network. `foreach` counts for nothing.
    lr, betas, eps, weight_decay, amsgrad, maximize
        As in `torch.optim.Adam`.
    """

    kind = "adam"

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refuse_local(capturable=capturable, differentiable=differentiable, fused=fused)
        _base.Adam.__init__(
            self,
            expanded(params),
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
        )
        self._settle_in()


class AdamW(HostedOptimizer, torch.optim.AdamW):
    """`torch.optim.AdamW`, in the server.

    Parameters
    ----------
    params : RemoteBackbone, or what torch.optim takes
        All of one network. `foreach` counts for nothing.
    lr, betas, eps, weight_decay, amsgrad, maximize
        As in `torch.optim.AdamW`.
    """

    kind = "adamw"

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refuse_local(capturable=capturable, differentiable=differentiable, fused=fused)
        _base.AdamW.__init__(
            self,
            expanded(params),
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
        )
        self._settle_in()
