"""Hosted training of float64 networks: bit for bit what torch.optim does."""

import pytest
import torch
import torch.nn.functional as F
from backboned import CrossEntropy, KlDivergence, MeanSquaredError
from hosted_pairs import (
    SMALL,
    assert_same,
    assert_same_grads,
    assert_same_networks,
    assert_same_optimizers,
    batches,
    make_optimizer,
)
from reference_models import ReferenceMlp, ReferenceResNet18, seeded

MAKE = {
    "mlp": (ReferenceMlp, {"benchmark": "seq-mnist"}),
    "resnet": (
        lambda: ReferenceResNet18(**SMALL),
        {"architecture": "resnet18", **SMALL},
    ),
}
OPTIMIZERS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}),
    ("Adam", {}),
    ("AdamW", {"amsgrad": True}),
]


@pytest.fixture(params=MAKE)
def kind(request):
    return request.param


@pytest.fixture
def pair(server, kind):
    """A network in the server and its equal here, of float64."""
    make, arguments = MAKE[kind]
    net = server.create(**arguments, seed=0, dtype="float64")
    return net, seeded(make, 0).double()


@pytest.fixture(params=OPTIMIZERS, ids=lambda choice: choice[0])
def optimizers(request, pair):
    name, options = request.param
    return [make_optimizer(net, name, **options) for net in pair]


def double_batches(kind, count):
    for x, y in batches(kind, count):
        yield x.double(), y


def test_it_steps_as_torch_does(pair, kind, optimizers):
    for x, y in double_batches(kind, 4):
        losses = []
        for net, optimizer in zip(pair, optimizers):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            losses.append(loss)
            optimizer.step()
        assert_same(*losses)
    assert pair[0].mode == "hosted" and pair[0].get_params().dtype == torch.float64
    assert_same_grads(*pair)
    assert_same_networks(*pair)
    assert_same_optimizers(*optimizers)


def test_clipping_reading_and_writing(pair, kind, optimizers):
    ours, _ = optimizers
    for x, y in double_batches(kind, 3):
        for net, optimizer in zip(pair, optimizers):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            next(net.parameters()).grad.mul_(0.5)
            if optimizer is ours:
                optimizer.step(clip_norm=0.5)
            else:
                torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                optimizer.step()
            with torch.no_grad():
                list(net.parameters())[-1].add_(1)
    assert_same_networks(*pair)


def test_a_checkpoint_goes_on(pair, kind, optimizers):
    ours, theirs = optimizers
    for step, (x, y) in enumerate(double_batches(kind, 4)):
        for net, optimizer in zip(pair, optimizers):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        if step == 1:
            ours.load_state_dict(theirs.state_dict())
    assert_same_networks(*pair)
    assert_same_optimizers(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_steps_with_targets(pair, kind, optimizers, dtype):
    net, local = pair
    ours, theirs = optimizers
    generator = torch.Generator().manual_seed(2)
    for x, y in double_batches(kind, 3):
        target = torch.rand(3, 10, generator=generator, dtype=dtype)
        terms = [
            CrossEntropy(y),
            MeanSquaredError(target, rows=(0, 3), weight=0.5),
            KlDivergence(target, temperature=2.0, rows=(3, 6), weight=0.25),
        ]
        result = net.train_step(x, terms, ours, return_logits=True)
        theirs.zero_grad()
        out, target = local(x), target.double()
        soft = F.log_softmax(out[3:] / 2, 1), F.softmax(target / 2, 1)
        losses = [
            F.cross_entropy(out, y),
            F.mse_loss(out[:3], target),
            F.kl_div(*soft, reduction="batchmean"),
        ]
        (losses[0] + 0.5 * losses[1] + 0.25 * losses[2]).backward()
        theirs.step()
        assert_same(torch.from_numpy(result.logits), out)
        assert result.losses == tuple(loss.item() for loss in losses)
    assert_same_networks(net, local)
