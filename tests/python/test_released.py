"""Clients and servers of releases, which people have, with those of this commit.

`scripts/release` puts the wheels of each release into `released/`: every client's, and
the newest server's.
"""

import os
import pathlib
import subprocess
import sys
import zipfile

import backboned
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


@pytest.fixture(params=SERVERS, ids=[wheel.stem for wheel in SERVERS])
def released(request, tmp_path):
    """The target of a released server.

    `local_server` starts none before 0.3, which know no ``--die-with-parent``.
    """
    torch = pytest.importorskip("torch")
    zipfile.ZipFile(request.param).extractall(tmp_path)
    program = tmp_path / "backboned_server/bin/backboned"
    program.chmod(0o755)
    libraries = pathlib.Path(torch.__file__).parent / "lib"
    with subprocess.Popen(
        [program, "--listen", f"unix:{tmp_path}/s", "--threads=2"],
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
        stdout=subprocess.PIPE,
    ) as process:
        assert b"serving on" in process.stdout.readline()
        yield f"unix:{tmp_path}/s"
        process.terminate()


@pytest.mark.cpu
def test_a_released_server_gives_the_same_bits(server, released):
    theirs = bits([released], {})
    assert len(theirs) > 20
    assert theirs == bits([server.target], {})


@pytest.mark.cpu
def test_a_released_server_does_not_pretend_a_precision(released):
    with backboned.connect(released) as server:
        with pytest.raises(backboned.errors.FailedPrecondition, match="no precision"):
            server.create("seq-mnist", precision="bfloat16", module=False)
