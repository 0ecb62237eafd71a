"""The examples of client/python/examples print the same numbers remote and local."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from backboned.demo import mnist

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "client" / "python" / "examples"
REQUIREMENTS = ROOT / "requirements"


@pytest.fixture(scope="module", autouse=True)
def data():
    try:
        return mnist.load()
    except mnist.DataError as error:
        pytest.skip(f"no MNIST: {error}")


def output(name, *arguments, binary, python=sys.executable):
    done = subprocess.run(
        [python, EXAMPLES / name, *arguments],
        env=dict(os.environ, BACKBONED_BIN=str(binary)),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def epochs(lines):
    return [line for line in lines if line.startswith("epoch")]


def test_plain_pytorch_prints_the_same_in_each_mode(binary):
    local, mirrored, hosted = (
        output("plain_pytorch.py", f"--mode={mode}", binary=binary)
        for mode in ("local", "mirrored", "hosted")
    )
    assert len(epochs(local)) == 2
    assert epochs(mirrored) == epochs(hosted) == epochs(local)
    assert mirrored[-1].startswith("mirrored, ") and "sent" in mirrored[-1]
    assert hosted[-1].startswith("hosted, ")
    assert float(re.search(r", (\d+\.\d+) % right", local[-1])[1]) > 70


def run_or_skip(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    except subprocess.TimeoutExpired:
        pytest.skip(f"avalanche-lib: {command[0]} takes too long")
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-1:]
        pytest.skip(f"avalanche-lib cannot be installed: {''.join(words)}")


@pytest.fixture(scope="module")
def avalanche_python():
    """Give a Python that has Avalanche: this one, or one made under build/."""
    if importlib.util.find_spec("avalanche"):
        return sys.executable
    folder = ROOT / "build" / "avalanche"
    python = folder / "bin" / "python"
    stamp = folder / "installed.sha256"
    needs = REQUIREMENTS / "avalanche.txt"
    constraints = [REQUIREMENTS / "demo.txt", REQUIREMENTS / "dev.txt"]
    files = b"".join(file.read_bytes() for file in [needs, *constraints])
    wanted = hashlib.sha256(files).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    run_or_skip(sys.executable, "-m", "venv", "--without-pip", str(folder))
    site = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # It sees the packages of this environment, torch among them, and adds its own.
    # An editable package of this one is not seen there, hence the client's folder.
    seen = [sysconfig.get_path("purelib"), str(ROOT / "client" / "python" / "src")]
    Path(site, "base.pth").write_text("\n".join(seen) + "\n")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    pins = [word for file in constraints for word in ("-c", str(file))]
    run_or_skip(*pip, "install", "-q", "-r", str(needs), *pins)
    stamp.write_text(wanted)
    return str(python)


def test_avalanche_prints_the_same_accuracies(binary, avalanche_python):
    local, remote, hosted = (
        output(
            "avalanche_replay_ewc.py",
            "--images=1000",
            *options,
            binary=binary,
            python=avalanche_python,
        )
        for options in (["--local"], [], ["--hosted"])
    )
    assert remote == hosted == local
    assert [line.split(":")[0] for line in local] == ["Replay", "EWC"]
    for line in local:
        accuracies = [float(word) for word in line.split(": ")[1].split()]
        assert len(accuracies) == 5 and all(0.05 < a < 1 for a in accuracies)
    assert float(local[0].split()[-1]) > 0.3
