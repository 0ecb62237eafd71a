"""Steps and training steps of the server against torch.optim, bit for bit."""

import backboned
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backboned import CrossEntropy, KlDivergence, MeanSquaredError
from backboned.types import ParameterGroup, StepOptions
from reference_models import ReferenceMlp, ReferenceResNet18, seeded

STEPS = 20
SMALL = {"num_classes": 10, "num_filters": 4}

# For each kind, options by which torch's and the server's optimizer are made alike.
OPTIONS = {
    "sgd": ("sgd", {"lr": 0.1}),
    "sgd-decay": ("sgd", {"lr": 0.1, "weight_decay": 0.01}),
    "sgd-momentum": ("sgd", {"lr": 0.03, "momentum": 0.9, "weight_decay": 5e-4}),
    "sgd-dampening": ("sgd", {"lr": 0.03, "momentum": 0.9, "dampening": 0.3}),
    "sgd-nesterov": ("sgd", {"lr": 0.03, "momentum": 0.9, "nesterov": True}),
    "sgd-maximize": (
        "sgd",
        {"lr": 1e-3, "momentum": 0.5, "weight_decay": 0.1, "maximize": True},
    ),
    "adam": ("adam", {}),
    "adam-decay": ("adam", {"lr": 3e-3, "weight_decay": 0.01, "betas": (0.8, 0.95)}),
    "adam-amsgrad": ("adam", {"lr": 3e-3, "amsgrad": True, "eps": 1e-5}),
    "adam-maximize": ("adam", {"lr": 1e-4, "maximize": True, "weight_decay": 0.1}),
    "adamw": ("adamw", {}),
    "adamw-amsgrad": ("adamw", {"lr": 3e-3, "amsgrad": True, "weight_decay": 0.3}),
    "adamw-maximize": ("adamw", {"lr": 1e-4, "maximize": True}),
}
CLIPS = {
    "norm": {"clip_norm": 0.5},
    "norm-1": {"clip_norm": 3.0, "norm_type": 1.0},
    "norm-inf": {"clip_norm": 0.01, "norm_type": float("inf")},
    "norm-large": {"clip_norm": 1e6},
    "value": {"clip_value": 0.002},
}
TORCH = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def make_mlp(server):
    net = server.create("seq-mnist", seed=0, module=False)
    return net, seeded(ReferenceMlp, 0), (8, 1, 28, 28)


def make_resnet(server):
    net = server.create(architecture="resnet18", seed=0, module=False, **SMALL)
    return net, seeded(lambda: ReferenceResNet18(**SMALL), 0), (4, 3, 16, 16)


MAKERS = {"mnistmlp": make_mlp, "resnet18": make_resnet}


@pytest.fixture(params=["mnistmlp", "resnet18"])
def trio(request, server):
    """A network in the server, its equal here, and the shape of a batch."""
    net, local, shape = MAKERS[request.param](server)
    local.train()
    return net, local, shape


@pytest.fixture
def mlp_pair(server):
    net, local, _ = make_mlp(server)
    return net, local.train()


def batches(shape, count=STEPS):
    generator = torch.Generator().manual_seed(7)
    for _ in range(count):
        labels = torch.randint(10, shape[:1], generator=generator)
        yield torch.rand(shape, generator=generator), labels


def logits_grad(out, y):
    """The gradient of the mean cross-entropy."""
    out = torch.from_numpy(out).requires_grad_()
    F.cross_entropy(out, y).backward()
    return out.grad.numpy()


def remote_step(net, x, y, options):
    forward = net.forward(x.numpy(), training=True, tape=True)
    tapes = {forward.tape_id: {"out": logits_grad(forward.out, y)}}
    return net.backward(tapes, accumulate=True, zero_before=True, step=options)


def local_backward(local, x, y):
    local.zero_grad()
    out = local.outputs(x)["out"]
    F.cross_entropy(out, y).backward()


def clip_locally(local, options):
    if options.clip_norm is not None:
        return torch.nn.utils.clip_grad_norm_(
            local.parameters(), options.clip_norm, options.norm_type
        ).item()
    if options.clip_value is not None:
        torch.nn.utils.clip_grad_value_(local.parameters(), options.clip_value)
    return None


