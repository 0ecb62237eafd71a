"""Hosted training: bit for bit what torch.optim does beside a local module."""

import copy
import inspect

import backboned
import pytest
import torch
import torch.nn.functional as F
from backboned import calls, optim
from backboned.nn.module import announce
from backboned.transport import messages
from hosted_pairs import (
    assert_same,
    assert_same_grads,
    assert_same_networks,
    assert_same_optimizers,
    batches,
    make_optimizer,
    make_pair,
)
from torch.optim import lr_scheduler
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}


@pytest.fixture(params=["mlp", "resnet"])
def kind(request):
    return request.param


@pytest.fixture
def pair(server, kind):
    return make_pair(server, kind)


def run_both(pair, script):
    """Run the same training on both; compare what it gives, and the networks."""
    ours, theirs = (script(net) for net in pair)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        assert_same(torch.as_tensor(one), torch.as_tensor(other))
    assert_same_networks(*pair)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {}),
        ("SGD", {"lr": 0.1, "weight_decay": 1e-2}),
        ("SGD", SGD),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("SGD", {"lr": 0.01, "momentum": 0.5, "dampening": 0.5, "maximize": True}),
        ("Adam", {}),
        ("Adam", {"lr": 0.01, "weight_decay": 1e-2, "betas": (0.8, 0.9)}),
        ("Adam", {"amsgrad": True, "eps": 1e-6}),
        ("AdamW", {}),
        ("AdamW", {"lr": 0.01, "weight_decay": 0.1, "maximize": True}),
    ],
)
def test_every_optimizer_steps_as_torchs(pair, kind, name, options):
    made = []

    def train(net):
        optimizer = make_optimizer(net, name, **options)
        made.append(optimizer)
        losses = []
        for x, y in batches(kind, 4):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    run_both(pair, train)
    assert pair[0].mode == "hosted"
    assert_same_grads(*pair)
    assert_same_optimizers(*made)


def test_a_scheduler_sets_the_learning_rate(pair, kind):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        scheduler = lr_scheduler.MultiStepLR(optimizer, [1, 3], gamma=0.1)
        rates = []
        for x, y in batches(kind, 5):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            scheduler.step()
            rates.append(scheduler.get_last_lr()[0])
        return rates

    run_both(pair, train)


def _one_cycle(optimizer):
    return lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=7).step


def _decay(optimizer):
    def step():
        for group in optimizer.param_groups:
            group["weight_decay"] = group["weight_decay"] * 0.5 + 1e-3

    return step


def _vary_all(optimizer):
    settings = {"momentum": 0.5, "dampening": 0.25, "maximize": True, "eps": 1e-3}

    def step():
        for group in optimizer.param_groups:
            changed = {k: v for k, v in settings.items() if k in group}
            group.update(changed, weight_decay=1e-2)
            if "betas" in group:
                group["betas"] = (0.5, 0.75)

    return step


def _without_momentum_for_a_while(optimizer):
    momenta = iter([0.5, 0.0, 0.0, 0.5, 0.25, 0.0, 0.0])

    def step():
        optimizer.param_groups[0]["momentum"] = next(momenta)

    return step


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        *[
            (name, schedule)
            for name in ("SGD", "AdamW")
            for schedule in (_one_cycle, _decay, _vary_all)
        ],
        ("SGD", _without_momentum_for_a_while),
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_settings_that_a_schedule_moves_go_with_the_step(
    server, name, schedule, groups
):
    pair = make_pair(server, "mlp")
    made = []

    def train(net):
        parameters = [*net.parameters()]
        given = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.05}]
        options = {"momentum": 0.9} if name == "SGD" else {}
        given = given if groups == 2 else parameters
        optimizer = make_optimizer(net, name, given, lr=0.01, **options)
        made.append(optimizer)
        step = schedule(optimizer)
        for number, (x, y) in enumerate(batches("mlp", 6)):
            before = net.traffic if net is pair[0] else None
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            step()
            if before and number:
                moved = net.traffic - before
                assert moved.round_trips == 2 and moved.sent_bytes < 21_000
        return []

    run_both(pair, train)
    assert_same_optimizers(*made)


def test_settings_that_change_back_are_sent_too(server):
    def train(net):
        optimizer = make_optimizer(net, "SGD", lr=0.1, momentum=0.9)
        for momentum, (x, y) in zip([0.9, 0.5, 0.9, 0.9], batches("mlp", 4)):
            optimizer.param_groups[0]["momentum"] = momentum
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        return []

    run_both(make_pair(server, "mlp"), train)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_takes_all_options_of_torchs(server, decoupled):
    def train(net):
        optimizer = make_optimizer(
            net, "Adam", lr=0.01, weight_decay=0.5, decoupled_weight_decay=decoupled
        )
        for x, y in batches("mlp", 3):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        return []

    run_both(make_pair(server, "mlp"), train)


def test_options_that_there_are_not_are_an_error_as_in_torch(net):
    with pytest.raises(TypeError, match="beta"):
        optim.Adam(net, beta=0.9)
    assert net.mode == "mirrored"
    ours, theirs = map(inspect.signature, (optim.Adam, torch.optim.Adam))
    assert ours == theirs


def test_groups_and_a_group_added_later(pair, kind):
    def train(net):
        *body, weight, bias = net.parameters()
        optimizer = make_optimizer(
            net,
            "Adam",
            [{"params": body, "lr": 1e-4}, {"params": [bias], "weight_decay": 0.1}],
            lr=1e-2,
        )
        for step, (x, y) in enumerate(batches(kind, 4)):
            if step == 2:
                optimizer.add_param_group({"params": [weight], "lr": 1e-3})
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        return []

    run_both(pair, train)


