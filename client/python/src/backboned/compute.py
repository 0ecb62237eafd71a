"""The calls that compute: Forward, Backward, Extract."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backboned import garbage
from backboned.asking import ASK_BYTES, input_digest
from backboned.channel import DATA
from backboned.control import delete_abandoned
from backboned.dtypes import Array, as_bytes, float_number, make_spec, widened
from backboned.errors import InvalidArgument, MalformedAnswer, NotFound
from backboned.handle import Handle
from backboned.layout import Select, Version, condition, read_version, selection
from backboned.norms import BatchNorm, in_order
from backboned.optimizer import StepOptions, read_step
from backboned.results import (
    Backward,
    Empty,
    Extracted,
    Forward,
    Grads,
    place_flat,
    place_flats,
    place_tensors,
    read_timings,
)
from backboned.stream import CHUNK_BYTES, SINGLE_BYTES
from backboned.transfer import Recallable, Request, decoded, exchange
from backboned.v1 import backbone_service_pb2 as pb

_RETURNT: Mapping[str, pb.ReturnType] = {
    "out": pb.RETURN_TYPE_OUT,
    "features": pb.RETURN_TYPE_FEATURES,
    "both": pb.RETURN_TYPE_BOTH,
    "full": pb.RETURN_TYPE_FULL,
}


@dataclasses.dataclass(frozen=True)
class ForwardOptions:
    """What one forward is to do; `Instance.forward` says what each means."""

    outputs: Sequence[str] = ()
    returnt: str | None = None
    training: bool = False
    tape: bool = False
    input_grad: bool = False
    grad_params: Select = None
    no_param_grads: bool = False
    return_buffers: bool = False
    prerelu: bool = False
    rng_state: bytes = b""
    batch_norm: Sequence[BatchNorm] = ()
    buffers: Mapping[str, Any] | None = None
    if_version: Version | None = None
    allow_merge: bool = False
    release_tapes: Sequence[str] = ()
    request_id: str = ""
    output_dtype: Any = None
    cached: bool | None = None

    def header(self, address: str, given_up: list[str]) -> pb.ForwardHeader:
        """Make the contract's header, without an input."""
        return pb.ForwardHeader(
            instance=address,
            request_id=self.request_id,
            outputs=self.outputs,
            return_type=return_type(self.returnt),
            training=self.training,
            tape=self.tape,
            input_grad=self.input_grad,
            grad_params=selection(self.grad_params),
            no_param_grads=self.no_param_grads,
            return_buffers=self.return_buffers,
            prerelu=self.prerelu,
            rng_state=self.rng_state,
            batch_norm=[layers.message() for layers in self.batch_norm],
            if_version=condition(self.if_version),
            allow_merge=self.allow_merge,
            release_tapes=[*self.release_tapes, *given_up],
            output_dtype=float_number(self.output_dtype),
        )

    def changes_nothing(self) -> bool:
        """Whether the server is after the forward as it was before."""
        moves = self.training or any(layers.training for layers in self.batch_norm)
        return not (moves or self.tape)

    def may_be_kept(self) -> bool:
        """Whether a feature cache may keep the answer."""
        return not (
            self.training
            or self.tape
            or self.return_buffers
            or self.buffers is not None
            or any(layers.training for layers in self.batch_norm)
        )

    def answer_key(self, digest: bytes) -> bytes:
        """Name the answer to an input of this digest."""
        asked = (
            list(self.outputs),
            self.returnt,
            self.prerelu,
            str(self.output_dtype),
            list(self.batch_norm),
            self.allow_merge,
        )
        return hashlib.sha256(digest + repr(asked).encode()).digest()


def return_type(returnt: str | None) -> pb.ReturnType:
    """Give the contract's word for Mammoth's.

    Raises
    ------
    InvalidArgument
        If it is none of out, features, both, full.
    """
    if returnt is None:
        return pb.RETURN_TYPE_UNSPECIFIED
    if returnt not in _RETURNT:
        raise InvalidArgument(
            f"no returnt {returnt!r}; there are {', '.join(_RETURNT)}"
        )
    return _RETURNT[returnt]


