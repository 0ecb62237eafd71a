"""A residual network for small images."""

from torch import nn
from torch.nn.functional import avg_pool2d, relu

from backbone import MammothBackbone, register_backbone


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.return_prerelu = False
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            conv = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outside))

    def forward(self, x):
        out = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        if self.return_prerelu:
            self.prerelu = out.clone()
        return relu(out)


class ResNet(MammothBackbone):
    """Four stages of two blocks."""

    def __init__(self, num_classes, width):
        super().__init__()
        self.return_prerelu = False
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inside = width
        for index, stride in enumerate((1, 2, 2, 2)):
            outside = width << index
            stage = nn.Sequential(
                Block(inside, outside, stride), Block(outside, outside, 1)
            )
            setattr(self, f"layer{index + 1}", stage)
            inside = outside
        self.classifier = nn.Linear(inside, num_classes)

    def set_return_prerelu(self, enable=True):
        self.return_prerelu = enable
        for module in self.modules():
            if isinstance(module, Block):
                module.return_prerelu = enable

    def forward(self, x, returnt="out"):
        stem = self.bn1(self.conv1(x))
        maps, before = [relu(stem)], [stem]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
            if self.return_prerelu:
                before.append(stage[-1].prerelu)
        features = avg_pool2d(maps[-1], maps[-1].shape[2]).view(len(x), -1)
        if returnt == "features":
            return features
        out = self.classifier(features)
        if returnt == "out":
            return out
        if returnt == "both":
            return out, features
        if returnt == "full":
            return out, before if self.return_prerelu else maps
        raise NotImplementedError(f"a residual network gives no {returnt}")


@register_backbone("resnet18")
def resnet18(num_classes, num_filters=64):
    return ResNet(num_classes, num_filters)


@register_backbone("reduced-resnet18")
def reduced_resnet18(num_classes):
    return ResNet(num_classes, 5)  # Not what the server builds under this name.
