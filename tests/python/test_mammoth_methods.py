"""Methods of the real Mammoth, a few steps each: local against remote, bit for bit.

They skip where `mammoth_checkout` finds no Mammoth, or its own requirements are not
installed.
"""

import importlib.util
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from backboned_mammoth.run import ON_ROLLBACK, REQUIRE_REMOTE, SERVER
from conftest import THREADS
from kept_server import KeptServer

pytest_plugins = ["mammoth_checkout"]

SCRIPT = Path(__file__).parent / "mammoth_methods.py"
BUFFER = "--buffer_size 50"
NEEDED = ("kornia", "pandas", "requests", "six", "timm", "torchvision", "yaml")
SMALL = "--dataset seq-cifar10 --backbone resnet18 --num_filters 4"

METHODS = {
    "er": f"--model er --dataset seq-mnist {BUFFER}",
    "er-ace": f"--model er-ace --dataset seq-mnist {BUFFER}",
    "lucir": f"--model lucir --dataset seq-mnist {BUFFER} --fitting_epochs 1",
    "derpp": f"--model derpp {SMALL} {BUFFER} --alpha 0.5 --beta 0.5",
}
HOSTED = {"er": "backboned.optim", "er-ace": "backboned_mammoth", "derpp": "backboned."}


@pytest.fixture(scope="module")
def mammoth(checkout):
    """A Mammoth that can run its methods."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"Mammoth needs {', '.join(missing)}")
    return checkout


def write_idx(path, array):
    """Write an array as MNIST's files are."""
    header = struct.pack(">HBB", 0, 8, array.ndim)
    path.write_bytes(header + struct.pack(f">{array.ndim}I", *array.shape))
    with open(path, "ab") as file:
        file.write(array.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few pictures of noise in the files of MNIST and CIFAR-10."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("MyMNIST", "MNIST"):
        raw = folder / "MNIST" / name / "raw"
        raw.mkdir(parents=True)
        for part, count in (("train", 300), ("t10k", 100)):
            images = random.integers(0, 256, (count, 28, 28))
            write_idx(raw / f"{part}-images-idx3-ubyte", images)
            write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    batches = folder / "CIFAR10" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        images = random.integers(0, 256, (60, 3072), dtype=np.uint8)
        batch = {"data": images, "labels": [i % 10 for i in range(60)]}
        (batches / name).write_bytes(pickle.dumps(batch))
    meta = {"label_names": [str(i) for i in range(10)]}
    (batches / "batches.meta").write_bytes(pickle.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def compute(mammoth, data, server, tmp_path_factory):
    """Runs methods, and gives what each computed."""

    def compute_on(side, methods):
        folder = tmp_path_factory.mktemp(side)
        begun = begin(mammoth, data, folder, side, methods, server.target)
        return results_of(begun, folder, methods)

    return compute_on


def begin(mammoth, data, folder, side, methods, target, **variables):
    """Begin a process that runs methods, and logs into the folder of the results."""
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(mammoth.parent)])
    with open(folder / "log", "w") as log:
        return subprocess.Popen(
            [sys.executable, SCRIPT, data, folder, side, *methods.values()],
            cwd=mammoth,
            env={
                **os.environ,
                "PYTHONPATH": path,
                SERVER: target,
                REQUIRE_REMOTE: "1",
                **variables,
            },
            stdout=log,
            stderr=log,
        )


def results_of(begun, folder, methods):
    """Wait for a process; give what each method computed."""
    try:
        assert begun.wait(timeout=600) == 0, (folder / "log").read_text()[-4000:]
    finally:
        begun.kill()
        begun.wait()
    return {
        name: json.loads((folder / f"{index}.json").read_text())
        for index, name in enumerate(methods)
    }


@pytest.fixture(scope="module")
def results(compute):
    """The results of each method, here and with the server."""
    return {side: compute(side, METHODS) for side in ("local", "remote")}


@pytest.mark.parametrize("method", METHODS)
def test_computes_what_a_local_run_does(results, method):
    local, remote = results["local"][method], results["remote"][method]
    assert remote["class"] == f"Remote{local['class']}"
    for what in ("losses", "accuracies", "state"):
        assert remote[what] == local[what], what
    assert len(local["losses"]) >= 30 and local["accuracies"]


@pytest.mark.parametrize("method", METHODS)
def test_steps_where_it_should(results, method):
    expected = HOSTED.get(method, "torch.optim")
    assert results["remote"][method]["optimizer"].startswith(expected)


def test_mammoth_as_a_library_computes_the_same(compute, results):
    found = compute("library", {"er": METHODS["er"]})["er"]
    assert found == results["remote"]["er"]


def test_goes_on_when_its_server_is_killed(mammoth, data, binary, results, tmp_path):
    folder, pauses, dice = tmp_path, (4, 9, 13, 18, 22, 26), random.Random(0)
    (folder / "server").mkdir()
    options = ("--save-interval=inf", "--save-versions=3")
    with KeptServer(binary, folder / "server", *options, threads=THREADS) as kept:
        methods = {"derpp": METHODS["derpp"]}
        variables = {
            ON_ROLLBACK: "replay",
            "MAMMOTH_PAUSES": " ".join(map(str, pauses)),
        }
        target = kept.start().target()
        begun = begin(mammoth, data, folder, "remote", methods, target, **variables)
        for number in pauses:
            while not (folder / f"at-{number}").exists():
                assert begun.poll() is None, (folder / "log").read_text()[-4000:]
                time.sleep(0.01)
            if number == pauses[0]:  # Until the server has it on its disk.
                (info,) = kept.connect().instances()
                assert info.name.startswith("mammoth-")
                while not kept.connect().instances()[0].saved:
                    time.sleep(0.05)
            (folder / f"go-{number}").touch()
            time.sleep(dice.uniform(0, 0.3))
            if number == pauses[2]:
                assert kept.end() == 0
            kept.restart()
        found = results_of(begun, folder, methods)["derpp"]
    assert found == results["remote"]["derpp"]
    assert "were made again" in (folder / "log").read_text()
