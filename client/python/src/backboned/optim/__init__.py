"""Optimizers of `torch.optim` that run in the server, beside the parameters.

>>> opt = backboned.optim.SGD(net, lr=0.1, momentum=0.9)
>>> F.cross_entropy(net(x), y).backward()
>>> opt.step()

Handing a network to one makes it *hosted*: parameters, gradients and the optimizer's
state stay in the server. Needs torch.
"""

from __future__ import annotations

import inspect

import torch

from backboned.nn.module import RemoteBackbone
from backboned.optim.base import HostedOptimizer
from backboned.optim.resume import make_like


class SGD(HostedOptimizer, torch.optim.SGD):
    """`torch.optim.SGD`, in the server; see `HostedOptimizer`."""

    kind = "sgd"
    __signature__ = inspect.signature(torch.optim.SGD)


class Adam(HostedOptimizer, torch.optim.Adam):
    """`torch.optim.Adam`, in the server; see `HostedOptimizer`."""

    kind = "adam"
    __signature__ = inspect.signature(torch.optim.Adam)


class AdamW(HostedOptimizer, torch.optim.AdamW):
    """`torch.optim.AdamW`, in the server; see `HostedOptimizer`."""

    kind = "adamw"
    __signature__ = inspect.signature(torch.optim.AdamW)


def resume(network: RemoteBackbone) -> HostedOptimizer:
    """Make the optimizer that the network has in the server, and go on with it.

    So a network that `Server.load` gave, or one that another process trained, is
    stepped as if nothing had been. The network is hosted then.

    Raises
    ------
    FailedPrecondition
        If it has no optimizer in the server.
    """
    return make_like({"sgd": SGD, "adam": Adam, "adamw": AdamW}, network)


__all__ = ["SGD", "Adam", "AdamW", "HostedOptimizer", "resume"]
