"""BatchNorm layers of a network: their attributes count in the server."""

import copy

import pytest
import torch
from backboned.nn.parts import BatchNorm2d
from backboned.types import BatchNorm
from hosted_pairs import (
    MODES,
    assert_same,
    assert_same_networks,
    batches,
    make_pair,
    make_pair_in_mode,
)
from torch import nn


@pytest.fixture(params=MODES)
def pair(request, server):
    return make_pair_in_mode(server, "resnet", request.param)


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def _set(name, value, only=None):
    def change(module):
        layers = norms(module) if only is None else [module.get_submodule(only)]
        for layer in layers:
            setattr(layer, name, value)

    return change


CHANGES = {
    "all_in_evaluation": _set("training", False),
    "one_in_evaluation": lambda module: module.get_submodule("layer1.0.bn1").eval(),
    "a_stage_in_evaluation": lambda module: module.layer2.eval(),
    "not_tracking": _set("track_running_stats", False),
    "one_not_tracking": _set("track_running_stats", False, "layer3.0.bn2"),
    "eps": _set("eps", 1e-6),
    "momentum": _set("momentum", 0.3),
    "cumulative": _set("momentum", None, "bn1"),
    "momentum_zero": _set("momentum", 0.0, "bn1"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_attributes_count(pair, change):
    for side in pair:
        side.train()
        change(side)
    for x, _ in batches("resnet", 2):
        assert_same(*(side(x).detach() for side in pair))
    assert_same_networks(*pair)
    for side in pair:
        side.eval()
    assert_same(*(side(x).detach() for side in pair))


def test_one_layer_in_training_of_a_network_in_evaluation(pair):
    for side in pair:
        side.eval()
        side.bn1.train()
    for x, _ in batches("resnet", 2):
        assert_same(*(side(x).detach() for side in pair))
    assert_same_networks(*pair)
    assert pair[0].bn1.num_batches_tracked == 2


def test_gradients_with_layers_in_evaluation(server):
    pair = make_pair(server, "resnet")
    ((x, _),) = batches("resnet", 1)
    for side in pair:
        side.layer4.eval()
        side.bn1.eps = 1e-3
        side(x).square().sum().backward()
    for ours, theirs in zip(pair[0].parameters(), pair[1].parameters()):
        assert_same(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("resnet18", {}),
        ("resnet32", {}),
        ("efficientnet", {"efficientnet_type": "b0"}),
    ],
)
def test_the_attributes_are_the_architectures(server, architecture, arguments):
    net = server.create(
        architecture=architecture,
        num_classes=3,
        seed=0,
        random_init=True,
        module=True,
        **arguments,
    )
    layers = [module for module in net.modules() if isinstance(module, BatchNorm2d)]
    assert len(layers) == sum("running_mean" in b.name for b in net.layout.buffers)
    net.eval()
    x = torch.rand(2, 3, 32, 32)
    said = BatchNorm(eps=layers[0].eps, momentum=layers[0].momentum)
    with torch.no_grad():
        assumed = net(x)
    out = net.instance.forward(x.numpy(), batch_norm=[said]).out
    assert_same(assumed, torch.from_numpy(out))


def test_layers_are_modules_that_do_not_compute(server):
    net, _ = make_pair(server, "resnet")
    assert isinstance(net.bn1, nn.BatchNorm2d) and net.bn1.num_features == 8
    with pytest.raises(NotImplementedError, match="server only"):
        net.bn1(torch.zeros(1, 8, 2, 2))
    twin = copy.deepcopy(net)
    twin.bn1.eps = 1e-3
    assert net.bn1.eps == 1e-5
    assert len(twin.batch_norms()) == 1 and not net.batch_norms()
