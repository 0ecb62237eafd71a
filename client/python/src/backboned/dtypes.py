"""Element types and tensor specs: the contract's, NumPy's and their bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backboned.errors import InvalidArgument, MalformedAnswer
from backboned.v1 import tensor_pb2

Array = NDArray[Any]

_NUMPY: dict[Any, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype(np.float32),
    tensor_pb2.DATA_TYPE_FLOAT64: np.dtype(np.float64),
    tensor_pb2.DATA_TYPE_FLOAT16: np.dtype(np.float16),
    tensor_pb2.DATA_TYPE_UINT8: np.dtype(np.uint8),
    tensor_pb2.DATA_TYPE_INT64: np.dtype(np.int64),
}
_WIRE = {dtype: number for number, dtype in _NUMPY.items()}
_MAX_BYTES = 1 << 40

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("backboned needs a little-endian machine")


def numpy_dtype(number: int) -> np.dtype[Any]:
    """Give NumPy's type for the contract's `DataType`.

    Raises
    ------
    MalformedAnswer
        If NumPy has none (BFLOAT16), or the number is unknown.
    """
    try:
        return _NUMPY[number]
    except KeyError:
        raise MalformedAnswer(
            f"the answer has elements of type {number}, which NumPy does not have"
        ) from None


def make_spec(array: Array, name: str = "") -> tensor_pb2.TensorSpec:
    """Describe an array for the wire.

    Raises
    ------
    InvalidArgument
        If the contract has no such element type.
    """
    number = _WIRE.get(array.dtype)
    if number is None:
        what = f"{name!r} has" if name else "a tensor has"
        raise InvalidArgument(
            f"{what} elements of type {array.dtype}; the server takes "
            f"{', '.join(sorted(str(dtype) for dtype in _WIRE))}"
        )
    return tensor_pb2.TensorSpec(name=name, dtype=number, shape=array.shape)


def spec_shape(spec: tensor_pb2.TensorSpec) -> tuple[int, ...]:
    """Read a spec's shape, refusing sizes that no tensor of ours can have.

    Raises
    ------
    MalformedAnswer
        If a size is negative or the tensor is beyond 1 TiB.
    """
    shape = tuple(spec.shape)
    elements = 1
    for size in shape:
        elements *= size
        if size < 0 or elements * 8 > _MAX_BYTES:
            raise MalformedAnswer(
                f"the answer has a tensor {spec.name!r} of shape {list(shape)}"
            )
    return shape


def as_bytes(array: Array) -> memoryview:
    """View a C-contiguous array as bytes, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def flat_float32(values: Any, what: str) -> Array:
    """Make a C-contiguous vector of float32.

    Raises
    ------
    InvalidArgument
        If the values are not a vector, or not of a real floating-point type.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise InvalidArgument(
            f"{what} are a flat vector; got the shape {list(array.shape)}"
        )
    if array.dtype.kind != "f":
        raise InvalidArgument(f"{what} are float32; got {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.float32)


def elements(shape: Iterable[int]) -> int:
    """Multiply the sizes of a shape."""
    count = 1
    for size in shape:
        count *= size
    return count
