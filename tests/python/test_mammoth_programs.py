"""Programs with the drop-in for Mammoth: the command, and imports in either order."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from backboned_mammoth.run import SERVER
from mammoth_pairs import FAKE


def python(*words, **variables):
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **variables}
    return subprocess.run(
        [sys.executable, *words],
        cwd=FAKE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def expected():
    """The output of the program without a server."""
    result = python("main.py", "--backbone=mnistmlp")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def outcome(result):
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    return found.pop("class"), found


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("backboned_mammoth", "mnistmlp"),
        ("backboned_mammoth", "remote-mnistmlp"),
        ("backboned.mammoth", "mnistmlp"),
    ],
)
def test_command_runs_mammoth(server, expected, command, name):
    result = python(
        *("-m", command, "--server", server.target),
        *("--require-remote", "--", f"--backbone={name}"),
    )
    cls, found = outcome(result)
    plain = {k: v for k, v in expected.items() if k != "class"}
    assert (cls, found) == ("RemoteBaseMNISTMLP", plain)
    assert f"backboned: 6 forwards in {server.target}" in result.stderr.splitlines()[-1]


def test_command_runs_a_mammoth_whose_program_is_in_utils(server, expected, tmp_path):
    shutil.copytree(FAKE, tmp_path / "old")
    (tmp_path / "old" / "utils").mkdir()
    program = (tmp_path / "old" / "main.py").rename(tmp_path / "old/utils/main.py")
    root = "import os, sys; sys.path.append(os.getcwd())\n"  # As Mammoth did then.
    program.write_text(root + program.read_text())
    result = python(
        *("-m", "backboned_mammoth", "--server", server.target),
        *("--mammoth", str(tmp_path / "old"), "--", "--backbone=mnistmlp"),
    )
    cls, found = outcome(result)
    assert cls == "RemoteBaseMNISTMLP" and found["state"] == expected["state"]


def test_command_starts_a_server_of_its_own(binary):
    variables = {"BACKBONED_BIN": str(binary), SERVER: ""}
    words = ("-m", "backboned_mammoth", "--", "--backbone=mnistmlp")
    result = python(*words, **variables)
    assert outcome(result)[0] == "RemoteBaseMNISTMLP"
    assert "6 forwards in a server of its own" in result.stderr


@pytest.mark.parametrize(
    "order",
    ["backboned_mammoth, main", "main, backboned_mammoth", "backboned.mammoth, main"],
)
def test_imports_in_either_order(server, expected, order):
    code = f"import sys; sys.argv[1:] = ['--backbone=mnistmlp']; import {order}"
    if order.startswith("main"):
        code = code.replace("import main", "import main, backbone")
    result = python("-c", f"{code}; main.main()", **{SERVER: server.target})
    cls, found = outcome(result)
    assert cls == "RemoteBaseMNISTMLP" and found["state"] == expected["state"]


def test_command_without_mark(server):
    result = python("-m", "backboned_mammoth", "--model=er")
    assert result.returncode == 2 and "unrecognized arguments" in result.stderr
    result = python("-m", "backboned_mammoth")
    assert result.returncode == 2 and "behind --" in result.stderr


def test_command_outside_a_checkout(tmp_path):
    result = python("-m", "backboned_mammoth", "--mammoth", str(tmp_path), "--")
    assert result.returncode == 2 and "is no checkout of Mammoth" in result.stderr


def test_server_that_is_not_there():
    result = python(
        *("-m", "backboned_mammoth", "--server", "unix:/nowhere", "--"),
        "--backbone=mnistmlp",
    )
    assert result.returncode == 1 and "there is no socket /nowhere" in result.stderr


WITHOUT = "import sys; sys.modules['backboned_mammoth'] = None; "


def test_the_old_name_says_what_to_install():
    result = python("-c", f"{WITHOUT}import backboned.mammoth")
    assert result.returncode == 1
    assert "ModuleNotFoundError: backboned.mammoth is the package" in result.stderr
    module = "runpy.run_module('backboned.mammoth', run_name='__main__')"
    result = python("-c", f"{WITHOUT}import runpy; {module}")
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1 and "pip install on the folder client/mammoth" in line
