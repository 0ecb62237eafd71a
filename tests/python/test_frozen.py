"""Frozen networks: only forwards travel, whatever is read or written meanwhile."""

import copy
import io
import pickle

import backboned
import pytest
import torch
import torch.nn.functional as F
from backboned import optim
from backboned.nn import RemoteBackbone
from hosted_pairs import (
    SMALL,
    assert_same,
    assert_same_networks,
    batches,
    make_optimizer,
    make_pair,
)


@pytest.fixture(params=["mlp", "resnet"])
def kind(request):
    return request.param


@pytest.fixture
def pair(server, kind):
    return make_pair(server, kind)


@pytest.fixture
def x(kind):
    ((x, _),) = batches(kind, 1)
    return x


def travels(net, action):
    """Say what an action sends and receives."""
    before = net.traffic
    action()
    return net.traffic - before


def test_a_frozen_network_only_runs_forwards(pair, kind, x):
    net, local = pair
    assert net.requires_grad_(False) is net
    local.requires_grad_(False)
    assert net.mode == "frozen" and ", frozen\n" in repr(net)
    assert_same_networks(net, local)
    assert_same(net(x), local(x))
    for _ in range(2):
        used = travels(net, lambda: assert_same(net(x), local(x)))
        assert used.round_trips == 1
        assert 0 < used.sent_bytes - x.numel() * 4 < 1000
    assert net.instance.info().tape_count == 0


def test_statistics_of_a_frozen_network_move_in_training(server):
    net, local = make_pair(server, "resnet")
    net.requires_grad_(False)
    for x, _ in batches("resnet", 2):
        assert_same(net(x), local.requires_grad_(False)(x))
    assert_same_networks(net, local)
    assert_same(net.eval()(x), local.eval()(x))


def test_reading_what_is_here_costs_nothing(net):
    net.requires_grad_(False)
    assert travels(net, net.state_dict).round_trips == 0
    assert travels(net, lambda: net.fc1.weight.norm()).round_trips == 0


def test_a_network_may_begin_frozen(server):
    source = server.create(architecture="resnet18", seed=0, **SMALL)
    net = RemoteBackbone(server.instance(source.name, module=False), frozen=True)
    assert net.mode == "frozen" and net.traffic.round_trips == 0
    ((x, _),) = batches("resnet", 1)
    assert_same(net.eval()(x), source.eval()(x).detach())
    assert travels(net, lambda: net.conv1.weight.shape).round_trips == 0
    used = travels(net, net.state_dict)
    assert used.round_trips == 2
    assert used.received_bytes > net.layout.elements * 4
    assert_same_networks(net, source)
    assert travels(net, net.state_dict).round_trips == 0


def test_the_first_look_at_a_network_that_began_frozen_costs_one_parameter(server):
    net = server.create("seq-mnist", seed=0, frozen=True)
    used = travels(net, lambda: net.classifier.bias.norm())
    assert used.round_trips == 1 and used.received_bytes < 200


def test_it_trains_again(pair, kind):
    def train(net):
        net.requires_grad_(False)
        for x, _ in batches(kind, 1):
            net(x)
        net.requires_grad_(True)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in batches(kind, 2):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()

    for side in pair:
        train(side)
    assert pair[0].mode == "mirrored"
    assert_same_networks(*pair)


def test_one_parameter_that_trains_makes_it_mirrored(net):
    net.requires_grad_(False)
    net.classifier.bias.requires_grad_(True)
    net(torch.rand(2, 1, 28, 28)).sum().backward()
    assert net.mode == "mirrored"
    assert net.classifier.bias.grad is not None and net.fc1.weight.grad is None


def test_a_hosted_network_frozen_for_a_while_keeps_its_optimizer(pair, kind):
    def train(net):
        optimizer = make_optimizer(net, "SGD", lr=0.1, momentum=0.9)
        for step, (x, y) in enumerate(batches(kind, 3)):
            if step == 1:
                net.requires_grad_(False)
                net(x)
                net.requires_grad_(True)
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()

    for side in pair:
        train(side)
    assert pair[0].mode == "hosted"
    assert_same_networks(*pair)


def test_a_moving_average_of_another_network(pair, kind):
    teachers = []

    def train(net):
        teacher = copy.deepcopy(net).requires_grad_(False)
        teachers.append(teacher)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        outs = []
        for x, y in batches(kind, 3):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            for mine, its in zip(teacher.parameters(), net.parameters()):
                mine.data.mul_(0.9).add_(its.data, alpha=0.1)
            outs.append(teacher(x))
        return outs

    for ours, theirs in zip(*(train(side) for side in pair)):
        assert_same(ours, theirs)
    assert teachers[0].mode == "frozen"
    assert_same_networks(*teachers)


