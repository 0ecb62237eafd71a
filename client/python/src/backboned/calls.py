"""The calls of an instance that carry tensors, as networks make them.

They give arrays as they come, bfloat16 too. As `Instance` says of all calls.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, TypedDict, TypeVar

import numpy as np
from google.protobuf.message import Message

from backboned import contract, errors, types
from backboned.feature_cache import ASK_BYTES, input_digest
from backboned.instance_base import InstanceBase
from backboned.losses import Terms, as_array, as_terms
from backboned.transport import messages, session, tensors
from backboned.transport.channel import CONTROL, DATA, Channel
from backboned.transport.messages import Parts, Prepared, Recallable, Request
from backboned.transport.tensors import as_bytes, make_spec
from backboned.transport.traffic import Meter
from backboned.types import Array, BatchNorm, Version
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import instance_service_pb2 as control_pb
from backboned.v1 import tensor_pb2

if TYPE_CHECKING:
    from typing_extensions import Unpack

V = TypeVar("V")

Behind = Callable[[Prepared[Any]], None]
"""Takes answers to calls that were sent before one: is given that one, and begins it
first, so that it does not wait for them."""


class ForwardKeywords(TypedDict, total=False):
    """Options of one forward; `Instance.forward` says what each means."""

    returnt: str | None
    training: bool
    tape: bool
    input_grad: bool
    grad_params: types.Select
    no_param_grads: bool
    return_buffers: bool
    prerelu: bool
    rng_state: bytes
    batch_norm: Sequence[BatchNorm]
    buffers: Mapping[str, Any] | None
    if_version: Version | None
    allow_merge: bool
    release_tapes: Sequence[str]
    request_id: str
    output_dtype: Any
    cached: bool | None


class ForwardOptions(ForwardKeywords, total=False):
    """Options of one forward, and the outputs that it gives."""

    outputs: Sequence[str]


class BackwardOptions(TypedDict, total=False):
    """Options of one backward; `Instance.backward` says what each means."""

    return_grads: bool
    accumulate: bool
    input_grad: bool
    retain: bool
    zero_before: bool
    per_tape_grads: bool
    squared_grads: bool
    step: types.StepOptions | None
    request_id: str
    output_dtype: Any


class TrainStepOptions(TypedDict, total=False):
    """Options of a training step; `Instance.train_step` says what each means."""

    rng_state: bytes
    batch_norm: Sequence[BatchNorm]
    return_logits: bool
    if_version: Version | None
    request_id: str


class ReadOptions(TypedDict, total=False):
    """The version that must be found, and the seconds that a call may take."""

    if_version: Version | None
    timeout: float | None


class WriteOptions(ReadOptions, total=False):
    """Options that all calls that write have; `Instance` says what each means.

    `recallable` is for those that send tensors, as in `Instance.train_step`.
    """

    request_id: str
    recallable: Recallable


_MADE: dict[str, Callable[[Any], Any]] = {
    "grad_params": contract.selection,
    "batch_norm": contract.batch_norm_messages,
    "if_version": contract.condition,
    "output_dtype": tensors.float_number,
    "step": contract.step_message,
}


def _message(
    address: str, kind: Any, options: Mapping[str, Any], /, **fields: Any
) -> Any:
    """Make the message of a call, of its options and of the fields that it has besides.

    Raises TypeError if the call has no such option.
    """
    for name, value in options.items():
        if name not in kind.DESCRIPTOR.fields_by_name:
            raise TypeError(f"a {kind.__name__} has no option {name!r}")
        fields[name] = _MADE[name](value) if name in _MADE else value
    return kind(instance=address, **fields)


def ask(channel: Channel, request: Message, timeout: float | None = None) -> Any:
    """Call the method of a request, with one message each way; give its answer.

    The method of a `GetInstanceRequest` is `GetInstance`.
    """
    method = request.DESCRIPTOR.name[: -len("Request")]
    control = hasattr(control_pb, f"{method}Response")
    path = (CONTROL if control else DATA) + method
    response = getattr(control_pb if control else pb, f"{method}Response")
    raw = channel.unary(path, request.SerializeToString(), timeout)
    return messages.decoded(response.FromString, raw)


def _prepared(
    instance: InstanceBase,
    method: str,
    request: Request,
    place: Callable[[Any], tuple[V, Parts]],
    timeout: float | None,
    key: Hashable = None,
    repeatable: bool = True,
) -> Prepared[tuple[Any, V]]:
    """Prepare a call whose answer has tensors; gives its header, and what `place` made.

    `place` is given the header, and makes the views of the tensors' memory besides. Of
    a call that is made again the last answer counts. `key` and `repeatable` as in
    `messages.exchange`.
    """
    made: list[V] = []

    def views_of(result: Any) -> Parts:
        value, views = place(result)
        made.append(value)
        return views

    answer = getattr(pb, f"{method}Result").FromString
    path = DATA + method
    call = (instance.channel, path, request, answer, views_of)

    def make() -> tuple[Any, V]:
        result = messages.exchange(*call, timeout, key, repeatable)
        return result, made[-1]

    return Prepared(instance.channel, path, request, timeout, make)


def read(
    instance: InstanceBase,
    method: str,
    place: Callable[[Any], tuple[V, Parts]],
    options: ReadOptions,
    key: Hashable = None,
    **fields: Any,
) -> tuple[V, Any]:
    """Ask for a part of the state; give it, and the header of the answer."""
    timeout = options.pop("timeout", None)
    kind = getattr(pb, f"{method}Request")
    request = _message(instance.address, kind, options, **fields)
    key = None if key is None else (instance.uid, key)
    query = messages.Query(request)
    result, found = _prepared(instance, method, query, place, timeout, key).take()
    instance.saw(result.version)
    return found, result


def write(
    instance: InstanceBase,
    method: str,
    arrays: Sequence[Array],
    options: WriteOptions,
    **fields: Any,
) -> Prepared[Version]:
    """Prepare to send what replaces a part of the state; gives what version it left."""
    timeout, recallable = options.pop("timeout", None), options.pop("recallable", None)
    options["request_id"] = options.get("request_id") or messages.fresh_id()
    kind = getattr(pb, f"{method}Header")
    header = _message(instance.address, kind, options, **fields)
    request = Request(header, [as_bytes(array) for array in arrays])
    answer = getattr(pb, f"{method}Response").FromString
    call = (instance.channel, DATA + method, request, answer)
    if recallable is not None:
        recallable(functools.partial(messages.recall, *call))

    def make() -> Version:
        return instance.saw(messages.send(*call, timeout).version)

    return Prepared(instance.channel, DATA + method, request, timeout, make)


def listed(channel: Channel, what: str, timeout: float | None = None) -> Iterator[Any]:
    """Give what the contract's method lists, e.g. ``"instances"``, page by page."""
    token = ""
    while True:
        request = getattr(control_pb, f"List{what.capitalize()}Request")
        page = ask(channel, request(page_token=token), timeout)
        yield from getattr(page, what)
        token = page.next_page_token
        if not token:
            return


