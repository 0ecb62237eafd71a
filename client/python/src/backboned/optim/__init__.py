"""Optimizers of `torch.optim` that run in the server, beside the parameters.

>>> opt = backboned.optim.SGD(net, lr=0.1, momentum=0.9)
>>> F.cross_entropy(net(x), y).backward()
>>> opt.step()

Handing a network to one makes it *hosted*: parameters, gradients and the optimizer's
state stay in the server. Needs torch.
"""

from backboned.optim.hosted import HostedOptimizer
from backboned.optim.kinds import SGD, Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW", "HostedOptimizer"]
