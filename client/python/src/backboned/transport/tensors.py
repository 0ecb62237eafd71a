"""Element types, tensor specs and memory: the contract's and NumPy's."""

from __future__ import annotations

import collections
import math
import sys
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backboned.errors import InvalidArgument, MalformedAnswer
from backboned.types import Array
from backboned.v1 import tensor_pb2

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
_ALIGNMENT = 64

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("backboned needs a little-endian machine")


def numpy_dtype(number: int) -> np.dtype[Any]:
    """Give NumPy's type for the contract's `DataType`.

    Raises MalformedAnswer if the number is unknown.
    """
    try:
        return _NUMPY[number]
    except KeyError:
        raise MalformedAnswer(
            f"the answer has elements of the unknown type {number}"
        ) from None


def float_number(dtype: Any) -> tensor_pb2.DataType:
    """Give the contract's `DataType` for a floating-point type, unspecified for None.

    - `dtype`: e.g. ``"float64"``, `numpy.float64`, `torch.bfloat16`.

    Raises InvalidArgument if it is none that a network can have.
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

    Raises MalformedAnswer if it is none.
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

    Raises InvalidArgument if the contract has no such element type.
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

    Raises MalformedAnswer if a size is negative or the tensor is beyond 1 TiB.
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

    Raises InvalidArgument if the values are not a vector, or not of a real
    floating-point type.
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


_SMALL_BYTES = 1 << 20
_KEPT_BYTES = 256 << 20


class BufferPool:
    """Hands out vectors over recycled memory.

    Thread-safe without a lock: only single operations on a deque, since finalizers
    may run in the middle of anything.
    """

    def __init__(self, kept_bytes: int = _KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._free: collections.deque[bytearray] = collections.deque()

    def take(self, count: int, dtype: Any = np.float32) -> Array:
        """Give a vector of `count` elements with arbitrary values.

        Its memory is its own until it and every view of it are gone.
        """
        dtype = np.dtype(dtype)
        size = count * dtype.itemsize
        if size < _SMALL_BYTES:
            return np.empty(count, dtype)
        buffer = self._find(size)
        if buffer is None:
            buffer = bytearray(size)
        # A view of `array` refers to `array`, since its own base is no array.
        array: Array = np.frombuffer(buffer, dtype)
        weakref.finalize(array, self._free.append, buffer).atexit = False
        return array

    def _find(self, size: int) -> bytearray | None:
        """Take a buffer of this size out, and drop the oldest beyond the budget."""
        found = None
        others: list[bytearray] = []
        kept = 0
        while self._free:
            try:
                buffer = self._free.pop()
            except IndexError:  # Another thread took it.
                break
            if found is None and len(buffer) == size:
                found = buffer
            elif kept + len(buffer) <= self._kept_bytes:
                others.append(buffer)
                kept += len(buffer)
        self._free.extendleft(others)
        return found


POOL = BufferPool()
"""The process's pool."""


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Make an uninitialised array whose memory is aligned as torch's tensors are."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    begin = -memory.__array_interface__["data"][0] % _ALIGNMENT
    array: Array = memory[begin : begin + size].view(dtype).reshape(shape)
    return array


def place_tensors(
    specs: Sequence[tensor_pb2.TensorSpec],
) -> tuple[dict[str, Array], list[memoryview]]:
    """Make an array for each spec, by name, and the views to fill."""
    arrays: dict[str, Array] = {}
    views = []
    for spec in specs:
        array = _empty(spec_shape(spec), numpy_dtype(spec.dtype))
        arrays[spec.name] = array
        views.append(as_bytes(array))
    return arrays, views


def place_flat(spec: tensor_pb2.TensorSpec) -> tuple[Array, list[memoryview]]:
    """Make a vector for a flat tensor, and the view to fill.

    Raises MalformedAnswer if the spec is no vector of a floating-point type.
    """
    (flat,), views = place_flats([spec])
    return flat, views


def place_flats(
    specs: Sequence[tensor_pb2.TensorSpec],
) -> tuple[list[Array], list[memoryview]]:
    """Make vectors for flat tensors, one behind the other, and the view to fill.

    Raises MalformedAnswer if a spec is no vector of a floating-point type, or they
    differ in it.
    """
    ends = [0]
    for spec in specs:
        shape = spec_shape(spec)
        float_name(spec.dtype)
        if len(shape) != 1 or spec.dtype != specs[0].dtype:
            raise MalformedAnswer(
                f"the answer's flat tensor has the type {spec.dtype} and the shape "
                f"{list(shape)}, expected a vector of the type {specs[0].dtype}"
            )
        ends.append(ends[-1] + shape[0])
    if not specs:
        return [], []
    whole = POOL.take(ends[-1], numpy_dtype(specs[0].dtype))
    flats = [whole[begin:end] for begin, end in zip(ends, ends[1:])]
    return flats, [as_bytes(whole)]
