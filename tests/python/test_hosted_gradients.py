"""Gradients of hosted networks: whether there are any is known here, values are not."""

import copy
import pickle

import backboned
import pytest
import torch
import torch.nn.functional as F
from backboned import optim
from hosted_pairs import (
    assert_same,
    assert_same_grads,
    assert_same_networks,
    batches,
    make_optimizer,
    make_pair,
)

SGD = {"lr": 0.1, "momentum": 0.9}


class Wrapper(torch.nn.Module):
    """Things that training code makes of a backbone."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


@pytest.fixture
def pair(server):
    return make_pair(server, "mlp")


def with_gradients(net):
    """Run a backward and a step, after which the gradients are the server's."""
    optimizer = make_optimizer(net, "SGD", **SGD)
    ((x, y),) = batches("mlp", 1)
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    return optimizer


def backward(net, seed=2):
    ((x, y),) = batches("mlp", 1, seed)
    F.cross_entropy(net(x), y).backward()


@pytest.mark.parametrize("kind", ["mlp", "resnet"])
def test_zeroing_the_gradients_of_a_wrapper_costs_nothing(server, kind):
    pair = make_pair(server, kind)
    for net in pair:
        model, optimizer = Wrapper(net), make_optimizer(net, "SGD", **SGD)
        for step, (x, y) in enumerate(batches(kind, 3)):
            before = net.traffic if net is pair[0] else None
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if before and step:
                assert (net.traffic - before).round_trips == 2
    assert_same_networks(*pair)
    assert_same_grads(*pair)


def test_a_wrapper_makes_gradients_zero_without_fetching_them(pair):
    for net in pair:
        optimizer = with_gradients(net)
        before = net.traffic if net is pair[0] else None
        Wrapper(net).zero_grad(set_to_none=False)
        if before:
            assert (net.traffic - before).received_bytes == 0
        backward(net)
        optimizer.step()
    assert_same_networks(*pair)
    assert_same_grads(*pair)


def test_asking_whether_there_are_gradients_asks_nobody(pair):
    net, local = pair
    with_gradients(net)
    with_gradients(local)
    before = net.traffic
    assert all(p.grad is not None for p in net.parameters())
    shapes = [p.grad.shape for p in net.parameters()]
    assert shapes == [p.shape for p in net.parameters()]
    assert (net.traffic - before).round_trips == 0


def test_a_parameter_that_no_output_reaches_has_none(pair):
    for net in pair:
        optimizer = make_optimizer(net, "SGD", **SGD)
        ((x, _),) = batches("mlp", 1)
        features = net.features(x) if net is pair[0] else net.outputs(x)["features"]
        features.sum().backward()
        optimizer.step()
    before = pair[0].traffic
    assert pair[0].classifier.weight.grad is None
    assert pair[0].fc1.weight.grad is not None
    assert (pair[0].traffic - before).round_trips == 0
    assert_same_grads(*pair)
    assert_same_networks(*pair)


def test_a_loss_of_a_parameter_alone_gives_it_a_gradient(pair):
    grads = []
    for net in pair:
        optimizer = make_optimizer(net, "SGD", **SGD)
        ((x, _),) = batches("mlp", 1)
        features = net.features(x) if net is pair[0] else net.outputs(x)["features"]
        features.sum().backward()
        optimizer.step()
        assert net.classifier.weight.grad is None
        net.classifier.weight.square().sum().backward()
        grads.append(net.classifier.weight.grad)
    assert_same(*grads)
    assert_same_grads(*pair)


def test_a_gradient_that_is_written_after_zeroing_is_the_only_one(pair):
    for net in pair:
        optimizer = with_gradients(net)
        assert net.fc1.weight.grad is not None
        optimizer.zero_grad()
        net.fc1.bias.grad = torch.ones(100)
        optimizer.step()
    assert_same_grads(*pair)
    assert_same_networks(*pair)


def test_a_gradient_that_is_taken_away_before_it_is_sent_was_never_there(pair):
    for net in pair:
        optimizer = make_optimizer(net, "SGD", **SGD)
        net.fc1.bias.grad = torch.ones(100)
        net.fc1.bias.grad = None
        optimizer.step()
        assert net.fc1.bias.grad is None
    assert_same_networks(*pair)


def test_clipping_reads_the_gradients_in_two_calls(pair):
    norms = []
    for net in pair:
        optimizer = with_gradients(net)
        optimizer.zero_grad()
        backward(net)
        before = net.traffic if net is pair[0] else None
        norms.append(torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1))
        if before:
            assert (net.traffic - before).round_trips == 3  # A backward, two reads.
        optimizer.step()
    assert_same(*norms)
    assert_same_networks(*pair)


