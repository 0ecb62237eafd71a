"""The real Mammoth, whose code is not part of this project. A pytest plug-in.

Tests that use it skip where its archive is neither at `../shared/mammoth`, beside the
checkout, nor in the folder BACKBONED_MAMMOTH.
"""

import os
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The folder of Mammoth's files."""
    default = ROOT.parent / "shared" / "mammoth"
    folder = Path(os.environ.get("BACKBONED_MAMMOTH", default))
    archives = sorted(folder.glob("mammoth-*.tar.xz"))
    if not archives:
        pytest.skip(f"Mammoth's archive is not in {folder}")
    place = tmp_path_factory.mktemp("mammoth")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(place)  # noqa: S202  An archive of our own.
    return place / "mammoth"