def change(
    instance: InstanceBase, kind: type[Message], options: WriteOptions, /, **fields: Any
) -> Any:
    """Make the change that one message of a kind says; give the answer."""
    timeout = options.pop("timeout", None)
    options["request_id"] = options.get("request_id") or messages.fresh_id()
    request = _message(instance.address, kind, options, **fields)
    return ask(instance.channel, request, timeout)


def _moves_layers(options: ForwardOptions) -> bool:
    """Say whether a forward is in training, or some of its BatchNorm layers are."""
    layers = options.get("batch_norm") or ()
    return bool(options.get("training")) or True in [norm.training for norm in layers]


def moves_buffers(layout: types.Layout, options: ForwardOptions) -> bool:
    """Say whether a forward may move the buffers on."""
    return bool(layout.buffers) and _moves_layers(options)


def _answer_key(digest: bytes, options: ForwardOptions) -> bytes:
    """Name the answer to an input of this digest."""
    names = ("returnt", "prerelu", "output_dtype", "allow_merge")
    asked = [str(options.get(name) or "") for name in names]
    layers, outputs = options.get("batch_norm", ()), options.get("outputs", ())
    return hashlib.sha256(
        digest + repr((asked, list(layers), list(outputs))).encode()
    ).digest()


# With one of these the answer to a forward is not kept.
_NOT_KEPT = ("tape", "return_buffers", "buffers")