AFTER = {
    "zero_grad": lambda net, optimizer: optimizer.zero_grad(),
    "network": lambda net, optimizer: net.zero_grad(),
    "wrapper": lambda net, optimizer: Wrapper(net).zero_grad(),
    "each": lambda net, optimizer: [setattr(p, "grad", None) for p in net.parameters()],
    "replaced": lambda net, optimizer: [
        setattr(p, "grad", torch.ones_like(p)) for p in net.parameters()
    ],
    "step": lambda net, optimizer: optimizer.step(),
    "backward": lambda net, optimizer: backward(net),
    "create_graph": lambda net, optimizer: F.cross_entropy(
        net(torch.ones(1, 1, 28, 28)), torch.zeros(1, dtype=torch.long)
    ).backward(create_graph=True),
    "regularised": lambda net, optimizer: sum(
        p.square().sum() for p in net.parameters()
    ).backward(),
}


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
@pytest.mark.parametrize("looked", [False, True], ids=["unseen", "seen"])
def test_gradients_that_are_kept_mean_what_they_do_in_torch(pair, after, looked):
    kept = []
    for net in pair:
        optimizer = with_gradients(net)
        optimizer.zero_grad()
        backward(net)
        optimizer.step()
        kept.append([p.grad for p in net.parameters()])
        if looked:
            kept[-1][0].norm()
        after(net, optimizer)
    if after is AFTER["create_graph"]:
        kept = [[p.grad for p in net.parameters()] for net in pair]
    for ours, theirs in zip(*kept):
        assert_same(ours, theirs)
    assert_same_grads(*pair)


def test_gradients_that_are_kept_go_on_with_each_backward(pair):
    seen = []
    for net in pair:
        optimizer = with_gradients(net)
        kept = [p.grad for p in net.parameters()]
        for seed in range(3):
            seen.append([grad.clone() for grad in kept])
            kept[0].zero_()
            kept[1].mul_(0.5)
            kept[2].data[0] = 1
            backward(net, seed)
            optimizer.step()
        assert all(p.grad is grad for p, grad in zip(net.parameters(), kept))
    for ours, theirs in zip(seen[:3], seen[3:]):
        for one, other in zip(ours, theirs):
            assert_same(one, other)
    assert_same_networks(*pair)
    assert_same_grads(*pair)


def test_a_gradient_that_is_overwritten_leaves_the_others_alone(pair):
    kept = []
    for net in pair:
        with_gradients(net)
        kept.append([p.grad for p in net.parameters()])
        kept[-1][0].zero_()
    for ours, theirs in zip(*kept):
        assert_same(ours, theirs)
    assert_same_grads(*pair)


def test_who_takes_memory_unasked_gets_no_plausible_gradient(pair):
    net, _ = pair
    with_gradients(net)
    with pytest.warns(UserWarning, match="copy construct"):
        taken = torch.tensor(net.fc1.weight.grad)
    assert taken.norm().isnan()


@pytest.mark.parametrize("how", ["train_step", "train_step_async", "mirror"])
def test_gradients_that_are_kept_outlive_other_ways_to_lose_them(pair, how):
    kept = []
    for net in pair:
        optimizer = with_gradients(net)
        kept.append([p.grad for p in net.parameters()])
        if net is pair[1]:
            continue
        ((x, y),) = batches("mlp", 1)
        if how == "mirror":
            net.mirror()
        else:
            getattr(net, how)(x, backboned.CrossEntropy(y), optimizer)
    for ours, theirs in zip(*kept):
        assert_same(ours, theirs)
        assert type(ours) is torch.Tensor


def _pickled(grad):
    return pickle.loads(pickle.dumps(grad))


LOOKS = {
    "clone": torch.clone,
    "numpy": lambda grad: torch.from_numpy(grad.numpy()),
    "data": lambda grad: grad.data,
    "deepcopy": copy.deepcopy,
    "pickle": _pickled,
    "foreach": lambda grad: torch._foreach_mul([grad, grad], 2.0)[1] / 2,
    "out": lambda grad: torch.mul(grad, 1, out=torch.empty(0)),
    "in_place": lambda grad: grad.mul_(1),
    "assigned": lambda grad: torch.zeros_like(grad).copy_(grad),
    "expanded": lambda grad: grad.expand_as(grad),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_every_look_brings_the_values(pair, look):
    grads = []
    for net in pair:
        with_gradients(net)
        grads.append(look(net.classifier.weight.grad).clone())
        net.classifier.weight.grad = net.classifier.weight.grad
        net.fc2.bias.grad = net.classifier.weight.grad[0, :].detach()
    assert_same(*grads)
    assert_same_grads(*pair)


def test_a_gradient_may_be_given_to_another_network(server, pair):
    net, local = pair
    other = server.create("seq-mnist", seed=1)
    optim.SGD(other)
    with_gradients(net)
    with_gradients(local)
    other.classifier.weight.grad = net.classifier.weight.grad
    assert_same(other.classifier.weight.grad, local.classifier.weight.grad)


def test_gradients_first_read_under_inference_mode_are_as_any(pair):
    norms = []
    for net in pair:
        optimizer = make_optimizer(net, "Adam", lr=0.01)
        for x, y in batches("mlp", 3):
            F.cross_entropy(net(x), y).backward()
            with torch.inference_mode():
                norms += [p.grad.norm() for p in net.parameters()]
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
    for ours, theirs in zip(norms[: len(norms) // 2], norms[len(norms) // 2 :]):
        assert_same(ours, theirs)
    assert_same_networks(*pair)
    assert_same_grads(*pair)


def test_a_gradient_scaler_unscales_them(pair):
    for net in pair:
        optimizer = make_optimizer(net, "SGD", **SGD)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for x, y in batches("mlp", 3):
            optimizer.zero_grad()
            scaler.scale(F.cross_entropy(net(x), y)).backward()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
    assert_same_networks(*pair)
