"""A connection that is cut at random bytes, again and again, changes no training.

Each test trains twice, with cuts and without, and compares the bits. `CUTS_SEED` draws
where the connection is cut.
"""

import contextlib
import os
import re
import time

import backboned
import numpy as np
import pytest
import torch
from backboned import CrossEntropy, optim
from hosted_pairs import assert_same_networks
from relay import CuttingRelay
from torch.nn import functional as F

pytestmark = pytest.mark.transports

SEED = int(os.environ.get("CUTS_SEED", "0"))
OUTAGE_S = 0.02
WAYS = ["mirrored", "hosted", "train_step"]


@pytest.fixture
def far(start):
    """A server on TCP; neither side has threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield start(options=["--listen=127.0.0.1:0"])
    torch.set_num_threads(before)


def batches(steps):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(16, 4, 3, 8, 8, generator=generator)
    y = torch.randint(10, (16, 4), generator=generator)
    for step in range(steps):
        yield x[step % 16], y[step % 16]


def train(server, way, steps):
    """Train a small network with BatchNorm; give it, and the losses."""
    net = server.create(architecture="resnet18", num_classes=10, num_filters=1, seed=0)
    where = torch.optim if way == "mirrored" else optim
    optimizer = where.SGD(net.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for x, y in batches(steps):
        if way == "train_step":
            losses.append(net.train_step(x, [CrossEntropy(y)], optimizer).loss)
            continue
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        net.eval()(x)  # A mirror shows its last step to the server.
    return net, losses


def train_with_cuts(far, way, steps, steps_between):
    host, port = re.search(r"(127\.0\.0\.1):(\d+)", far.process.banner).groups()
    relay = CuttingRelay((host, int(port)), OUTAGE_S, SEED)
    with contextlib.closing(relay):
        with backboned.connect(relay.target, reconnect_timeout=60) as reached:
            expected, expected_losses = train(reached, way, steps)
            of_steps = steps_between / steps
            relay.begin_cuts({at: n * of_steps for at, n in relay.passed.items()})
            begin = time.monotonic()
            net, losses = train(reached, way, steps)
            seconds = time.monotonic() - begin
            relay.end_cuts()
            told = f"{way}, seed {SEED}: {steps} steps, {relay.outages} cuts"
            print(f"{told}, {seconds:.0f} s")
            assert relay.outages >= steps / steps_between / 2, told
            assert losses == expected_losses, told
            assert_same_networks(net, expected)
            there = net.instance.get_params()
            assert np.array_equal(there, expected.instance.get_params()), told
            # Each step is made once. A mirror's forward whose answer is lost begins
            # again with the buffers before it.
            version = net.instance.info().version
            assert version.params == steps + 1, told
            assert version.buffers == steps + 1 or way == "mirrored", told


@pytest.mark.parametrize("way", WAYS)
def test_hundred_steps_through_cuts(far, way):
    train_with_cuts(far, way, 100, steps_between=10)


@pytest.mark.nightly
@pytest.mark.parametrize("way", WAYS)
def test_ten_thousand_steps_in_all_through_cuts(far, way):
    train_with_cuts(far, way, 10_000 // 3 + 1, steps_between=20)
