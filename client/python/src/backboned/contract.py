"""Makes the contract's messages of the package's values, and reads them back."""

from __future__ import annotations

import dataclasses
import datetime
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from backboned import types
from backboned.errors import InvalidArgument, MalformedAnswer
from backboned.transport.tensors import float_name, numpy_dtype
from backboned.v1 import backbone_service_pb2 as backbone_pb
from backboned.v1 import (
    checkpoint_pb2,
    instance_pb2,
    optimizer_pb2,
    selection_pb2,
    usage_pb2,
)
from backboned.v1 import instance_service_pb2 as pb

V = TypeVar("V")

_WEIGHTS = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_SIZE = re.compile(r"(-?\d+) ?(KiB|MiB|GiB|)")
_SHIFTS = {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}


# Messages of calls. A value that the contract does not have is an InvalidArgument.


def _words(enum: Any) -> dict[str, Any]:
    """Give the numbers of an enum by their words: ``"sgd"`` of OPTIMIZER_KIND_SGD."""
    prefix = len(enum.Name(0)) - len("UNSPECIFIED")
    return {name[prefix:].lower(): number for name, number in enum.items() if number}


def _word(enum: Any, number: int) -> str | None:
    """Give the word of a number; None: it is unspecified, or not known here."""
    return {number: word for word, number in _words(enum).items()}.get(number)


def _number(enum: Any, what: str, word: str) -> Any:
    words = _words(enum)
    if word not in words:
        known = " or ".join(map(repr, words))
        raise InvalidArgument(f"no {what} {word!r}; it is {known}")
    return words[word]


def precision_number(word: str | None) -> Any:
    """Give the number of a precision; None: the server's default."""
    return word and _number(instance_pb2.Precision, "precision", word)


def condition(version: types.Version | None) -> instance_pb2.IfVersion | None:
    """Make the contract's condition of a version; None stays None."""
    if version is None:
        return None
    uid, params, buffers = version
    return instance_pb2.IfVersion(uid=uid, params=params, buffers=buffers)


def selection(select: types.Select) -> selection_pb2.Selection | None:
    """Make the contract's selection; None stays None."""
    if select is None:
        return None
    if isinstance(select, range):
        if select.step != 1:
            raise InvalidArgument(f"a range of elements has no step; got {select}")
        span = selection_pb2.ElementRange(begin=select.start, end=select.stop)
        return selection_pb2.Selection(range=span)
    globs = [select] if isinstance(select, str) else list(select)
    if not globs:
        raise InvalidArgument("an empty list of names selects nothing")
    return selection_pb2.Selection(globs=globs)


def argument_values(
    arguments: Mapping[str, Any],
) -> dict[str, instance_pb2.ArgumentValue]:
    """Make the contract's values of an architecture's arguments."""
    return {name: _argument(name, value) for name, value in arguments.items()}


def _argument(name: str, value: Any) -> instance_pb2.ArgumentValue:
    if isinstance(value, (bool, np.bool_)):
        return instance_pb2.ArgumentValue(bool_value=bool(value))
    if isinstance(value, (int, np.integer)):
        return instance_pb2.ArgumentValue(int_value=int(value))
    if isinstance(value, (float, np.floating)):
        return instance_pb2.ArgumentValue(double_value=float(value))
    if isinstance(value, str):
        return instance_pb2.ArgumentValue(string_value=value)
    raise InvalidArgument(
        f"argument {name!r} is a bool, int, float or str; got {type(value).__name__}"
    )


def return_type(returnt: str | None) -> backbone_pb.ReturnType:
    """Give the contract's word for Mammoth's."""
    if returnt is None:
        return backbone_pb.RETURN_TYPE_UNSPECIFIED
    number: backbone_pb.ReturnType = _number(backbone_pb.ReturnType, "returnt", returnt)
    return number


