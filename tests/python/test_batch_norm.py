"""BatchNorm layers that run otherwise, and buffers that a forward brings along."""

import backboned
import numpy as np
import pytest
import torch
from backboned.types import BatchNorm
from reference_models import ReferenceResNet18, seeded
from torch import nn

FILTERS = 8


@pytest.fixture
def pair(server):
    """An instance and the module that it equals."""
    net = server.create(
        architecture="resnet18",
        num_classes=5,
        num_filters=FILTERS,
        seed=3,
        module=False,
    )
    model = seeded(lambda: ReferenceResNet18(5, FILTERS), 3)
    return net, model


def images(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((6, 3, 16, 16), generator=generator)


def layers_of(model, prefix):
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and name.startswith(prefix)
    ]


def assert_equal_step(net, model, x, training, overrides):
    """Run a forward and a backward on both sides and compare every bit."""
    model.zero_grad()
    expected = model(x)
    expected.sum().backward()
    forward = net.forward(
        x.numpy(),
        training=training,
        tape=True,
        return_buffers=True,
        batch_norm=overrides,
    )
    assert np.array_equal(forward.out, expected.detach().numpy())
    ones = np.ones_like(forward.out)
    grads = net.backward({forward.tape_id: {"out": ones}}).grads
    for got, parameter in zip(grads.split(net.layout), model.parameters()):
        assert np.array_equal(got, parameter.grad.numpy())
    for name, buffer in model.named_buffers():
        assert np.array_equal(forward.buffers[name], buffer.numpy()), name
    current = net.get_buffers()
    for name, buffer in forward.buffers.items():
        assert np.array_equal(current[name], buffer), name


@pytest.mark.parametrize("prefix", ["", "layer2", "layer4.1.bn2"])
def test_layers_in_evaluation_inside_a_training(pair, prefix):
    net, model = pair
    for seed in range(2):
        model.train()
        assert_equal_step(net, model, images(seed), True, [])
        for layer in layers_of(model, prefix):
            layer.eval()
        overrides = [BatchNorm([f"{prefix}*"], training=False)]
        assert_equal_step(net, model, images(seed + 5), True, overrides)


def test_layers_in_training_inside_an_evaluation(pair):
    net, model = pair
    model.eval()
    for layer in layers_of(model, "layer3"):
        layer.train()
    before = net.version
    overrides = [BatchNorm(["layer3.*"], training=True)]
    for seed in range(2):
        assert_equal_step(net, model, images(seed), False, overrides)
    assert net.version.buffers == before.buffers + 2


def test_untracked_layers_leave_their_buffers_alone(pair):
    net, model = pair
    assert_equal_step(net, model.train(), images(0), True, [])
    for layer in layers_of(model, ""):
        layer.track_running_stats = False
    overrides = [BatchNorm(track_running_stats=False)]
    before = net.version
    assert_equal_step(net, model, images(1), True, overrides)
    assert net.version == before
    assert net.get_buffers()["bn1.num_batches_tracked"] == 1
    assert_equal_step(net, model.eval(), images(2), False, overrides)


def test_eps_and_momentum(pair):
    net, model = pair
    for layer in layers_of(model, ""):
        layer.eps, layer.momentum = 1e-3, 0.25
    for layer in layers_of(model, "layer1"):
        layer.momentum = 0.75
    overrides = [
        BatchNorm(eps=1e-3, momentum=0.25),
        BatchNorm(["layer1.*"], momentum=0.75),
    ]
    assert_equal_step(net, model.train(), images(0), True, overrides)
    assert_equal_step(net, model.eval(), images(1), False, overrides)


def test_cumulative_average_counts_the_batches_so_far(pair):
    net, model = pair
    assert_equal_step(net, model.train(), images(0), True, [])
    for layer in layers_of(model, ""):
        layer.momentum = None
    for seed in range(1, 4):
        overrides = [BatchNorm(cumulative=True)]
        assert_equal_step(net, model, images(seed), True, overrides)


