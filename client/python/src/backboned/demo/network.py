"""The network of seq-mnist as a plain module, for training in process."""

from __future__ import annotations

import math

import torch
from torch import nn

_PIXELS = 28 * 28
_HIDDEN = 100


class LocalMlp(nn.Module):
    """Two hidden layers with ReLU: what `server.create("seq-mnist")` hosts.

    Source: Mammoth's `mnistmlp` (github.com/aimagelab/mammoth, commit e75a491).
    PyTorch's own initialisation is drawn first and then replaced by Xavier's, layer
    by layer, so that a seed gives the same bits.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(_PIXELS, _HIDDEN)
        self.fc2 = nn.Linear(_HIDDEN, _HIDDEN)
        self.classifier = nn.Linear(_HIDDEN, num_classes)
        with torch.no_grad():
            for layer in (self.fc1, self.fc2, self.classifier):
                fan_out, fan_in = layer.weight.shape
                bound = math.sqrt(3.0) * math.sqrt(2.0 / (fan_in + fan_out))
                layer.weight.uniform_(-bound, bound)
                layer.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the logits [N, K] of images [N, 1, 28, 28]."""
        hidden = torch.relu(self.fc1(x.view(len(x), -1)))
        logits: torch.Tensor = self.classifier(torch.relu(self.fc2(hidden)))
        return logits