def batch_norm_messages(
    settings: Sequence[types.BatchNorm],
) -> list[backbone_pb.BatchNormOverride]:
    """Make the contract's settings of BatchNorm layers."""
    messages = []
    for layers in settings:
        if layers.cumulative and layers.momentum is not None:
            raise InvalidArgument("give either momentum or cumulative, not both")
        fields = dataclasses.asdict(layers)
        fields["cumulative"] = layers.cumulative or None
        messages.append(backbone_pb.BatchNormOverride(**fields))
    return messages


def optimizer_message(optimizer: types.Optimizer) -> optimizer_pb2.Optimizer:
    """Make the contract's optimizer."""
    kind = _number(optimizer_pb2.OptimizerKind, "optimizer", optimizer.kind)
    groups = [
        optimizer_pb2.ParameterGroup(
            **_group_fields(group), selection=selection(group.select)
        )
        for group in optimizer.groups
    ]
    return optimizer_pb2.Optimizer(kind=kind, groups=groups)


def _group_fields(group: types.ParameterGroup | types.GroupSettings) -> dict[str, Any]:
    fields = {f.name: getattr(group, f.name) for f in dataclasses.fields(group)}
    fields.pop("select", None)
    fields["beta1"], fields["beta2"] = fields.pop("betas") or (None, None)
    return fields


def step_message(options: types.StepOptions | None) -> optimizer_pb2.StepOptions | None:
    """Make the contract's options of a step; None stays None: the default ones."""
    if options is None:
        return None
    message = optimizer_pb2.StepOptions(
        lr=options.lr,
        zero_after=options.zero_after,
        settings=[
            optimizer_pb2.GroupSettings(**_group_fields(s)) for s in options.settings
        ],
        clip_value=options.clip_value,
    )
    if options.clip_norm is not None and options.clip_value is not None:
        raise InvalidArgument("give clip_norm or clip_value, not both")
    if options.clip_norm is not None:
        message.clip_norm.max_norm = options.clip_norm
        message.clip_norm.norm_type = options.norm_type
    return message


def read_size(size: int | str, name: str) -> int:
    """Read a number of bytes.

    Raises InvalidArgument, which has the `name`, if it is none.
    """
    match = _SIZE.fullmatch(str(size))
    if match is None:
        raise InvalidArgument(
            f"{name} is {size!r}; it is a number of bytes, or like '512KiB', "
            "'256MiB', '1GiB'"
        )
    return int(match[1]) << _SHIFTS[match[2]]


def settings_message(
    read_only: bool | None,
    frozen: types.Frozen | None,
    feature_cache: int | str | None = None,
    shared: bool | None = None,
) -> instance_pb2.InstanceSettings:
    """Make the contract's settings of an instance; None is what a new one has."""
    if frozen is None or isinstance(frozen, bool):
        frozen = ["*"] if frozen else []
    feature_cache = 0 if feature_cache is None else feature_cache
    return instance_pb2.InstanceSettings(
        read_only=bool(read_only),
        frozen=[frozen] if isinstance(frozen, str) else frozen,
        feature_cache_bytes=read_size(feature_cache, "feature_cache"),
        shared=bool(shared),
    )


def checked_seed(seed: Any) -> int | None:
    """Give a seed as the contract has it, an integer of 64 bits; None stays None."""
    if seed is None:
        return None
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise InvalidArgument(f"seed is {seed!r}; it is an integer from 0 to 2**64 - 1")
    return number


def normalization_message(
    normalization: types.Normalization | None,
) -> instance_pb2.Normalization | None:
    """Make the contract's normalization of images; None stays None."""
    return normalization and instance_pb2.Normalization(**normalization._asdict())