def forward(
    instance: InstanceBase,
    x: Array,
    options: ForwardOptions,
    timeout: float | None = None,
    recallable: Recallable | None = None,
    behind: Behind | None = None,
) -> types.Forward:
    """Run a forward of a C-contiguous input, and take the abandoned tapes along.

    It deletes what nobody refers to any more before. If the answer is likely to be in
    the instance's feature cache, that is asked for it first, by the input's digest.

    `recallable` is told, before the call, how to ask for its answer if it is lost; a
    tape that it kept is given up then. With `behind` it is uploaded at once, before the
    answers to earlier calls came.
    """
    delete_abandoned(instance.channel)
    if behind is not None:
        last = (None, None, recallable, behind)
        return _run(instance, x, options, timeout, *last)
    known, cached, key = instance.known_answers, options.get("cached"), None
    if cached or (
        cached is not False
        and known.enabled
        and x.nbytes >= ASK_BYTES
        and not (_moves_layers(options) or any(map(options.get, _NOT_KEPT)))
    ):
        timeout = instance.channel.timeout if timeout is None else timeout
        begin = time.monotonic()
        digest = input_digest(x)
        key = _answer_key(digest, options)
        if cached or known.is_worth(instance.version, key):
            try:
                return _run(instance, x, options, timeout, key, digest)
            except errors.NotFound as error:
                if error.reason != "CACHE_MISS":
                    raise
                known.missed(key)
        timeout -= time.monotonic() - begin
    return _run(instance, x, options, timeout, key, recallable=recallable)


def _run(
    instance: InstanceBase,
    x: Array,
    options: ForwardOptions,
    timeout: float | None,
    key: bytes | None = None,
    digest: bytes | None = None,
    recallable: Recallable | None = None,
    behind: Behind | None = None,
) -> types.Forward:
    """Run a forward of an input, or ask for its answer by the input's digest.

    `key` is the answer's, if what is said of it is to be noted.
    """

    def place(result: Any) -> tuple[list[dict[str, Array]], Parts]:
        outputs, views = tensors.place_tensors(result.outputs)
        if not result.buffers:
            return [outputs, {}], views
        buffers, more = tensors.place_tensors(result.buffers)
        return [outputs, buffers], [*views, *more]

    changes = options.get("tape") or _moves_layers(options)
    sure = bool(options.get("request_id")) or not changes
    given_up = session.take_tapes(instance.channel)
    try:
        request, lasting = _forward_request(instance, x, digest, options, given_up)
        size_key = (instance.uid, lasting, x.shape)
        if recallable is not None:
            recallable(functools.partial(_recall_forward, instance, request))
        call = _prepared(instance, "Forward", request, place, timeout, size_key, sure)
        if behind is not None:
            behind(call)
        result, (outputs, buffers) = call.take()
    except BaseException:
        session.put_back_tapes(instance.channel, given_up)
        raise
    version = instance.saw(result.version)
    if key is not None:
        instance.known_answers.answered(version, key, result.cache_use)
    elif result.cache_use:
        instance.known_answers.enabled = True
    return types.Forward(
        outputs,
        version,
        result.tape_id,
        result.tape_bytes,
        buffers,
        contract.read_timings(result.timings),
        result.rng_state,
        result.cache_use == pb.CACHE_USE_HIT,
    )


def _recall_forward(
    instance: InstanceBase, request: Request, timeout: float | None
) -> bytes:
    """Ask for the answer to a forward that was lost, and give its tape up."""

    def place(result: Any) -> tuple[None, Parts]:
        return None, tensors.place_tensors([*result.outputs, *result.buffers])[1]

    result, _ = _prepared(instance, "Forward", request.bare(), place, timeout).take()
    if result.tape_id:
        session.put_back_tapes(instance.channel, [result.tape_id])
    return bytes(result.rng_state)


# Of a call's options, what may be another for each call.
_PASSING = {"if_version", "request_id", "rng_state", "step"}


@functools.lru_cache(maxsize=256)
def _encoded(address: str, kind: Any, options: Any, inputs: Any) -> bytes:
    """Encode a header of options, and of inputs by field, shape and type."""
    fields, specs = dict(options), {}
    if "returnt" in fields:
        fields["return_type"] = contract.return_type(fields.pop("returnt"))
    for name, shape, dtype in inputs:
        spec = make_spec(np.broadcast_to(np.empty((), dtype), shape))
        specs[name] = [spec] if name == "inputs" else spec
    header = _message(address, kind, fields, **specs)
    return bytes(header.SerializeToString())


