"""Writes safetensors files whose tensors keep their order.

The order is what a load by order goes by; the library `safetensors` sorts tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from backboned.errors import InvalidArgument

_SUFFIX = ".safetensors"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_MAX_HEADER_BYTES = 100_000_000


class RawTensor(NamedTuple):
    """A tensor's dtype as safetensors names it (``F32``), shape and bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


def name_of(path: Path) -> str:
    """Give the name under which a server finds the file.

    Raises
    ------
    InvalidArgument
        If a server would not.
    """
    name = path.name[: -len(_SUFFIX)]
    if not path.name.endswith(_SUFFIX) or not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"no server finds {path.name!r}: a weights file is named "
            "NAME.safetensors, where NAME matches [a-z0-9][a-z0-9_.-]{0,63}"
        )
    return name


def write(path: Path, tensors: Mapping[str, RawTensor]) -> str:
    """Write a safetensors file, all of it or nothing. Gives its SHA-256.

    Raises
    ------
    InvalidArgument
        If a server would not find it by its name, or there are too many tensors.
    OSError
        If it cannot be written.
    """
    name_of(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb") as file:
            digest = hashlib.sha256()
            for piece in (_header(tensors), *(t.data for t in tensors.values())):
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return digest.hexdigest()


def _header(tensors: Mapping[str, RawTensor]) -> bytes:
    fields: dict[str, object] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + len(tensor.data)
        fields[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # So that the data begin at a multiple of 8.
    if len(text) > _MAX_HEADER_BYTES:
        raise InvalidArgument(f"{len(tensors)} tensors need a header over 100 MB")
    return len(text).to_bytes(8, "little") + text


def _sync_folder(folder: Path) -> None:
    """Make the file's new name durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
