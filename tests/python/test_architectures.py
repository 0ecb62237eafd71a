"""Every architecture against a class in Python, bit for bit, on this machine.

For most of them that is Mammoth's own: these tests skip where `mammoth_checkout` finds
no Mammoth.
"""

import sys
from typing import NamedTuple

import backboned
import pytest
import torch
from reference_models import ReferenceWideResNet, seeded
from test_lifecycle import wait_until
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

pytest_plugins = ["mammoth_checkout"]


class Case(NamedTuple):
    """A network as we and as Mammoth spell it."""

    architecture: str
    arguments: dict
    shape: tuple
    mammoth: dict = {}
    """Mammoth's own arguments, besides ours."""
    full: bool = True
    """Say whether Mammoth's `full` is our list of stages."""
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
"""Things that Mammoth has not."""
PRERELU = ["resnet18", "reduced-resnet18", "resnet34", "resnet18-spr", "resnet50"]


def case_name(case):
    values = "-".join(str(value) for value in case.arguments.values())
    return f"{case.architecture}-{values}-{case.shape[-1]}"


@pytest.fixture(scope="module")
def registry(checkout):
    """Mammoth's backbones by name."""
    sys.path.insert(0, str(checkout))
    try:
        import backbone

        yield backbone.REGISTERED_BACKBONES
    finally:
        sys.path.remove(str(checkout))


@pytest.fixture(params=CASES, ids=case_name)
def case(request):
    return request.param


def make_local(request, case):
    """Make the network in Python."""
    make = OURS.get(case.architecture)
    if make is None:
        make = request.getfixturevalue("registry")[case.architecture]["class"]
    return make(**case.arguments, **case.mammoth)


@pytest.fixture
def pair(request, server, case):
    """The network in the server and the one in Python, both drawn with seed 0."""
    local = seeded(lambda: make_local(request, case), 0)
    net = server.create(
        architecture=case.architecture, seed=0, random_init=True, **case.arguments
    )
    yield net, local
    net.delete()


DTYPES = ["float64", "bfloat16", "float16"]
"""Besides float32."""
TRAINED = [
    Case("mnistmlp", {"num_classes": 10}, (4, 1, 28, 28)),
    Case("resnet18", SMALL, (4, 3, 32, 32)),
    Case("resnet32", {"num_classes": 5, "depth": 20}, (4, 3, 32, 32)),
    Case(
        "efficientnet",
        {"num_classes": 10, "efficientnet_type": "b0"},
        (2, 3, 64, 64),
    ),
]
"""In float64."""


