"""scripts/install: what it refuses, each in one sentence that says what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = (
    "scripts/install",
    "scripts/common.sh",
    "server/wheel/pyproject.toml",
    "client/python/src/backboned/version.py",
)
# A Python in an environment, which answers what the script asks; $PIP is pip.
PYTHON = """\
#!/bin/sh
case "$*" in
  *version_info*) exit ${OLD-0} ;;
  *python_version*) echo 3.9.18 ;;
  *"import pip") exit ${NO_PIP-0} ;;
  *distributions*) echo $TORCH ;;
  *"pip install"*) echo "$PIP" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """The files that the script reads here, and a wheel of this version."""
    root = tmp_path / "checkout"
    for file in FILES:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, root / file)
    version = (root / FILES[-1]).read_text().split('"')[-2]
    (root / "dist").mkdir()
    wheel = f"backboned_server-{version}-py3-none-manylinux_2_34_x86_64.whl"
    (root / "dist" / wheel).touch()
    return root


@pytest.fixture
def venv(tmp_path):
    return program(tmp_path / "venv/bin/python", PYTHON).parents[1]


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def refused(checkout, *arguments, programs=None, **variables):
    """Run the script, which must fail; give what it says at last."""
    for name, text in (programs or {}).items():
        program(checkout / "bin" / name, f"#!/bin/sh\n{text}\n")
    variables = {"PATH": f"{checkout}/bin:{os.environ['PATH']}", **variables}
    done = subprocess.run(
        [checkout / "scripts/install", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0].removeprefix("install: ")


def test_another_system(checkout, venv):
    said = refused(checkout, venv, programs={"uname": "echo Darwin arm64"})
    assert said.startswith(
        "the server is for Linux on x86-64, and this is Darwin arm64"
    )
    assert "connect to a server elsewhere" in said


def test_old_c_library(checkout, venv):
    said = refused(checkout, venv, programs={"getconf": "echo glibc 2.31"})
    assert "needs glibc 2.34" in said
    assert "this is glibc 2.31: use the container" in said


def test_another_c_library(checkout, venv):
    said = refused(checkout, venv, programs={"getconf": "exit 1"})
    assert "this is another C library: use the container" in said


def test_another_python(checkout, venv):
    said = refused(checkout, venv, OLD="1")
    assert (
        "is for Python 3.10 to 3.14, and" in said and "python is 3.9.18: make" in said
    )


def test_no_pip(checkout, venv):
    said = refused(checkout, venv, NO_PIP="1")
    assert said == (
        f"{venv} has no pip: run {venv}/bin/python -m ensurepip, and run this again"
    )


def test_an_environment_that_is_not_finished_is_removed(checkout, tmp_path):
    df = "echo Filesystem; echo /dev/x 9 9 31457280 9% /"
    python = f'[ "$2" = venv ] || exec {sys.executable} "$@"; mkdir "$3"; exit 1'
    new = tmp_path / "new"
    said = refused(checkout, new, programs={"df": df, "python3": python})
    assert said.startswith(f"environment {new} failed")
    assert not new.exists()


def test_another_torch(checkout, venv):
    said = refused(checkout, venv, TORCH="2.9.1+cu128")
    assert "has torch 2.9.1+cu128, and the server needs 2.11.0" in said
    assert "pip install torch==2.11.0, or give the server an environment" in said


def test_what_is_no_environment(checkout, tmp_path):
    (tmp_path / "full").mkdir()
    said = refused(checkout, tmp_path / "full")
    assert "is no Python environment: name another folder" in said


def test_too_little_space(checkout, venv):
    df = "echo Filesystem; echo /dev/x 9 9 3145728 9% /"
    said = refused(checkout, venv, programs={"df": df})
    assert "has 3 GB free, and 6 GB are needed: make room" in said


@pytest.mark.parametrize(
    "pip, sentence",
    [
        (
            "NewConnectionError('Failed to establish a new connection: [Errno 111]",
            "the server: no connection: this machine needs the network once; behind a",
        ),
        (
            "      ERROR: No matching distribution found for x\nnote: it is so",
            "the server: not installed: ERROR: No matching distribution found",
        ),
        (
            "OSError: [Errno 28] No space left on device",
            "the server: the disk is full: make room, and run this again",
        ),
        ("it is broken", "the server: not installed: it is broken"),
    ],
)
def test_pip_that_fails(checkout, venv, pip, sentence):
    df = "echo Filesystem; echo /dev/x 9 9 31457280 9% /"
    said = refused(checkout, venv, programs={"df": df}, PIP=pip, TORCH="2.11.0")
    assert said.startswith(sentence)


def test_torch_of_an_environment_that_is_not_there_does_not_count(checkout, tmp_path):
    site = tmp_path / "other"
    info = site / "torch-2.9.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: torch\nVersion: 2.9.1\n")
    df = "echo Filesystem; echo /dev/x 9 9 3145728 9% /"
    python = f'PYTHONPATH={site} exec {sys.executable} "$@"'
    said = refused(checkout, tmp_path / "new", programs={"df": df, "python3": python})
    assert "6 GB are needed" in said
