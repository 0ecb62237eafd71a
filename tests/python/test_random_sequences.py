"""Tests that the numbers are those of a local module, whatever is done, in any order.

A state machine of hypothesis trains a network in a server and its equal in this process
by the same actions, and compares what each action gives. Requests and answers are lost
in between, the network is away for a moment, and the server of a mirrored one is killed
and restarted. The machine shrinks what fails to the shortest sequence, and prints it.
Each network gets the same 6 of them in every run; `SEQUENCES` says how many others
(the nightly run takes 100).
"""

import copy
import functools
import os
import re

import backboned
import pytest
import torch
import torch.nn.functional as F
from backboned import CrossEntropy
from hosted_pairs import (
    SHAPES,
    assert_same,
    assert_same_grads,
    assert_same_networks,
    assert_same_optimizers,
    make_optimizer,
    make_pair,
)
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from relay import FlakyRelay
from test_faults import Phoenix

SEQUENCES = int(os.environ.get("SEQUENCES", "6"))
STEPS = 25
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}

OUTAGE_S = 0.05

SEEDS = st.integers(0, 50)
PICKS = st.integers(0, 60)
"""Which parameter, modulo how many there are."""


class Wrapper(torch.nn.Module):
    """A module of the user's around the network."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


class Side:
    """One of the two networks, and what belongs to it."""

    def __init__(self, net, kind, hosted):
        self.net = net
        self.model = Wrapper(net)
        self.shape = SHAPES[kind]
        self.losses = []
        self.copies = []
        self.kept = None
        self.hooks = {}
        self.remote = hasattr(net, "instance")
        if hosted:
            self.optimizer = make_optimizer(net, "SGD", **SGD)
        else:
            self.optimizer = torch.optim.SGD(net.parameters(), **SGD)
        self.in_flight = hosted and self.remote

    def parameters(self):
        return list(self.net.parameters())

    def parameter(self, pick):
        parameters = self.parameters()
        return parameters[pick % len(parameters)]

    def batch(self, seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(self.shape, generator=generator)
        return x, torch.randint(0, 10, (self.shape[0],), generator=generator)

    def written(self):
        """Forget graphs over the old values: local PyTorch mixes them with the new."""
        self.losses.clear()

    def forward(self, seed, wrapped):
        x, y = self.batch(seed)
        out = (self.model if wrapped else self.net)(x)
        self.losses.append(F.cross_entropy(out, y))
        return out.detach()

    def backward(self, count, retain):
        losses = self.losses[-count:]
        if not retain:
            del self.losses[-count:]
        sum(losses).backward(retain_graph=retain)

    def step(self):
        self.written()
        self.optimizer.step()

    def whole_steps(self, seed, count):
        """Make whole training steps: in flight, where they can be."""
        self.written()
        for i in range(count):
            x, y = self.batch(seed + i)
            if self.in_flight:
                self.net.train_step_async(x, [CrossEntropy(y)], self.optimizer)
            else:
                self.optimizer.zero_grad()
                F.cross_entropy(self.net(x), y).backward()
                self.optimizer.step()
                self.optimizer.zero_grad()

    def zero(self, by, set_to_none):
        {"optimizer": self.optimizer, "net": self.net, "wrapper": self.model}[
            by
        ].zero_grad(set_to_none=set_to_none)

    def evaluate(self, seed):
        status = self.net.training
        self.net.eval()
        with torch.no_grad():
            out = self.net(self.batch(seed)[0])
        self.net.train(status)
        return out

    def read(self, pick):
        return self.parameter(pick).detach().clone()

    def read_grad(self, pick):
        grad = self.parameter(pick).grad
        return None if grad is None else grad.clone()

    def read_state(self, pick):
        memory = self.optimizer.state[self.parameter(pick)].get("momentum_buffer")
        return None if memory is None else memory.clone()

    def clear_state(self):
        self.optimizer.state.clear()

    def forget_one(self, pick):
        self.optimizer.state[self.parameter(pick)] = {}

    def save_and_load_optimizer(self):
        saved = copy.deepcopy(self.optimizer.state_dict())
        self.optimizer.load_state_dict(saved)

    def write(self, pick):
        self.written()
        self.parameter(pick).data.mul_(0.75)

    def write_an_element(self, pick, at):
        self.written()
        flat = self.parameter(pick).data.view(-1)
        flat[at % len(flat)] = 0.125

    def keep_grad(self, pick):
        self.kept = self.parameter(pick).grad
        return None if self.kept is None else self.kept.clone()

    def read_kept_grad(self):
        return None if self.kept is None else self.kept.clone()

    def write_grad(self, pick):
        grad = self.parameter(pick).grad
        if grad is not None:
            grad.mul_(0.5)

    def mask_grad(self, pick, at):
        grad = self.parameter(pick).grad
        if grad is not None:
            flat = grad.data.view(-1)
            flat[at % len(flat)] = 0

    def clip(self):
        return torch.nn.utils.clip_grad_norm_(self.net.parameters(), 0.5)

    def freeze_one(self, pick):
        parameter = self.parameter(pick % 2)
        parameter.requires_grad_(not parameter.requires_grad)

    def hook_one(self, pick):
        """Put a hook on a parameter, or take it away."""
        pick %= len(self.parameters())
        if pick in self.hooks:
            self.hooks.pop(pick).remove()
        elif self.parameter(pick).requires_grad:
            self.hooks[pick] = self.parameter(pick).register_hook(lambda g: g * 0.5)

    def rate(self, choice):
        self.optimizer.param_groups[0]["lr"] = 0.01 * choice

    def decay(self, choice):
        self.optimizer.param_groups[0]["weight_decay"] = 0.001 * choice

    def copy(self):
        self.copies = [*self.copies[-1:], copy.deepcopy(self.net)]

    def forward_copy(self, seed):
        with torch.no_grad():
            return self.copies[-1](self.batch(seed)[0])

    def load_copy(self):
        self.written()
        self.net.load_state_dict(self.copies[-1].state_dict())

    def functional(self, seed):
        """Run with other parameters, and leave the network as it was."""
        self.written()
        halved = {n: p.detach() * 0.5 for n, p in self.net.named_parameters()}
        with torch.no_grad():
            return torch.func.functional_call(self.net, halved, (self.batch(seed)[0],))


class Sequences(RuleBasedStateMachine):
    """The actions, made on both networks; the rest is given.

    `faults` is the relay before the server, or a server that can be restarted.
    """

    def __init__(self, server, kind, hosted, faults):
        super().__init__()
        self.server, self.kind, self.hosted = server, kind, hosted
        self.faults = faults

    def both(self, action, *arguments):
        """Do the same to both, and compare what it gives."""
        ours, theirs = (getattr(side, action)(*arguments) for side in self.sides)
        assert (ours is None) == (theirs is None), action
        if theirs is not None:
            assert_same(ours, theirs)

    @property
    def local(self):
        return self.sides[1]

    @initialize(seed=SEEDS)
    def make(self, seed):
        pair = make_pair(self.server, self.kind, seed)
        self.sides = [Side(net, self.kind, self.hosted) for net in pair]

    @rule(seed=SEEDS, wrapped=st.booleans())
    def forward(self, seed, wrapped):
        self.both("forward", seed, wrapped)

    @precondition(lambda self: self.local.losses)
    @rule(count=st.integers(1, 3), retain=st.booleans())
    def backward(self, count, retain):
        self.both("backward", count, retain)

    @rule()
    def step(self):
        self.both("step")

    @precondition(
        lambda self: (
            all(p.requires_grad for p in self.local.parameters())
            and not self.local.hooks
        )
    )
    @rule(seed=SEEDS, count=st.integers(1, 3))
    def whole_steps(self, seed, count):
        self.both("whole_steps", seed, count)

    @rule(by=st.sampled_from(["optimizer", "net", "wrapper"]), none=st.booleans())
    def zero(self, by, none):
        self.both("zero", by, none)

    @rule(seed=SEEDS)
    def evaluate(self, seed):
        self.both("evaluate", seed)

    @rule(
        pick=PICKS,
        what=st.sampled_from(["read", "read_grad", "keep_grad", "read_state"]),
    )
    def read(self, pick, what):
        self.both(what, pick)

    @rule()
    def read_kept_grad(self):
        self.both("read_kept_grad")

    @rule()
    def clear_state(self):
        self.both("clear_state")

    @rule(pick=PICKS)
    def forget_one(self, pick):
        self.both("forget_one", pick)

    @rule()
    def save_and_load_optimizer(self):
        self.both("save_and_load_optimizer")

    @rule(pick=PICKS, what=st.sampled_from(["write", "write_grad"]))
    def write(self, pick, what):
        self.both(what, pick)

    @rule(
        pick=PICKS,
        at=st.integers(0, 10_000),
        what=st.sampled_from(["write_an_element", "mask_grad"]),
    )
    def write_an_element(self, pick, at, what):
        self.both(what, pick, at)

    @rule()
    def clip(self):
        self.both("clip")

    @rule(pick=PICKS)
    def freeze_one(self, pick):
        self.both("freeze_one", pick)

    @rule(pick=PICKS)
    def hook_one(self, pick):
        self.both("hook_one", pick)

    @rule(choice=st.integers(1, 5), what=st.sampled_from(["rate", "decay"]))
    def setting(self, choice, what):
        self.both(what, choice)

    @rule()
    def copy(self):
        self.both("copy")

    @precondition(lambda self: self.local.copies)
    @rule(seed=SEEDS)
    def forward_copy(self, seed):
        self.both("forward_copy", seed)

    @precondition(lambda self: self.local.copies)
    @rule()
    def load_copy(self):
        self.both("load_copy")

    @rule(seed=SEEDS)
    def functional(self, seed):
        self.both("functional", seed)

    @precondition(lambda self: isinstance(self.faults, FlakyRelay))
    @rule(what=st.sampled_from(["request", "answer", "connection"]))
    def lose(self, what):
        if what == "connection":
            self.faults.go_down()
        else:
            self.faults.lose("up" if what == "request" else "down")

    @precondition(lambda self: isinstance(self.faults, Phoenix))
    @rule()
    def restart_the_server(self):
        for side in self.sides:
            side.written()  # Tapes end with the server.
        self.faults.restart()

    def teardown(self):
        ours, theirs = self.__dict__.pop("sides", (None, None))
        if not ours:
            return
        assert_same_networks(ours.net, theirs.net)
        assert_same_grads(ours.net, theirs.net)
        assert_same_optimizers(ours.optimizer, theirs.optimizer)
        for one, other in zip(ours.copies, theirs.copies):
            assert_same_networks(one, other)


def run(machine):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize="SEQUENCES" not in os.environ,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )


@pytest.mark.parametrize("hosted", [False, True], ids=["mirrored", "hosted"])
@pytest.mark.parametrize("kind", ["mlp", "resnet"])
def test_any_sequence(binary, kind, hosted):
    options = ["--listen=127.0.0.1:0"]
    with backboned.local_server(binary=binary, threads=2, options=options) as far:
        host, port = re.search(r"(127\.0\.0\.1):(\d+)", far.process.banner).groups()
        relay = FlakyRelay((host, int(port)), OUTAGE_S)
        with backboned.connect(relay.target) as server:
            run(functools.partial(Sequences, server, kind, hosted, relay))
        relay.close()


def test_any_sequence_with_restarts(binary, tmp_path):
    phoenix = Phoenix(binary, tmp_path / "server.sock")
    with backboned.connect(phoenix.target) as server:
        run(functools.partial(Sequences, server, "mlp", False, phoenix))
    phoenix.kill()
