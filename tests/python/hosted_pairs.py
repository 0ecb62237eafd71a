"""A hosted network and its equal in local PyTorch, trained by the same code."""

import torch
from backboned import optim
from reference_models import ReferenceMlp, ReferenceResNet18, seeded

SMALL = {"num_classes": 10, "num_filters": 8}
SHAPES = {"mlp": (6, 1, 28, 28), "resnet": (6, 3, 32, 32)}


def make_pair(server, kind, seed=0):
    """Give a network in the server and its equal here."""
    if kind == "mlp":
        return server.create("seq-mnist", seed=seed), seeded(ReferenceMlp, seed)
    net = server.create(architecture="resnet18", seed=seed, **SMALL)
    return net, seeded(lambda: ReferenceResNet18(**SMALL), seed)


MODES = ["mirrored", "hosted", "frozen"]


def make_pair_in_mode(server, kind, mode):
    """Give the same, the remote one in a way of working."""
    net, local = make_pair(server, kind)
    if mode == "hosted":
        optim.SGD(net)
    elif mode == "frozen":
        net.requires_grad_(False)
    return net, local


def make_optimizer(net, name, *params, **options):
    """Make an optimizer of torch for a local module, else one of the server."""
    where = optim if hasattr(net, "instance") else torch.optim
    return getattr(where, name)(*(params or (net.parameters(),)), **options)


def batches(kind, count, seed=1):
    """Give inputs and labels, the same each time."""
    generator = torch.Generator().manual_seed(seed)
    size = SHAPES[kind][0]
    for _ in range(count):
        x = torch.rand(SHAPES[kind], generator=generator)
        yield x, torch.randint(0, 10, (size,), generator=generator)


def assert_same(ours, theirs):
    """Equal to the bit, NaN and the sign of zero included."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    ours, theirs = ours.detach().numpy(), theirs.detach().numpy()
    assert ours.tobytes() == theirs.tobytes()


def assert_same_networks(net, local):
    """Compare every parameter and buffer."""
    for (name, ours), (same_name, theirs) in zip(
        [*net.named_parameters(), *net.named_buffers()],
        [*local.named_parameters(), *local.named_buffers()],
    ):
        assert name == same_name
        assert_same(ours, theirs)


def assert_same_grads(net, local):
    """Compare every gradient, and which there are."""
    for (name, ours), theirs in zip(net.named_parameters(), local.parameters()):
        assert (ours.grad is None) == (theirs.grad is None), name
        if theirs.grad is not None:
            assert_same(ours.grad, theirs.grad)


def assert_same_optimizers(ours, theirs):
    """Compare groups and state."""
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert ours["state"].keys() == theirs["state"].keys()
    for index, state in theirs["state"].items():
        for what, value in state.items():
            if value is None:
                assert ours["state"][index].get(what) is None
            else:
                assert_same(ours["state"][index][what], value)
    drop = {"foreach", "fused", "differentiable", "capturable"}
    for mine, other in zip(ours["param_groups"], theirs["param_groups"]):
        for key in mine.keys() - drop:
            assert mine[key] == other[key], key