def _lasting(
    address: str, kind: Any, options: Mapping[str, Any], **inputs: Array
) -> tuple[bytes, dict[str, Any]]:
    """Encode of a header what is alike for many calls; give the other fields besides.

    Append these, encoded, and you have the header.

    - `inputs`: by the field's name, an array that the header describes.

    Raises TypeError if the call has no such option.
    """
    lasting, passing = [], {}
    for name, value in options.items():
        if name not in _PASSING:
            lasting.append((name, tuple(value) if type(value) is list else value))
        else:
            passing[name] = _MADE[name](value) if name in _MADE else value
    specs = tuple((name, array.shape, array.dtype) for name, array in inputs.items())
    try:
        return _encoded(address, kind, tuple(lasting), specs), passing
    except TypeError:  # A list in one of them, say, which is not remembered.
        return _encoded.__wrapped__(address, kind, lasting, specs), passing


def _forward_request(
    instance: InstanceBase,
    x: Array,
    digest: bytes | None,
    options: ForwardOptions,
    given_up: list[str],
) -> tuple[Request, bytes]:
    """Make the request of a forward; give the part of its header that lasts, too."""
    asked: dict[str, Any] = {**options}
    buffers, _ = asked.pop("buffers", None), asked.pop("cached", None)
    tapes = [*asked.pop("release_tapes", ()), *given_up]
    inputs = {"inputs": x} if digest is None else {}
    begin, passing = _lasting(instance.address, pb.ForwardHeader, asked, **inputs)
    header = pb.ForwardHeader(release_tapes=tapes, input_digest=digest, **passing)
    views = [as_bytes(x)] if digest is None else []
    if buffers is not None:
        arrays = arrays_in_order(instance.layout, buffers)
        missing = [b.name for b in instance.layout.buffers if b.name not in arrays]
        if missing:
            raise errors.InvalidArgument(
                f"a forward takes all buffers: {missing[0]!r} is missing"
            )
        for name, buffer in arrays.items():
            header.buffers.append(make_spec(buffer, name))
            views.append(as_bytes(buffer))
    return Request(begin + header.SerializeToString(), views), begin


def backward(
    instance: InstanceBase,
    tapes: Mapping[str, Mapping[str, Array]],
    options: BackwardOptions,
    timeout: float | None = None,
) -> Prepared[types.Backward]:
    """Prepare a backward; the outputs' gradients are C-contiguous."""
    begin, passing = _lasting(instance.address, pb.BackwardHeader, options)
    header = pb.BackwardHeader(**passing)
    sent: list[memoryview] = []
    for tape_id, gradients in tapes.items():
        specs = [make_spec(array, name) for name, array in gradients.items()]
        header.tapes.add(tape_id=tape_id, gradients=specs)
        sent.extend(map(as_bytes, gradients.values()))

    def place(result: Any) -> tuple[dict[str, Any], Parts]:
        views: list[memoryview] = []

        def place_grads(found: Sequence[Any]) -> list[types.Grads]:
            flats, its = tensors.place_flats([grads.spec for grads in found])
            views.extend(its)
            return [_grads(instance, *pair) for pair in zip(flats, found)]

        def place_sum(name: str) -> types.Grads | None:
            if not result.HasField(name):
                return None
            return place_grads([getattr(result, name)])[0]

        def place_input(spec: Any) -> Array:
            named, its = tensors.place_tensors([spec])
            views.extend(its)
            return named[spec.name]

        # In the order of the answer's bytes.
        found = {
            "grads": place_sum("grads"),
            "input_grads": [place_input(spec) for spec in result.input_grads],
            "tape_grads": place_grads(result.tape_grads),
            "squared_grads": place_sum("squared_grads"),
        }
        return found, views

    # The gradients of a small network fit one message, whatever is present.
    several = (
        options.get("input_grad")
        or options.get("per_tape_grads")
        or (options.get("squared_grads") and options.get("return_grads"))
    )
    small = instance.layout.elements * 8 <= messages.CHUNK_BYTES and not several
    key = instance.uid if small else None
    request = Request(begin + header.SerializeToString(), sent)
    sure = bool(header.request_id)
    call = _prepared(instance, "Backward", request, place, timeout, key, sure)

    def read(answer: tuple[Any, dict[str, Any]]) -> types.Backward:
        result, found = answer
        version = instance.saw(result.version)
        stepped = result.HasField("step")
        return types.Backward(
            version=version,
            timings=contract.read_timings(result.timings),
            step=contract.read_step(version, result.step) if stepped else None,
            held=_mine(instance, result.held) if result.held else (),
            **found,
        )

    return call.then(read)


