"""Bit for bit what the same network does in local PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from reference_models import ReferenceMlp, ReferenceResNet18, seeded
from torch import nn

SMALL = {"num_classes": 10, "num_filters": 8}
STAGES = [f"layers.{i}" for i in range(5)]


def make_mlp(server, seed=0):
    return server.create("seq-mnist", seed=seed), seeded(ReferenceMlp, seed)


def make_resnet(server, seed=0):
    net = server.create(architecture="resnet18", seed=seed, **SMALL)
    return net, seeded(lambda: ReferenceResNet18(**SMALL), seed)


MAKERS = {"mlp": make_mlp, "resnet": make_resnet}
SHAPES = {"mlp": (6, 1, 28, 28), "resnet": (6, 3, 32, 32)}


@pytest.fixture(params=["mlp", "resnet"])
def kind(request):
    return request.param


@pytest.fixture
def pair(server, kind):
    """A network in the server and its equal here."""
    return MAKERS[kind](server)


@pytest.fixture
def x(kind):
    return batch(kind, 1)


def batch(kind, seed):
    return torch.rand(SHAPES[kind], generator=torch.Generator().manual_seed(seed))


def assert_same(ours, theirs):
    """Equal to the bit, NaN and the sign of zero included."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    ours, theirs = ours.detach().numpy(), theirs.detach().numpy()
    assert ours.tobytes() == theirs.tobytes()


def assert_same_grads(net, local):
    pairs = zip(net.named_parameters(), local.named_parameters())
    for (name, ours), (same_name, theirs) in pairs:
        assert name == same_name
        if theirs.grad is None:
            assert ours.grad is None, name
        else:
            assert ours.grad is not None, name
            assert ours.grad.is_contiguous()
            assert_same(ours.grad, theirs.grad)


def assert_same_buffers(net, local):
    for (name, ours), (same_name, theirs) in zip(
        net.named_buffers(), local.named_buffers()
    ):
        assert name == same_name
        assert_same(ours, theirs)


def backward_both(pair, x, loss):
    """Run a loss of the named outputs on both sides."""
    net, local = pair
    loss(named_outputs(net, x)).backward()
    loss(local.outputs(x)).backward()


def named_outputs(net, x):
    """Give every output of a remote network, as the reference's `outputs` does."""
    out, features = net(x, returnt="both")
    return {"out": out, "features": features}


@pytest.mark.parametrize("seed", [0, 1, 2, 12345])
def test_initial_parameters(server, kind, seed):
    net, local = MAKERS[kind](server, seed)
    named = list(local.named_parameters())
    assert [name for name, _ in net.named_parameters()] == [name for name, _ in named]
    for ours, (_, theirs) in zip(net.parameters(), named):
        assert_same(ours, theirs)
    assert_same_buffers(net, local)


@pytest.mark.parametrize("training", [False, True])
def test_each_output(pair, x, training):
    net, local = pair
    net.train(training)
    local.train(training)
    expected = local.outputs(x)
    with torch.no_grad():
        out, features = net(x, returnt="both")
    assert_same(out, expected["out"])
    assert_same(features, expected["features"])
    assert_same_buffers(net, local)
    if "layers.0" in expected:
        with torch.no_grad():
            net.load_state_dict(local.state_dict())
            expected = local.outputs(x)
            out, maps = net(x, returnt="full")
        assert_same(out, expected["out"])
        for name, ours in zip(STAGES, maps):
            assert_same(ours, expected[name])


@pytest.mark.parametrize("training", [False, True])
def test_all_gradients(pair, x, training):
    for module in pair:
        module.train(training)
    backward_both(pair, x, lambda named: named["out"].square().sum())
    assert_same_grads(*pair)
    assert_same_buffers(*pair)


def test_gradients_of_both_outputs(pair, x):
    backward_both(
        pair, x, lambda named: named["out"].sum() + named["features"].square().sum()
    )
    assert_same_grads(*pair)


