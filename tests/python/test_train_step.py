"""Whole training steps in one round trip: as forward, backward and step, to the bit."""

import warnings

import backboned
import pytest
import torch
import torch.nn.functional as F
from backboned import CrossEntropy, KlDivergence, MeanSquaredError, optim
from hosted_pairs import (
    assert_same,
    assert_same_networks,
    assert_same_optimizers,
    batches,
    make_optimizer,
    make_pair,
)
from torch.optim import lr_scheduler

pytestmark = pytest.mark.transports

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}


@pytest.fixture(params=["mlp", "resnet"])
def kind(request):
    return request.param


def test_it_equals_the_calls_one_by_one(server, kind):
    net, local = make_pair(server, kind)
    ours = make_optimizer(net, "SGD", **SGD)
    theirs = make_optimizer(local, "SGD", **SGD)
    for x, y in batches(kind, 3):
        before = net.traffic
        result = net.train_step(x, [CrossEntropy(y)], ours, return_logits=True)
        calls = (net.traffic - before).round_trips
        theirs.zero_grad()
        out = local(x)
        loss = F.cross_entropy(out, y)
        loss.backward()
        theirs.step()
        assert_same(torch.from_numpy(result.logits), out)
        assert result.loss == loss.item() and result.losses == (loss.item(),)
        assert result.step is ours.last_step
    assert calls == 1
    assert_same_networks(net, local)
    assert_same_optimizers(ours, theirs)
    assert net.fc1.weight.grad is None if kind == "mlp" else True


