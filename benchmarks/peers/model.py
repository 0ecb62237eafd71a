"""A network that torch trains on the device, in whichever process it is."""

from typing import Any

import numpy as np
import torch
from networks import Mlp, ResNet18
from torch import nn
from torch.nn import functional as F

LR, MOMENTUM = 0.01, 0.9


class Training:
    """A network with the parameters of its seed, and its optimizer.

    Parameters
    ----------
    spec : dict
        `network`, `filters`, `seed` and `device` of an experiment.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        torch.manual_seed(spec["seed"])
        net = _mlp() if spec["network"] == "mlp" else ResNet18(spec["filters"])
        self._device = spec["device"]
        self._net = net.to(self._device)
        self._optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        """Make a training step; give its loss."""
        images = torch.from_numpy(x).to(self._device)
        labels = torch.from_numpy(y).to(self._device)
        self._optimizer.zero_grad()
        loss = F.cross_entropy(self._net(images), labels)
        loss.backward()
        self._optimizer.step()
        return loss.item()


def _mlp() -> Mlp:
    """Make `mnistmlp` as Mammoth initialises it."""
    net = Mlp()
    for layer in (net.fc1, net.fc2, net.classifier):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return net