def step(
    instance: InstanceBase,
    step_options: types.StepOptions | None,
    options: WriteOptions,
) -> Prepared[types.Stepped]:
    """Prepare a step with the gradients that the server holds."""
    timeout = options.pop("timeout", None)
    options["request_id"] = options.get("request_id") or messages.fresh_id()
    message = contract.step_message(step_options)
    request = messages.Query(
        _message(instance.address, pb.StepRequest, options, options=message)
    )
    path = DATA + "Step"

    def make() -> types.Stepped:
        answer = messages.send(
            instance.channel, path, request, pb.StepResponse.FromString, timeout
        )
        return contract.read_step(instance.saw(answer.version), answer.result)

    return Prepared(instance.channel, path, request, timeout, make)


def _mine(instance: InstanceBase, present: Sequence[bool]) -> tuple[bool, ...]:
    """Give what an answer says of the parameters of the instance, without others'.

    Raises MalformedAnswer if it does not fit.
    """
    whole = instance.whole_layout.parameters
    if len(present) != len(whole):
        raise errors.MalformedAnswer(
            f"the answer has gradients of {len(present)} parameters, "
            f"expected {len(whole)}"
        )
    if instance.layout is instance.whole_layout:
        return tuple(present)
    mine = set(instance.layout.parameters)
    return tuple(there for p, there in zip(whole, present) if p in mine)


def _grads(instance: InstanceBase, flat: Array, message: pb.FlatGrads) -> types.Grads:
    """Read an answer's gradients; `flat` will have their values.

    Raises MalformedAnswer if they do not fit the layout.
    """
    kept = _mine(instance, message.present)
    whole = instance.whole_layout.parameters
    there = [p for p, yes in zip(whole, message.present) if yes]
    expected = sum(p.size for p in there)
    if expected != flat.size:
        raise errors.MalformedAnswer(
            f"the answer has {flat.size} elements of gradients, expected {expected}"
        )
    stray = sorted(set(there) - set(instance.layout.parameters))
    if stray:
        raise errors.MalformedAnswer(f"the answer has a gradient of {stray[0].name}")
    return types.Grads(flat, kept)


def selection(instance: InstanceBase, select: types.Select) -> Any:
    """Make the contract's selection of parameters."""
    return contract.selection(instance.scope if select is None else select)


def flat_spec(parts: Sequence[Array]) -> tensor_pb2.TensorSpec:
    """Describe the concatenation of arrays of one dtype."""
    dtype, size = make_spec(parts[0]).dtype, sum(part.size for part in parts)
    return tensor_pb2.TensorSpec(dtype=dtype, shape=[size])


def arrays_in_order(
    layout: types.Layout, buffers: Mapping[str, Any]
) -> dict[str, Array]:
    """Make C-contiguous arrays of named buffers, in the order of a layout.

    Raises InvalidArgument if there is no buffer of a name.
    """
    names = [buffer.name for buffer in layout.buffers]
    for name in buffers:
        if name not in names:
            known = ", ".join(names) or "none"
            raise errors.InvalidArgument(
                f"the buffers are {known}; {name!r} is none of them"
            )
    return {n: np.asarray(buffers[n], order="C") for n in names if n in buffers}


def get_params(
    instance: InstanceBase,
    select: types.Select = None,
    dtype: Any = None,
    **options: Unpack[ReadOptions],
) -> tuple[Array, Version]:
    """Read parameters of one version, flat."""
    number = tensors.float_number(dtype)
    flat, _ = read(
        instance,
        "GetParams",
        lambda result: tensors.place_flat(result.spec),
        options,
        key=(repr(select), number),
        selection=selection(instance, select),
        dtype=number,
    )
    return flat, instance.version


def set_params(
    instance: InstanceBase,
    parts: Sequence[Array],
    select: types.Select = None,
    **options: Unpack[WriteOptions],
) -> Prepared[Version]:
    """Replace parameters by the concatenation of C-contiguous arrays of one dtype."""
    fields = {"selection": selection(instance, select), "spec": flat_spec(parts)}
    return write(instance, "SetParams", parts, options, **fields)