def test_terms_over_rows_with_weights(server):
    net, local = make_pair(server, "mlp")
    ours = make_optimizer(net, "Adam")
    theirs = make_optimizer(local, "Adam")
    for x, y in batches("mlp", 3):
        target = torch.rand(3, 10)
        terms = [
            CrossEntropy(y[:3], rows=(0, 3), label_smoothing=0.1),
            MeanSquaredError(target, rows=(3, 6), weight=0.5),
            KlDivergence(target, temperature=2.0, rows=(2, 5), weight=0.25),
        ]
        result = net.train_step(x, terms, ours)
        theirs.zero_grad()
        out = local(x)
        losses = [
            F.cross_entropy(out[:3], y[:3], label_smoothing=0.1),
            F.mse_loss(out[3:6], target),
            F.kl_div(
                F.log_softmax(out[2:5] / 2, 1),
                F.softmax(target / 2, 1),
                reduction="batchmean",
            ),
        ]
        (losses[0] + 0.5 * losses[1] + 0.25 * losses[2]).backward()
        theirs.step()
        assert result.losses == pytest.approx([loss.item() for loss in losses], 1e-6)
    for ours, theirs in zip(net.parameters(), local.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_between_ordinary_steps(server):
    net, local = make_pair(server, "mlp")
    ours = make_optimizer(net, "SGD", **SGD)
    theirs = make_optimizer(local, "SGD", **SGD)
    ours.clip_norm = 0.5
    for step, (x, y) in enumerate(batches("mlp", 4)):
        if step % 2:
            net.train_step(x, [CrossEntropy(y)], ours)
        else:
            F.cross_entropy(net(x), y).backward()
            ours.step()
        theirs.zero_grad()
        F.cross_entropy(local(x), y).backward()
        torch.nn.utils.clip_grad_norm_(local.parameters(), 0.5)
        theirs.step()
        if step == 1:
            with torch.no_grad():
                for side in (net, local):
                    side.classifier.bias.add_(1)
        if step % 2 == 0:
            ours.zero_grad()
    assert_same_networks(net, local)


def test_labels_that_do_not_fit_change_nothing(net):
    optimizer = optim.SGD(net)
    before = net.get_params().clone()
    x = torch.rand(4, 1, 28, 28)
    with pytest.raises(backboned.errors.InvalidArgument, match="3"):
        net.train_step(x, [CrossEntropy(torch.zeros(3, dtype=torch.long))], optimizer)
    assert torch.equal(net.get_params(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_labels_that_are_no_integers_are_refused(net, dtype):
    optimizer = optim.SGD(net)
    x, labels = torch.rand(4, 1, 28, 28), torch.full((4,), 0.9).to(dtype)
    name = str(dtype).rpartition(".")[2]
    with pytest.raises(
        backboned.errors.InvalidArgument, match=f"are integers.* got {name}"
    ):
        net.train_step(x, [CrossEntropy(labels)], optimizer)


def test_what_is_said_if_it_cannot_train(net):
    optimizer = optim.SGD(net)
    x, terms = (
        torch.rand(4, 1, 28, 28),
        [CrossEntropy(torch.zeros(4, dtype=torch.long))],
    )
    net.eval()
    with pytest.raises(RuntimeError, match=r"call net\.train\(\) first"):
        net.train_step(x, terms, optimizer)
    net.train()
    net.fc1.requires_grad_(False)
    with pytest.raises(ValueError, match="2 of them are frozen"):
        net.train_step(x, terms, optimizer)
    net.requires_grad_(True)
    optim.SGD(net)
    with pytest.raises(RuntimeError, match="another optimizer"):
        net.train_step(x, terms, optimizer)


@pytest.mark.parametrize("how", ["train_step", "train_step_async"])
@pytest.mark.parametrize("kind", [optim.SGD, torch.optim.SGD], ids=["ours", "torchs"])
def test_an_optimizer_of_another_network_is_refused(server, net, how, kind):
    optim.SGD(net)
    other = server.create("seq-mnist", seed=1)
    before = other.get_params().clone()
    x, terms = (
        torch.rand(4, 1, 28, 28),
        [CrossEntropy(torch.zeros(4, dtype=torch.long))],
    )
    with pytest.raises(ValueError, match="made for this network"):
        getattr(net, how)(x, terms, kind(other.parameters()))
    assert torch.equal(other.get_params(), before)


def test_settings_that_a_schedule_moves_go_along(server):
    net, local = make_pair(server, "mlp")
    ours = make_optimizer(net, "SGD", **SGD)
    theirs = make_optimizer(local, "SGD", **SGD)
    schedules = [
        lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=8)
        for optimizer in (ours, theirs)
    ]
    before = net.traffic
    for x, y in batches("mlp", 7):
        net.train_step_async(x, CrossEntropy(y), ours)
        theirs.zero_grad()
        F.cross_entropy(local(x), y).backward()
        theirs.step()
        for schedule in schedules:
            schedule.step()
    moved = net.traffic - before
    assert moved.received_bytes < 2000
    assert_same_networks(net, local)
    assert_same_optimizers(ours, theirs)


@pytest.mark.parametrize("how", ["train_step", "train_step_async"])
def test_a_scheduler_after_it_warns_of_nothing(net, how):
    optimizer = optim.SGD(net, **SGD)
    schedule = lr_scheduler.StepLR(optimizer, 1)
    ((x, y),) = batches("mlp", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(net, how)(x, CrossEntropy(y), optimizer)
        schedule.step()


@pytest.mark.parametrize("how", ["train_step", "train_step_async"])
def test_one_term_is_a_loss(server, how):
    net, twin = (make_pair(server, "mlp")[0] for _ in range(2))
    ((x, y),) = batches("mlp", 1)
    getattr(net, how)(x, CrossEntropy(y), optim.SGD(net, **SGD))
    twin.train_step(x, [CrossEntropy(y)], optim.SGD(twin, **SGD))
    assert_same_networks(net, twin)


@pytest.mark.parametrize("how", ["train_step", "train_step_async"])
@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (F.cross_entropy, "cross_entropy"),
        ([F.cross_entropy], "cross_entropy"),
        (torch.nn.CrossEntropyLoss(), "CrossEntropyLoss"),
        ([torch.zeros(1)], "tensor"),
        (None, "None"),
    ],
)
def test_a_loss_of_other_terms_is_invalid(net, how, loss, name):
    optimizer = optim.SGD(net, **SGD)
    ((x, _),) = batches("mlp", 1)
    with pytest.raises(
        backboned.errors.InvalidArgument, match=f"a term is .*{name}.*; terms"
    ):
        getattr(net, how)(x, loss, optimizer)
    assert net.instance.info().steps == 0
