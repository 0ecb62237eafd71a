"""`torch.func.functional_call` on networks in the server."""

import pytest
import torch
import torch.nn.functional as F
from backboned import optim
from hosted_pairs import (
    MODES,
    assert_same,
    assert_same_grads,
    assert_same_networks,
    batches,
    make_pair_in_mode,
)
from torch import nn
from torch.func import functional_call


@pytest.fixture(params=["mlp", "resnet"])
def kind(request):
    return request.param


@pytest.fixture(params=MODES)
def pair(request, server, kind):
    net, local = make_pair_in_mode(server, kind, request.param)
    local.requires_grad_(net.mode != "frozen")
    return net, local


def _scaled(net):
    return {name: 2 * p for name, p in net.named_parameters()}


def _head(net):
    return {"classifier.weight": 3 * net.classifier.weight}


def _parameters(net):
    generator = torch.Generator().manual_seed(1)
    return {
        name: nn.Parameter(0.05 * torch.randn(p.shape, generator=generator))
        for name, p in net.named_parameters()
    }


@pytest.mark.parametrize("make", [_scaled, _head, _parameters])
def test_a_call_with_other_parameters(pair, kind, make):
    (first, second) = batches(kind, 2)
    called = []
    for net in pair:
        other = make(net)
        out = functional_call(net, other, first[0])
        if out.requires_grad:
            F.cross_entropy(out, first[1]).backward()
        grads = [p.grad for p in other.values() if p.is_leaf]
        called.append([out.detach(), *(g for g in grads if g is not None)])
    for ours, theirs in zip(*called):
        assert_same(ours, theirs)
    assert len(called[0]) == len(called[1])
    assert_same_grads(*pair)
    assert_same_networks(*pair)
    assert_same(*(net(second[0]).detach() for net in pair))
    assert_same_networks(*pair)


@pytest.mark.parametrize("mode", ["mirrored", "hosted"])
def test_an_inner_step(server, kind, mode):
    pair = make_pair_in_mode(server, kind, mode)
    (first, second) = batches(kind, 2)
    for net in pair:
        params = dict(net.named_parameters())
        inner = F.cross_entropy(net(first[0]), first[1])
        grads = torch.autograd.grad(inner, list(params.values()))
        fast = {n: p - 0.5 * g for (n, p), g in zip(params.items(), grads)}
        outer = functional_call(net, fast, second[0])
        F.cross_entropy(outer, second[1]).backward()
        net.outer = outer.detach()
    assert_same(pair[0].outer, pair[1].outer)
    assert_same_grads(*pair)
    assert_same_networks(*pair)


def test_the_servers_parameters_stay_as_they_are(server, kind):
    net, _ = make_pair_in_mode(server, kind, "hosted")
    ((x, y),) = batches(kind, 1)
    net.eval()(x)
    count, version = len(server.instances()), net.instance.info().version
    before = net.instance.get_params()
    loss = F.cross_entropy(functional_call(net, _scaled(net), x), y)
    assert (net.instance.get_params() == before).all()
    loss.backward()
    del loss
    net(x)
    assert net.instance.info().version == version
    assert len(server.instances()) == count


def test_a_call_with_other_statistics(server):
    pair = make_pair_in_mode(server, "resnet", "hosted")
    ((x, _),) = batches("resnet", 1)
    for net in pair:
        values = {**_scaled(net), **{n: b.clone() for n, b in net.named_buffers()}}
        values["bn1.running_mean"] += 1
        net.eval()
        net.given = values
        net.out = functional_call(net, values, x).detach()
        net.train()
        net.again = functional_call(net, values, x).detach()
    assert_same(pair[0].out, pair[1].out)
    assert_same(pair[0].again, pair[1].again)
    for name, value in pair[1].given.items():
        assert_same(pair[0].given[name], value)
    assert_same_networks(*pair)


def test_the_networks_timeout_counts_for_a_call_with_others(net, monkeypatch):
    optim.SGD(net)
    ((x, _),) = batches("mlp", 1)
    expected = net(x)
    net.timeout = 60
    monkeypatch.setattr(net.instance.channel, "timeout", 0.0)
    doubled = {"classifier.bias": net.classifier.bias + 1}
    assert_same(functional_call(net, doubled, x), expected + 1)