def test_two_losses_in_one_backward(pair, kind):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        given = list(batches(kind, 6))
        for (x, y), (other, z) in zip(given[::2], given[1::2]):
            optimizer.zero_grad()
            first, second = net(x), net(other)
            third = net(x + other)
            loss = F.cross_entropy(first, y) + 0.5 * F.mse_loss(second, first.detach())
            (loss + F.cross_entropy(third, z)).backward()
            optimizer.step()
        return []

    run_both(pair, train)


@pytest.mark.parametrize("count", [2, 3])
def test_several_backwards_before_a_step(pair, kind, count):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        for _ in range(2):
            losses = [F.cross_entropy(net(x), y) for x, y in batches(kind, count)]
            for loss in losses:
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return []

    run_both(pair, train)


def test_gradients_accumulate_over_steps(pair, kind):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        for step, (x, y) in enumerate(batches(kind, 6)):
            F.cross_entropy(net(x), y).backward()
            if step % 2:
                optimizer.step()
            if step == 3:
                optimizer.zero_grad()
        return []

    run_both(pair, train)


@pytest.mark.parametrize("on", ["optimizer", "network", "parameters"])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_every_way_to_zero_the_gradients(server, on, set_to_none):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        for x, y in batches("mlp", 3):
            if on == "optimizer":
                optimizer.zero_grad(set_to_none)
            elif on == "network":
                net.zero_grad(set_to_none)
            else:
                for parameter in net.parameters():
                    if set_to_none:
                        parameter.grad = None
                    elif parameter.grad is not None:
                        parameter.grad.zero_()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none)
        optimizer.step()
        return []

    pair = make_pair(server, "mlp")
    run_both(pair, train)
    assert_same_grads(*pair)


def test_zeroing_drops_what_waits(server):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        (x, y), (other, z) = batches("mlp", 2)
        F.cross_entropy(net(x), y).backward()
        optimizer.zero_grad()
        F.cross_entropy(net(other), z).backward()
        optimizer.step()
        return []

    pair = make_pair(server, "mlp")
    run_both(pair, train)
    pair[0](torch.zeros(1, 1, 28, 28)).sum().item()
    assert pair[0].instance.info().tape_count <= 1


def test_forwards_that_nobody_goes_back_from(pair, kind):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        outs = []
        for x, y in batches(kind, 3):
            optimizer.zero_grad()
            net(x + 1)
            with torch.no_grad():
                outs.append(net(x))
            net.eval()
            outs.append(net(x).detach())
            net.train()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        return outs

    run_both(pair, train)


def test_evaluation_between_backward_and_step(pair, kind):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        outs = []
        for x, y in batches(kind, 2):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            with torch.no_grad():
                outs.append(net(x))
            optimizer.step()
        return outs

    run_both(pair, train)


def test_a_step_without_gradients_does_nothing(server):
    net, local = make_pair(server, "mlp")
    optimizer = make_optimizer(net, "SGD", **SGD)
    before = net.instance.version
    optimizer.step()
    optimizer.zero_grad()
    optimizer.step()
    assert optimizer.last_step is None
    assert net.instance.info().version == before
    assert_same_networks(net, local)


