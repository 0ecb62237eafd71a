"""Writes that PyTorch does not track: every element that somebody may hold counts."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backboned import optim
from hosted_pairs import (
    assert_same,
    assert_same_networks,
    batches,
    make_optimizer,
    make_pair,
    make_pair_in_mode,
)
from torch import nn

SGD = {"lr": 0.1, "momentum": 0.9}


def make_trained(server, kind, where):
    """Give a pair with optimizers: of the server, or of torch on both sides."""
    net, local = make_pair(server, kind)
    ours = (
        make_optimizer(net, "SGD", **SGD)
        if where == "hosted"
        else torch.optim.SGD(net.parameters(), **SGD)
    )
    return (net, ours), (local, torch.optim.SGD(local.parameters(), **SGD))


def _reinitialise(net):
    net.fc1.weight.data[7] = 0
    net.fc1.bias.data[8] = 0
    net.fc2.weight.data[:, 7] = 0


def _detached_numpy(net):
    net.fc1.weight.detach().numpy()[3, 20:60] = 0.5


def _numpy_of_a_view(net):
    net.fc2.weight.data.view(-1)[17:18].numpy()[:] = -1


def _storage(net):
    net.fc2.bias.untyped_storage()[0] = 77


def _state_dict(net):
    for name, value in net.state_dict().items():
        if name == "classifier.weight":
            value.numpy()[2, 3] = 4.0


@pytest.mark.parametrize("where", ["mirrored", "hosted"])
@pytest.mark.parametrize(
    "edit",
    [_reinitialise, _detached_numpy, _numpy_of_a_view, _storage, _state_dict],
)
def test_a_few_elements_of_parameters(server, where, edit):
    sides = make_trained(server, "mlp", where)
    outputs = []
    for x, y in batches("mlp", 5):
        for net, optimizer in sides:
            optimizer.zero_grad()
            out = net(x)
            F.cross_entropy(out, y).backward()
            optimizer.step()
            edit(net)
            outputs.append(out.detach())
        assert_same(*outputs[-2:])
    assert_same_networks(sides[0][0], sides[1][0])


@pytest.mark.parametrize("where", ["mirrored", "hosted"])
def test_parts_of_gradients_are_masked(server, where):
    sides = make_trained(server, "resnet", where)
    for x, y in batches("resnet", 4):
        for net, optimizer in sides:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            net.layer2[0].conv1.weight.grad.data[1, 2] = 0
            net.classifier.weight.grad.numpy()[3, 20:60] = 0
            optimizer.step()
    assert_same_networks(sides[0][0], sides[1][0])


@pytest.mark.parametrize("mode", ["mirrored", "hosted", "frozen"])
def test_statistics_of_batch_norm(server, mode):
    pair = make_pair_in_mode(server, "resnet", mode)
    for x, _ in batches("resnet", 2):
        for net in pair:
            net.layer3[1].bn2.running_var.data[5] = 0.125
            net.layer3[1].bn2.running_mean.numpy()[6] = 0.5
        assert_same(*(net(x).detach() for net in pair))
    assert_same_networks(*pair)


def test_views_from_before_it_was_hosted(server):
    pair = make_pair(server, "mlp")
    views = [net.fc1.weight.data for net in pair]
    optim.SGD(pair[0])
    for x, _ in batches("mlp", 2):
        for view, net in zip(views, pair):
            view[1] += 0.25
            net.out = net(x).detach()
        assert_same(pair[0].out, pair[1].out)


@pytest.mark.parametrize("mode", ["mirrored", "hosted"])
def test_memory_that_was_given_to_a_parameter(server, mode):
    pair = make_pair_in_mode(server, "mlp", mode)
    values = torch.rand(10, 100)
    for net in pair:
        net.mine = values.clone()
        net.classifier.weight.data = net.mine
    for x, _ in batches("mlp", 2):
        assert_same(*(net(x).detach() for net in pair))
        for net in pair:
            net.mine[4, 5] = 3.0
        assert_same(*(net(x).detach() for net in pair))


def test_a_statistic_whose_memory_somebody_has_is_replaced(server):
    pair = make_pair_in_mode(server, "resnet", "hosted")
    ((x, _),) = batches("resnet", 1)
    for net in pair:
        net.mine = net.bn1.running_mean.data
        net(x)  # Moves the statistics, so that those taken are of an earlier state.
        net.bn1.running_mean = torch.full((8,), 0.25)
        net.out = net.eval()(x).detach()
    assert_same(pair[0].out, pair[1].out)
    assert_same_networks(*pair)


def test_a_step_behind_a_replaced_statistic(server):
    pair = make_pair_in_mode(server, "resnet", "hosted")
    ((x, y),) = batches("resnet", 1)
    for net in pair:
        optimizer = make_optimizer(net, "SGD", lr=0.1)
        F.cross_entropy(net(x), y).backward()
        [buffer.sum() for buffer in net.buffers()]
        net.bn1.running_mean = torch.ones(8)
        with torch.no_grad():
            net.layer1[0].bn1.running_mean.fill_(3)
        optimizer.step()
        net.out = net.eval()(x).detach()
    assert_same(pair[0].out, pair[1].out)
    assert_same_networks(*pair)
    there = pair[0].instance.get_buffers()["layer1.0.bn1.running_mean"]
    assert (there == 3).all()


def test_memory_of_numpy(server):
    pair = make_pair_in_mode(server, "mlp", "hosted")
    arrays = [np.full((10, 100), 0.5, np.float32) for _ in pair]
    for net, array in zip(pair, arrays):
        net.classifier.weight.data = torch.from_numpy(array)
    for x, _ in batches("mlp", 3):
        assert_same(*(net(x).detach() for net in pair))
        for array in arrays:
            array[4, 5] += 1.0
        assert_same(*(net(x).detach() for net in pair))


@pytest.mark.parametrize("mode", ["mirrored", "hosted"])
def test_memory_of_a_parameter_in_anothers_place(server, mode):
    pair = make_pair_in_mode(server, "mlp", mode)
    layer = nn.Linear(100, 10)
    for net in pair:
        net.classifier.weight = nn.Parameter(layer.weight.detach().clone())
        net.mine = net.classifier.weight.data
    for x, _ in batches("mlp", 2):
        for net in pair:
            net.mine[4, 5] += 3.0
        assert_same(*(net(x).detach() for net in pair))


def test_views_that_were_dropped_cost_nothing_any_more(server):
    (net, optimizer), _ = make_trained(server, "mlp", "hosted")
    ((x, y),) = batches("mlp", 1)
    net.state_dict()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    before = net.traffic
    net.classifier.bias.norm()
    assert (net.traffic - before).received_bytes < 200


def _saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("kind", ["mlp", "resnet"])
def test_a_kept_state_dict_is_of_one_moment(server, kind):
    (net, optimizer), _ = make_trained(server, kind, "hosted")

    def step(x, y):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    (first, second) = batches(kind, 2)
    step(*first)
    kept = net.state_dict()
    old = {name: value.clone() for name, value in kept.items()}
    step(*second)
    for name, value in _saved(kept).items():
        assert_same(value, old[name])
    next(net.parameters()).norm()  # A log.
    saved = _saved(kept)
    for name, value in net.state_dict().items():
        assert_same(saved[name], value)


def test_a_write_through_a_kept_state_dict_is_not_lost_in_silence(server):
    (net, optimizer), _ = make_trained(server, "mlp", "hosted")
    ((x, y),) = batches("mlp", 1)
    kept = net.state_dict()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    kept["fc2.weight"].numpy()[50, 50] = 1.0
    del kept
    with pytest.raises(RuntimeError, match=r"fc2\.weight was written through a tensor"):
        net(x)
    net(x)