def test_unreached_parameters_have_no_gradient(pair, x):
    backward_both(pair, x, lambda named: named["features"].square().sum())
    assert pair[0].classifier.weight.grad is None
    assert_same_grads(*pair)


def test_gradients_of_inner_stages(server):
    net, local = make_resnet(server)
    x = batch("resnet", 1)
    weights = torch.rand(8, generator=torch.Generator().manual_seed(3)).view(1, 8, 1, 1)
    _, maps = net(x, returnt="full")
    (maps[1] * weights).sum().add(maps[3].square().sum()).backward()
    named = local.outputs(x)
    (named["layers.1"] * weights).sum().add(named["layers.3"].square().sum()).backward()
    assert_same_grads(net, local)


def test_input_gradient(pair, x):
    net, local = pair
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    net(ours).square().sum().backward()
    local(theirs).square().sum().backward()
    assert_same(ours.grad, theirs.grad)
    assert_same_grads(net, local)


def test_input_gradient_alone(pair, x):
    net, local = pair
    grads = []
    for module in pair:
        module.requires_grad_(False)
        mine = x.clone().requires_grad_()
        grads.append(torch.autograd.grad(module(mine).square().sum(), mine)[0])
    assert_same(*grads)


def test_several_forwards_before_one_backward(pair, kind):
    results = []
    for module in pair:
        module.train()
        losses = [module(batch(kind, seed)).square().sum() for seed in (1, 2, 3)]
        (losses[0] + losses[1] * 2 + losses[2]).backward()
        module.eval()
        module(batch(kind, 4)).sum().backward()
        results.append(torch.stack(losses))
    assert_same(*results)
    assert_same_grads(*pair)
    assert_same_buffers(*pair)


def test_backward_after_the_parameters_moved_on(pair, kind):
    """The gradient is of the forward's own parameters, even where PyTorch's is not."""
    for module in pair:
        loss = module(batch(kind, 1)).square().sum()
        if module is pair[1]:
            loss.backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.data = parameter * 0.5
        if module is pair[0]:
            loss.backward()
        module(batch(kind, 2)).square().sum().backward()
    assert_same_grads(*pair)


def test_eval_with_gradient_then_training_then_backward(pair, kind):
    """The gradient is of the forward's own statistics, even where PyTorch's is not."""
    for module in pair:
        module.eval()
        loss = module(batch(kind, 1)).square().sum()
        if module is pair[1]:
            loss.backward()
        module.train()
        module(batch(kind, 2))
        if module is pair[0]:
            loss.backward()
    assert_same_grads(*pair)
    assert_same_buffers(*pair)


def test_frozen_parameters(pair, x):
    for module in pair:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.startswith(("classifier", "fc2", "layer4.1")))
    backward_both(pair, x, lambda named: F.cross_entropy(named["out"], torch.arange(6)))
    assert_same_grads(*pair)


def test_a_head_of_ones_own_on_features(pair, x):
    for module in pair:
        module.eval()
    ours, theirs = pair[0].features(x), pair[1].outputs(x)["features"]
    head = seeded(lambda: nn.Linear(ours.shape[1], 4), 9)
    grads = []
    for features in (ours, theirs):
        head.zero_grad()
        head(features).square().sum().backward()
        grads.append(head.weight.grad.clone())
    assert_same(*grads)
    assert_same_grads(*pair)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3),
        lambda p: torch.optim.Adam(p, 1e-3),
    ],
    ids=["sgd", "adam"],
)
def test_training(pair, kind, optimizer):
    losses = []
    for module in pair:
        step = optimizer(module.parameters())
        mine = []
        for index in range(20):
            step.zero_grad()
            labels = torch.arange(6).add(index).remainder(10)
            loss = F.cross_entropy(module(batch(kind, index)), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            step.step()
            mine.append(loss.detach())
        losses.append(torch.stack(mine))
    assert_same(*losses)
    for ours, theirs in zip(pair[0].parameters(), pair[1].parameters()):
        assert_same(ours, theirs)
    assert_same_buffers(*pair)
