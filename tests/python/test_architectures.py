"""Every architecture against a class in Python, bit for bit, on this machine.

For most of them that is Mammoth's own, whose code is not part of this project: these
tests skip where its archive is neither at `../shared/mammoth`, beside the checkout,
nor in the folder BACKBONED_MAMMOTH.
"""

import os
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import backboned
import pytest
import torch
from reference_models import ReferenceWideResNet, seeded

ROOT = Path(__file__).resolve().parents[2]


class Case(NamedTuple):
    """A network as we and as Mammoth spell it."""

    architecture: str
    arguments: dict
    shape: tuple
    mammoth: dict = {}
    """Mammoth's own arguments, besides ours."""
    full: bool = True
    """Whether Mammoth's `full` is our list of stages."""
    both: bool = True
    features: bool = True


WIDE = {"num_classes": 5, "depth": 16, "widen_factor": 2}
SMALL = {"num_classes": 7, "num_filters": 8}
CASES = [
    Case("mnistmlp", {"num_classes": 10}, (4, 1, 28, 28), full=False, both=False),
    Case("resnet18", SMALL, (4, 3, 32, 32)),
    Case("resnet18", SMALL, (4, 3, 64, 64)),
    Case("reduced-resnet18", {"num_classes": 10}, (4, 3, 32, 32)),
    Case("preact-resnet18", SMALL, (4, 3, 32, 32)),
    Case("resnet34", SMALL, (4, 3, 32, 32)),
    Case("resnet18-spr", {"num_classes": 10}, (4, 3, 64, 64)),
    Case("resnet32", {"num_classes": 10}, (4, 3, 32, 32), full=False),
    Case("resnet32", {"num_classes": 5, "depth": 20}, (4, 3, 32, 32), full=False),
    Case("resnet50", {"num_classes": 10}, (2, 3, 64, 64)),
    Case(
        "efficientnet",
        {"num_classes": 10, "efficientnet_type": "b0"},
        (2, 3, 64, 64),
        full=False,
        both=False,
    ),
    Case(
        "efficientnet",
        {"num_classes": 10, "efficientnet_type": "b3"},
        (2, 3, 96, 64),
        full=False,
        both=False,
    ),
    Case("vit", {"num_classes": 10}, (2, 3, 224, 224), {"pretrained": False}),
    Case("wide-resnet", WIDE, (4, 3, 32, 32)),
    Case("wide-resnet", {**WIDE, "dropout": 0.3}, (4, 3, 24, 40)),
    Case(
        "mnistmlp-pnn",
        {"num_classes": 10, "input_size": 48},
        (4, 3, 4, 4),
        full=False,
        both=False,
        features=False,
    ),
    Case(
        "resnet18-pnn",
        {"num_classes": 10},
        (4, 3, 32, 32),
        full=False,
        both=False,
        features=False,
    ),
]
OURS = {"wide-resnet": ReferenceWideResNet}
"""What Mammoth has not."""
PRERELU = ["resnet18", "reduced-resnet18", "resnet34", "resnet18-spr", "resnet50"]


def case_name(case):
    values = "-".join(str(value) for value in case.arguments.values())
    return f"{case.architecture}-{values}-{case.shape[-1]}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Mammoth's backbones by name."""
    default = ROOT.parent / "shared" / "mammoth"
    folder = Path(os.environ.get("BACKBONED_MAMMOTH", default))
    archives = sorted(folder.glob("mammoth-*.tar.xz"))
    if not archives:
        pytest.skip(f"Mammoth's archive is not in {folder}")
    place = tmp_path_factory.mktemp("mammoth")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(place)  # noqa: S202  An archive of our own.
    sys.path.insert(0, str(place / "mammoth"))
    try:
        import backbone

        yield backbone.REGISTERED_BACKBONES
    finally:
        sys.path.remove(str(place / "mammoth"))


@pytest.fixture(params=CASES, ids=case_name)
def case(request):
    return request.param


@pytest.fixture
def pair(request, server, case):
    """The network in the server and the one in Python, both drawn with seed 0."""
    make = OURS.get(case.architecture)
    if make is None:
        registry = request.getfixturevalue("registry")
        make = registry[case.architecture]["class"]
    local = seeded(lambda: make(**case.arguments, **case.mammoth), 0)
    net = server.create(
        architecture=case.architecture, seed=0, random_init=True, **case.arguments
    )
    yield net, local
    net.delete()


