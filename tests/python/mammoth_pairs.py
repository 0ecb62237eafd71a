"""Pairs of equal networks, one of them in the server through the drop-in for Mammoth.

They are built by a package as Mammoth's `backbone` is one, in `fake_mammoth`. A pytest
plug-in, for its fixtures.
"""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from backboned_mammoth import disengage
from backboned_mammoth.registry import replace_factories
from backboned_mammoth.run import SERVER, Run
from torch import nn

disengage()  # Other tests import Mammoth's own backbones, and compare with them.

FAKE = Path(__file__).parent / "fake_mammoth"


@pytest.fixture
def backbone(monkeypatch):
    """The package `backbone`, freshly imported."""
    mine = [name for name in sys.modules if name.split(".")[0] == "backbone"]
    hidden = {name: sys.modules.pop(name) for name in mine}
    monkeypatch.syspath_prepend(str(FAKE))
    import backbone

    yield backbone
    for name in [n for n in sys.modules if n.split(".")[0] == "backbone"]:
        del sys.modules[name]
    sys.modules.update(hidden)


@pytest.fixture
def run(server, monkeypatch):
    monkeypatch.setenv(SERVER, server.target)
    run = Run()
    yield run
    run.close()


@pytest.fixture
def build(backbone, run):
    """Builds a pair of equal networks: remote and local."""
    local = {n: e["class"] for n, e in backbone.REGISTERED_BACKBONES.items()}
    replace_factories(backbone, run)

    def build_pair(name, **arguments):
        pair = []
        for make in (backbone.REGISTERED_BACKBONES[name]["class"], local[name]):
            torch.manual_seed(0)
            pair.append(make(**{"num_classes": 10, **arguments}))
        return pair

    return build_pair


@pytest.fixture
def mlps(build):
    return build("mnistmlp")


@pytest.fixture
def resnets(build):
    return build("resnet18", num_filters=4)


def digits(count=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 28, 28, generator=generator)


def photos(count=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 16, 16, generator=generator)


def flat(answer):
    """The tensors of whatever a forward gave, and its structure."""
    if isinstance(answer, torch.Tensor):
        return [answer]
    return [type(answer), *(part for item in answer for part in flat(item))]


def assert_same(ours, theirs):
    """Equal to the bit, and built alike."""
    ours, theirs = flat(ours), flat(theirs)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs):
        if isinstance(other, torch.Tensor):
            assert torch.equal(mine, other)
        else:
            assert mine is other


def assert_same_state(ours, theirs):
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    for name in other:
        assert torch.equal(mine[name], other[name]), name


def assert_same_grads(ours, theirs):
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        other = named[name].grad
        if other is None:
            assert parameter.grad is None, name
        else:
            assert torch.equal(parameter.grad, other), name


def train(net, x, seed=0):
    """One step of SGD."""
    labels = torch.randint(10, (len(x),), generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    optimizer.zero_grad()
    F.cross_entropy(net(x), labels).backward()
    optimizer.step()


class Cosine(nn.Module):
    """A head of another kind."""

    def __init__(self, features):
        super().__init__()
        weight = torch.randn(10, features, generator=torch.Generator().manual_seed(3))
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return F.linear(F.normalize(x), F.normalize(self.weight))
