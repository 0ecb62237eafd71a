"""The clients of releases, which people have, on this server.

`scripts/release` puts the wheel of each release's client into `released/`.
"""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
PROGRAM = HERE.parents[1] / "scripts/bits.py"
RELEASED = sorted(HERE.glob("released/*.whl"))


def bits(server, environment):
    """Digests of what a client in a process of its own gets."""
    ended = subprocess.run(
        [sys.executable, PROGRAM, server.target],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.parametrize("wheel", RELEASED, ids=[wheel.stem for wheel in RELEASED])
def test_a_released_client_gets_the_same_bits(server, wheel):
    version = wheel.name.split("-")[1]
    program = "import backboned; print(backboned.__version__, backboned.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert found[0] == version and found[1].startswith(str(wheel))
    theirs = bits(server, {"PYTHONPATH": str(wheel)})
    assert len(theirs) > 20
    assert theirs == bits(server, {})
