"""What calls of an instance give, as NumPy arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Callable, NamedTuple

import numpy as np

from backboned.dtypes import Array, as_bytes, float_name, numpy_dtype, spec_shape
from backboned.errors import MalformedAnswer
from backboned.layout import Layout, Version
from backboned.memory import POOL
from backboned.optimizer import Stepped
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import tensor_pb2

Empty = Callable[[tuple[int, ...], "np.dtype[np.generic]"], Array]
"""Gives an uninitialised C-contiguous array of a shape and type."""


class Timings(NamedTuple):
    """Seconds in the server: waiting, on the device, and in all."""

    queue: float
    compute: float
    total: float


@dataclasses.dataclass(frozen=True)
class Forward:
    """What a forward gave.

    Attributes
    ----------
    outputs : dict of str to ndarray
        By name, in the order asked for; of the instance's dtype unless asked for
        otherwise, bfloat16 as float32.
    version : Version
        Parameters of the forward, buffers after it.
    tape_id : str
        For `Instance.backward`; empty if no tape was asked for.
    tape_bytes : int
        Bytes that the tape holds in the server.
    buffers : dict of str to ndarray
        After the forward, if asked for.
    timings : Timings
    rng_state : bytes
        The generator's after the forward, if one was given.
    cached : bool
        It is the answer that the instance's feature cache had; nothing was computed.
    """

    outputs: dict[str, Array]
    version: Version
    tape_id: str
    tape_bytes: int
    buffers: dict[str, Array]
    timings: Timings
    rng_state: bytes = b""
    cached: bool = False

    @property
    def out(self) -> Array:
        """The logits, [N, K]."""
        return self.outputs["out"]

    @property
    def features(self) -> Array:
        """The features, [N, D]."""
        return self.outputs["features"]


class Grads(NamedTuple):
    """Gradients: those present, flat, and for each parameter whether it has one."""

    flat: Array
    present: tuple[bool, ...]

    def split(self, layout: Layout) -> list[Array | None]:
        """Give each parameter's gradient in its shape, views of `flat`; or None."""
        begin = 0
        parts: list[Array | None] = []
        for parameter, there in zip(layout.parameters, self.present):
            end = begin + (parameter.size if there else 0)
            part = self.flat[begin:end].reshape(parameter.shape) if there else None
            parts.append(part)
            begin = end
        return parts


@dataclasses.dataclass(frozen=True)
class Backward:
    """What a backward gave.

    Attributes
    ----------
    version : Version
    grads : Grads or None
        Of all parameters, if asked for.
    input_grads : list of ndarray
        One for each tape in the order of the request, if asked for.
    timings : Timings
    tape_grads : list of Grads
        Each tape's own in the order of the request, if asked for.
    squared_grads : Grads or None
        The sum over the tapes of the squares of each one's, if asked for.
    step : Stepped or None
        What the step did, if there was one.
    held : tuple of bool
        For each parameter, whether the instance has a gradient of it afterwards; empty
        unless it accumulated.
    """

    version: Version
    grads: Grads | None
    input_grads: list[Array]
    timings: Timings
    tape_grads: list[Grads] = dataclasses.field(default_factory=list)
    squared_grads: Grads | None = None
    step: Stepped | None = None
    held: tuple[bool, ...] = ()


@dataclasses.dataclass(frozen=True)
class Extracted:
    """Features or logits, and which state of which instance they come from.

    Attributes
    ----------
    data : ndarray
        [N, D] or [N, K], of the instance's dtype; bfloat16 as float32.
    instance : str
        ``owner/name``.
    version : Version
    digest : str
        SHA-256 of parameters and buffers, 64 hexadecimal digits.
    """

    data: Array
    instance: str
    version: Version
    digest: str


def place_tensors(
    specs: Sequence[tensor_pb2.TensorSpec], empty: Empty = np.empty
) -> tuple[dict[str, Array], list[memoryview]]:
    """Make an array for each spec, by name, and the views to fill."""
    arrays: dict[str, Array] = {}
    views = []
    for spec in specs:
        array = empty(spec_shape(spec), numpy_dtype(spec.dtype))
        arrays[spec.name] = array
        views.append(as_bytes(array))
    return arrays, views


def place_flat(spec: tensor_pb2.TensorSpec) -> tuple[Array, list[memoryview]]:
    """Make a vector for a flat tensor, and the view to fill.

    Raises
    ------
    MalformedAnswer
        If the spec is no vector of a floating-point type.
    """
    (flat,), views = place_flats([spec])
    return flat, views


def place_flats(
    specs: Sequence[tensor_pb2.TensorSpec],
) -> tuple[list[Array], list[memoryview]]:
    """Make vectors for flat tensors, one behind the other, and the view to fill.

    Raises
    ------
    MalformedAnswer
        If a spec is no vector of a floating-point type, or they differ in it.
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


def read_timings(message: pb.Timings) -> Timings:
    """Read the contract's timings."""
    return Timings(
        *(
            part.seconds + part.nanos / 1e9
            for part in (message.queue, message.compute, message.total)
        )
    )
