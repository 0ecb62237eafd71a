"""Trainings of every kind for minutes: no memory and nothing in a table stays behind.

`SOAK_SECONDS` says how long (default 300). The nightly run has it.
"""

import copy
import gc
import os
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from backboned import CrossEntropy, optim
from hosted_pairs import batches, make_pair_in_mode
from test_lifecycle import wait_until

SECONDS = float(os.environ.get("SOAK_SECONDS", "300"))
GROWTH_BYTES = 64 << 20


def resident_bytes(pid):
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def one_round(server, mode, seed):
    """Train a fresh network and a copy; leave tapes and gradients behind."""
    net, _ = make_pair_in_mode(server, "resnet", mode)
    if mode == "frozen":
        return [net(x).sum().item() for x, _ in batches("resnet", 3, seed)]
    where = optim if mode == "hosted" else torch.optim
    optimizer = where.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for x, y in batches("resnet", 4, seed):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        if mode == "hosted":
            net.train_step_async(x, [CrossEntropy(y)], optimizer)
    teacher = copy.deepcopy(net)
    return [teacher(x).sum() for x, _ in batches("resnet", 2, seed)]


@pytest.mark.nightly
def test_minutes_of_training_leave_nothing(start):
    server = start()
    began = time.monotonic()
    settled = {}
    rounds = 0
    while time.monotonic() - began < SECONDS:
        for mode in ("mirrored", "hosted", "frozen"):
            one_round(server, mode, rounds)
        rounds += 1
        if not settled and time.monotonic() - began > SECONDS / 5:
            gc.collect()
            settled = {
                pid: resident_bytes(pid) for pid in (server.process.pid, os.getpid())
            }
    gc.collect()
    server.create("seq-mnist", name="last")  # Takes along what was given up.
    wait_until(lambda: [i.name for i in server.instances()] == ["last"])
    usage = server.info().session_usage
    assert usage.tapes == 0 and usage.in_flight_bytes == 0
    for pid, before in settled.items():
        assert resident_bytes(pid) - before < GROWTH_BYTES
    assert rounds > 3