READS = {
    "norm": lambda net: [p.norm() for p in net.parameters()],
    "state_dict": lambda net: [
        net.state_dict()[name].clone() for name, _ in net.named_parameters()
    ],
    "data": lambda net: [p.data.clone() for p in net.parameters()],
    "numpy": lambda net: [
        torch.from_numpy(p.detach().numpy().copy()) for p in net.parameters()
    ],
    "buffers": lambda net: [b.clone() for b in net.buffers()],
    "cat": lambda net: [torch.cat([p.flatten() for p in net.parameters()])],
    "vector": lambda net: [torch.nn.utils.parameters_to_vector(net.parameters())],
    "foreach": lambda net: torch._foreach_norm(list(net.parameters())),
    "grads": lambda net: [p.grad.clone() for p in net.parameters()],
    "one": lambda net: [net.classifier.bias.sum()],
    "twice": lambda net: [net.classifier.bias * net.classifier.bias],
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_is_read_between_steps(pair, kind, read):
    held = []

    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        held.append(list(net.parameters()))
        values = []
        for x, y in batches(kind, 2):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            values += [value.detach().clone() for value in read(net)]
        return values

    run_both(pair, train)
    for ours, theirs in zip(*held):
        assert_same(ours, theirs)


def _halve(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)


def _copy_itself(net):
    with torch.no_grad():
        net.classifier.weight.copy_(net.classifier.weight)


def _replace(net):
    net.classifier.bias = torch.nn.Parameter(torch.full((10,), 0.25))


WRITES = {
    "in_place": _halve,
    "data": lambda net: net.classifier.weight.data.mul_(0.5),
    "data_set": lambda net: setattr(net.classifier.bias, "data", torch.ones(10)),
    "copy": lambda net: net.load_state_dict(
        {
            k: v * 0.5 if v.is_floating_point() else v
            for k, v in net.state_dict().items()
        }
    ),
    "init": lambda net: torch.nn.init.constant_(net.classifier.weight, 0.125),
    "item": lambda net: net.classifier.bias.data.__setitem__(3, 5.0),
    "numpy": lambda net: net.classifier.bias.detach().numpy().fill(3),
    "copy_of_itself": _copy_itself,
    "data_of_itself": lambda net: setattr(
        net.classifier.bias, "data", net.classifier.bias
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_is_written_between_steps(pair, kind, write):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        for step, (x, y) in enumerate(batches(kind, 4)):
            optimizer.zero_grad()
            if step == 1:
                write(net)
            F.cross_entropy(net(x), y).backward()
            if step == 2:
                write(net)
            optimizer.step()
            if step == 3:
                write(net)
        return []

    run_both(pair, train)
    with torch.no_grad():
        ((x, _),) = batches(kind, 1)
        assert_same(pair[0].eval()(x), pair[1].eval()(x))


def test_a_parameter_that_gets_an_earlier_view_of_itself(server):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        view = net.classifier.weight.data
        for x, y in batches("mlp", 2):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            with torch.no_grad():
                net.classifier.weight.copy_(view)
        return []

    run_both(make_pair(server, "mlp"), train)


def test_a_parameter_that_was_replaced(server):
    net, local = make_pair(server, "mlp")
    optimizer = make_optimizer(net, "SGD", **SGD)
    old = net.classifier.bias
    values = old.detach().clone()
    for side in (net, local):
        _replace(side)
    ((x, _),) = batches("mlp", 1)
    with torch.no_grad():
        assert_same(net(x), local(x))
    assert type(old) is torch.nn.Parameter and torch.equal(old, values)
    F.cross_entropy(net(x), torch.zeros(6, dtype=torch.long)).backward()
    with pytest.raises(ValueError, match="1 parameters .* new optimizer"):
        optimizer.step()


def test_a_buffer_that_was_replaced(server):
    net, local = make_pair(server, "resnet")
    optim.SGD(net)
    for side in (net, local):
        side.eval().bn1.running_mean = torch.full((8,), 0.5)
    ((x, _),) = batches("resnet", 1)
    with torch.no_grad():
        assert_same(net(x), local(x))
    assert_same_networks(net, local)


def _scale_grads(net):
    for parameter in net.parameters():
        parameter.grad.mul_(2)


def _set_grads(net):
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)


def _drop_one_grad(net):
    net.classifier.bias.grad = None


GRAD_WRITES = {
    "clip_norm": lambda net: torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1),
    "clip_value": lambda net: torch.nn.utils.clip_grad_value_(net.parameters(), 0.01),
    "scaled": _scale_grads,
    "set": _set_grads,
    "dropped": _drop_one_grad,
    "data": lambda net: net.classifier.weight.grad.data.mul_(3),
}


@pytest.mark.parametrize("write", GRAD_WRITES.values(), ids=GRAD_WRITES)
def test_gradients_that_are_written(pair, kind, write):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        values = []
        for step, (x, y) in enumerate(batches(kind, 4)):
            if step != 2:
                optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            result = write(net)
            if result is not None:
                values.append(result)
            optimizer.step()
        return [v for v in values if isinstance(v, torch.Tensor)]

    run_both(pair, train)
    assert_same_grads(*pair)


def _mask_data(net):
    net.classifier.weight.grad.data[3, 20:60] = 0


def _mask_numpy(net):
    net.classifier.weight.grad.numpy()[3, 20:60] = 0


@pytest.mark.parametrize("mask", [_mask_data, _mask_numpy])
@pytest.mark.parametrize("looked_at", [False, True])
def test_every_element_of_a_gradient_counts(server, mask, looked_at):
    net, local = make_pair(server, "mlp")
    ours = make_optimizer(net, "SGD", **SGD)
    theirs = make_optimizer(local, "SGD", **SGD)
    for x, y in batches("mlp", 2):
        for side, optimizer in ((net, ours), (local, theirs)):
            optimizer.zero_grad()
            F.cross_entropy(side(x), y).backward()
        if looked_at:
            assert_same_grads(net, local)
        for side, optimizer in ((net, ours), (local, theirs)):
            mask(side)
            optimizer.step()
    assert_same_networks(net, local)
    assert_same_grads(net, local)


def _hook(parameter):
    return [parameter.register_hook(lambda grad: grad * 0.5)]


def _hook_afterwards(parameter):
    def halve(parameter):
        parameter.grad.mul_(0.5)

    return [parameter.register_post_accumulate_grad_hook(halve)]


HOOKS = {
    "gradient": _hook,
    "accumulated": _hook_afterwards,
    "both": lambda parameter: _hook(parameter) + _hook_afterwards(parameter),
}


@pytest.mark.parametrize("register", HOOKS.values(), ids=HOOKS)
def test_hooks_on_gradients_are_called(pair, kind, register):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        hooks = register(net.classifier.weight) + register(next(net.parameters()))
        for step, (x, y) in enumerate(batches(kind, 5)):
            if step != 2:
                optimizer.zero_grad()
            if step == 4:
                for hook in hooks:
                    hook.remove()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        return []

    run_both(pair, train)
    assert_same_grads(*pair)


def test_without_hooks_again_gradients_stay_in_the_server(net):
    optimizer = optim.SGD(net)
    net.fc1.weight.register_hook(lambda grad: None).remove()
    ((x, y),) = batches("mlp", 1)
    loss = F.cross_entropy(net(x), y)
    before = net.traffic
    loss.backward()
    assert (net.traffic - before).round_trips == 0
    optimizer.step()


def test_a_loss_that_uses_the_parameters_too(server):
    def train(net):
        optimizer = make_optimizer(net, "SGD", lr=0.1)
        for x, y in batches("mlp", 3):
            optimizer.zero_grad()
            penalty = sum(p.square().sum() for p in net.parameters())
            (F.cross_entropy(net(x), y) + 1e-3 * penalty).backward()
            optimizer.step()
        return []

    pair = make_pair(server, "mlp")
    run_both(pair, train)
    assert_same_grads(*pair)


def test_chosen_gradients_come_here(server):
    net, local = make_pair(server, "mlp")
    make_optimizer(net, "SGD")
    ((x, y),) = batches("mlp", 1)
    for side in (net, local):
        side.grads = torch.autograd.grad(
            F.cross_entropy(side(x), y), list(side.parameters())
        )
    for ours, theirs in zip(net.grads, local.grads):
        assert_same(ours, theirs)
    assert net.classifier.bias.grad is None
    for side in (net, local):
        F.cross_entropy(side(x), y).backward(inputs=[side.classifier.bias])
        F.cross_entropy(side(x), y).backward()
    assert_same_grads(net, local)


def test_input_gradients_come_at_once(server):
    pair = make_pair(server, "mlp")
    given = []

    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        for x, y in batches("mlp", 2):
            x.requires_grad_()
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            given.append(x.grad)
            optimizer.step()
        return []

    run_both(pair, train)
    for ours, theirs in zip(given[:2], given[2:]):
        assert_same(ours, theirs)


@pytest.mark.parametrize("clip", [{"clip_norm": 0.1}, {"clip_value": 1e-3}])
@pytest.mark.parametrize("by", ["argument", "attribute"])
def test_clipping_in_the_server(pair, kind, clip, by):
    def train(net):
        optimizer = make_optimizer(net, "SGD", **SGD)
        remote = hasattr(net, "instance")
        if remote and by == "attribute":
            for name, value in clip.items():
                setattr(optimizer, name, value)
        norms = []
        for x, y in batches(kind, 3):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            if remote:
                optimizer.step(**clip if by == "argument" else {})
                norms.append(optimizer.last_step.grad_norm)
                continue
            if "clip_norm" in clip:
                norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
                norms.append(norm.item())
            else:
                torch.nn.utils.clip_grad_value_(net.parameters(), 1e-3)
                norms.append(None)
            optimizer.step()
        return [norm for norm in norms if norm is not None]

    run_both(pair, train)


def test_partly_frozen(pair, kind):
    def train(net):
        first = next(net.parameters())
        optimizer = make_optimizer(net, "SGD", **SGD)
        for step, (x, y) in enumerate(batches(kind, 4)):
            first.requires_grad_(step == 2)
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        return []

    run_both(pair, train)
    assert pair[0].mode == "hosted"


def test_a_hosted_network_saved_and_resumed(server, tmp_path):
    pair = make_pair(server, "resnet")

    def train(net):
        optimizer = make_optimizer(net, "AdamW", lr=0.01)
        losses = []
        for step, (x, y) in enumerate(batches("resnet", 4)):
            if step == 2:
                states = {"net": net.state_dict(), "opt": optimizer.state_dict()}
                torch.save(states, tmp_path / "checkpoint")
                net.zero_grad()
                states = torch.load(tmp_path / "checkpoint", weights_only=True)
                optimizer = make_optimizer(net, "AdamW", lr=0.5)
                optimizer.load_state_dict(states["opt"])
                net.load_state_dict(states["net"])
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    run_both(pair, train)


def test_torchs_checkpoint_resumes_in_the_server_and_back(server):
    net, local = make_pair(server, "resnet")
    theirs = make_optimizer(local, "SGD", **SGD)
    given = list(batches("resnet", 3))

    def step(side, optimizer, x, y):
        optimizer.zero_grad()
        F.cross_entropy(side(x), y).backward()
        optimizer.step()

    step(local, theirs, *given[0])
    net.load_state_dict(local.state_dict())
    ours = make_optimizer(net, "SGD", **SGD)
    ours.load_state_dict(theirs.state_dict())
    assert_same_optimizers(ours, theirs)
    for side, optimizer in ((net, ours), (local, theirs)):
        step(side, optimizer, *given[1])
    assert_same_networks(net, local)
    other = torch.optim.SGD(local.parameters(), lr=1.0)
    other.load_state_dict(ours.state_dict())
    step(net, ours, *given[2])
    step(local, other, *given[2])
    assert_same_networks(net, local)


@pytest.mark.parametrize("names", [("AdamW", "Adam"), ("Adam", "AdamW")])
def test_a_state_of_the_other_adam_decides_as_in_torch(server, names):
    def train(net):
        optimizer = make_optimizer(net, names[0], lr=0.01, weight_decay=0.5)
        for step, (x, y) in enumerate(batches("mlp", 3)):
            if step == 1:
                states = optimizer.state_dict()
                optimizer = make_optimizer(net, names[1], lr=0.01)
                optimizer.load_state_dict(states)
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        return []

    run_both(make_pair(server, "mlp"), train)


def test_groups_of_both_adams_are_refused(net):
    weight, *rest = net.parameters()
    optimizer = optim.Adam([{"params": [weight]}, {"params": rest}])
    optimizer.param_groups[0]["decoupled_weight_decay"] = True
    ((x, y),) = batches("mlp", 1)
    F.cross_entropy(net(x), y).backward()
    with pytest.raises(ValueError, match="is Adam or AdamW, so make them alike"):
        optimizer.step()


def test_mirrored_again_it_goes_on_with_torchs_optimizer(pair, kind):
    def train(net):
        optimizer = make_optimizer(net, "SGD", lr=0.1)
        for step, (x, y) in enumerate(batches(kind, 4)):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            if step == 2 and hasattr(net, "instance"):
                net.mirror()
                optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            optimizer.step()
        return []

    run_both(pair, train)
    assert pair[0].mode == "mirrored" and "mirrored" in repr(pair[0])
    assert all(type(p) is torch.nn.Parameter for p in pair[0].parameters())


def test_mirrored_again_all_gradients_are_here_if_one_was_read(server):
    pair = make_pair(server, "mlp")
    make_optimizer(pair[0], "SGD")
    ((x, y),) = batches("mlp", 1)
    for side in pair:
        F.cross_entropy(side(x), y).backward()
    assert pair[0].fc1.weight.grad.norm() > 0
    pair[0].mirror()
    assert_same_grads(*pair)


def test_torchs_own_optimizer_steps_a_hosted_network_too(server):
    pair = make_pair(server, "mlp")
    optim.SGD(pair[0])

    def train(net):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for x, y in batches("mlp", 3):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        return []

    with pytest.warns(UserWarning, match="SGD of torch.optim steps") as warned:
        run_both(pair, train)
    # Once, though it made three steps.
    assert sum("of torch.optim" in str(each.message) for each in warned) == 1
    assert pair[0].mode == "hosted"


def test_mammoths_flat_access(server):
    net, local = make_pair(server, "mlp")
    optimizer = make_optimizer(net, "SGD")
    ((x, y),) = batches("mlp", 1)
    for side in (net, local):
        F.cross_entropy(side(x), y).backward()
    expected = torch.cat([p.grad.flatten() for p in local.parameters()])
    assert torch.equal(net.get_grads(), expected)
    net.set_grads(torch.ones(89610))
    optimizer.step()
    expected = torch.cat([p.flatten() for p in local.parameters()])
    assert torch.equal(net.get_params(), expected - 1e-3)
    net.set_params(torch.zeros(89610))
    assert not net(x).any()
    optimizer.zero_grad()
    with pytest.raises(RuntimeError, match=r"no gradient yet of fc1\.weight"):
        net.get_grads()


def test_it_is_an_optimizer_of_torch(net):
    optimizer = optim.Adam(net)
    assert isinstance(optimizer, torch.optim.Adam)
    assert repr(optimizer).startswith("Adam")
    assert ", hosted\n" in repr(net)
    with pytest.raises(ValueError, match="Invalid learning rate"):
        optim.SGD(net, lr=-1)


def test_a_closure_is_called_once(net):
    optimizer = optim.SGD(net)
    ((x, y),) = batches("mlp", 1)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert optimizer.step(closure) < first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net, other: optim.SGD([torch.zeros(1)]), "in no network"),
        (lambda net, other: optim.SGD([*net.parameters(), *other.parameters()]), "one"),
        (lambda net, other: optim.SGD([]), "empty parameter list"),
        (lambda net, other: optim.SGD([{"params": []}]), "needs parameters"),
        (lambda net, other: optim.Adam(net, fused=True), "fused=True"),
        (lambda net, other: optim.SGD(net, differentiable=True), "differentiable=True"),
    ],
)
def test_what_cannot_be_stepped_in_the_server(server, net, make, message):
    other = server.create("seq-mnist", seed=1)
    with pytest.raises(ValueError, match=message):
        make(net, other)
    assert net.mode == "mirrored"