def assert_same_params(net, local):
    ours = net.get_params()
    theirs = torch.cat([p.detach().reshape(-1) for p in local.parameters()]).numpy()
    assert ours.tobytes() == theirs.tobytes()


def assert_same_buffers(net, local):
    ours = net.get_buffers()
    for name, theirs in local.named_buffers():
        assert ours[name].tobytes() == theirs.numpy().tobytes(), name


def assert_same_state(net, local, optimizer):
    theirs = {
        f"{name}/{what}": tensor
        for name, parameter in local.named_parameters()
        for what, tensor in optimizer.state.get(parameter, {}).items()
    }
    ours = net.get_optimizer_state().tensors
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].shape == tuple(tensor.shape), name
        assert ours[name].tobytes() == tensor.numpy().tobytes(), name


@pytest.mark.parametrize("name", OPTIONS)
def test_equals_torch_optim(trio, name):
    net, local, shape = trio
    kind, options = OPTIONS[name]
    net.configure_optimizer(kind, [ParameterGroup(**options)])
    optimizer = TORCH[kind](local.parameters(), **options)
    for x, y in batches(shape):
        remote_step(net, x, y, StepOptions())
        local_backward(local, x, y)
        optimizer.step()
    assert_same_params(net, local)
    assert_same_state(net, local, optimizer)


@pytest.mark.parametrize("name", CLIPS)
def test_clips_as_torch_does(trio, name):
    net, local, shape = trio
    options = StepOptions(**CLIPS[name])
    net.configure_optimizer("sgd", [ParameterGroup(lr=0.1, momentum=0.9)])
    optimizer = torch.optim.SGD(local.parameters(), lr=0.1, momentum=0.9)
    for x, y in batches(shape):
        result = remote_step(net, x, y, options)
        local_backward(local, x, y)
        assert result.step.grad_norm == clip_locally(local, options)
        optimizer.step()
    assert_same_params(net, local)


def test_groups_and_learning_rates_equal_torchs(trio):
    net, local, shape = trio
    last = f"{list(dict(local.named_parameters()))[-1].rsplit('.', 1)[0]}.*"
    net.configure_optimizer(
        "adamw",
        [
            ParameterGroup(select=last, lr=0.01, weight_decay=0.0),
            ParameterGroup(select=f"!{last}", lr=0.001),
        ],
    )
    head = [p for n, p in local.named_parameters() if n.startswith(last[:-1])]
    rest = [p for n, p in local.named_parameters() if not n.startswith(last[:-1])]
    assert head and rest
    optimizer = torch.optim.AdamW(
        [{"params": head, "lr": 0.01, "weight_decay": 0.0}, {"params": rest}], lr=1e-3
    )
    for step, (x, y) in enumerate(batches(shape)):
        rates = (0.01 / (step + 1), 0.001 / (step + 1))
        remote_step(net, x, y, StepOptions(lr=rates))
        local_backward(local, x, y)
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate
        optimizer.step()
    assert_same_params(net, local)
    assert_same_state(net, local, optimizer)
    assert net.get_optimizer_state().optimizer.groups[0].lr == rates[0]


def test_a_parameter_without_a_gradient_stays(mlp_pair):
    net, local = mlp_pair
    net.configure_optimizer("adam")
    optimizer = torch.optim.Adam(local.parameters())
    present = [True, False] * 3
    parameters = list(local.parameters())
    values = []
    for parameter, there in zip(parameters, present):
        if there:
            parameter.grad = torch.full_like(parameter, 0.25)
            values.append(parameter.grad.reshape(-1))
    net.set_grads(torch.cat(values).numpy(), present=present)
    assert net.step().stepped_count == 3
    optimizer.step()
    assert_same_params(net, local)
    assert_same_state(net, local, optimizer)


