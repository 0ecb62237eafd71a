"""`opt.state` of optimizers in the server means what it means in torch."""

import copy
import gc
import pickle
import weakref
from collections import defaultdict

import backboned
import pytest
import torch
import torch.nn.functional as F
from backboned import optim
from backboned.types import ParameterGroup
from hosted_pairs import (
    assert_same,
    assert_same_networks,
    assert_same_optimizers,
    batches,
    make_optimizer,
    make_pair,
)

KINDS = {
    "sgd": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "plain": ("SGD", {"lr": 0.1}),
    "adam": ("Adam", {"lr": 0.01}),
    "amsgrad": ("AdamW", {"lr": 0.01, "amsgrad": True}),
}


@pytest.fixture(params=["sgd", "adam"])
def optimizer_kind(request):
    return request.param


def train(net, optimizer, between, steps=5, at=3):
    """Take steps, and do something before one of them."""
    for step, (x, y) in enumerate(batches("mlp", steps)):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        if step == at:
            between(optimizer, net)
        optimizer.step()


def assert_same_training(server, kind, between, **options):
    """Train both; compare networks and optimizers."""
    pair = make_pair(server, "mlp")
    name, settings = KINDS[kind]
    made = [make_optimizer(net, name, **settings) for net in pair]
    for net, optimizer in zip(pair, made):
        train(net, optimizer, between, **options)
    assert_same_networks(*pair)
    assert_same_optimizers(*made)


def _one(net):
    return [*net.parameters()][4]


def _buffer(state):
    return state["momentum_buffer" if "momentum_buffer" in state else "exp_avg"]


def _scale(optimizer, net):
    for state in optimizer.state.values():
        _buffer(state).mul_(0.5)


def _edit_behind_torchs_back(optimizer, net):
    _buffer(optimizer.state[_one(net)]).data.view(-1)[-1] = 3


def _replace_buffers(optimizer, net):
    state = optimizer.state[_one(net)]
    for what in state:
        state[what] = torch.ones_like(state[what])


def _drop_one(optimizer, net):
    optimizer.state.pop(_one(net))
    del optimizer.state[next(net.parameters())]


def _empty_one(optimizer, net):
    optimizer.state[_one(net)].clear()


def _avalanche_reset(optimizer, net):
    """avalanche.models.dynamic_optimizers.reset_optimizer."""
    optimizer.state = defaultdict(dict)
    optimizer.param_groups[0]["params"] = [p for _, p in net.named_parameters()]


def _avalanche_update(optimizer, net):
    """avalanche.models.dynamic_optimizers.update_optimizer, of a parameter."""
    for group in optimizer.param_groups:
        for i, parameter in enumerate(group["params"]):
            if parameter is _one(net):
                group["params"][i] = parameter
                optimizer.state[parameter] = {}


def _save_and_restore(optimizer, net):
    kept = optimizer.state
    optimizer.state = defaultdict(dict)
    assert len(optimizer.state) == 0
    optimizer.state = kept


def _assign_copies(optimizer, net):
    optimizer.state = defaultdict(
        dict, {p: copy.deepcopy(state) for p, state in optimizer.state.items()}
    )


def _load(optimizer, net):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def _load_nothing(optimizer, net):
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {}})