@pytest.mark.parametrize("on", ["optimizer", "network"])
def test_a_backward_whose_gradients_are_taken_away_is_not_sent(net, on):
    optimizer = optim.SGD(net)
    ((x, y),) = batches("mlp", 1)
    F.cross_entropy(net(x), y).backward()
    before = net.traffic
    (optimizer if on == "optimizer" else net).zero_grad()
    assert next(net.parameters()).grad is None
    assert (net.traffic - before).round_trips == 0


def test_gradients_of_parameters_in_no_group_add_up(pair, kind):
    for net in pair:
        *_, weight, bias = net.parameters()
        optimizer = make_optimizer(net, "SGD", [weight, bias], lr=0.1)
        for x, y in batches(kind, 3):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    assert_same_grads(*pair)
    assert_same_networks(*pair)


def test_a_step_without_a_gradient_of_its_own_keeps_those_of_others(pair, kind):
    for net in pair:
        *_, weight, bias = net.parameters()
        optimizer = make_optimizer(net, "SGD", [weight, bias], lr=0.1)
        ((x, _),) = batches(kind, 1)
        features = net.features(x) if net is pair[0] else net.outputs(x)["features"]
        features.square().sum().backward()
        optimizer.step()
    assert_same_grads(*pair)
    assert_same_networks(*pair)


