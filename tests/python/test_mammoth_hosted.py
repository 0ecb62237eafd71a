"""Methods of Mammoth that only step: the drop-in has the server make their steps."""

import copy
import types

import pytest
import torch
import torch.nn.functional as F
from backboned.errors import InvalidArgument
from backboned.optim import HostedOptimizer
from backboned_mammoth.routing import route_optimizers
from backboned_mammoth.run import MODE, ON_ROLLBACK
from mammoth_pairs import Cosine, assert_same, assert_same_state, digits, photos

pytest_plugins = ["mammoth_pairs"]

KINDS = {
    "sgd": lambda params: torch.optim.SGD(params, 0.1, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda params: torch.optim.SGD(params, 0.1, 0.9, nesterov=True),
    "adam": lambda params: torch.optim.Adam(params, 1e-3),
    "adamw": lambda params: torch.optim.AdamW(params, 1e-3),
}


@pytest.fixture
def method():
    """Makes something like a method of Mammoth's, which steps a network."""

    def make(net, name="er", kind="sgd"):
        class ContinualModel:
            NAME = name

            def __init__(self):
                self.net = net
                self.opt = self.get_optimizer()

            def get_optimizer(self, params=None):
                return KINDS[kind](params or list(self.net.parameters()))

            def observe(self, x, seed=0):
                generator = torch.Generator().manual_seed(seed)
                labels = torch.randint(10, (len(x),), generator=generator)
                self.opt.zero_grad()
                loss = F.cross_entropy(self.net(x), labels)
                loss += self.net(x.flip(-1)).pow(2).mean()
                loss.backward()
                self.opt.step()

        route_optimizers(types.SimpleNamespace(ContinualModel=ContinualModel))
        return ContinualModel()

    return make


def observe(methods, x, steps=3):
    for seed in range(steps):
        for one in methods:
            one.observe(x, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_in_the_server_to_the_bits_of_torch(method, resnets, run, kind):
    methods = [method(net, kind=kind) for net in resnets]
    observe(methods, photos())
    assert isinstance(methods[0].opt, HostedOptimizer)
    assert isinstance(methods[0].opt, type(methods[1].opt))
    for net in resnets:
        net.eval()
    assert_same(resnets[0](photos(seed=5)), resnets[1](photos(seed=5)))
    assert_same_state(*resnets)
    assert ", hosted: " in run.summary()


def test_parameters_do_not_travel(method, mlps, run):
    one = method(mlps[0])
    observe([one], digits(2))
    meter = run.server.channel.meter
    before = meter.read()
    observe([one], digits(2), steps=2)
    moved = meter.read() - before
    assert moved.sent_bytes + moved.received_bytes < 4 * 89610
    assert moved.round_trips == 6  # Two forwards, and a backward with the step.


def test_head_that_is_here_is_stepped_here(method, resnets):
    for net in resnets:
        net.classifier = Cosine(32)
    methods = [method(net) for net in resnets]
    observe(methods, photos())
    ours, theirs = (one.opt.state_dict() for one in methods)
    assert ours["param_groups"] == theirs["param_groups"]
    assert list(ours["state"]) == list(theirs["state"])
    for index, state in theirs["state"].items():
        assert torch.equal(
            ours["state"][index]["momentum_buffer"], state["momentum_buffer"]
        )
    for one in methods:
        one.opt.load_state_dict(one.opt.state_dict())
    observe(methods, photos())
    assert_same_state(*resnets)


def test_learning_rates_may_change(method, mlps):
    methods = [method(net) for net in mlps]
    for one in methods:
        one.observe(digits())
        one.opt.param_groups[0]["lr"] *= 0.1
        one.observe(digits(), seed=1)
    assert_same_state(*mlps)


def test_optimizer_may_be_made_anew(method, resnets):
    methods = [method(net) for net in resnets]
    for one in methods:
        one.observe(photos())
        one.opt.zero_grad(set_to_none=True)
        one.opt = one.get_optimizer()
        one.observe(photos(), seed=1)
    assert_same_state(*resnets)


def test_copies_checkpoints_and_devices(method, resnets):
    methods = [method(net) for net in resnets]
    copies = []
    for one in methods:
        one.observe(photos())
        one.net.to("cpu")
        copies.append(copy.deepcopy(one.net))
        saved = copy.deepcopy(one.net.state_dict())
        one.observe(photos(), seed=1)
        one.net.load_state_dict(saved)
        one.observe(photos(), seed=2)
    assert_same_state(*copies)
    assert_same_state(*resnets)
    assert_same(copies[0](photos()), copies[1](photos()))


def test_comes_home_at_the_end(method, mlps, run, capsys):
    methods = [method(net) for net in mlps]
    observe(methods, digits())
    run.report()
    run.close()
    assert_same_state(*mlps)
    assert capsys.readouterr().err.startswith("backboned: 6 forwards in unix:")


@pytest.mark.parametrize(
    ("mode", "name", "hosted"),
    [
        ("auto", "er", True),
        ("auto", "agem", False),
        ("", "er-ace", True),
        ("mirrored", "er", False),
        ("hosted", "agem", True),
    ],
)
def test_who_is_hosted(method, mlps, monkeypatch, mode, name, hosted):
    monkeypatch.setenv(MODE, mode)
    assert isinstance(method(mlps[0], name).opt, HostedOptimizer) is hosted


def test_unknown_mode(method, mlps, monkeypatch):
    monkeypatch.setenv(MODE, "lazy")
    with pytest.raises(InvalidArgument, match="MODE is 'lazy'; it is one of mirrored"):
        method(mlps[0])


def test_what_the_server_does_not_step_stays(method, mlps, monkeypatch):
    one = method(mlps[0])
    chosen = list(mlps[0].parameters())[:2]
    assert type(one.get_optimizer(chosen)) is torch.optim.SGD
    monkeypatch.setitem(
        KINDS, "many at a time", lambda p: torch.optim.SGD(p, 0.1, foreach=True)
    )
    other = method(mlps[0], kind="many at a time")
    assert type(other.opt) is torch.optim.SGD
    monkeypatch.setitem(KINDS, "other", lambda p: torch.optim.Adagrad(p))
    assert type(method(mlps[0], kind="other").opt) is torch.optim.Adagrad


def test_a_network_that_replays_has_a_name_until_the_end(
    method, resnets, run, monkeypatch
):
    monkeypatch.setenv(ON_ROLLBACK, "replay")
    methods = [method(net) for net in resnets]
    observe(methods, photos())
    (info,) = [i for i in run.server.instances() if i.name.startswith("mammoth-")]
    assert not info.ephemeral
    assert resnets[0]._counterpart.hosted.replay_bytes == 1 << 30
    run.report()
    assert info.name not in [i.name for i in run.server.instances()]
    assert_same_state(*resnets)


def test_unknown_rollback(method, mlps, monkeypatch):
    monkeypatch.setenv(ON_ROLLBACK, "redo")
    with pytest.raises(InvalidArgument, match="ROLLBACK is 'redo'; it is one of raise"):
        method(mlps[0])