def test_resumes_from_a_saved_state(mlp_pair):
    net, local = mlp_pair
    group = ParameterGroup(lr=0.01, amsgrad=True)
    net.configure_optimizer("adam", [group])
    optimizer = torch.optim.Adam(local.parameters(), lr=0.01, amsgrad=True)
    for step, (x, y) in enumerate(batches((8, 1, 28, 28), 6)):
        if step == 3:
            saved = net.get_optimizer_state()
            net.configure_optimizer("sgd")
            net.set_optimizer_state(saved.optimizer, saved.tensors)
        remote_step(net, x, y, StepOptions())
        local_backward(local, x, y)
        optimizer.step()
    assert_same_params(net, local)
    assert_same_state(net, local, optimizer)


def test_fills_in_the_defaults(mlp):
    answer = mlp.configure_optimizer("adamw")
    assert answer.kind == "adamw"
    assert answer.groups == (
        ParameterGroup(lr=1e-3, weight_decay=0.01, betas=(0.9, 0.999), eps=1e-8),
    )
    info = mlp.info()
    assert info.optimizer == answer and info.steps == 0
    answer = mlp.configure_optimizer("sgd")
    assert answer.groups == (ParameterGroup(lr=1e-3, weight_decay=0.0),)


def test_counts_steps_and_the_states_bytes(mlp):
    before = mlp.info().memory_bytes
    mlp.configure_optimizer("sgd", [ParameterGroup(momentum=0.9)])
    mlp.set_grads(np.ones(mlp.layout.elements, np.float32))
    mlp.step(StepOptions(zero_after=True))
    info = mlp.info()
    assert info.steps == 1
    assert info.memory_bytes == before + 4 * mlp.layout.elements
    assert not any(mlp.read_grads().present)


def test_says_what_is_missing(mlp):
    with pytest.raises(backboned.errors.FailedPrecondition, match="has no optimizer"):
        mlp.step()
    with pytest.raises(backboned.errors.FailedPrecondition, match="has no optimizer"):
        mlp.get_optimizer_state()
    mlp.configure_optimizer("sgd")
    with pytest.raises(backboned.errors.FailedPrecondition, match="has a gradient"):
        mlp.step()
    with pytest.raises(backboned.errors.InvalidArgument, match="no optimizer 'lion'"):
        mlp.configure_optimizer("lion")
    with pytest.raises(backboned.errors.InvalidArgument, match="group 0: lr is -1"):
        mlp.configure_optimizer("sgd", [ParameterGroup(lr=-1)])
    with pytest.raises(
        backboned.errors.InvalidArgument, match="clip_norm or clip_value"
    ):
        mlp.step(StepOptions(clip_norm=1.0, clip_value=1.0))


# Terms of a loss, and the same in PyTorch, of [8, 10] logits.
def er_terms(y, target):
    terms = [
        CrossEntropy(y[:5], rows=(0, 5), label_smoothing=0.1),
        CrossEntropy(y[5:], rows=(5, 8), weight=0.5),
    ]

    def loss(out):
        return F.cross_entropy(
            out[:5], y[:5], label_smoothing=0.1
        ) + 0.5 * F.cross_entropy(out[5:], y[5:])

    return terms, loss


def derpp_terms(y, target):
    terms = [
        CrossEntropy(y),
        MeanSquaredError(target[4:], rows=(4, 8), weight=0.3),
        KlDivergence(target[2:6], temperature=2.0, rows=(2, 6), weight=0.7),
    ]

    def loss(out):
        # The terms one after another: their gradients are added in that order.
        ce = F.cross_entropy(out, y)
        mse = F.mse_loss(out[4:], target[4:])
        kl = F.kl_div(
            F.log_softmax(out[2:6] / 2.0, dim=1),
            F.softmax(target[2:6] / 2.0, dim=1),
            reduction="batchmean",
        )
        return ce + 0.3 * mse + 0.7 * kl

    return terms, loss


def masked_terms(y, target):
    mask = torch.arange(10) >= 2
    y = y.clamp(min=2)

    def loss(out):
        return F.cross_entropy(out.masked_fill(~mask, float("-inf")), y)

    return [CrossEntropy(y, class_mask=mask.tolist())], loss