def test_a_group_of_another_network_is_refused(server, net):
    other = server.create("seq-mnist", seed=1)
    optimizer = optim.SGD(net)
    optimizer.param_groups[0]["params"].clear()
    with pytest.raises(ValueError, match="has one network"):
        optimizer.add_param_group({"params": other})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_groups_of_older_torch_do_not_say_how_weights_decay(server, name):
    pair = make_pair(server, "mlp")
    for net in pair:
        optimizer = make_optimizer(net, name, lr=0.01, weight_decay=0.1)
        if net is pair[0]:
            del optimizer.param_groups[0]["decoupled_weight_decay"]
        for x, y in batches("mlp", 2):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    assert_same_networks(*pair)


def test_what_is_frozen_in_the_server_and_here_stays_so(server):
    net = server.create("seq-mnist", seed=0, frozen="fc1.*")
    optimizer = optim.SGD(net, lr=0.1)
    ((x, y),) = batches("mlp", 1)
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    assert net.instance.info().frozen == ("fc1.*",)
    net.requires_grad_(True)
    optimizer.step()
    assert net.instance.info().frozen == ()


def test_a_second_optimizer_takes_over(net):
    first = optim.SGD(net)
    second = optim.SGD(net)
    for call in (first.step, first.zero_grad):
        with pytest.raises(RuntimeError, match="another optimizer"):
            call()
    second.step()
    with pytest.raises(ValueError, match="in no network"):
        second.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    assert len(second.param_groups) == 1


def test_a_copied_optimizer_has_no_network(net):
    optimizer = optim.SGD(net, lr=0.1, momentum=0.9)
    ((x, y),) = batches("mlp", 1)
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    twin, copied = copy.deepcopy((net, optimizer))
    with pytest.raises(RuntimeError, match="a copy of an optimizer .* no network"):
        copied.step()
    again = optim.SGD(twin, lr=0.1, momentum=0.9)
    again.load_state_dict(optimizer.state_dict())
    for side, steps in ((net, optimizer), (twin, again)):
        steps.zero_grad()
        F.cross_entropy(side(x), y).backward()
        steps.step()
    assert torch.equal(twin.get_params(), net.get_params())


