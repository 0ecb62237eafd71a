"""The architectures as plain modules, written from Mammoth's classes and the papers."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class ReferenceMlp(nn.Module):
    """784, two hidden layers with ReLU, Xavier's initialisation after PyTorch's."""

    def __init__(self, num_classes=10, hidden=100):
        super().__init__()
        self.fc1 = nn.Linear(784, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.classifier = nn.Linear(hidden, num_classes)
        for layer in (self.fc1, self.fc2, self.classifier):
            fan_out, fan_in = layer.weight.shape
            bound = math.sqrt(3.0) * math.sqrt(2.0 / (fan_in + fan_out))
            layer.weight.data.uniform_(-bound, bound)
            layer.bias.data.fill_(0.0)

    def outputs(self, x):
        """Give every output by name."""
        first = F.relu(self.fc1(x.view(x.shape[0], -1)))
        features = F.relu(self.fc2(first))
        return {"out": self.classifier(features), "features": features}

    def forward(self, x):
        return self.outputs(x)["out"]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_planes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_planes, planes, 1, stride, bias=False),
                nn.BatchNorm2d(planes),
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ReferenceResNet18(nn.Module):
    """He et al. 2016 for small images: a 3x3 stem, four stages of two blocks."""

    def __init__(self, num_classes=10, num_filters=64):
        super().__init__()
        nf = num_filters
        self.conv1 = nn.Conv2d(3, nf, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(nf)
        widths, planes = [nf, 2 * nf, 4 * nf, 8 * nf], nf
        for index, (width, stride) in enumerate(zip(widths, [1, 2, 2, 2]), 1):
            stage = nn.Sequential(Block(planes, width, stride), Block(width, width, 1))
            setattr(self, f"layer{index}", stage)
            planes = width
        self.classifier = nn.Linear(8 * nf, num_classes)

    def outputs(self, x):
        """Give every output by name."""
        stages = [F.relu(self.bn1(self.conv1(x)))]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            stages.append(layer(stages[-1]))
        pooled = F.avg_pool2d(stages[-1], stages[-1].shape[2])
        features = pooled.view(len(x), -1)
        named = {f"layers.{i}": stage for i, stage in enumerate(stages)}
        return {"out": self.classifier(features), "features": features, **named}

    def forward(self, x):
        return self.outputs(x)["out"]


class WideBlock(nn.Module):
    """Pre-activation, with dropout between the two 3x3 convolutions."""

    def __init__(self, in_planes, planes, stride, dropout):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.dropout = dropout
        self.shortcut = None
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Conv2d(in_planes, planes, 1, stride, bias=False)

    def forward(self, x):
        first = F.relu(self.bn1(x))
        out = F.relu(self.bn2(self.conv1(first)))
        out = self.conv2(F.dropout(out, self.dropout, self.training))
        return out + (x if self.shortcut is None else self.shortcut(first))


class ReferenceWideResNet(nn.Module):
    """Zagoruyko and Komodakis 2016."""

    def __init__(self, num_classes=10, depth=28, widen_factor=10, dropout=0.0):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        planes, blocks = 16, (depth - 4) // 6
        for index, stride in enumerate([1, 2, 2]):
            width = 16 * widen_factor * 2**index
            stage = [WideBlock(planes, width, stride, dropout)]
            stage += [WideBlock(width, width, 1, dropout) for _ in range(1, blocks)]
            setattr(self, f"layer{index + 1}", nn.Sequential(*stage))
            planes = width
        self.bn1 = nn.BatchNorm2d(planes)
        self.classifier = nn.Linear(planes, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        self.classifier.bias.data.fill_(0.0)

    def forward(self, x, returnt="out"):
        stages = [self.conv1(x)]
        for layer in (self.layer1, self.layer2, self.layer3):
            stages.append(layer(stages[-1]))
        last = F.relu(self.bn1(stages[-1]))
        features = F.adaptive_avg_pool2d(last, 1).flatten(1)
        if returnt == "features":
            return features
        out = self.classifier(features)
        return {"out": out, "both": (out, features), "full": (out, stages)}[returnt]


def seeded(make, seed):
    """Make a module with the generator seeded as for the server's instance."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()
