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

from backboned.optim.base import HostedOptimizer


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


__all__ = ["SGD", "Adam", "AdamW", "HostedOptimizer"]