def batch(case, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(case.shape, generator=generator)


def assert_same(ours, theirs):
    """Equal to the bit."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    mine, other = (t.detach().contiguous().view(-1) for t in (ours, theirs))
    assert torch.equal(mine.view(torch.uint8), other.view(torch.uint8))


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


LAYERS = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv2d: (
        *("in_channels", "out_channels", "kernel_size", "stride"),
        *("padding", "dilation", "groups", "padding_mode"),
    ),
    nn.BatchNorm2d: ("num_features", "eps", "momentum", "affine"),
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine"),
}


def described(network):
    """Give the attributes of the layers by name, of each module once."""
    return {
        # Mammoth gives some strides as lists.
        (kind.__name__, name): [
            tuple(value) if isinstance(value, list) else value
            for value in (getattr(module, what) for what in attributes)
        ]
        for name, module in network.named_modules()
        for kind, attributes in LAYERS.items()
        if isinstance(module, kind)
    }


def test_types_and_attributes_of_layers(pair):
    net, local = pair
    assert described(net) == described(local)


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


def operations(run):
    """Count those of a function as PyTorch does."""
    # It knows nothing of the attention for CPUs.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def assert_used(server, net, flops):
    """Compare with what the server says that a network has used."""

    def used():
        rows = server.usage("instance").rows
        return sum(row.flops for row in rows if row.instance_uid == net.instance.uid)

    wait_until(lambda: used() >= flops)
    assert used() == flops


def test_operations(server, pair, case):
    net, local = pair
    x = batch(case)
    for network in pair:
        network.eval()
    with torch.no_grad():
        forward = operations(lambda: local(x))
        net(x)
    assert forward > 0
    assert_used(server, net, forward)
    for network in pair:
        network.train()
    net(x).square().sum().backward()
    if any(getattr(layer, "groups", 1) > 1 for layer in local.modules()):
        return  # PyTorch counts each group's part as if it were the whole.
    step = operations(lambda: local(x).square().sum().backward())
    assert_used(server, net, forward + step)


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_evaluation_in_other_dtypes(request, server, case, dtype):
    """Initial tensors and outputs equal those of the local network, converted."""
    scalar = torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    if scalar and case.architecture == "vit" and dtype == "bfloat16":
        pytest.skip("one forward takes minutes without AVX2")
    local = seeded(lambda: make_local(request, case), 0).to(getattr(torch, dtype))
    net = server.create(
        architecture=case.architecture,
        seed=0,
        random_init=True,
        dtype=dtype,
        **case.arguments,
    )
    assert_same_tensors(net.named_parameters(), local.named_parameters())
    assert_same_tensors(net.named_buffers(), local.named_buffers())
    net.eval()
    local.eval()
    x = batch(case).to(getattr(torch, dtype))
    with torch.no_grad():
        assert_same(net(x), local(x))
    net.delete()


@pytest.mark.parametrize("case", TRAINED, ids=case_name)
def test_training_in_float64(request, server, case):
    local = seeded(lambda: make_local(request, case), 0).double()
    net = server.create(
        architecture=case.architecture, seed=0, dtype="float64", **case.arguments
    )
    assert_same_training(net, local, batch(case).double())


def test_training_a_vit_in_float64(registry, server):
    from backbone.vit import VisionTransformer

    sizes = {"embed_dim": 192, "depth": 3, "num_heads": 3, "img_size": 64}
    local = seeded(lambda: VisionTransformer(num_classes=5, **sizes), 0).double()
    net = server.create(
        architecture="vit-tiny", num_classes=5, seed=0, dtype="float64", **sizes
    )
    x = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    assert_same_training(net, local, x.double())


def assert_same_training(net, local, x):
    """Outputs, all gradients, the input's and buffers of a training step."""
    results = []
    for network in (net, local):
        network.train()
        torch.manual_seed(2)
        own_x = x.clone().requires_grad_()
        out = network(own_x)
        out.square().sum().backward()
        results.append((out, own_x.grad))
    for ours, theirs in zip(*results):
        assert_same(ours, theirs)
    theirs = dict(local.named_parameters())
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == (theirs[name].grad is None), name
        if parameter.grad is not None:
            assert_same(parameter.grad, theirs[name].grad)
    buffers = dict(local.named_buffers())
    for name, buffer in net.named_buffers():
        assert_same(buffer, buffers[name])


class Progressive(NamedTuple):
    """A progressive network, as we and as Mammoth spell it."""

    architecture: str
    arguments: dict
    shape: tuple
    mammoth: dict = {}


PROGRESSIVE = [
    Progressive("mnistmlp-pnn", {"num_classes": 10, "input_size": 784}, (4, 1, 28, 28)),
    Progressive(
        "resnet18-pnn",
        {"num_classes": 6, "num_filters": 8, "img_size": 32},
        (4, 3, 32, 32),
        {"num_classes": 6, "nf": 8, "x_shape": (4, 3, 32, 32)},
    ),
]


@pytest.mark.parametrize("case", PROGRESSIVE, ids=lambda case: case.architecture)
def test_progressive_columns(registry, server, case):
    """Three columns, each trained for a step before the next one is made."""
    make = registry[case.architecture]["class"]
    columns, local_columns = [], []
    x = torch.rand(case.shape, generator=torch.Generator().manual_seed(1))
    for seed in range(3):
        arguments = case.mammoth or case.arguments
        local = seeded(lambda: make(old_cols=list(local_columns), **arguments), seed)  # noqa: B023
        net = server.create(
            architecture=case.architecture,
            seed=seed,
            columns=columns,
            **case.arguments,
        )
        columns.append(net)
        local_columns.append(local)
        parameters = {
            name: parameter
            for name, parameter in local.named_parameters()
            if not name.startswith("old_")
        }
        assert_same_tensors(net.named_parameters(), parameters.items())
        buffers = dict(local.named_buffers())
        ours = dict(net.named_buffers())
        assert ours.keys() == buffers.keys()
        for name, buffer in ours.items():
            assert_same(buffer, buffers[name])
        old = {
            key
            for key in local.state_dict()
            if key.startswith("old_") and key not in buffers
        }
        assert set(net.state_dict()) == set(local.state_dict()) - old

        assert_same_training(net, local, x)
        for network in (net, local):
            optimizer = torch.optim.SGD(network.parameters(), lr=0.01, weight_decay=0.1)
            optimizer.step()
            network.eval()
        with torch.no_grad():
            assert_same(net(x), local(x))


@pytest.mark.parametrize("case", PROGRESSIVE, ids=lambda case: case.architecture)
def test_a_column_draws_as_mammoths_constructor(registry, server, case):
    arguments = case.mammoth or case.arguments
    make = registry[case.architecture]["class"]
    torch.manual_seed(4)
    old = [make(**arguments), make(**arguments)]
    columns = [
        server.create(architecture=case.architecture, **case.arguments)
        for _ in range(2)
    ]
    before = torch.get_rng_state()
    make(old_cols=old, **arguments)
    net = server.create(
        architecture=case.architecture,
        columns=columns,
        rng_state=before,
        **case.arguments,
    )
    assert net.instance.rng_state == torch.get_rng_state().numpy().tobytes()


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
    with pytest.raises(
        backboned.errors.InvalidArgument, match="3 bytes, expected 5056"
    ):
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
    with pytest.raises(backboned.errors.InvalidArgument, match=message):
        server.create(architecture="wide-resnet", num_classes=5, **arguments)


def test_an_input_that_does_not_fit_names_both_sizes(server):
    net = server.create(architecture="resnet32", num_classes=5, seed=0, module=False)
    with pytest.raises(backboned.errors.InvalidArgument, match=r"64, 64\].*H = W = 32"):
        net.forward(torch.rand((2, 3, 64, 64)).numpy())
