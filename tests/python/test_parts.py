"""Parts of a network are what the server computes, or refused."""

import copy

import pytest
import torch
from backboned import CrossEntropy, optim
from hosted_pairs import (
    MODES,
    SMALL,
    assert_same,
    batches,
    make_pair,
    make_pair_in_mode,
)
from reference_models import ReferenceWideResNet, seeded
from torch import nn

WIDE = {"num_classes": 10, "depth": 10, "widen_factor": 1, "dropout": 0.5}
WIDTH = 8 * SMALL["num_filters"]


class Scaled(nn.Linear):
    """Computes something of its own."""

    def forward(self, x):
        return 100 * super().forward(x)


class Named(nn.Linear):
    """Computes what a linear layer does."""

    def __init__(self):
        super().__init__(WIDTH, 10)


@pytest.fixture(params=MODES)
def pair(request, server):
    return make_pair_in_mode(server, "resnet", request.param)


@pytest.fixture
def images():
    ((x, _),) = batches("resnet", 1)
    return x


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("classifier", lambda: Scaled(WIDTH, 10), r"classifier is a Scaled"),
        (
            "bn1",
            lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
            r"bn1 is a InstanceNorm2d",
        ),
        (
            "conv1",
            lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            r"conv1 is a Conv2d",
        ),
    ],
)
def test_a_module_that_computes_something_else_is_refused(
    pair, images, name, make, message
):
    net, local = pair
    old = getattr(net, name)
    setattr(net, name, make().requires_grad_(False))
    for _ in range(2):
        with pytest.raises(TypeError, match=message):
            net(images)
    setattr(net, name, old)
    assert_same(net(images).detach(), local(images).detach())


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("classifier", lambda: nn.Linear(WIDTH, 10)),
        ("classifier", Named),
        ("bn1", lambda: nn.BatchNorm2d(8, eps=1e-3)),
    ],
)
def test_a_plain_module_takes_the_place_of_a_part(pair, images, name, make):
    module = make().requires_grad_(False)
    for side in pair:
        setattr(side, name, copy.deepcopy(module))
    assert_same(*(side(images).detach() for side in pair))


def test_tensors_take_the_place_of_a_parts(pair, images):
    made = nn.Conv2d(3, 8, 3, padding=1, bias=False).requires_grad_(False)
    for side in pair:
        side.conv1.weight = copy.deepcopy(made.weight)
    assert_same(*(side(images).detach() for side in pair))


@pytest.mark.parametrize("part", ["layer4", "bn1"])
@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
        "register_backward_hook",
    ],
)
def test_hooks_of_a_part_are_refused(server, part, register):
    net, _ = make_pair(server, "resnet")
    with pytest.raises(NotImplementedError, match="calls no hook"):
        getattr(getattr(net, part), register)(lambda *_: None)


def test_a_forward_of_a_part_is_refused(net):
    with pytest.raises(NotImplementedError, match="no forward of its parts"):
        net.fc1.forward = nn.Identity()


def test_hooks_of_the_whole_network_are_called(net):
    seen = []
    net.register_forward_hook(lambda module, given, out: seen.append(out.shape))
    net(torch.rand(2, 1, 28, 28))
    assert seen == [(2, 10)]


def test_hooks_of_a_module_in_a_parts_place_are_refused(server, images):
    net, _ = make_pair(server, "resnet")
    net.classifier = nn.Linear(WIDTH, 10)
    net(images)
    hook = net.classifier.register_forward_hook(lambda *_: None)
    with pytest.raises(NotImplementedError, match="classifier has hooks"):
        net(images)
    hook.remove()
    net(images)
    net.classifier.forward = torch.relu
    with pytest.raises(NotImplementedError, match="classifier has a forward"):
        net(images)


def test_a_training_step_refuses_them_too(server, images):
    net, _ = make_pair(server, "resnet")
    optimizer = optim.SGD(net)
    net.classifier = Scaled(WIDTH, 10)
    with pytest.raises(TypeError, match="classifier is a Scaled"):
        net.train_step(images, [CrossEntropy([0] * len(images))], optimizer)


def test_a_copy_refuses_its_own_parts(net):
    twin = copy.deepcopy(net)
    twin.classifier = Scaled(100, 10)
    x = torch.rand(2, 1, 28, 28)
    with pytest.raises(TypeError, match="classifier is a Scaled"):
        twin(x)
    net(x)


@pytest.fixture
def wide(server):
    net = server.create(architecture="wide-resnet", seed=0, **WIDE)
    return net, seeded(lambda: ReferenceWideResNet(**WIDE), 0)


@pytest.mark.parametrize("training", [True, False])
def test_one_part_in_another_mode_is_refused_if_it_may_drop_out(wide, images, training):
    net, _ = wide
    net.train(training)
    net.layer2.train(not training)
    words = r"in evaluation .* in training" if training else "in training .* in eval"
    with pytest.raises(RuntimeError, match=rf"layer2 is {words}.* call net\.train"):
        net(images)
    net.train(training)
    net(images)


def test_parts_that_cannot_drop_out_may_be_in_another_mode(wide, images):
    for side in wide:
        side.train()
        side.conv1.eval()
        side.bn1.eval()
        side.classifier.eval()
        torch.manual_seed(0)
        side.out = side(images).detach()
    assert_same(wide[0].out, wide[1].out)


def test_a_training_step_refuses_a_part_in_evaluation(wide, images):
    net, _ = wide
    optimizer = optim.SGD(net)
    net.layer1.eval()
    with pytest.raises(RuntimeError, match="layer1 is in evaluation"):
        net.train_step(images, [CrossEntropy([0] * len(images))], optimizer)