def weights_message(
    weights: str | None, load_by: str, partial: bool, resize: bool
) -> pb.Weights | None:
    """Make the contract's weights; None stays None."""
    order = _number(pb.LoadBy, "load_by", load_by)
    if weights is None:
        if partial or resize or load_by != "name":
            raise InvalidArgument(
                "load_by, partial and resize_position_embedding say how weights are "
                "loaded"
            )
        return None
    if not _WEIGHTS.fullmatch(weights):
        raise InvalidArgument(
            f"weights is {weights!r}; it is the name of a file of the server's "
            "--weights-dir, without folder and .safetensors: [a-z0-9][a-z0-9_.-]{0,63}"
        )
    return pb.Weights(
        name=weights, load_by=order, partial=partial, resize_position_embedding=resize
    )


def usage_request(
    by: str | Sequence[str],
    since: datetime.datetime | datetime.timedelta | None,
    until: datetime.datetime | datetime.timedelta | None,
) -> pb.ListUsageRequest:
    """Make the contract's question for what was used."""
    words = [by] if isinstance(by, str) else by
    return pb.ListUsageRequest(
        by=[_number(usage_pb2.UsageBy, "by", word) for word in words],
        since=_timestamp(since),
        until=_timestamp(until),
    )


def _timestamp(time: datetime.datetime | datetime.timedelta | None) -> Timestamp | None:
    if time is None:
        return None
    utc = datetime.timezone.utc
    if isinstance(time, datetime.timedelta):
        time = datetime.datetime.now(utc) - time
    stamp = Timestamp()
    stamp.FromDatetime(time.astimezone(utc))
    return stamp


# Contents of answers. An answer that breaks the contract is a MalformedAnswer.


def _read(kind: type[V], *messages: Any, **given: Any) -> V:
    """Make a value of the fields that messages have of the same names.

    Durations become seconds, repeated fields tuples, arguments what they hold. `given`
    are the other fields.
    """
    for name in kind.__annotations__:
        if name not in given:
            message = next(m for m in messages if name in m.DESCRIPTOR.fields_by_name)
            given[name] = _value(getattr(message, name))
    return kind(**given)


def _value(field: Any) -> Any:
    if isinstance(field, Duration):
        return read_duration(field)
    if isinstance(field, instance_pb2.ArgumentValue):
        return read_argument(field)
    if isinstance(field, (str, bytes)) or not hasattr(field, "__len__"):
        return field
    if hasattr(field, "items"):
        return {name: _value(value) for name, value in field.items()}
    return tuple(map(_value, field))


def read_version(message: instance_pb2.Version) -> types.Version:
    """Read the version of an instance."""
    return types.Version(message.uid, message.params, message.buffers)


def read_argument(message: instance_pb2.ArgumentValue) -> Any:
    """Read the value of an architecture's argument; None if it has none."""
    kind = message.WhichOneof("kind")
    return getattr(message, kind) if kind else None


def _normalization(message: Any) -> types.Normalization | None:
    if not message.HasField("normalization"):
        return None
    return _read(types.Normalization, message.normalization)


def read_layout(message: instance_pb2.Layout) -> types.Layout:
    """Read the layout of an instance."""
    return _read(
        types.Layout,
        message,
        parameters=tuple(
            types.Parameter(p.name, tuple(p.shape), p.offset, tuple(p.aliases))
            for p in message.parameters
        ),
        buffers=tuple(
            types.Buffer(b.name, numpy_dtype(b.dtype), tuple(b.shape))
            for b in message.buffers
        ),
        elements=message.parameter_elements,
    )


def read_server(message: pb.GetServerResponse, transport: str = "") -> types.ServerInfo:
    """Read the description of a server that is called through a transport."""
    return _read(
        types.ServerInfo,
        message,
        devices=tuple(
            _read(types.Device, device, batches=_read(types.Batches, device.batches))
            for device in message.devices
        ),
        limits={
            field.name: _value(getattr(message.limits, field.name))
            for field in message.limits.DESCRIPTOR.fields
        },
        session_usage=_read(types.Usage, message.session_usage),
        principal_usage=_read(types.Usage, message.principal_usage),
        rights=_word(pb.Rights, message.rights) or "",
        transport=transport,
    )


