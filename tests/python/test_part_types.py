"""The parts of a network are of the types that code asks for."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hosted_pairs import (
    MODES,
    SMALL,
    assert_same,
    assert_same_networks,
    batches,
    make_optimizer,
    make_pair,
    make_pair_in_mode,
)
from reference_models import ReferenceWideResNet, seeded
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

LAYERS = (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm)


def described(module):
    """Give the layers by name, as they print."""
    return {n: str(m) for n, m in module.named_modules() if isinstance(m, LAYERS)}


@pytest.fixture(params=MODES)
def pair(request, server):
    return make_pair_in_mode(server, "resnet", request.param)


def test_layers_are_those_of_a_local_network(pair):
    assert described(pair[0]) == described(pair[1])
    assert len(described(pair[0])) == 41


def test_layers_of_a_wide_network_are_too(server):
    wide = {"num_classes": 10, "depth": 16, "widen_factor": 2}
    net = server.create(architecture="wide-resnet", seed=0, **wide)
    local = seeded(lambda: ReferenceWideResNet(**wide), 0)
    assert described(net) == described(local)


@pytest.mark.parametrize(
    ("architecture", "name", "layer"),
    [
        (
            "vit-tiny",
            "patch_embed.proj",
            nn.Conv2d(3, 192, 16, stride=16),
        ),
        ("vit-tiny", "blocks.3.norm2", nn.LayerNorm(192, eps=1e-6)),
        ("vit-tiny", "blocks.3.attn.qkv", nn.Linear(192, 576)),
        ("resnet50", "conv1", nn.Conv2d(3, 64, 7, 2, 3, bias=False)),
        ("resnet50", "layer1.0.conv2", nn.Conv2d(64, 64, 3, 1, 1, bias=False)),
        ("resnet50", "layer2.0.conv1", nn.Conv2d(256, 128, 1, bias=False)),
        ("resnet50", "layer2.0.conv2", nn.Conv2d(128, 128, 3, 2, 1, bias=False)),
        ("resnet50", "layer2.0.downsample.0", nn.Conv2d(256, 512, 1, 2, bias=False)),
        ("resnet50", "layer1.0.downsample.0", nn.Conv2d(64, 256, 1, bias=False)),
        ("resnet18-pnn", "layer2.2.conv1", nn.Conv2d(128, 128, 3, 1, 1, bias=False)),
    ],
)
def test_a_layer_of_an_architecture(server, architecture, name, layer):
    net = server.create(
        architecture=architecture, num_classes=3, random_init=True, frozen=True, seed=0
    )
    part = net.get_submodule(name)
    assert isinstance(part, type(layer)) and str(part) == str(layer)
    net.delete()


def test_strides_of_an_efficientnet(server):
    net = server.create(
        architecture="efficientnet",
        efficientnet_type="b0",
        num_classes=3,
        random_init=True,
        frozen=True,
        seed=0,
    )
    blocks = [net.get_submodule(f"_blocks.{i}._depthwise_conv") for i in range(16)]
    halving = [i for i, block in enumerate(blocks) if block.stride == (2, 2)]
    assert halving == [1, 3, 5, 11]
    assert net._conv_stem.stride == (2, 2) and net._conv_head.stride == (1, 1)
    net.delete()


def test_initialisation_by_type(pair):
    def init(module):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            torch.manual_seed(module.weight.numel())
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if type(module).__name__.startswith("BatchNorm"):
            nn.init.constant_(module.weight, 0.5)

    for side in pair:
        side.apply(init)
    for x, _ in batches("resnet", 1):
        assert_same(*(side(x).detach() for side in pair))
    assert_same_networks(*pair)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.BatchNorm2d])
def test_freezing_by_type(server, kind):
    net, local = make_pair(server, "resnet")
    sides = (net, make_optimizer(net, "SGD")), (local, make_optimizer(local, "SGD"))
    for x, y in batches("resnet", 2):
        for side, optimizer in sides:
            for module in side.modules():
                if isinstance(module, kind):
                    module.requires_grad_(False)
            F.cross_entropy(side(x), y).backward()
            optimizer.step()
    trained = [p.requires_grad for p in net.parameters()]
    assert trained == [p.requires_grad for p in local.parameters()]
    assert not all(trained)
    assert_same_networks(net, local)


def test_weight_decay_by_type(server):
    net, local = make_pair(server, "resnet")
    sides = []
    for side in (net, local):
        decayed = [m.weight for m in side.modules() if isinstance(m, nn.Conv2d)]
        assert len(decayed) == 20
        ids = {id(p) for p in decayed}
        others = [p for p in side.parameters() if id(p) not in ids]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others}]
        sides.append((side, make_optimizer(side, "SGD", groups, lr=0.1)))
    for x, y in batches("resnet", 2):
        for side, optimizer in sides:
            optimizer.zero_grad()
            F.cross_entropy(side(x), y).backward()
            optimizer.step()
    assert_same_networks(net, local)


def test_numbered_parts_are_a_sequence(server):
    net, local = make_pair(server, "resnet")
    assert len(net.layer1) == len(local.layer1) == 2
    assert net.layer2[0].shortcut[0] is net.get_submodule("layer2.0.shortcut.0")
    assert [len(list(block.parameters())) for block in net.layer2] == [9, 6]
    for add in (
        lambda: net.layer1.append(nn.ReLU()),
        lambda: net.layer1.insert(0, nn.ReLU()),
        lambda: net.layer1.extend([nn.ReLU()]),
        lambda: net.layer1.__iadd__(nn.Sequential(nn.ReLU())),
    ):
        with pytest.raises(NotImplementedError, match="layer1 is computed in the ser"):
            add()
    assert len(net.layer1) == 2


def test_a_network_prints_as_a_tree(server):
    net = server.create("seq-mnist", seed=0, name="printed")
    assert str(net).splitlines()[2:] == [
        "  (fc1): Linear(in_features=784, out_features=100, bias=True)",
        "  (fc2): Linear(in_features=100, out_features=100, bias=True)",
        "  (classifier): Linear(in_features=100, out_features=10, bias=True)",
        ")",
    ]
    assert "'printed' [seq-mnist] on " in str(net).splitlines()[1]
    net.delete()


def test_making_a_network_draws_no_random_numbers(server):
    state = torch.get_rng_state()
    server.create(architecture="resnet18", seed=0, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_layer_is_computed_as_it_was_made(pair):
    net = pair[0]
    for part, name, value in [
        (net.layer2[0].conv1, "stride", (1, 1)),
        (net.conv1, "padding", (0, 0)),
        (net.classifier, "out_features", 11),
        (net.bn1, "affine", False),
    ]:
        before = getattr(part, name)
        with pytest.raises(NotImplementedError, match=rf"\.?{name} is .* in the serv"):
            setattr(part, name, value)
        setattr(part, name, before)
    twin = copy.deepcopy(net)
    with pytest.raises(NotImplementedError, match=r"layer2\.0\.conv1\.stride is"):
        twin.layer2[0].conv1.stride = 1


@pytest.mark.parametrize(
    ("take", "message"),
    [
        (
            lambda layer: prune.l1_unstructured(layer, "weight", 0.2),
            r"classifier\.weight cannot be replaced by torch\.nn\.utils\.prune",
        ),
        (
            lambda layer: prune.random_structured(layer, "weight", 0.2, dim=0),
            r"classifier\.weight cannot be replaced by torch\.nn\.utils\.prune",
        ),
        (
            lambda layer: parametrize.register_parametrization(
                layer, "bias", nn.Identity()
            ),
            r"classifier\.bias cannot be deleted, or replaced by a parametrization",
        ),
        (
            nn.utils.spectral_norm,
            r"classifier\.weight cannot be deleted, or replaced by a parametrization",
        ),
    ],
)
def test_a_parametrization_is_refused_before_anything_is_changed(pair, take, message):
    net, local = pair
    with pytest.raises(NotImplementedError, match=message):
        take(net.classifier)
    for x, _ in batches("resnet", 1):
        assert_same(*(side(x).detach() for side in pair))
    assert_same_networks(net, local)


@pytest.mark.parametrize(
    "take", [parametrizations.weight_norm, parametrizations.orthogonal]
)
def test_a_network_goes_on_after_a_parametrization_was_refused(server, take):
    net, local = make_pair(server, "mlp")
    message = r"fc2\.weight cannot be deleted, or replaced by a parametrization"
    with pytest.raises(NotImplementedError, match=message):
        take(net.fc2)
    local.load_state_dict(net.state_dict(), strict=False)  # PyTorch may have written.
    ((x, _),) = batches("mlp", 1)
    assert_same(net(x), local(x))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_weight_norm_of_old_is_refused_and_the_way_back_is_said(server):
    net, local = make_pair(server, "mlp")
    weight = net.fc2.weight
    message = r"fc2\.weight cannot be replaced by torch\.nn\.utils\.weight_norm"
    with pytest.raises(NotImplementedError, match=message):
        nn.utils.weight_norm(net.fc2)
    ((x, _),) = batches("mlp", 1)
    with pytest.raises(AttributeError, match=r"no 'fc2\.weight' any more.*set it aga"):
        net(x)
    net.fc2.weight = weight
    assert_same(net(x), local(x))


def test_a_plain_layer_that_was_taken_over_is_told(server):
    net, _ = make_pair(server, "mlp")
    net.classifier = nn.Linear(100, 10)
    prune.l1_unstructured(net.classifier, "weight", 0.2)
    with pytest.raises(AttributeError, match=r"'classifier\.weight'.*utils\.prune or"):
        net(torch.zeros(1, 1, 28, 28))


def test_a_parameter_that_is_none_is_told(server):
    net, _ = make_pair(server, "mlp")
    net.fc1.bias = None
    with pytest.raises(TypeError, match=r"fc1\.bias is None; in the server it is a"):
        net(torch.zeros(1, 1, 28, 28))