def test_a_parameter_of_ones_own_is_made_of_values(net):
    net.requires_grad_(False)
    with pytest.raises(RuntimeError, match="Creating a Parameter"):
        torch.nn.Parameter(net.fc1.weight)
    made = torch.nn.Parameter(net.fc1.weight.detach())
    assert torch.equal(made, net.fc1.weight)


def test_a_checkpoint_drops_the_tape(net):
    from torch.utils.checkpoint import checkpoint

    ((x, _),) = batches("mlp", 1)
    loss = checkpoint(net, x, use_reentrant=False).sum()
    with pytest.raises(backboned.errors.FailedPrecondition, match="tape") as caught:
        loss.backward()
    assert caught.value.reason == "TAPE_NOT_FOUND"


def test_tensors_of_an_earlier_state_are_not_written_by_mistake(net):
    optimizer = optim.SGD(net, lr=0.1)
    ((x, y),) = batches("mlp", 1)
    F.cross_entropy(net(x), y).backward()
    weight, grad = net.fc1.weight.data, net.fc1.weight.grad.data
    assert grad.norm() > 0
    optimizer.step()
    weight.add_(1)
    with pytest.raises(RuntimeError, match=r"fc1\.weight was written .* take it again"):
        net(x)
    F.cross_entropy(net(x), y).backward()
    grad.mul_(2)
    with pytest.raises(RuntimeError, match=r"gradient of fc1\.weight .* read p\.grad"):
        optimizer.step()


def _pull(net, view):
    net.pull()


def _write_while_away(net, view):
    ((x, y),) = batches("mlp", 1)
    net.train_step(x, [backboned.CrossEntropy(y)], optim.SGD(net))
    view.mul_(2)
    with pytest.raises(RuntimeError, match=r"fc1\.weight was written .* take it again"):
        net(x)


@pytest.mark.parametrize("before", [_pull, _write_while_away])
def test_a_view_is_watched_still_after(net, before):
    optim.SGD(net)
    view = net.fc1.weight.data
    before(net, view)
    net.fc1.weight.norm()
    view.fill_(0.5)
    ((x, _),) = batches("mlp", 1)
    net(x)
    there = net.instance.get_params("fc1.weight")
    assert (there == 0.5).all()


def test_somebody_elses_write_is_an_error(server, net):
    optimizer = optim.SGD(net, lr=0.1)
    ((x, y),) = batches("mlp", 1)
    F.cross_entropy(net(x), y).backward()
    server.instance(net.name, module=False).set_params(torch.zeros(89610).numpy())
    optimizer.step()
    with pytest.raises(backboned.errors.StaleVersion, match=r"net\.pull\(\)") as caught:
        net(x)
    assert caught.value.reason == "STALE_VERSION"
    with pytest.raises(backboned.errors.StaleVersion, match=r"net\.pull\(\)"):
        net.fc1.weight.norm()
    net.pull()
    net(x)
    assert net.fc1.weight.norm() < 1


def test_a_push_writes_what_is_here_over_what_somebody_else_wrote(server, net):
    optim.SGD(net)
    here = net.get_params().detach().numpy()
    other = server.instance(net.name, module=False)
    other.set_params(torch.zeros(89610).numpy())
    net.push()
    assert (other.get_params() == here).all()
    net(torch.zeros(1, 1, 28, 28))


def test_an_expired_tape_is_an_error_behind_the_step(start):
    with start(options=["--tape-ttl", "50ms"]) as server:
        net = server.create("seq-mnist", seed=0)
        optimizer = optim.SGD(net)
        ((x, y),) = batches("mlp", 1)
        F.cross_entropy(net(x), y).backward()
        import time

        time.sleep(0.5)
        optimizer.step()
        with pytest.raises(
            backboned.errors.FailedPrecondition, match=r"^step 1, .* tape"
        ) as caught:
            net(x)
        assert caught.value.reason == "TAPE_NOT_FOUND"
        optimizer.step()
        assert optimizer.last_step is None


def test_a_dead_server_is_an_error_at_the_step(start):
    server = start()
    net = server.create("seq-mnist", seed=0)
    optimizer = optim.SGD(net)
    ((x, y),) = batches("mlp", 1)
    F.cross_entropy(net(x), y).backward()
    server.process.stop()
    for call in (optimizer.step, lambda: net(x), net.state_dict, optimizer.step):
        with pytest.raises(backboned.errors.Unavailable):
            call()


def lose_answers(monkeypatch, name, count, module=calls):
    """Have the first answers to calls of a module's function lost."""
    real = getattr(module, name)
    left = [count]

    def lossy(function):
        def call(*args, **options):
            result = function(*args, **options)
            if isinstance(result, messages.Prepared):
                result.take = lossy(result.take)
            elif left[0]:
                left[0] -= 1
                raise backboned.errors.Unavailable("the answer is lost")
            return result

        return call

    monkeypatch.setattr(module, name, lossy(real))


def test_gradients_whose_answer_is_lost_do_not_outlive_zero_grad(server, monkeypatch):
    net, local = make_pair(server, "mlp")
    optimizer = make_optimizer(net, "SGD")
    _set_grads(net)
    lose_answers(monkeypatch, "set_grads", 1, backboned.Instance)
    with pytest.raises(backboned.errors.Unavailable, match="is lost"):
        optimizer.step()
    optimizer.zero_grad()
    ((x, y),) = batches("mlp", 1)
    for side in (net, local):
        F.cross_entropy(side(x), y).backward()
    assert_same_grads(net, local)