def forward(
    handle: Handle,
    x: Array,
    options: ForwardOptions,
    timeout: float | None = None,
    empty: Empty = np.empty,
    recallable: Recallable | None = None,
) -> Forward:
    """Run a forward of a C-contiguous input, and take the abandoned tapes along.

    What nobody refers to any more is deleted before.

    If its answer is likely to be in the instance's feature cache, that is asked for it
    first, by the input's digest.

    Parameters
    ----------
    handle, x, options, timeout
    empty : callable
        Makes the arrays of the outputs.
    recallable : callable, optional
        Is told, before the call, how to ask for its answer if it is lost. A tape that
        it kept is given up then.
    """
    delete_abandoned(handle.channel)
    asking = handle.asking
    may_ask = asking.enabled and options.may_be_kept() and x.nbytes >= ASK_BYTES
    if options.cached is False or not (may_ask or options.cached):
        return _run(handle, x, None, options, timeout, empty, recallable=recallable)
    seconds = handle.channel.timeout if timeout is None else timeout
    begin = time.monotonic()
    digest = input_digest(x)
    key = options.answer_key(digest)
    if options.cached or asking.is_worth(handle.version, key):
        try:
            return _run(handle, x, digest, options, seconds, empty, key)
        except NotFound as error:
            if error.reason != "CACHE_MISS":
                raise
            asking.missed(key)
    seconds -= time.monotonic() - begin
    return _run(handle, x, None, options, seconds, empty, key)


def _run(
    handle: Handle,
    x: Array,
    digest: bytes | None,
    options: ForwardOptions,
    timeout: float | None,
    empty: Empty,
    key: bytes | None = None,
    recallable: Recallable | None = None,
) -> Forward:
    """Run a forward of an input, or ask for its answer by the input's digest.

    `key` is the answer's, if what is said of it is to be noted.
    """
    given_up = garbage.take_tapes(handle.channel)
    request = _forward_request(handle, x, digest, options, given_up)
    if recallable is not None:
        recallable(functools.partial(_recall_forward, handle, request.bare()))
    arrays: list[dict[str, Array]] = []

    def place(result: pb.ForwardResult) -> list[memoryview]:
        views: list[memoryview] = []
        for specs in (result.outputs, result.buffers):
            named, its_views = place_tensors(specs, empty)
            arrays.append(named)
            views += its_views
        return views

    size_key = (
        tuple(options.outputs),
        options.returnt,
        options.return_buffers,
        options.output_dtype,
    )
    try:
        result = exchange(
            handle.channel,
            DATA + "Forward",
            request,
            pb.ForwardResult.FromString,
            place,
            timeout,
            key=(handle.uid, size_key, x.shape),
            repeatable=bool(options.request_id) or options.changes_nothing(),
        )
    except BaseException:
        garbage.put_back_tapes(handle.channel, given_up)
        raise
    version = handle.saw(result.version)
    if key is not None:
        handle.asking.answered(version, key, result.cache_use)
    elif result.cache_use:
        handle.asking.enabled = True
    return Forward(
        outputs=arrays[0],
        version=version,
        tape_id=result.tape_id,
        tape_bytes=result.tape_bytes,
        buffers=arrays[1],
        timings=read_timings(result.timings),
        rng_state=result.rng_state,
        cached=result.cache_use == pb.CACHE_USE_HIT,
    )


def _recall_forward(handle: Handle, request: Request, timeout: float | None) -> bytes:
    """Ask for the answer to a forward that was lost, and give its tape up."""
    result = exchange(
        handle.channel,
        DATA + "Forward",
        request,
        pb.ForwardResult.FromString,
        lambda result: place_tensors([*result.outputs, *result.buffers])[1],
        timeout,
    )
    if result.tape_id:
        garbage.put_back_tapes(handle.channel, [result.tape_id])
    return result.rng_state


def _forward_request(
    handle: Handle,
    x: Array,
    digest: bytes | None,
    options: ForwardOptions,
    given_up: list[str],
) -> Request:
    header = options.header(handle.address, given_up)
    if digest is not None:
        header.input_digest = digest
        return Request(header)
    header.inputs.append(make_spec(x))
    views = [as_bytes(x)]
    if options.buffers is not None:
        for name, buffer in in_order(handle.layout, options.buffers).items():
            header.buffers.append(make_spec(buffer, name))
            views.append(as_bytes(buffer))
    return Request(header, views)


@dataclasses.dataclass(frozen=True)
class BackwardOptions:
    """What one backward is to do; `Instance.backward` says what each means."""

    return_grads: bool = True
    accumulate: bool = False
    input_grad: bool = False
    retain: bool = False
    zero_before: bool = False
    per_tape_grads: bool = False
    squared_grads: bool = False
    step: StepOptions | None = None
    request_id: str = ""
    output_dtype: Any = None

    def header(self, address: str) -> pb.BackwardHeader:
        """Make the contract's header, without tapes."""
        return pb.BackwardHeader(
            instance=address,
            request_id=self.request_id,
            return_grads=self.return_grads,
            accumulate=self.accumulate,
            input_grad=self.input_grad,
            retain=self.retain,
            zero_before=self.zero_before,
            per_tape_grads=self.per_tape_grads,
            squared_grads=self.squared_grads,
            step=None if self.step is None else self.step.message(),
            output_dtype=float_number(self.output_dtype),
        )


