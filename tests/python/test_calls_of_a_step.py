"""Tests what a forward and a training step cost in Python: the functions they call.

Time would depend on the machine. The calls of the transport are not counted.
"""

import os
import sys

import backboned
import pytest
import torch
from backboned import transport
from backboned.nn import watch
from torch.nn import functional as F

TRANSPORT = os.path.dirname(transport.__file__) + os.sep
WARM = 3
COUNTED = 5


class Counter:
    """A profile function that counts calls outside of the transport."""

    def __init__(self):
        self.calls = 0
        self.transports = 0

    def __call__(self, frame, event, _argument):
        if event not in ("call", "return"):
            return
        if frame.f_code.co_filename.startswith(TRANSPORT):
            self.transports += 1 if event == "call" else -1
        elif event == "call" and not self.transports:
            self.calls += 1


def calls_of(function):
    """Count the calls of a function, once what it keeps has been made.

    The fewest of some counts: a collector may run in between.
    """
    for _ in range(WARM):
        function()
    counts = []
    for _ in range(COUNTED):
        counter = Counter()
        sys.setprofile(counter)
        try:
            function()
        finally:
            sys.setprofile(None)
        counts.append(counter.calls)
    return min(counts)


def network(server, mode, name="seq-mnist"):
    net = server.create(name, seed=0)
    if mode == "hosted":
        return net, backboned.optim.SGD(net, lr=0.1, momentum=0.9)
    if mode == "frozen":
        return net.requires_grad_(False), None
    return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def batch(size):
    torch.manual_seed(0)
    return torch.rand(size, 1, 28, 28), torch.randint(10, (size,))


def test_counts_what_is_called_outside_of_the_transport(server):
    def calls_two():
        str(Named())
        str(Named())

    class Named:
        def __str__(self):
            return "x"

    assert calls_of(calls_two) == 3
    assert calls_of(lambda: server.create) == 1
    assert calls_of(server.info) > 1


@pytest.mark.parametrize("mode", ["mirrored", "hosted", "frozen"])
def test_forward(server, mode):
    net, _optimizer = network(server, mode)
    net.eval()
    x, _ = batch(1)
    assert net.mode == mode
    assert calls_of(lambda: net(x)) <= 100


@pytest.mark.parametrize("mode", ["mirrored", "hosted", "frozen"])
def test_forward_of_many_layers(server, mode):
    """A forward in evaluation makes no call for each of 62 parameters.

    With a graph PyTorch itself makes one.
    """
    net, _optimizer = network(server, mode, "seq-cifar10")
    net.eval()
    x = torch.rand(1, 3, 32, 32)

    def forward():
        with torch.no_grad():
            net(x)

    assert calls_of(forward) <= 100


def test_a_forward_compares_parameters_in_views_that_are_kept(server, monkeypatch):
    net, _optimizer = network(server, "mirrored")
    x, _ = batch(1)
    true, viewed = watch.as_array, []

    def as_array(tensor):
        viewed.append(tensor.shape)
        return true(tensor)

    monkeypatch.setattr(watch, "as_array", as_array)
    net(x)
    assert viewed == []
    net.classifier.bias.data[3] += 1
    net(x)
    assert set(viewed) == {(10,)}


@pytest.mark.parametrize("mode", ["mirrored", "hosted"])
def test_step(server, mode):
    net, optimizer = network(server, mode)
    x, y = batch(64)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    assert calls_of(step) <= 300


def test_whole_step(server):
    net, optimizer = network(server, "hosted")
    x, y = batch(64)
    terms = backboned.CrossEntropy(y)
    assert calls_of(lambda: net.train_step(x, terms, optimizer)) <= 150
