"""The calls that move an instance's state: parameters, gradients, buffers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Callable

import numpy as np

from backboned.channel import DATA
from backboned.dtypes import Array, as_bytes, float_number, make_spec
from backboned.errors import InvalidArgument
from backboned.handle import Handle
from backboned.layout import Select, Version, condition, selection
from backboned.results import Empty, Grads, place_flat, place_tensors
from backboned.transfer import (
    Query,
    Recallable,
    Request,
    decoded,
    exchange,
    fresh_id,
    recall,
    send,
)
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import selection_pb2, tensor_pb2


def get_params(
    handle: Handle,
    select: Select = None,
    if_version: Version | None = None,
    timeout: float | None = None,
    dtype: Any = None,
) -> tuple[Array, Version]:
    """Read parameters of one version, flat."""
    request = pb.GetParamsRequest(
        instance=handle.address,
        selection=_selection(handle, select),
        if_version=condition(if_version),
        dtype=float_number(dtype),
    )
    flats: list[Array] = []

    def place(result: pb.GetParamsResult) -> list[memoryview]:
        flat, views = place_flat(result.spec)
        flats.append(flat)
        return views

    result = exchange(
        handle.channel,
        DATA + "GetParams",
        Query(request),
        pb.GetParamsResult.FromString,
        place,
        timeout,
        key=(handle.uid, repr(select), request.dtype),
    )
    return flats[0], handle.saw(result.version)


def set_params(
    handle: Handle,
    parts: Sequence[Array],
    select: Select = None,
    if_version: Version | None = None,
    request_id: str = "",
    timeout: float | None = None,
    recallable: Recallable | None = None,
) -> Version:
    """Replace parameters by the concatenation of C-contiguous arrays of one dtype.

    `recallable` as in `compute.forward`.
    """
    header = pb.SetParamsHeader(
        instance=handle.address,
        request_id=request_id or fresh_id(),
        selection=_selection(handle, select),
        if_version=condition(if_version),
        spec=_flat_spec(parts),
    )
    return _write(
        handle,
        "SetParams",
        Request(header, [as_bytes(part) for part in parts]),
        pb.SetParamsResponse.FromString,
        timeout,
        recallable,
    )


def _write(
    handle: Handle,
    method: str,
    request: Request,
    decode: Callable[[bytes], Any],
    timeout: float | None,
    recallable: Recallable | None = None,
) -> Version:
    """Send what replaces a part of the state; give the version that it left."""
    call = (handle.channel, DATA + method, request, decode)
    if recallable is not None:
        recallable(functools.partial(recall, *call))
    return handle.saw(send(*call, timeout).version)


def get_grads(
    handle: Handle,
    select: Select = None,
    allow_absent: bool = False,
    timeout: float | None = None,
    dtype: Any = None,
) -> Grads:
    """Read the instance's gradients."""
    request = pb.GetGradsRequest(
        instance=handle.address,
        selection=_selection(handle, select),
        allow_absent=allow_absent,
        dtype=float_number(dtype),
    )
    found: list[Grads] = []

    def place(result: pb.GetGradsResult) -> list[memoryview]:
        flat, views = place_flat(result.grads.spec)
        found.append(Grads(flat, tuple(result.grads.present)))
        return views

    result = exchange(
        handle.channel,
        DATA + "GetGrads",
        Query(request),
        pb.GetGradsResult.FromString,
        place,
        timeout,
    )
    handle.saw(result.version)
    return found[0]


def set_grads(
    handle: Handle,
    flat: Array,
    present: Sequence[bool] = (),
    select: Select = None,
    if_version: Version | None = None,
    request_id: str = "",
    timeout: float | None = None,
) -> Version:
    """Replace gradients by a flat vector of those that are present."""
    header = pb.SetGradsHeader(
        instance=handle.address,
        request_id=request_id or fresh_id(),
        selection=_selection(handle, select),
        if_version=condition(if_version),
        grads=pb.FlatGrads(spec=_flat_spec([flat]), present=present),
    )
    request = Request(header, [as_bytes(flat)])
    decode = pb.SetGradsResponse.FromString
    return _write(handle, "SetGrads", request, decode, timeout)


def get_buffers(
    handle: Handle,
    select: Select = None,
    if_version: Version | None = None,
    timeout: float | None = None,
    empty: Empty = np.empty,
) -> tuple[dict[str, Array], Version]:
    """Read buffers of one version, by name."""
    request = pb.GetBuffersRequest(
        instance=handle.address,
        selection=selection(select),
        if_version=condition(if_version),
    )
    found: list[dict[str, Array]] = []

    def place(result: pb.GetBuffersResult) -> list[memoryview]:
        named, views = place_tensors(result.buffers, empty)
        found.append(named)
        return views

    result = exchange(
        handle.channel,
        DATA + "GetBuffers",
        Query(request),
        pb.GetBuffersResult.FromString,
        place,
        timeout,
        key=(handle.uid, repr(select)),
    )
    return found[0], handle.saw(result.version)


def set_buffers(
    handle: Handle,
    values: Mapping[str, Any],
    if_version: Version | None = None,
    request_id: str = "",
    timeout: float | None = None,
    recallable: Recallable | None = None,
) -> Version:
    """Replace the named buffers. `recallable` as in `compute.forward`.

    Raises
    ------
    InvalidArgument
        If there is no buffer of a name, or no name.
    """
    order = [buffer.name for buffer in handle.layout.buffers]
    unknown = sorted(set(values) - set(order))
    if unknown or not values:
        raise InvalidArgument(
            f"no buffer {', '.join(unknown) or 'given'}; there are "
            f"{', '.join(order) or 'none'}"
        )
    names = [name for name in order if name in values]
    arrays = [np.asarray(values[name], order="C") for name in names]
    header = pb.SetBuffersHeader(
        instance=handle.address,
        request_id=request_id or fresh_id(),
        selection=selection(None if names == order else names),
        if_version=condition(if_version),
        buffers=[make_spec(array, name) for name, array in zip(names, arrays)],
    )
    return _write(
        handle,
        "SetBuffers",
        Request(header, [as_bytes(array) for array in arrays]),
        pb.SetBuffersResponse.FromString,
        timeout,
        recallable,
    )


def _selection(handle: Handle, select: Select) -> selection_pb2.Selection | None:
    """Make the contract's selection of parameters."""
    return selection(handle.scope if select is None else select)


def _flat_spec(parts: Sequence[Array]) -> tensor_pb2.TensorSpec:
    spec = make_spec(parts[0])
    return tensor_pb2.TensorSpec(
        dtype=spec.dtype, shape=[sum(part.size for part in parts)]
    )


def zero_grads(
    handle: Handle,
    select: Select = None,
    request_id: str = "",
    timeout: float | None = None,
) -> Version:
    """Take gradients away."""
    request = pb.ZeroGradsRequest(
        instance=handle.address,
        request_id=request_id or fresh_id(),
        selection=_selection(handle, select),
    )
    raw = handle.channel.unary(DATA + "ZeroGrads", request.SerializeToString(), timeout)
    return handle.saw(decoded(pb.ZeroGradsResponse.FromString, raw).version)
