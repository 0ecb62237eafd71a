"""Saves an instance's parameters and buffers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backboned import state
from backboned.dtypes import BFLOAT16, as_bytes
from backboned.errors import StaleVersion
from backboned.instance import Instance
from backboned.weights.file import RawTensor, name_of, write

_ATTEMPTS = 5
_DTYPES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float64): "F64",
    np.dtype(np.float16): "F16",
    BFLOAT16: "BF16",
    np.dtype(np.uint8): "U8",
    np.dtype(np.int64): "I64",
}


def save(instance: Instance, path: str | Path) -> str:
    """Write an instance's parameters, then its buffers, of one version to a file.

    Gives the file's SHA-256. The keys are those of the layout.

    Raises
    ------
    StaleVersion
        If the instance changes again and again while it is read.
    InvalidArgument
        If no server would find a file of this name.
    OSError
        If the file cannot be written.
    """
    name_of(Path(path))  # Before anything is read.
    for _ in range(_ATTEMPTS - 1):
        try:
            return write(Path(path), _read(instance))
        except StaleVersion:
            pass
    return write(Path(path), _read(instance))


def _read(instance: Instance) -> dict[str, RawTensor]:
    version = instance.info().version
    flat, _ = state.get_params(instance, if_version=version)
    tensors = {}
    for parameter in instance.layout.parameters:
        part = flat[parameter.offset : parameter.offset + parameter.size]
        tensors[parameter.name] = RawTensor(
            _DTYPES[part.dtype], parameter.shape, as_bytes(part)
        )
    if instance.layout.buffers:
        buffers, _ = state.get_buffers(instance, if_version=version)
        for buffer in instance.layout.buffers:
            array = np.ascontiguousarray(buffers[buffer.name])
            tensors[buffer.name] = RawTensor(
                _DTYPES[array.dtype], buffer.shape, as_bytes(array)
            )
    return tensors
