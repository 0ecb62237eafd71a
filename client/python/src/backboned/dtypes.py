"""Element types and tensor specs: the contract's, NumPy's and their bytes.

NumPy has no bfloat16. Inside this package such elements are of the structured type
`BFLOAT16`; what users get is `widened` to float32, which holds the same numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backboned.errors import InvalidArgument, MalformedAnswer
from backboned.v1 import tensor_pb2

Array = NDArray[Any]

BFLOAT16 = np.dtype([("bfloat16", "<u2")])
"""Two bytes that are a bfloat16: the upper half of a float32."""

_NUMPY: dict[Any, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype(np.float32),
    tensor_pb2.DATA_TYPE_FLOAT64: np.dtype(np.float64),
    tensor_pb2.DATA_TYPE_FLOAT16: np.dtype(np.float16),
    tensor_pb2.DATA_TYPE_BFLOAT16: BFLOAT16,
    tensor_pb2.DATA_TYPE_UINT8: np.dtype(np.uint8),
    tensor_pb2.DATA_TYPE_INT64: np.dtype(np.int64),
}
_WIRE = {dtype: number for number, dtype in _NUMPY.items()}
_FLOATS = {
    "float32": tensor_pb2.DATA_TYPE_FLOAT32,
    "float64": tensor_pb2.DATA_TYPE_FLOAT64,
    "float16": tensor_pb2.DATA_TYPE_FLOAT16,
    "bfloat16": tensor_pb2.DATA_TYPE_BFLOAT16,
}
_FLOAT_NAMES: dict[int, str] = {number: name for name, number in _FLOATS.items()}
_MAX_BYTES = 1 << 40

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("backboned needs a little-endian machine")


def numpy_dtype(number: int) -> np.dtype[Any]:
    """Give NumPy's type for the contract's `DataType`.

    Raises
    ------
    MalformedAnswer
        If the number is unknown.
    """
    try:
        return _NUMPY[number]
    except KeyError:
        raise MalformedAnswer(
            f"the answer has elements of the unknown type {number}"
        ) from None


def float_number(dtype: Any) -> tensor_pb2.DataType:
    """Give the contract's `DataType` for a floating-point type, unspecified for None.

    Parameters
    ----------
    dtype : str, numpy or torch dtype, or None
        E.g. ``"float64"``, `numpy.float64`, `torch.bfloat16`.

    Raises
    ------
    InvalidArgument
        If it is none that a network can have.
    """
    if dtype is None:
        return tensor_pb2.DATA_TYPE_UNSPECIFIED
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype))
    number = _FLOATS.get(name.rpartition(".")[2])
    if number is None:
        raise InvalidArgument(f"no dtype {name!r}; there are {', '.join(_FLOATS)}")
    return number


def float_name(number: int) -> str:
    """Give the name of a floating-point type of the contract: ``"float32"``.

    An older server does not say: float32.

    Raises
    ------
    MalformedAnswer
        If it is none.
    """
    if number == tensor_pb2.DATA_TYPE_UNSPECIFIED:
        return "float32"
    try:
        return _FLOAT_NAMES[number]
    except KeyError:
        raise MalformedAnswer(
            f"the answer has floating-point elements of the unknown type {number}"
        ) from None


def widened(array: Array) -> Array:
    """Give bfloat16 elements as float32, which is exact; others as they are."""
    if array.dtype != BFLOAT16:
        return array
    upper = array["bfloat16"].astype(np.uint32)
    return np.left_shift(upper, 16).view(np.float32)


def all_widened(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Give `widened` of each of some named arrays."""
    return {name: widened(array) for name, array in arrays.items()}


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
            f"{', '.join(sorted(str(d) for d in _WIRE if d != BFLOAT16))}"
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


def flat_float(values: Any, what: str, stored: str) -> Array:
    """Make a C-contiguous floating-point vector, not wider than what is `stored`.

    A narrower one is sent as it is, and the server converts it.

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
        raise InvalidArgument(f"{what} are {stored}; got {array.dtype}")
    # The server rounds float32 to bfloat16, which NumPy cannot.
    widest = np.dtype(np.float32 if stored == "bfloat16" else stored)
    dtype = array.dtype if array.dtype.itemsize < widest.itemsize else widest
    return np.ascontiguousarray(array, dtype=dtype)


def elements(shape: Iterable[int]) -> int:
    """Multiply the sizes of a shape."""
    count = 1
    for size in shape:
        count *= size
    return count