EDITS = {
    "nothing": lambda optimizer, net: None,
    "look_at_each": lambda o, net: [len(o.state[p]) for p in net.parameters()],
    "look_at_all": lambda o, net: [*o.state.items(), len(o.state), repr(o.state)],
    "get": lambda o, net: o.state.get(_one(net)),
    "contains": lambda o, net: _one(net) in o.state,
    "clear": lambda o, net: o.state.clear(),
    "assign": lambda o, net: setattr(o, "state", defaultdict(dict)),
    "one": lambda o, net: o.state.update({_one(net): {}}),
    "scale": _scale,
    "data": _edit_behind_torchs_back,
    "replace": _replace_buffers,
    "drop": _drop_one,
    "empty": _empty_one,
    "avalanche_reset": _avalanche_reset,
    "avalanche_update": _avalanche_update,
    "restore": _save_and_restore,
    "copies": _assign_copies,
    "load": _load,
    "load_nothing": _load_nothing,
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_what_is_done_to_the_state_is_what_torch_makes_of_it(
    server, optimizer_kind, edit
):
    assert_same_training(server, optimizer_kind, edit)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_before_the_first_step_and_after_it(server, kind):
    looks = {}

    def look(optimizer, net):
        looks.setdefault(type(optimizer), []).append(len(optimizer.state))
        assert next(net.parameters()) not in optimizer.state
        assert optimizer.state.get(_one(net)) is None

    assert_same_training(server, kind, look, at=0)
    assert [*looks.values()] == [[0], [0]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_has_torchs_values(server, kind):
    pair = make_pair(server, "mlp")
    name, settings = KINDS[kind]
    made = [make_optimizer(net, name, **settings) for net in pair]
    for net, optimizer in zip(pair, made):
        train(net, optimizer, lambda optimizer, net: None)
    ours, theirs = (
        [optimizer.state[p] for p in net.parameters()]
        for net, optimizer in zip(pair, made)
    )
    assert [s.keys() for s in ours] == [s.keys() for s in theirs]
    for mine, other in zip(ours, theirs):
        for what, value in other.items():
            assert_same(mine[what], value)
    assert made[0].state.keys() == set(pair[0].parameters())


def test_a_look_does_not_empty_the_state_dict(server):
    def look(optimizer, net):
        before = optimizer.state_dict()
        assert optimizer.state[_one(net)]
        after = optimizer.state_dict()
        assert before["state"].keys() == after["state"].keys()
        for index, state in before["state"].items():
            assert_same(_buffer(state), _buffer(after["state"][index]))

    assert_same_training(server, "sgd", look)


def test_each_step_of_many_may_be_looked_at_and_changed(server, optimizer_kind):
    pair = make_pair(server, "mlp")
    name, settings = KINDS[optimizer_kind]
    kept = []
    for net in pair:
        optimizer = make_optimizer(net, name, **settings)
        for step, (x, y) in enumerate(batches("mlp", 6)):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            if step % 2:
                _scale(optimizer, net)
                kept.append(_buffer(optimizer.state[_one(net)]))
            optimizer.step()
        optimizer.state[_one(net)]
    for ours, theirs in zip(kept[:3], kept[3:]):
        assert_same(ours, theirs)


def test_what_an_outer_optimizer_keeps_in_the_state_stays(server):
    """As Lookahead does: entries of its own beside the optimizer's."""
    pair = make_pair(server, "mlp")
    for net in pair:
        optimizer = make_optimizer(net, "SGD", lr=0.1, momentum=0.9)
        shared = optimizer.state
        for step, (x, y) in enumerate(batches("mlp", 6)):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            for p in net.parameters():
                slow = shared[p].setdefault("slow", p.detach().clone())
                if step % 3 == 2:
                    slow.lerp_(p.detach(), 0.5)
                    with torch.no_grad():
                        p.copy_(slow)
        state = optimizer.state_dict()["state"][0]
        assert {*state} == {"momentum_buffer", "slow"}
    assert_same_networks(*pair)


def test_a_clear_sends_nothing_and_a_look_fetches_once(net):
    optimizer = optim.SGD(net, lr=0.1, momentum=0.9)
    train(net, optimizer, lambda optimizer, net: None)
    before = net.traffic
    for p in net.parameters():
        assert optimizer.state[p]["momentum_buffer"].shape == p.shape
    looked = net.traffic - before
    assert looked.round_trips == 1 and looked.received_bytes > 358_000
    train(net, optimizer, lambda optimizer, net: None, steps=1)
    before = net.traffic
    optimizer.state.clear()
    optimizer.state = defaultdict(dict)
    assert (net.traffic - before).round_trips == 0
    train(net, optimizer, lambda optimizer, net: None, steps=1)
    assert (net.traffic - before).sent_bytes < 30_000


def test_what_was_taken_before_a_step_is_not_written_by_mistake(net):
    optimizer = optim.SGD(net, lr=0.1, momentum=0.9)
    train(net, optimizer, lambda optimizer, net: None)
    state = optimizer.state[_one(net)]
    train(net, optimizer, lambda optimizer, net: None, steps=1)
    state["momentum_buffer"].zero_()
    ((x, y),) = batches("mlp", 1)
    with pytest.raises(RuntimeError, match=r"the write is lost; take opt\.state\[p\]"):
        optimizer.step()
    state["momentum_buffer"] = torch.zeros(10, 100)
    with pytest.raises(RuntimeError, match=r"the write is lost; take opt\.state\[p\]"):
        optimizer.state[_one(net)]
    assert optimizer.state[_one(net)]["momentum_buffer"].any()
    optimizer.step()


def _flatten(state):
    state["exp_avg"] = state["exp_avg"].reshape(-1)


def _remove(state):
    del state["exp_avg"]


@pytest.mark.parametrize(
    ("edit", "message"), [(_flatten, r"expected float32 \[10, 100\]"), (_remove, "no")]
)
def test_a_state_that_is_none_of_the_optimizer_is_refused(net, edit, message):
    optimizer = optim.Adam(net, lr=0.01)
    train(net, optimizer, lambda optimizer, net: None)
    edit(optimizer.state[_one(net)])
    with pytest.raises(backboned.errors.InvalidArgument, match=message):
        optimizer.step()


def test_a_removal_after_a_step_is_a_lost_write_too(net):
    optimizer = optim.SGD(net, lr=0.1, momentum=0.9)
    train(net, optimizer, lambda optimizer, net: None)
    state = optimizer.state[_one(net)]
    train(net, optimizer, lambda optimizer, net: None, steps=1)
    del state["momentum_buffer"]
    with pytest.raises(RuntimeError, match="the write is lost"):
        optimizer.step()


def test_a_state_dict_keeps_its_values(net):
    optimizer = optim.SGD(net, lr=0.1, momentum=0.9)
    train(net, optimizer, lambda optimizer, net: None)
    saved = _buffer(optimizer.state_dict()["state"][4])
    before = saved.clone()
    train(net, optimizer, lambda optimizer, net: None, steps=1)
    assert not torch.equal(_buffer(optimizer.state[_one(net)]), before)
    assert_same(saved, before)


def test_a_state_that_nobody_has_is_not_fetched_when_another_is_assigned(net):
    optimizer = optim.SGD(net, lr=0.1, momentum=0.9)
    train(net, optimizer, lambda optimizer, net: None)
    before = net.traffic
    optimizer.state = defaultdict(dict)
    assert (net.traffic - before).round_trips == 0


def test_a_state_is_assigned_to_its_own_optimizer(net):
    optimizer = optim.SGD(net, lr=0.1, momentum=0.9)
    train(net, optimizer, lambda optimizer, net: None)
    before, state = net.traffic, optimizer.state
    optimizer.state = state
    assert optimizer.state is state
    assert (net.traffic - before).round_trips == 0


def test_a_state_that_is_gone_cannot_be_assigned(net):
    first = optim.SGD(net, lr=0.1, momentum=0.9)
    train(net, first, lambda optimizer, net: None)
    second = optim.SGD(net, lr=0.1, momentum=0.9)
    with pytest.raises(RuntimeError, match="another optimizer"):
        second.state = first.state


def test_what_the_server_forgot_is_not_in_the_state(net):
    optimizer = optim.SGD(net, lr=0.1, momentum=0.9)
    train(net, optimizer, lambda optimizer, net: None)
    assert optimizer.state[_one(net)]
    train(net, optimizer, lambda optimizer, net: None, steps=1)
    net.instance.configure_optimizer("sgd", [ParameterGroup(momentum=0.9)])
    net.pull()
    assert "momentum_buffer" not in optimizer.state[_one(net)]


def test_a_checkpoint_that_others_go_on_to_write_is_theirs(server):
    net, local = make_pair(server, "mlp")
    theirs = make_optimizer(local, "SGD", lr=0.1, momentum=0.9)
    train(local, theirs, lambda optimizer, net: None)
    ours = optim.SGD(net, lr=0.1, momentum=0.9)
    ours.load_state_dict(theirs.state_dict())
    train(net, ours, lambda optimizer, net: None, steps=1)
    train(local, theirs, lambda optimizer, net: None, steps=1)
    train(net, ours, lambda optimizer, net: None, steps=1)
    before = _buffer(theirs.state[_one(local)]).clone()
    assert not torch.equal(_buffer(ours.state[_one(net)]), before)
    assert_same(_buffer(theirs.state[_one(local)]), before)


def test_a_copied_or_pickled_optimizer_has_the_state(net):
    optimizer = optim.Adam(net, lr=0.01)
    train(net, optimizer, lambda optimizer, net: None)
    _, copied = copy.deepcopy((net, optimizer))
    loaded = pickle.loads(pickle.dumps(optimizer))
    shallow = copy.copy(optimizer.state)
    assert type(shallow) is defaultdict
    for other in (copied, loaded):
        assert_same_optimizers(other, optimizer)
        with pytest.raises(RuntimeError, match="a copy of an optimizer"):
            other.step()


def test_a_copy_of_a_copy_has_the_state(net):
    optimizer = optim.Adam(net, lr=0.01)
    train(net, optimizer, lambda optimizer, net: None)
    loaded = pickle.loads(pickle.dumps(optimizer))
    assert_same_optimizers(pickle.loads(pickle.dumps(loaded)), optimizer)


def test_an_optimizer_whose_network_is_mirrored_again_is_pickled_without_state(net):
    optimizer = optim.SGD(net, lr=0.1, momentum=0.9)
    train(net, optimizer, lambda optimizer, net: None)
    net.mirror()
    loaded = pickle.loads(pickle.dumps(optimizer))
    assert len(loaded.state) == 0
    assert loaded.param_groups[0]["momentum"] == 0.9


def test_the_state_under_inference_mode_is_as_any(server):
    def look(optimizer, net):
        with torch.inference_mode():
            saved = optimizer.state_dict()
            assert not _buffer(saved["state"][0]).is_inference()
            _buffer(optimizer.state[_one(net)])
        _scale(optimizer, net)

    assert_same_training(server, "sgd", look)


def test_the_state_keeps_no_optimizer_alive(net):
    optimizer = optim.SGD(net, lr=0.1, momentum=0.9)
    train(net, optimizer, lambda optimizer, net: None)
    state, died = optimizer.state, weakref.ref(optimizer)
    optim.SGD(net)
    del optimizer
    gc.collect()
    assert died() is None
    with pytest.raises(RuntimeError, match="optimizer that had this state is gone"):
        len(state)


def test_a_moved_list_of_parameters_keeps_the_state(server):
    def split(optimizer, net):
        (group,) = optimizer.param_groups
        moved = group["params"].pop()
        optimizer.add_param_group({"params": [moved], "lr": 0.05})

    for kind in ("sgd", "amsgrad"):
        assert_same_training(server, kind, split)


def test_a_parameter_may_leave_the_groups_for_a_while(server):
    pair = make_pair(server, "mlp")
    for net in pair:
        optimizer = make_optimizer(net, "Adam", lr=0.01)
        (group,) = optimizer.param_groups
        train(net, optimizer, lambda optimizer, net: None)
        moved = group["params"].pop()
        train(net, optimizer, lambda optimizer, net: None, steps=2)
        group["params"].append(moved)
        train(net, optimizer, lambda optimizer, net: None, steps=2)
    assert_same_networks(*pair)


def test_amsgrad_may_end_and_begin_again(server):
    pair = make_pair(server, "mlp")
    made = []
    for net in pair:
        optimizer = make_optimizer(net, "AdamW", lr=0.01, amsgrad=True)
        for amsgrad in (True, False, True):
            optimizer.param_groups[0]["amsgrad"] = amsgrad
            train(net, optimizer, lambda optimizer, net: None, steps=2)
        made.append(optimizer)
    assert_same_networks(*pair)
    assert_same_optimizers(*made)