def set_buffers(
    instance: InstanceBase, values: Mapping[str, Any], **options: Unpack[WriteOptions]
) -> Prepared[Version]:
    """Replace the named buffers: all of them, or none."""
    arrays = arrays_in_order(instance.layout, values)
    every = len(arrays) == len(instance.layout.buffers) > 0
    return write(
        instance,
        "SetBuffers",
        list(arrays.values()),
        options,
        selection=contract.selection(None if every else list(arrays)),
        buffers=[make_spec(array, name) for name, array in arrays.items()],
    )


def get_buffers(
    instance: InstanceBase, select: types.Select = None, **options: Unpack[ReadOptions]
) -> tuple[dict[str, Array], Version]:
    """Read buffers of one version, by name."""
    found, _ = read(
        instance,
        "GetBuffers",
        lambda result: tensors.place_tensors(result.buffers),
        options,
        key=repr(select),
        selection=contract.selection(select),
    )
    return found, instance.version


def train_step_request(
    instance: InstanceBase,
    x: Any,
    terms: Terms,
    step: types.StepOptions | None,
    options: TrainStepOptions,
) -> tuple[bytes, list[memoryview]]:
    """Make the header of a training step, encoded, and the bytes that follow."""
    array, asked = as_array(x), {**options, "step": step}
    asked["request_id"] = options.get("request_id") or messages.fresh_id()
    kind = pb.TrainStepHeader
    begin, passing = _lasting(instance.address, kind, asked, input=array)
    header = kind(**passing)
    views = [as_bytes(array)]
    for term in as_terms(terms):
        message = header.terms.add(weight=term.weight)
        if term.rows is not None:
            message.row_begin, message.row_end = term.rows
        views.append(as_bytes(term.fill(message)))
    return begin + header.SerializeToString(), views


def train_step(
    instance: InstanceBase,
    request: Request,
    timeout: float | None,
    key: Hashable = None,
) -> types.TrainStep:
    """Make a training step; the instance takes no note of it.

    `key` as in `messages.exchange`.
    """

    def place(result: Any) -> tuple[Array | None, Parts]:
        if not result.HasField("logits"):
            return None, []
        named, views = tensors.place_tensors([result.logits])
        return named[result.logits.name], views

    delete_abandoned(instance.channel)
    call = _prepared(instance, "TrainStep", request, place, timeout, key)
    result, logits = call.take()
    version = contract.read_version(result.version)
    return types.TrainStep(
        version=version,
        loss=result.loss,
        losses=tuple(result.losses),
        step=contract.read_step(version, result.step),
        logits=logits,
        timings=contract.read_timings(result.timings),
        rng_state=result.rng_state,
    )


def recall_train_step(
    instance: InstanceBase, request: Request, timeout: float | None
) -> bytes:
    """Ask for the answer to a training step that was lost: a `Recall`."""
    return train_step(instance, request.bare(), timeout).rng_state


def delete_abandoned(channel: Channel, timeout: float | None = None) -> None:
    """Delete the unnamed instances that nobody refers to any more.

    The rest is for the next time if a deletion fails.
    """
    if not channel.connection.abandoned_instances:
        return
    channel = channel.metered(Meter())  # Nobody's own traffic.
    left = session.take_instances(channel)
    try:
        while left:
            address, uid = left[0]
            request = control_pb.DeleteInstanceRequest(
                instance=address, if_version=contract.condition(Version(uid))
            )
            with contextlib.suppress(errors.NotFound, errors.Aborted):
                ask(channel, request, timeout)  # Unless somebody else deleted it.
            left.pop(0)
    except errors.BackbonedError:
        left.append(left.pop(0))  # Next time the others come before it.
    finally:
        session.put_back_instances(channel, left)


def release_abandoned(channel: Channel, timeout: float) -> None:
    """Release what nobody refers to any more now, not with the next forward.

    For the end of a connection: does nothing if none is open or the server is gone.
    """
    if not channel.is_open:
        return
    try:
        delete_abandoned(channel, timeout)
        tapes = session.take_tapes(channel)
        if tapes:
            ask(channel, pb.ReleaseTapesRequest(tape_ids=tapes), timeout)
    except errors.BackbonedError:
        pass  # They die with the session.