def read_architecture(message: pb.Architecture) -> types.Architecture:
    """Read the description of an architecture."""
    arguments = tuple(
        _read(
            types.Argument,
            a,
            default=read_argument(a.default_value),
            minimum=a.minimum if a.HasField("minimum") else None,
            maximum=a.maximum if a.HasField("maximum") else None,
            step=a.step or 1,
        )
        for a in message.arguments
    )
    return _read(types.Architecture, message, arguments=arguments)


def read_benchmark(message: pb.Benchmark) -> types.Benchmark:
    """Read the description of a benchmark."""
    return _read(types.Benchmark, message, normalization=_normalization(message))


def read_instance(message: instance_pb2.Instance) -> types.InstanceInfo:
    """Read the description of an instance, without its layout."""
    optimizer = message.optimizer if message.HasField("optimizer") else None
    return _read(
        types.InstanceInfo,
        message,
        message.counters,
        message.settings,
        version=read_version(message.version),
        create_time=message.create_time.ToDatetime(datetime.timezone.utc),
        normalization=_normalization(message),
        optimizer=optimizer and read_optimizer(optimizer),
        dtype=float_name(message.dtype),
        precision=_word(instance_pb2.Precision, message.precision),
        feature_cache=_read(types.FeatureCache, message.feature_cache),
        saved=read_version(message.saved) if message.HasField("saved") else None,
        rollback=_rollback(message),
    )


def _rollback(message: instance_pb2.Instance) -> types.Rollback | None:
    if not message.HasField("rollback"):
        return None
    rollback = message.rollback
    saved = tuple(map(read_version, rollback.saved))
    return types.Rollback(saved, read_version(rollback.raised))


def read_checkpoint(message: checkpoint_pb2.Checkpoint) -> types.Checkpoint:
    """Read the description of a checkpoint."""
    return _read(
        types.Checkpoint,
        message,
        create_time=message.create_time.ToDatetime(datetime.timezone.utc),
        instance=read_instance(message.instance),
    )


def read_usage(message: usage_pb2.UsageRow) -> types.UsageRow:
    """Read what calls have used."""
    return _read(
        types.UsageRow,
        message,
        begin=message.begin.ToDatetime(datetime.timezone.utc),
        end=message.end.ToDatetime(datetime.timezone.utc),
        flops=int(message.flops),
    )


def read_duration(message: Duration) -> float:
    """Read seconds."""
    return message.ToNanoseconds() / 1e9


def read_optimizer(message: optimizer_pb2.Optimizer) -> types.Optimizer:
    """Read an optimizer."""
    kind = _word(optimizer_pb2.OptimizerKind, message.kind)
    if kind is None:
        raise MalformedAnswer(f"the answer has an optimizer of kind {message.kind}")
    groups = tuple(_read_group(group) for group in message.groups)
    return types.Optimizer(kind, groups)


def _read_group(group: optimizer_pb2.ParameterGroup) -> types.ParameterGroup:
    select: types.Select = list(group.selection.globs) or None
    if group.selection.HasField("range"):
        select = range(group.selection.range.begin, group.selection.range.end)
    return _read(
        types.ParameterGroup,
        group,
        select=select,
        betas=(group.beta1, group.beta2) if group.HasField("beta1") else None,
        eps=group.eps if group.HasField("eps") else None,
    )


def read_step(
    version: types.Version, message: optimizer_pb2.StepResult
) -> types.Stepped:
    """Read what a step did."""
    norm = message.grad_norm if message.HasField("grad_norm") else None
    return types.Stepped(version, norm, message.stepped_count)


def read_timings(message: backbone_pb.Timings) -> types.Timings:
    """Read the seconds that a call took in the server."""
    parts = (message.queue, message.compute, message.total)
    return types.Timings(*[(p.seconds * 10**9 + p.nanos) / 1e9 for p in parts])