def test_a_loaded_state_is_sent_and_not_fetched_first(server):
    net = server.create("seq-mnist", seed=0)
    other = server.create("seq-mnist", seed=1)
    frozen = RemoteBackbone(net.instance, frozen=True)
    state = other.state_dict()

    def load():
        frozen.load_state_dict(state)
        frozen(torch.zeros(1, 1, 28, 28))

    used = travels(frozen, load)
    assert used.received_bytes < 1000 < used.sent_bytes
    assert_same_networks(frozen, other)
    del state["fc1.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*fc1\.weight"):
        frozen.load_state_dict(state)
    assert frozen.load_state_dict(state, strict=False).missing_keys == ["fc1.weight"]


def test_the_input_has_a_gradient_all_the_same(pair, kind, x):
    grads = []
    for side in pair:
        side.requires_grad_(False)
        mine = x.clone().requires_grad_()
        side(mine).square().sum().backward()
        grads.append(mine.grad)
    assert_same(*grads)
    assert pair[0].mode == "frozen"


def test_somebody_elses_write_is_an_error_until_pulled(server, net):
    net.requires_grad_(False)
    other = server.instance(net.name, module=False)
    other.set_params(torch.zeros(89610).numpy())
    with pytest.raises(backboned.errors.StaleVersion, match=r"net\.pull\(\)"):
        net(torch.rand(1, 1, 28, 28))
    net.pull()
    assert not net(torch.rand(1, 1, 28, 28)).any()
    assert not net.get_params().any()


@pytest.mark.parametrize("mode", ["mirrored", "hosted", "frozen"])
def test_moves_that_are_none_and_those_that_cannot_be(net, mode):
    if mode == "hosted":
        optim.SGD(net)
    net.requires_grad_(mode != "frozen")
    assert net.mode == mode
    before = net.traffic
    for move in (
        net.cpu,
        net.float,
        lambda: net.to("cpu"),
        lambda: net.to(torch.float),
    ):
        assert move() is net
    assert net.traffic == before
    for move in (net.double, net.half, lambda: net.to("meta")):
        with pytest.raises(TypeError, match="float32 on the CPU"):
            move()


def test_moves_that_are_none_fetch_nothing(server):
    net = server.create("seq-mnist", seed=0, frozen=True)
    before = net.traffic
    assert net.cpu() is net and net.float() is net
    assert net.traffic == before


@pytest.mark.parametrize("mode", ["hosted", "frozen"])
def test_tensors_can_be_saved_but_not_the_network(net, mode):
    if mode == "hosted":
        optim.SGD(net)
    net.requires_grad_(mode != "frozen")
    net(torch.rand(1, 1, 28, 28))
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "list": list(net.parameters())}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert type(saved["list"][0]) is torch.nn.Parameter
    assert torch.equal(saved["list"][0], net.fc1.weight)
    twin = copy.deepcopy(net.fc1.weight)
    assert type(twin) is torch.nn.Parameter and torch.equal(twin, net.fc1.weight)
    assert repr(net.fc1.bias).startswith("Parameter containing:\ntensor([0.")
    with pytest.raises(TypeError, match="save its state_dict"):
        pickle.dumps(net)


def test_only_plain_parameters_can_live_in_the_server(net):
    class Fancy(torch.nn.Parameter):
        pass

    net.fc1.bias = Fancy(torch.zeros(100))
    with pytest.raises(TypeError, match=r"fc1\.bias is a Fancy"):
        net.requires_grad_(False)
    assert all(not hasattr(p, "keeper") for p in net.parameters())


def test_only_plain_buffers_can_live_in_the_server(server):
    class Fancy(torch.Tensor):
        pass

    net, _ = make_pair(server, "resnet")
    net.bn1.running_mean = torch.zeros(8).as_subclass(Fancy)
    with pytest.raises(TypeError, match=r"bn1\.running_mean is a Fancy"):
        optim.SGD(net)
    assert all(type(p) is torch.nn.Parameter for p in net.parameters())


def test_parameters_of_another_shape_are_refused(net):
    net.requires_grad_(False)
    net.classifier.weight.data = torch.zeros(11, 100)
    with pytest.raises(ValueError, match=r"classifier\.weight.*11, 100.*10, 100"):
        net(torch.rand(1, 1, 28, 28))