def batch(case, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(case.shape, generator=generator)


def assert_same(ours, theirs):
    """Equal to the bit."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert ours.detach().numpy().tobytes() == theirs.detach().numpy().tobytes()


def assert_same_tensors(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    for (_, mine), (_, other) in zip(ours, theirs):
        assert_same(mine, other)


def test_initial_tensors(pair):
    net, local = pair
    assert_same_tensors(net.named_parameters(), local.named_parameters())
    assert_same_tensors(net.named_buffers(), local.named_buffers())


def test_state_dict_keys(pair):
    net, local = pair
    assert set(net.state_dict()) == set(local.state_dict())


def test_outputs_in_evaluation(pair, case):
    net, local = pair
    net.eval()
    local.eval()
    x = batch(case)
    with torch.no_grad():
        assert_same(net(x), local(x))
        if case.features:
            assert_same(net(x, returnt="features"), local(x, returnt="features"))
        if case.both:
            for ours, theirs in zip(net(x, returnt="both"), local(x, returnt="both")):
                assert_same(ours, theirs)
        if case.full:
            (out, maps), (same_out, same_maps) = (
                n(x, returnt="full") for n in (net, local)
            )
            assert_same(out, same_out)
            assert len(maps) == len(same_maps)
            for ours, theirs in zip(maps, same_maps):
                assert_same(ours, theirs)


def test_training(pair, case):
    """Outputs, all gradients, the input's, buffers, and what was drawn."""
    results = []
    for network in pair:
        network.train()
        torch.manual_seed(2)
        x = batch(case).requires_grad_()
        out = network(x)
        out.square().sum().backward()
        results.append((out, x.grad, torch.rand(4)))
    for ours, theirs in zip(*results):
        assert_same(ours, theirs)
    net, local = pair
    for (name, ours), (_, theirs) in zip(
        net.named_parameters(), local.named_parameters()
    ):
        assert (ours.grad is None) == (theirs.grad is None), name
        if theirs.grad is not None:
            assert_same(ours.grad, theirs.grad)
    assert_same_tensors(net.named_buffers(), local.named_buffers())


def test_stages_before_their_relu(pair, case):
    net, local = pair
    if case.architecture == "resnet18-pnn":
        pytest.skip("Mammoth's class raises")
    if case.architecture not in PRERELU:
        with pytest.raises(ValueError, match="no stages before a ReLU"):
            net.set_return_prerelu()
        return
    for network in pair:
        network.eval()
        network.set_return_prerelu(True)
    x = batch(case).requires_grad_()
    same_x = batch(case).requires_grad_()
    (_, maps), (_, same_maps) = (
        n(i, returnt="full") for n, i in ((net, x), (local, same_x))
    )
    for ours, theirs in zip(maps, same_maps):
        assert_same(ours, theirs)
    for stages in (maps, same_maps):
        sum(stage.square().sum() for stage in stages).backward()
    assert_same(x.grad, same_x.grad)


def test_dropout_draws_from_the_instance_without_a_given_state(server, start):
    """Two servers' instances of one seed draw the same; each forward draws anew."""
    x = torch.rand((2, 3, 16, 16)).numpy()
    drawn = []
    for host in (server, start(threads=2)):
        net = host.create(
            architecture="wide-resnet", seed=3, module=False, **WIDE, dropout=0.5
        )
        drawn.append([net.forward(x, training=True).out for _ in range(2)])
    (first, second), (same_first, same_second) = drawn
    assert (first == same_first).all() and (second == same_second).all()
    assert (first != second).any()


def test_dropout_draws_from_the_given_state(server):
    net = server.create(
        architecture="wide-resnet", seed=3, module=False, **WIDE, dropout=0.5
    )
    x = torch.rand((2, 3, 16, 16)).numpy()
    state = torch.get_rng_state().numpy().tobytes()
    first = net.forward(x, training=True, rng_state=state)
    again = net.forward(x, training=True, rng_state=state)
    after = net.forward(x, training=True, rng_state=first.rng_state)
    assert (first.out == again.out).all() and first.rng_state == again.rng_state
    assert (first.out != after.out).any()
    evaluation = net.forward(x, rng_state=state)
    assert evaluation.rng_state == state


def test_a_bad_generator_state_is_refused(server):
    net = server.create("seq-mnist", seed=0, module=False)
    with pytest.raises(backboned.InvalidArgument, match="3 bytes, expected 5056"):
        net.forward(torch.rand((1, 1, 28, 28)).numpy(), rng_state=b"abc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 27}, "depth is 27, must be an integer, .* in steps of 6"),
        ({"dropout": 1.5}, "dropout is 1.5, .* at most 1"),
        ({"width": 2}, "valid arguments: num_classes, depth, widen_factor, dropout"),
    ],
)
def test_bad_arguments_are_refused_with_the_allowed_ones(server, arguments, message):
    with pytest.raises(backboned.InvalidArgument, match=message):
        server.create(architecture="wide-resnet", num_classes=5, **arguments)


def test_an_input_that_does_not_fit_names_both_sizes(server):
    net = server.create(architecture="resnet32", num_classes=5, seed=0, module=False)
    with pytest.raises(backboned.InvalidArgument, match=r"64, 64\].*H = W = 32"):
        net.forward(torch.rand((2, 3, 64, 64)).numpy())