def test_gradients_whose_answer_is_lost_are_sent_again(server, monkeypatch):
    net, local = make_pair(server, "mlp")
    ours, theirs = make_optimizer(net, "SGD"), make_optimizer(local, "SGD")
    _set_grads(net)
    _set_grads(local)
    theirs.step()
    lose_answers(monkeypatch, "set_grads", 1, backboned.Instance)
    with pytest.raises(backboned.errors.Unavailable, match="is lost"):
        ours.step()
    ours.step()
    assert_same_networks(net, local)
    assert_same_grads(net, local)


@pytest.mark.parametrize("then", ["step", "forward", "read", "zero_grad"])
def test_a_step_whose_answer_is_lost_happens_once(server, monkeypatch, then):
    net, local = make_pair(server, "mlp")
    ours = make_optimizer(net, "SGD", **SGD)
    theirs = make_optimizer(local, "SGD", **SGD)
    ((x, y),) = batches("mlp", 1)
    for side in (net, local):
        F.cross_entropy(side(x), y).backward()
    theirs.step()
    lose_answers(monkeypatch, "backward", 2)
    ours.step()
    for _ in range(2):
        with pytest.raises(backboned.errors.Unavailable, match="^step 1, .*is lost"):
            net(x)
    if then == "step":
        ours.step()
        theirs.step()
    elif then == "forward":
        assert_same(net(x), local(x))
    elif then == "read":
        net.fc1.weight.norm()
    else:
        ours.zero_grad()
        theirs.zero_grad()
    assert_same_networks(net, local)
    assert_same_grads(net, local)
    assert net.instance.info().steps == 1 + (then == "step")


def test_what_is_written_after_a_step_whose_answer_is_lost(server, monkeypatch):
    net, local = make_pair(server, "mlp")
    ours = make_optimizer(net, "SGD", **SGD)
    theirs = make_optimizer(local, "SGD", **SGD)
    ((x, y),) = batches("mlp", 1)
    for side in (net, local):
        F.cross_entropy(side(x), y).backward()
    theirs.step()
    lose_answers(monkeypatch, "backward", 1)
    ours.step()
    with pytest.raises(backboned.errors.Unavailable, match="is lost"):
        net(x)
    with torch.no_grad():
        for side in (net, local):
            side.classifier.bias.zero_()
    assert_same(net(x), local(x))
    assert_same_networks(net, local)
    assert net.instance.info().steps == 1


def delay_first_call(monkeypatch, module, name="exchange"):
    """Have a module's first call end by its deadline while the server is slow with it.

    It is made once the module calls again, since who asks for its answer waits for it,
    or once what this gives is called.
    """
    real = getattr(module, name)
    made = []

    def call(*args, **options):
        made.append(lambda: real(*args, **options))
        if len(made) == 1:
            raise backboned.errors.DeadlineExceeded("the server still computes it")
        make_first()
        return real(*args, **options)

    def make_first():
        if made[0]:
            made[0]()
            made[0] = None

    monkeypatch.setattr(module, name, call)
    return make_first


@pytest.mark.parametrize("lost", ["train_step", "forward"])
def test_a_look_while_the_server_computes_a_lost_call(server, monkeypatch, lost):
    net, local = make_pair(server, "resnet")
    ours = make_optimizer(net, "SGD", **SGD)
    theirs = make_optimizer(local, "SGD", **SGD)
    ((x, y),) = batches("resnet", 1)
    terms = backboned.CrossEntropy(y)
    make_first = delay_first_call(monkeypatch, messages)
    with pytest.raises(backboned.errors.DeadlineExceeded, match="still computes"):
        net.train_step(x, terms, ours) if lost == "train_step" else net(x)
    net.conv1.weight.norm()
    net.bn1.running_mean.sum()
    make_first()
    net.train_step(x, terms, ours)
    if lost == "forward":
        local(x)
    for _ in range(2 if lost == "train_step" else 1):
        theirs.zero_grad()
        F.cross_entropy(local(x), y).backward()
        theirs.step()
    assert_same_networks(net, local)


def test_a_look_while_the_server_makes_a_lost_push(server, monkeypatch):
    net, local = make_pair(server, "mlp")
    ((x, y),) = batches("mlp", 1)
    for side in (net, local):
        optimizer = make_optimizer(side, "SGD", **SGD)
        F.cross_entropy(side(x), y).backward()
        optimizer.step()
        with torch.no_grad():
            side.classifier.bias.zero_()
    make_first = delay_first_call(monkeypatch, messages, "send")
    with pytest.raises(backboned.errors.DeadlineExceeded, match="still computes"):
        net(x)
    net.fc1.weight.norm()
    make_first()
    assert_same(net(x), local(x))
    assert_same_networks(net, local)


def test_a_lost_forward_draws_its_random_numbers_once(server, monkeypatch):
    arguments = {"num_classes": 3, "depth": 10, "widen_factor": 1, "dropout": 0.5}
    nets = [
        server.create(architecture="wide-resnet", seed=0, **arguments) for _ in range(2)
    ]
    for net in nets:
        optim.SGD(net)
    x = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        torch.manual_seed(3)
        first, second = nets[0](x), nets[0](x)
        assert not torch.equal(first, second)
        torch.manual_seed(3)
        delay_first_call(monkeypatch, messages)
        with pytest.raises(backboned.errors.DeadlineExceeded, match="still computes"):
            nets[1](x)
        assert_same(nets[1](x), second)


def test_a_lost_call_is_asked_for_again_until_its_end_is_known(server, monkeypatch):
    net, _ = make_pair(server, "resnet")
    optim.SGD(net)
    ((x, _),) = batches("resnet", 1)
    real, lost = messages.exchange, []

    def exchange(*args, **options):
        if len(lost) < 2:
            lost.append((args, options))
            raise backboned.errors.Unavailable("the server does not answer")
        return real(*args, **options)

    monkeypatch.setattr(messages, "exchange", exchange)
    for use in (lambda: net(x), lambda: net.bn1.num_batches_tracked.item()):
        with pytest.raises(backboned.errors.Unavailable, match="does not answer"):
            use()
    args, options = lost[0]
    real(*args, **options)  # The request has been under way until now.
    assert net.bn1.num_batches_tracked.item() == 1


