"""The benchmarks' networks as plain torch modules, to train and run in process.

Source: Mammoth (github.com/aimagelab/mammoth, commit e75a491), backbone/MNISTMLP.py
and backbone/ResNetBlock.py; the modules are in the order of their parameters there.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """`mnistmlp`: two hidden layers of 100."""

    input_shape = (1, 28, 28)

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 100)
        self.fc2 = nn.Linear(100, 100)
        self.classifier = nn.Linear(100, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.fc1(x.view(len(x), -1)))
        return self.classifier(F.relu(self.fc2(hidden)))


def _conv3x3(in_planes: int, planes: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_planes, planes, 3, stride, padding=1, bias=False)


class _BasicBlock(nn.Module):
    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_planes, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_planes, planes, 1, stride, bias=False),
                nn.BatchNorm2d(planes),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNet18(nn.Module):
    """`resnet18` for images of 32x32: a 3x3 stem and no pooling behind it.

    Parameters
    ----------
    filters : int
        Of the first stage; each later one has twice as many.
    """

    input_shape = (3, 32, 32)

    def __init__(self, filters: int = 64) -> None:
        super().__init__()
        self.conv1 = _conv3x3(3, filters)
        self.bn1 = nn.BatchNorm2d(filters)
        stages = []
        in_planes = filters
        for factor, stride in ((1, 1), (2, 2), (4, 2), (8, 2)):
            planes = factor * filters
            stages.append(
                nn.Sequential(
                    _BasicBlock(in_planes, planes, stride),
                    _BasicBlock(planes, planes, 1),
                )
            )
            in_planes = planes
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.classifier = nn.Linear(8 * filters, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        out = F.avg_pool2d(out, out.shape[2])
        return self.classifier(out.view(len(out), -1))


NETWORKS = {"seq-mnist": Mlp, "seq-cifar10": ResNet18}
"""By benchmark, what the server hosts for it."""
