"""Networks that nobody refers to leave at once, without Python's collector."""

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from backboned import CrossEntropy, optim
from hosted_pairs import MODES, batches, make_pair, make_pair_in_mode


@pytest.fixture(autouse=True)
def without_collector(server):
    optim.SGD(server.create("seq-mnist"))  # The first imports much of torch.
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _use(net, kind):
    for x, y in batches(kind, 2):
        out = net(x)
        if out.requires_grad:
            F.cross_entropy(out, y).backward()
        if net.mode == "hosted":
            net._optimizer.step()
        net.state_dict()
        net.eval()(x)
        next(net.parameters()).grad  # noqa: B018
        net.train()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["mlp", "resnet"])
def test_a_dropped_network_is_freed_and_deleted(server, kind, mode):
    other = server.create("seq-mnist")
    ((x, _),) = batches("mlp", 1)
    other(x)
    count = len(server.instances())
    net, _ = make_pair_in_mode(server, kind, mode)
    _use(net, kind)
    alive = weakref.ref(net)
    del net
    assert alive() is None
    other(x)
    assert len(server.instances()) == count


@pytest.mark.parametrize("mode", MODES)
def test_copies_that_are_dropped_are_deleted_with_the_next_call(server, mode):
    net, _ = make_pair_in_mode(server, "resnet", mode)
    ((x, _),) = batches("resnet", 1)
    net(x)
    count = len(server.instances())
    for _ in range(3):
        twin = copy.deepcopy(net).requires_grad_(False)
        twin(x)
        assert len(server.instances()) == count + 1
        del twin
        net(x)
        assert len(server.instances()) == count


def test_a_training_step_deletes_them_too(server):
    net, _ = make_pair(server, "mlp")
    optimizer = optim.SGD(net)
    ((x, y),) = batches("mlp", 1)
    net.train_step(x, [CrossEntropy(y)], optimizer)
    count = len(server.instances())
    copy.deepcopy(net)(x)
    net.train_step(x, [CrossEntropy(y)], optimizer)
    assert len(server.instances()) == count


@pytest.mark.parametrize("mode", ["hosted", "frozen"])
def test_parameters_outlive_their_network(server, mode):
    net, local = make_pair_in_mode(server, "mlp", mode)
    net(torch.zeros(1, 1, 28, 28))
    kept = [net.fc2.weight, net.classifier.bias]
    if mode == "frozen":
        net.instance.set_params(local.fc2.weight.detach().view(-1) + 1, "fc2.weight")
        net.pull()
        local.fc2.weight.data += 1
    del net
    assert torch.equal(kept[0].detach(), local.fc2.weight.detach())
    assert torch.equal(kept[1].detach(), local.classifier.bias.detach())


def test_a_retained_tape_goes_with_its_graph_behind_a_step(server):
    net, _ = make_pair(server, "mlp")
    optimizer = optim.SGD(net, lr=0.1)
    ((x, y),) = batches("mlp", 1)
    loss = F.cross_entropy(net(x), y)
    loss.backward(retain_graph=True)
    optimizer.step()
    assert net.instance.info().tape_count == 1
    del loss
    with torch.no_grad():
        net(x)
    assert net.instance.info().tape_count == 0


def test_a_graph_outlives_its_network(server):
    net, local = make_pair_in_mode(server, "mlp", "frozen")
    ((x, y),) = batches("mlp", 1)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss = F.cross_entropy(net(ours), y)
    del net
    loss.backward()
    F.cross_entropy(local(theirs), y).backward()
    assert torch.equal(ours.grad, theirs.grad)