def test_the_tape_of_a_forward_whose_answer_is_lost_is_given_up(net, monkeypatch):
    optim.SGD(net)
    ((x, _),) = batches("mlp", 1)
    with monkeypatch.context() as patched:
        lose_answers(patched, "forward", 1)
        with pytest.raises(backboned.errors.Unavailable, match="is lost"):
            net(x)
    assert net.instance.info().tape_count == 1
    with torch.no_grad():
        net(x)
    assert net.instance.info().tape_count == 0


def test_a_busy_server_leaves_the_backward_waiting(server, monkeypatch):
    net, local = make_pair(server, "mlp")
    ours = make_optimizer(net, "SGD", **SGD)
    theirs = make_optimizer(local, "SGD", **SGD)
    ((x, y),) = batches("mlp", 1)
    for side in (net, local):
        F.cross_entropy(side(x), y).backward()
    theirs.step()

    def refuse():
        raise backboned.errors.ResourceExhausted("too much waits")

    def refused(*args, **options):
        call = real(*args, **options)
        call.begin, call.take = lambda *_: False, refuse
        return call

    real = calls.backward
    with monkeypatch.context() as patched:
        patched.setattr(calls, "backward", refused)
        with pytest.raises(backboned.errors.ResourceExhausted):
            ours.step()
            net(x)
    ours.step()
    assert_same_networks(net, local)


def test_a_network_that_is_not_whole_is_in_nobodys_way(server, net):
    broken = server.create("seq-mnist", seed=1)
    del broken.fc1._parameters["bias"]
    assert optim.SGD(net.parameters()) is not None


def test_a_network_that_is_announced_is_found_by_its_parameters():
    class Standin:
        def __init__(self):
            self.parameter = torch.nn.Parameter(torch.zeros(1))

        def layout_parameters(self):
            return [self.parameter]

        def host(self, optimizer):
            self.optimizer = optimizer

    standin = Standin()
    with pytest.raises(ValueError, match="in no network"):
        optim.SGD([standin.parameter])
    announce(standin)
    optimizer = optim.SGD([standin.parameter])
    assert standin.optimizer is optimizer


def test_two_backwards_before_a_step_are_one_call_with_it(net):
    optimizer = optim.SGD(net, lr=0.1)
    for number, (x, y) in enumerate(batches("mlp", 2)):
        losses = [F.cross_entropy(net(each), y) for each in (x, x.flip(0))]
        for loss in losses:
            loss.backward()
        before = net.traffic
        optimizer.step()
        assert number == 0 or (net.traffic - before).round_trips == 1
        optimizer.zero_grad()


def test_traffic_of_a_step_is_images_and_logits(server):
    net = server.create(architecture="resnet18", num_classes=10, seed=0)
    optimizer = optim.SGD(net, lr=0.1, momentum=0.9)
    counts = []
    for _ in range(3):
        before = net.traffic
        optimizer.zero_grad()
        x = torch.rand(2, 3, 32, 32)
        net(x).sum().backward()
        optimizer.step()
        counts.append(net.traffic - before)
    last = counts[-1]
    assert [count.round_trips for count in counts] == [3, 2, 2]
    assert 0 < last.sent_bytes - x.numel() * 4 < 2000
    assert 0 < last.received_bytes < 2000
    before = net.traffic
    net.state_dict()
    read = net.traffic - before
    assert read.round_trips == 2
    state_bytes = net.layout.elements * 4
    assert state_bytes < read.received_bytes < state_bytes * 1.01


def test_one_parameter_costs_one_parameter(net):
    optimizer = optim.SGD(net)
    ((x, y),) = batches("mlp", 1)
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    before = net.traffic
    net.classifier.bias.norm()
    net.classifier.bias.norm()
    one = net.traffic - before
    assert one.round_trips == 1 and one.received_bytes < 200
    for parameter in net.parameters():
        parameter.norm()
    assert (net.traffic - before).round_trips == 2


def train_watched(net, optimizer):
    """Take steps under torch's hooks and profiler; give what these saw."""
    seen = []
    first = register_optimizer_step_pre_hook(
        lambda _, args, given: seen.append(("before all", args[1:], given))
    )
    last = register_optimizer_step_post_hook(
        lambda _, args, given: seen.append(("after all", args[1:], given))
    )
    try:
        for own in (True, False):
            handle = optimizer.register_step_pre_hook(lambda *_: seen.append("own"))
            if not own:
                handle.remove()
            net(torch.ones(6, 1, 28, 28)).sum().backward()
            optimizer.step()
    finally:
        first.remove()
        last.remove()
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
    kind = type(optimizer).__name__
    return seen, f"Optimizer.step#{kind}.step" in {
        event.name for event in profile.function_events
    }


def test_torchs_hooks_and_profiler_see_the_steps(server):
    net, local = make_pair(server, "mlp")
    got = train_watched(net, make_optimizer(net, "SGD", lr=0.1))
    assert got == train_watched(local, make_optimizer(local, "SGD", lr=0.1))
    assert got[1]


def test_settings_that_are_changed_in_place_count(server):
    def script(net):
        optimizer = make_optimizer(net, "Adam", lr=0.01)
        optimizer.param_groups[0]["betas"] = [0.9, 0.99]
        for x, y in batches("mlp", 3):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            optimizer.param_groups[0]["betas"][0] -= 0.2
        return []

    run_both(make_pair(server, "mlp"), script)
