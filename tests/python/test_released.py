"""Clients and servers of releases, which people have, with those of this commit.

`scripts/release` puts the wheels of each release into `released/`: every client's, and
the newest server's.
"""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

HERE = pathlib.Path(__file__).parent
PROGRAM = HERE.parents[1] / "scripts/bits.py"
CLIENTS = sorted(HERE.glob("released/backboned-*.whl"))
SERVERS = sorted(HERE.glob("released/backboned_server-*.whl"))


def bits(targets, environment):
    """Digests of what a client in a process of its own gets."""
    ended = subprocess.run(
        [sys.executable, PROGRAM, *targets],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.cpu
@pytest.mark.parametrize("wheel", CLIENTS, ids=[wheel.stem for wheel in CLIENTS])
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
    theirs = bits([server.target], {"PYTHONPATH": str(wheel)})
    assert len(theirs) > 20
    assert theirs == bits([server.target], {})


@pytest.mark.cpu
@pytest.mark.parametrize("wheel", SERVERS, ids=[wheel.stem for wheel in SERVERS])
def test_a_released_server_gives_the_same_bits(server, wheel, tmp_path):
    torch = pytest.importorskip("torch")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = tmp_path / "backboned_server/bin/backboned"
    program.chmod(0o755)
    theirs = bits(
        [],  # Starts the program.
        {
            "BACKBONED_BIN": str(program),
            "LD_LIBRARY_PATH": str(pathlib.Path(torch.__file__).parent / "lib"),
        },
    )
    assert len(theirs) > 20
    assert theirs == bits([server.target], {})
