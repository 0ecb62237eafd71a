"""Deep copies: a clone in the server of what is there, else an instance that is fed."""

import copy

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
)


@pytest.fixture(params=["mlp", "resnet"])
def kind(request):
    return request.param


def step(net, optimizer, x, y):
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()


@pytest.mark.parametrize("mode", ["hosted", "frozen"])
def test_a_copy_of_what_is_in_the_server_moves_no_tensors(server, mode):
    net, _ = make_pair(server, "resnet")
    if mode == "hosted":
        optim.SGD(net)
    net.requires_grad_(mode == "hosted")
    before = net.traffic
    twin = copy.deepcopy(net)
    assert (net.traffic - before).round_trips == 1
    assert twin.traffic.round_trips == 0 and twin.mode == mode
    assert twin.name != net.name and twin.instance.ephemeral
    ((x, _),) = batches("resnet", 1)
    with torch.no_grad():
        assert_same(twin.eval()(x), net.eval()(x))
    assert twin.traffic.received_bytes < 2000
    assert_same_networks(twin, net)


def test_an_old_network_beside_the_one_that_trains(server, kind):
    pair = make_pair(server, kind)

    def train(net):
        optimizer = make_optimizer(net, "SGD", lr=0.1, momentum=0.9)
        given = list(batches(kind, 3))
        step(net, optimizer, *given[0])
        old = copy.deepcopy(net).eval()
        losses = []
        for x, y in given:
            with torch.no_grad():
                target = old(x)
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y) + F.mse_loss(net(x), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return [*losses, *old.parameters()]

    for ours, theirs in zip(*(train(side) for side in pair)):
        assert_same(ours, theirs)
    assert_same_networks(*pair)


def test_a_copy_has_what_was_written_and_what_waits_does_not_matter(server, kind):
    copies = []

    def train(net):
        optimizer = make_optimizer(net, "SGD", lr=0.1)
        ((x, y),) = batches(kind, 1)
        step(net, optimizer, x, y)
        with torch.no_grad():
            net.classifier.bias.add_(1)
        F.cross_entropy(net(x), y).backward()
        copies.append(copy.deepcopy(net))
        optimizer.step()

    pair = make_pair(server, kind)
    for side in pair:
        train(side)
    assert copies[0].classifier.bias.grad is None
    assert_same_networks(*copies)
    assert_same_networks(*pair)


def test_a_copy_of_a_hosted_network_trains_with_any_optimizer(server, kind):
    trained = []

    def train(net, where):
        optimizer = make_optimizer(net, "SGD", lr=0.1)
        given = list(batches(kind, 3))
        step(net, optimizer, *given[0])
        twin = copy.deepcopy(net)
        trained.append(twin)
        its = where(twin)
        for x, y in given:
            step(twin, its, x, y)

    pair = make_pair(server, kind)
    train(pair[0], lambda twin: torch.optim.Adam(twin.parameters()))
    train(pair[1], lambda twin: torch.optim.Adam(twin.parameters()))
    assert trained[0].mode == "mirrored"
    assert_same_networks(*trained)
    assert_same_networks(*pair)


def test_copies_that_are_dropped_do_not_pile_up(server, net):
    net.requires_grad_(False)
    count = len(server.instances())
    for _ in range(5):
        with torch.no_grad():
            copy.deepcopy(net)(torch.zeros(1, 1, 28, 28))
        net(torch.zeros(1, 1, 28, 28))
        assert len(server.instances()) == count


def test_attributes_and_heads_of_ones_own_are_copied(server):
    net, _ = make_pair(server, "mlp")
    optim.SGD(net)
    net.adapter = torch.nn.Linear(3, 3)
    net.note = {"seen": [1]}
    net.fc1.weight.requires_grad_(False)
    twin = copy.deepcopy(net)
    assert torch.equal(twin.adapter.weight, net.adapter.weight)
    assert twin.adapter.weight is not net.adapter.weight
    assert twin.note == net.note and twin.note is not net.note
    assert not twin.fc1.weight.requires_grad and twin.fc2.weight.requires_grad


def test_a_network_that_is_made_frozen(server):
    net = server.create(architecture="resnet18", num_classes=10, seed=0, frozen=True)
    assert net.mode == "frozen" and net.traffic.round_trips == 0
    mirrored = server.create(architecture="resnet18", num_classes=10, seed=0)
    ((x, _),) = batches("resnet", 1)
    assert_same(net.eval()(x), mirrored.eval()(x).detach())
    net.requires_grad_(True)
    assert net.mode == "mirrored"
    optimizer = optim.SGD(net, lr=0.1)
    step(net, optimizer, *next(batches("resnet", 1)))
    assert not torch.equal(net.conv1.weight, mirrored.conv1.weight)


def test_parameters_that_are_frozen_in_the_server_are_frozen_here(server):
    net = server.create("seq-mnist", seed=0, frozen=["fc1.*", "!fc1.bias"])
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == [
        "fc1.weight"
    ]
    assert net.mode == "mirrored"


def test_a_read_only_network_is_frozen(server):
    net = server.create("seq-mnist", seed=0, read_only=True)
    assert net.mode == "frozen"
    assert net.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
