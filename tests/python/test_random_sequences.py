"""Whatever is done in whatever order: the numbers are those of a local module."""

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from backboned import CrossEntropy
from hosted_pairs import (
    SHAPES,
    assert_same,
    assert_same_grads,
    assert_same_networks,
    make_optimizer,
    make_pair,
)

STEPS = 30
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}


class Side:
    """One of the two networks, and what belongs to it."""

    def __init__(self, net, kind, hosted):
        self.net = net
        self.shape = SHAPES[kind]
        self.losses = []
        self.copies = []
        self.in_flight = hosted and hasattr(net, "instance")
        if hosted:
            self.optimizer = make_optimizer(net, "SGD", **SGD)
        else:
            self.optimizer = torch.optim.SGD(net.parameters(), **SGD)

    def _batch(self, seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(self.shape, generator=generator)
        return x, torch.randint(0, 10, (self.shape[0],), generator=generator)

    def forward(self, seed):
        x, y = self._batch(seed)
        out = self.net(x)
        self.losses.append(F.cross_entropy(out, y))
        return out.detach()

    def backward(self, seed):
        count = seed % 3 + 1
        losses, self.losses = self.losses[-count:], self.losses[:-count]
        if losses:
            sum(losses).backward()
        return None

    def _written(self):
        """Forget graphs over the old values: local PyTorch mixes them with the new."""
        self.losses.clear()

    def step(self, seed):
        self._written()
        self.optimizer.step()

    def whole_steps(self, seed):
        """Make whole training steps: in flight, where they can be."""
        self._written()
        if not all(p.requires_grad for p in self.net.parameters()):
            return
        for i in range(seed % 3 + 1):
            x, y = self._batch(seed + i)
            if self.in_flight:
                self.net.train_step_async(x, [CrossEntropy(y)], self.optimizer)
            else:
                self.optimizer.zero_grad()
                F.cross_entropy(self.net(x), y).backward()
                self.optimizer.step()
                self.optimizer.zero_grad()

    def zero(self, seed):
        self.optimizer.zero_grad(set_to_none=seed % 4 > 0)

    def evaluate(self, seed):
        status = self.net.training
        self.net.eval()
        with torch.no_grad():
            out = self.net(self._batch(seed)[0])
        self.net.train(status)
        return out

    def read(self, seed):
        parameters = list(self.net.parameters())
        return parameters[seed % len(parameters)].detach().clone()

    def read_grad(self, seed):
        parameters = list(self.net.parameters())
        grad = parameters[seed % len(parameters)].grad
        return None if grad is None else grad.clone()

    def write(self, seed):
        self._written()
        parameters = list(self.net.parameters())
        parameters[seed % len(parameters)].data.mul_(0.75)

    def write_grad(self, seed):
        parameters = list(self.net.parameters())
        grad = parameters[seed % len(parameters)].grad
        if grad is not None:
            grad.mul_(0.5)

    def clip(self, seed):
        return torch.nn.utils.clip_grad_norm_(self.net.parameters(), 0.5)

    def freeze_one(self, seed):
        parameters = list(self.net.parameters())
        parameter = parameters[seed % 2]
        parameter.requires_grad_(not parameter.requires_grad)

    def rate(self, seed):
        self.optimizer.param_groups[0]["lr"] = 0.01 * (seed % 5 + 1)

    def copy(self, seed):
        self.copies = [*self.copies[-1:], copy.deepcopy(self.net)]

    def forward_copy(self, seed):
        with torch.no_grad():
            return self.copies[-1](self._batch(seed)[0]) if self.copies else None

    def load_copy(self, seed):
        self._written()
        if self.copies:
            self.net.load_state_dict(self.copies[-1].state_dict())


ACTIONS = [name for name in vars(Side) if not name.startswith("_")]


@pytest.mark.parametrize("mode", ["mirrored", "hosted"])
@pytest.mark.parametrize("kind", ["mlp", "resnet"])
@pytest.mark.parametrize("seed", range(4))
def test_any_sequence(server, kind, mode, seed):
    generator = random.Random(seed)
    sides = [Side(net, kind, mode == "hosted") for net in make_pair(server, kind)]
    weights = [4 if name in ("forward", "backward", "step") else 1 for name in ACTIONS]
    for action in generator.choices(ACTIONS, weights, k=STEPS):
        argument = generator.randrange(1000)
        ours, theirs = (getattr(side, action)(argument) for side in sides)
        assert (ours is None) == (theirs is None), action
        if theirs is not None:
            assert_same(ours, theirs)
    assert_same_networks(sides[0].net, sides[1].net)
    assert_same_grads(sides[0].net, sides[1].net)
    for ours, theirs in zip(sides[0].copies, sides[1].copies):
        assert_same_networks(ours, theirs)
