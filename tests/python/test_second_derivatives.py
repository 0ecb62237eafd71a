"""Gradients of gradients are an error, never zero; `create_graph` alone works."""

import gc
import weakref

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
    make_pair_in_mode,
)
from torch.autograd import functional

pytestmark = pytest.mark.filterwarnings("ignore:Using backward:UserWarning")


@pytest.fixture(params=["mirrored", "hosted"])
def mode(request):
    return request.param


@pytest.fixture
def pair(server, mode):
    return make_pair_in_mode(server, "mlp", mode)


def _inputs():
    ((x, y),) = batches("mlp", 1)
    return x.requires_grad_(), y


def _input_gradient_penalty(net):
    x, y = _inputs()
    (g,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    (F.cross_entropy(net(x), y) + g.norm()).backward()


def _wgan_gp(net):
    x, _ = _inputs()
    mixed = torch.lerp(x, torch.zeros_like(x), torch.rand(len(x), 1, 1, 1))
    out = net(mixed)
    (g,) = torch.autograd.grad(out, mixed, torch.ones_like(out), create_graph=True)
    (out.mean() + 10 * (g.flatten(1).norm(2, dim=1) - 1).square().mean()).backward()


def _parameter_gradient_penalty(net):
    x, y = _inputs()
    out = net(x.detach())
    grads = torch.autograd.grad(out[:, 0].sum(), [*net.parameters()], create_graph=True)
    (F.cross_entropy(out, y) + sum(g.square().sum() for g in grads)).backward()


def _feature_gradient_penalty(net):
    x, _ = _inputs()
    features = net.features(x)
    (g,) = torch.autograd.grad(features.sum(), x, create_graph=True)
    (features.sum() + g.square().sum()).backward()


def _penalty_of_what_is_in_grad(net):
    x, y = _inputs()
    F.cross_entropy(net(x), y).backward(create_graph=True)
    penalty = sum(p.grad.square().sum() for p in net.parameters())
    (F.cross_entropy(net(x), y) + penalty).backward()


def _penalty_of_what_was_added_to_grad(net):
    x, y = _inputs()
    F.cross_entropy(net(x), y).backward()
    _penalty_of_what_is_in_grad(net)


def _of_an_encoder_before_it(net):
    x, _ = _inputs()
    scale = torch.ones(1, requires_grad=True)
    scaled = x.detach() * scale
    (g,) = torch.autograd.grad(net(scaled).sum(), scaled, create_graph=True)
    torch.autograd.grad(g.square().sum(), scale, allow_unused=True)


def _of_the_outputs_gradient(net):
    x, _ = _inputs()
    out = net(x)
    weights = torch.ones_like(out).requires_grad_()
    (g,) = torch.autograd.grad(out, x, weights, create_graph=True)
    torch.autograd.grad(g.sum(), weights)


def _functional(name):
    function = getattr(functional, name)

    def ask(net):
        x = _inputs()[0].detach()
        if name == "jvp":
            function(net, x, torch.ones_like(x))
        elif name == "hessian":
            function(lambda shift: net(x + shift).square().sum(), torch.zeros(1))
        else:
            function(lambda t: net(t).sum(), x, torch.ones_like(x))

    return ask


ASKED = {
    "input": _input_gradient_penalty,
    "wgan_gp": _wgan_gp,
    "parameters": _parameter_gradient_penalty,
    "features": _feature_gradient_penalty,
    "grad": _penalty_of_what_is_in_grad,
    "added_grad": _penalty_of_what_was_added_to_grad,
    "encoder": _of_an_encoder_before_it,
    "outputs_gradient": _of_the_outputs_gradient,
    **{name: _functional(name) for name in ("jvp", "hvp", "vhp", "hessian")},
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_gradients_of_gradients_are_refused(pair, ask):
    with pytest.raises(RuntimeError, match="gradients of gradients .* not available"):
        ask(pair[0])


def test_gradients_of_gradients_of_a_frozen_network_are_refused(server):
    net, _ = make_pair_in_mode(server, "mlp", "frozen")
    with pytest.raises(RuntimeError, match="gradients of gradients .* not available"):
        _wgan_gp(net)


def test_what_does_not_depend_on_the_network_has_no_gradient_of_it(pair):
    x, _ = _inputs()
    other = torch.ones(1, requires_grad=True)
    (g,) = torch.autograd.grad(pair[0](x).sum(), x, create_graph=True)
    assert torch.autograd.grad((g.sum() * other).sum(), other)[0] == g.sum()
    assert torch.autograd.grad(g.sum(), other, allow_unused=True) == (None,)


def test_a_jacobian_has_the_bits_of_a_local_one(pair):
    x = _inputs()[0].detach()[:2]
    assert_same(*(functional.jacobian(net, x) for net in pair))


@pytest.mark.parametrize("kind", ["mlp", "resnet"])
def test_training_with_create_graph_has_the_bits_of_a_local_one(server, mode, kind):
    pair = make_pair_in_mode(server, kind, mode)

    def train(net):
        name = {"name": "SGD", "lr": 0.1, "momentum": 0.9}
        optimizer = (
            make_optimizer(net, **name)
            if mode == "hosted"
            else torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        )
        for step, (x, y) in enumerate(batches(kind, 5)):
            if step != 3:
                optimizer.zero_grad()
            x.requires_grad_()
            F.cross_entropy(net(x), y).backward(create_graph=step % 2 == 0)
            optimizer.step()

    for net in pair:
        train(net)
    assert_same_networks(*pair)
    assert_same_grads(*pair)


def test_gradients_with_create_graph_have_the_bits_of_local_ones(pair):
    given = []
    for net in pair:
        x, y = _inputs()
        loss = F.cross_entropy(net(x), y)
        asked = [x, *net.parameters()]
        given.append(torch.autograd.grad(loss, asked, create_graph=True))
        assert all(g.requires_grad for g in given[-1])
    for ours, theirs in zip(*given):
        assert_same(ours, theirs)


def test_create_graph_leaves_no_tape_behind(pair):
    net, _ = pair
    x, _ = _inputs()
    (g,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    assert net.instance.info().tape_count == 1
    del g
    gc.collect()
    with torch.no_grad():
        net(x)
    assert net.instance.info().tape_count == 0


@pytest.mark.parametrize("wants_input", [False, True])
def test_a_loss_that_is_kept_does_not_keep_the_images(pair, wants_input):
    net, _ = pair
    x, y = _inputs()
    x = (x * 2) if wants_input else x.detach()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    died = weakref.ref(x)
    del x
    assert died() is None
    assert loss.isfinite()


def test_a_small_gradient_that_is_kept_does_not_keep_the_others(server):
    net, _ = make_pair_in_mode(server, "resnet", "mirrored")
    ((x, y),) = batches("resnet", 1)
    F.cross_entropy(net(x), y).backward()
    for name, parameter in net.named_parameters():
        if parameter.numel() * 4 < 64 << 10:
            held = parameter.grad.untyped_storage().nbytes()
            assert held == parameter.numel() * 4, name
    optim.SGD(net)
    F.cross_entropy(net(x), y).backward()
    assert net.classifier.bias.grad.untyped_storage().nbytes() == 40
