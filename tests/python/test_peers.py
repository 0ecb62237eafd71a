"""The comparison of ways to share a device runs, and all of them train alike."""

import json
import math
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PROGRAM = BENCHMARKS / "peers" / "run.py"
PEERS = ("plain", "train_step")


@pytest.fixture(scope="module")
def run(binary, tmp_path_factory):
    """The results of a short run with two peers."""
    out = tmp_path_factory.mktemp("peers") / "run.json"
    subprocess.run(
        [sys.executable, PROGRAM, "--quick", "--only", ",".join(PEERS), "--out", out],
        check=True,
        env={**os.environ, "BACKBONED_BIN": str(binary)},
        timeout=120,
    )
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def found(run):
    return {peer: rounds[0] for peer, rounds in run["results"]["mlp"].items()}


def test_figures_are_there(run, found):
    assert {"date", "commit", "versions", "measured on"} <= run["about"].keys()
    for peer in PEERS:
        for count, window in found[peer]["windows"].items():
            assert window["rate"] > 0
            assert 1 / int(count) <= window["jain"] <= 1 + 1e-9
            assert 0 < window["p50_s"] <= window["p99_s"] <= max(window["longest_s"])
            assert window["bytes"] > 10e6
            assert window["cores"] > 0
        assert min(found[peer]["start_s"]) > 0


def test_others_go_on_when_one_is_killed(found):
    for peer in PEERS:
        kill = found[peer]["kill"]
        assert "error" not in kill
        assert kill["longest_s"] > 0
        assert kill["held"] == 2


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def losses_here(work, seed):
    """Train in this process as the experiment of this seed does."""
    from experiment import endless_batches
    from model import Training

    training = Training({**work, "seed": seed})
    batches = islice(endless_batches(seed, work["shape"]), 10)
    return [training.step(x, y) for x, y in batches]


def test_all_train_alike(run, found, one_thread, monkeypatch):
    for folder in (BENCHMARKS, BENCHMARKS / "peers"):
        monkeypatch.syspath_prepend(folder)
    own = [losses_here(run["works"]["mlp"], seed) for seed in (0, 1)]
    assert own[0] != own[1]
    assert found["train_step"]["losses"] == own
    for ours, theirs in zip(found["plain"]["losses"], own):
        assert all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(ours, theirs))