@pytest.mark.parametrize("make_terms", [er_terms, derpp_terms, masked_terms])
@pytest.mark.parametrize("maker", MAKERS)
def test_train_step_equals_torch(server, maker, make_terms):
    net, local, shape = MAKERS[maker](server)
    local.train()
    shape = (8, *shape[1:])
    options = StepOptions(clip_norm=1.0)
    net.configure_optimizer("sgd", [ParameterGroup(lr=0.05, momentum=0.9)])
    optimizer = torch.optim.SGD(local.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(3)
    for x, y in batches(shape, 10):
        target = torch.randn((8, 10), generator=generator)
        terms, loss = make_terms(y, target)
        result = net.train_step(x, terms, options, return_logits=True)
        local.zero_grad()
        out = local.outputs(x)["out"]
        expected = loss(out)
        expected.backward()
        norm = clip_locally(local, options)
        optimizer.step()
        assert result.loss == expected.item()
        assert len(result.losses) == len(terms)
        assert result.logits.tobytes() == out.detach().numpy().tobytes()
        assert result.step.grad_norm == norm
    assert_same_params(net, local)
    assert_same_buffers(net, local)
    assert_same_state(net, local, optimizer)
    assert not any(net.read_grads().present)


def test_train_step_equals_forward_backward_and_step(server):
    one, _, shape = make_resnet(server)
    three, _, _ = make_resnet(server)
    for net in (one, three):
        net.configure_optimizer("adam")
    for x, y in batches(shape, 5):
        result = one.train_step(x, [CrossEntropy(y)])
        remote_step(three, x, y, StepOptions(zero_after=True))
        assert result.version.params == one.version.params == three.version.params
    assert one.get_params().tobytes() == three.get_params().tobytes()


def test_a_refused_train_step_changes_nothing(server):
    net, _, shape = make_resnet(server)
    net.configure_optimizer("sgd")
    x, y = next(batches(shape))
    digest = net.info(digest=True).digest
    version = net.version
    y[1] = 10
    with pytest.raises(
        backboned.errors.InvalidArgument, match="term 0: label 10 is not"
    ):
        net.train_step(x, [CrossEntropy(y)])
    with pytest.raises(
        backboned.errors.InvalidArgument, match=r"rows \[2, 9\) are not within"
    ):
        net.train_step(x, [CrossEntropy(y, rows=(2, 9))])
    assert net.info(digest=True).digest == digest
    assert net.info().version == version


def test_per_tape_gradients_are_those_of_single_backwards(mlp_pair):
    net, local = mlp_pair
    (x, y), *_ = batches((16, 1, 28, 28), 1)
    tapes = {}
    singles = []
    for i in range(16):
        forward = net.forward(x[i : i + 1].numpy(), tape=True)
        grad = logits_grad(forward.out, y[i : i + 1])
        single = net.backward({forward.tape_id: {"out": grad}}, retain=True)
        singles.append(single.grads)
        tapes[forward.tape_id] = {"out": grad}
    summed = net.backward(tapes, retain=True).grads
    result = net.backward(tapes, per_tape_grads=True, accumulate=True)
    assert result.grads is None
    assert len(result.tape_grads) == 16
    for ours, single in zip(result.tape_grads, singles):
        assert ours.present == single.present
        assert ours.flat.tobytes() == single.flat.tobytes()
    assert net.get_grads().tobytes() == summed.flat.tobytes()


def test_squared_gradients_are_those_of_single_backwards_summed(mlp_pair):
    net, local = mlp_pair
    (x, y), *_ = batches((8, 1, 28, 28), 1)
    tapes = {}
    singles = []
    for i in range(8):
        forward = net.forward(x[i : i + 1].numpy(), tape=True)
        grad = logits_grad(forward.out, y[i : i + 1])
        single = net.backward({forward.tape_id: {"out": grad}}, retain=True)
        singles.append(single.grads.flat)
        tapes[forward.tape_id] = {"out": grad}
    result = net.backward(tapes, squared_grads=True)
    assert result.grads is None
    expected = singles[-1] ** 2
    for single in reversed(singles[:-1]):  # The newest first, as always.
        expected = expected + single**2
    assert all(result.squared_grads.present)
    assert result.squared_grads.flat.tobytes() == expected.tobytes()