def backward(
    handle: Handle,
    tapes: Mapping[str, Mapping[str, Array]],
    options: BackwardOptions,
    timeout: float | None = None,
    empty: Empty = np.empty,
) -> Backward:
    """Run a backward; the outputs' gradients are C-contiguous."""
    grads: list[Grads] = []
    input_grads: list[Array] = []
    tape_grads: list[Grads] = []
    squared: list[Grads] = []

    def place(result: pb.BackwardResult) -> list[memoryview]:
        places: list[memoryview] = []
        if result.HasField("grads"):
            flat, places = place_flat(result.grads.spec)
            grads.append(handle.grads(flat, result.grads.present))
        for spec in result.input_grads:
            named, more = place_tensors([spec], empty)
            input_grads.extend(named.values())
            places = [*places, *more]
        flats, more = place_flats([message.spec for message in result.tape_grads])
        for flat, message in zip(flats, result.tape_grads):
            tape_grads.append(handle.grads(flat, message.present))
        places = [*places, *more]
        if result.HasField("squared_grads"):
            flat, more = place_flat(result.squared_grads.spec)
            squared.append(handle.grads(flat, result.squared_grads.present))
            places = [*places, *more]
        return places

    # Whatever is present, the gradients of a small network fit one message.
    several = (
        options.input_grad
        or options.per_tape_grads
        or (options.squared_grads and options.return_grads)
    )
    small = handle.layout.elements * 8 <= CHUNK_BYTES and not several
    result = exchange(
        handle.channel,
        DATA + "Backward",
        _backward_request(handle, tapes, options),
        pb.BackwardResult.FromString,
        place,
        timeout,
        key=handle.uid if small else None,
        repeatable=bool(options.request_id),
    )
    version = handle.saw(result.version)
    return Backward(
        version=version,
        grads=grads[0] if grads else None,
        input_grads=input_grads,
        timings=read_timings(result.timings),
        tape_grads=tape_grads,
        squared_grads=squared[0] if squared else None,
        step=read_step(version, result.step) if result.HasField("step") else None,
        held=handle.held(result.held),
    )


def _backward_request(
    handle: Handle, tapes: Mapping[str, Mapping[str, Array]], options: BackwardOptions
) -> Request:
    header = options.header(handle.address)
    views: list[memoryview] = []
    for tape_id, gradients in tapes.items():
        tape = header.tapes.add(tape_id=tape_id)
        for name, gradient in gradients.items():
            tape.gradients.append(make_spec(gradient, name))
            views.append(as_bytes(gradient))
    return Request(header, views)


def extract(
    handle: Handle,
    x: Array,
    output: str,
    l2_normalize: bool,
    allow_merge: bool,
    timeout: float | None = None,
) -> Extracted:
    """Ask for features or logits of a small batch, in one message each way."""
    if x.nbytes > SINGLE_BYTES:
        raise InvalidArgument(
            f"extract takes at most {SINGLE_BYTES} bytes, got {x.nbytes}; "
            "use forward, or a smaller batch"
        )
    request = pb.ExtractRequest(
        instance=handle.address,
        input=make_spec(x),
        data=x.tobytes(),
        output=output,
        l2_normalize=l2_normalize,
        allow_merge=allow_merge,
    )
    raw = handle.channel.unary(DATA + "Extract", request.SerializeToString(), timeout)
    answer = decoded(pb.ExtractResponse.FromString, raw)
    (data,), (view,) = _first(place_tensors([answer.output]))
    if view.nbytes != len(answer.data):
        raise MalformedAnswer(
            f"the answer has {len(answer.data)} bytes, expected {view.nbytes}"
        )
    view[:] = answer.data
    return Extracted(
        data=widened(data),
        instance=answer.instance,
        version=read_version(answer.version),
        digest=answer.digest,
    )


def _first(
    placed: tuple[dict[str, Array], list[memoryview]],
) -> tuple[list[Array], list[memoryview]]:
    return list(placed[0].values()), placed[1]


def as_input(x: Any) -> Array:
    """Make a C-contiguous array of what a caller gives as a batch."""
    return np.asarray(x, order="C")