def test_the_last_override_decides_each_field_for_itself(pair):
    net, model = pair
    for layer in layers_of(model, ""):
        layer.momentum, layer.eps = 0.5, 1e-2
    for layer in layers_of(model, "layer2"):
        layer.momentum = None
    overrides = [
        BatchNorm(eps=1e-2, momentum=0.5),
        BatchNorm(["layer2.*"], cumulative=True),
    ]
    assert_equal_step(net, model.train(), images(0), True, overrides)
    for layer in layers_of(model, ""):
        layer.momentum = 0.5
    overrides.append(BatchNorm(momentum=0.5))
    assert_equal_step(net, model, images(1), True, overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (BatchNorm(["layer5.*"]), r'"layer5\.\*" matches none of 20'),
        (BatchNorm(["conv1"], training=False), '"conv1" matches none'),
        (BatchNorm(eps=-1e-5), "eps of BatchNorm is -1e-05"),
        (BatchNorm(eps=float("nan")), "eps of BatchNorm is nan"),
        (BatchNorm(momentum=1.5), r"momentum of BatchNorm is 1\.5.*\[0, 1\]"),
        (BatchNorm(momentum=0.1, cumulative=True), "not both"),
    ],
)
def test_wrong_overrides_are_refused(pair, override, message):
    net, _ = pair
    with pytest.raises(backboned.errors.InvalidArgument, match=message):
        net.forward(images(0).numpy(), training=True, batch_norm=[override])
    assert net.get_buffers()["bn1.num_batches_tracked"] == 0


def test_single_values_need_layers_in_evaluation(pair):
    net, model = pair
    x = images(0)[:1, :, :8, :8]
    frozen = [BatchNorm(training=False)]
    with pytest.raises(backboned.errors.InvalidArgument, match="BatchNorm"):
        net.forward(x.numpy(), training=True)
    with pytest.raises(backboned.errors.InvalidArgument, match="BatchNorm"):
        net.forward(x.numpy(), batch_norm=[BatchNorm(training=True)])
    out = net.forward(x.numpy(), training=True, batch_norm=frozen).out
    with torch.no_grad():
        assert np.array_equal(out, model.eval()(x).numpy())


def test_sent_buffers_stay_with_the_caller(pair):
    net, model = pair
    own = net.get_buffers()
    model.train()
    with torch.no_grad():
        model(images(8))  # Buffers that the instance does not have.
    before = net.version
    for seed in range(2):
        sent = {name: buffer.numpy() for name, buffer in model.named_buffers()}
        forward = net.forward(
            images(seed).numpy(), training=True, buffers=sent, return_buffers=True
        )
        with torch.no_grad():
            expected = model(images(seed))
        assert np.array_equal(forward.out, expected.numpy())
        for name, buffer in model.named_buffers():
            assert np.array_equal(forward.buffers[name], buffer.numpy())
    sent = {name: buffer.numpy() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        expected = model.eval()(images(3))
    got = net.forward(images(3).numpy(), buffers=sent)
    assert np.array_equal(got.out, expected.numpy())
    assert net.version == before
    for name, buffer in net.get_buffers().items():
        assert np.array_equal(buffer, own[name])


def test_a_tape_keeps_the_buffers_that_were_sent(pair):
    net, model = pair
    model.eval()
    for layer in layers_of(model, ""):
        layer.running_var.fill_(2.0)
    sent = {name: buffer.numpy() for name, buffer in model.named_buffers()}
    x = images(0)
    model(x).sum().backward()
    tape = net.forward(x.numpy(), tape=True, buffers=sent)
    net.forward(x.numpy(), training=True)
    ones = np.ones_like(tape.out)
    grads = net.backward({tape.tape_id: {"out": ones}}).grads
    for got, parameter in zip(grads.split(net.layout), model.parameters()):
        assert np.array_equal(got, parameter.grad.numpy())


def test_wrong_buffers_are_refused(pair):
    net, _ = pair
    x = images(0).numpy()
    buffers = net.get_buffers()
    with pytest.raises(
        backboned.errors.InvalidArgument, match="'bn1.running_var' is missing"
    ):
        net.forward(
            x, buffers={n: b for n, b in buffers.items() if n != "bn1.running_var"}
        )
    with pytest.raises(
        backboned.errors.InvalidArgument, match="'mean' is none of them"
    ):
        net.forward(x, buffers={**buffers, "mean": buffers["bn1.running_mean"]})
    with pytest.raises(
        backboned.errors.InvalidArgument, match=r"\[1\], expected .*\[8\]"
    ):
        net.forward(x, buffers={**buffers, "bn1.running_mean": np.ones(1, np.float32)})
    with pytest.raises(backboned.errors.InvalidArgument, match="float64"):
        net.forward(x, buffers={**buffers, "bn1.running_mean": np.ones(FILTERS)})
