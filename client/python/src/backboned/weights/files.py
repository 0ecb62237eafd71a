"""Writes weights files.

By hand: the library safetensors sorts tensors, and ``load_by="order"`` reads them in
the file's order.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backboned import calls
from backboned.errors import InvalidArgument, StaleVersion
from backboned.instance import Instance
from backboned.transport.tensors import BFLOAT16, as_bytes
from backboned.types import Array

_SUFFIX = ".safetensors"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_ATTEMPTS = 5
_DTYPES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float64): "F64",
    np.dtype(np.float16): "F16",
    BFLOAT16: "BF16",
    np.dtype(np.int64): "I64",
    np.dtype(np.int32): "I32",
    np.dtype(np.uint8): "U8",
    np.dtype(np.bool_): "BOOL",
}


class RawTensor(NamedTuple):
    """A tensor's dtype as safetensors names it (``F32``), shape and bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    @classmethod
    def of(cls, array: Array) -> RawTensor:
        """View a C-contiguous array. Raises KeyError if no file has its dtype."""
        return cls(_DTYPES[array.dtype], array.shape, as_bytes(array))


def name_of(path: Path) -> str:
    """Give the name under which a server finds the file.

    Raises InvalidArgument if a server would not.
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

    Raises InvalidArgument if a server would not find it by its name. Raises OSError if
    it cannot be written.
    """
    name_of(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    digest = hashlib.sha256()
    try:
        with open(temporary, "xb") as file:
            for piece in (_header(tensors), *(t.data for t in tensors.values())):
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def _header(tensors: Mapping[str, RawTensor]) -> bytes:
    fields: dict[str, object] = {}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        begin, end = end, end + len(data)
        fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # So that the data begin at a multiple of 8.
    return len(text).to_bytes(8, "little") + text


def save(instance: Instance, path: str | Path) -> str:
    """Write an instance's parameters, then its buffers, of one version to a file.

    Gives the file's SHA-256. The keys are those of the layout.

    Raises StaleVersion if the instance changes again and again while it is read, and
    what `write` raises.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return write(Path(path), _read(instance))
        except StaleVersion:
            pass
    return write(Path(path), _read(instance))


def _read(instance: Instance) -> dict[str, RawTensor]:
    version = instance.info().version
    flat, _ = calls.get_params(instance, if_version=version)
    arrays = {
        p.name: flat[p.offset : p.offset + p.size].reshape(p.shape)
        for p in instance.layout.parameters
    }
    if instance.layout.buffers:
        buffers, _ = calls.get_buffers(instance, if_version=version)
        arrays.update((b.name, buffers[b.name]) for b in instance.layout.buffers)
    return {name: RawTensor.of(array) for name, array in arrays.items()}
