"""What a server says of itself, of what it can build, and of what it hosts."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any, NamedTuple

from backboned.dtypes import float_name
from backboned.layout import Version, read_argument, read_version
from backboned.optimizer import Optimizer, read_optimizer
from backboned.v1 import instance_pb2
from backboned.v1 import instance_service_pb2 as pb


class Normalization(NamedTuple):
    """Of uint8 images: ``x / 255``, then ``(x - mean) / std`` for each channel."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Batches(NamedTuple):
    """Batches of forwards that may run together, by why they left.

    `full`: of `--max-batch` samples, or the next forward's would not have fit.
    `delay`: they had waited for `--max-delay-us`. `incompatible`: only other work
    waited behind them. `device_idle`: nothing else waited. `merged_forwards` ran
    together with others; `samples` are those of all batches.
    """

    full: int = 0
    delay: int = 0
    incompatible: int = 0
    device_idle: int = 0
    merged_forwards: int = 0
    samples: int = 0


class FeatureCache(NamedTuple):
    """The answers of forwards that an instance keeps.

    It has `entries` answers of `bytes` bytes, and answered `hits` forwards; `misses`
    were computed. Clients asked for `unknown_digests` in vain, besides. `evictions`
    went for want of room, and `too_large` were not kept since each alone takes more
    than the cache may.
    """

    bytes: int = 0
    entries: int = 0
    hits: int = 0
    misses: int = 0
    unknown_digests: int = 0
    evictions: int = 0
    too_large: int = 0

    @property
    def hit_ratio(self) -> float:
        """The part of forwards that were not computed, in [0, 1]; 0 of none."""
        return self.hits / max(1, self.hits + self.misses)


class Device(NamedTuple):
    """A compute device of a server; sizes in bytes.

    `queued` pieces of work wait for it, which will take some `backlog` seconds. Of
    them, `ahead` would run before a call that was made now with the label, or else the
    session, of whoever asked, which would wait some `estimated_wait` seconds.
    """

    name: str
    description: str
    threads: int
    allocated_bytes: int
    pooled_bytes: int
    default: bool
    queued: int = 0
    backlog: float = 0.0
    batches: Batches = Batches()
    ahead: int = 0
    estimated_wait: float = 0.0


class Usage(NamedTuple):
    """What somebody uses of a server's limits: counts, and bytes.

    `memory_bytes` are those of the CPU tensors that were made for it and are still
    there, whoever uses them now; `cache_bytes` those that its feature caches may take.
    """

    calls: int = 0
    instances: int = 0
    tapes: int = 0
    tape_bytes: int = 0
    in_flight_bytes: int = 0
    memory_bytes: int = 0
    cache_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class ServerInfo:
    """What a server is.

    Attributes
    ----------
    version, torch_version : str
    devices : tuple of Device
    limits : dict
        Bytes, counts, seconds (`tape_ttl`, `session_ttl`, `stall_timeout`), and
        fractions of them that one session, and the caller's principal, may use
        (`session_quota`, `principal_quota`).
    server_uid : str
        Random for each start.
    principal : str
        Whom the server takes the caller for.
    capabilities : tuple of str
    session_usage, principal_usage : Usage
        What this client uses of the limits, and all clients of its principal.
    numerics : dict of str to str
        What the last bits of results depend on besides LibTorch's version, processor
        and threads; empty from an older server.
    """

    version: str
    torch_version: str
    devices: tuple[Device, ...]
    limits: dict[str, Any]
    server_uid: str
    principal: str
    capabilities: tuple[str, ...]
    session_usage: Usage = Usage()
    principal_usage: Usage = Usage()
    numerics: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def threads(self) -> int:
        """Threads of the default device; equal bits need as many in the client."""
        default = [d for d in self.devices if d.default] or list(self.devices)
        return default[0].threads if default else 0


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument of an architecture; `default` None: the caller must say."""

    name: str
    default: Any
    description: str
    minimum: int | None
    maximum: int | None
    choices: tuple[Any, ...]
    step: int


@dataclasses.dataclass(frozen=True)
class Architecture:
    """An architecture that the server can build."""

    name: str
    description: str
    source: str
    arguments: tuple[Argument, ...]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A continual-learning dataset and setting that the server knows."""

    name: str
    setting: str
    architecture: str
    arguments: dict[str, Any]
    num_classes: int
    num_tasks: int
    classes_per_task: tuple[int, ...]
    input_shape: tuple[int, ...]
    normalization: Normalization | None
    batch_size: int
    epochs: int
    source: str


@dataclasses.dataclass(frozen=True)
class InstanceInfo:
    """What the server knows of an instance; sizes in bytes, time in UTC.

    `weights` is the weights file that it began with, empty for none; `weights_sha256`
    is that file's SHA-256. `optimizer` is what the server steps, None for nothing.
    `read_only` and `frozen` are its settings. Of its `memory_bytes`, another
    instance holds `shared_bytes` too; besides, its tapes hold `tape_state_bytes` of
    parameters and buffers that it has left. `demoted_tapes` gave up their graph for
    want of room, and `replayed_forwards` were run again for them.
    Its `feature_cache` may take `feature_cache_bytes`; 0: it has none.
    `dtype` is its parameters' element type, e.g. ``"float32"``; `columns` are the
    earlier columns of a progressive network, as ``owner/name``.
    """

    name: str
    owner: str
    version: Version
    architecture: str
    arguments: dict[str, Any]
    benchmark: str
    device: str
    create_time: datetime.datetime
    normalization: Normalization | None
    digest: str
    memory_bytes: int
    tape_count: int
    tape_bytes: int
    forwards: int
    backwards: int
    writes: int
    ephemeral: bool
    weights: str = ""
    weights_sha256: str = ""
    steps: int = 0
    optimizer: Optimizer | None = None
    read_only: bool = False
    frozen: tuple[str, ...] = ()
    shared_bytes: int = 0
    tape_state_bytes: int = 0
    demoted_tapes: int = 0
    replayed_forwards: int = 0
    dtype: str = "float32"
    columns: tuple[str, ...] = ()
    feature_cache_bytes: int = 0
    feature_cache: FeatureCache = FeatureCache()


def read_server(message: pb.GetServerResponse) -> ServerInfo:
    """Read the contract's GetServerResponse."""
    limits: dict[str, Any] = {}
    for field in message.limits.DESCRIPTOR.fields:
        value = getattr(message.limits, field.name)
        is_duration = field.message_type is not None
        limits[field.name] = value.ToMilliseconds() / 1e3 if is_duration else value
    return ServerInfo(
        version=message.version,
        torch_version=message.torch_version,
        devices=tuple(
            Device(
                d.name,
                d.description,
                d.threads,
                d.allocated_bytes,
                d.pooled_bytes,
                d.default,
                d.queued,
                d.backlog.ToNanoseconds() / 1e9,
                _batches(d.batches),
                d.ahead,
                d.estimated_wait.ToNanoseconds() / 1e9,
            )
            for d in message.devices
        ),
        limits=limits,
        server_uid=message.server_uid,
        principal=message.principal,
        capabilities=tuple(message.capabilities),
        session_usage=_usage(message.session_usage),
        principal_usage=_usage(message.principal_usage),
        numerics=dict(message.numerics),
    )


def read_architecture(message: pb.Architecture) -> Architecture:
    """Read the contract's Architecture."""
    return Architecture(
        name=message.name,
        description=message.description,
        source=message.source,
        arguments=tuple(
            Argument(
                name=a.name,
                default=read_argument(a.default_value),
                description=a.description,
                minimum=a.minimum if a.HasField("minimum") else None,
                maximum=a.maximum if a.HasField("maximum") else None,
                choices=tuple(read_argument(c) for c in a.choices),
                step=a.step or 1,
            )
            for a in message.arguments
        ),
    )


def read_benchmark(message: pb.Benchmark) -> Benchmark:
    """Read the contract's Benchmark."""
    return Benchmark(
        name=message.name,
        setting=message.setting,
        architecture=message.architecture,
        arguments={k: read_argument(v) for k, v in message.arguments.items()},
        num_classes=message.num_classes,
        num_tasks=message.num_tasks,
        classes_per_task=tuple(message.classes_per_task),
        input_shape=tuple(message.input_shape),
        normalization=_normalization(message),
        batch_size=message.batch_size,
        epochs=message.epochs,
        source=message.source,
    )


def read_instance(message: instance_pb2.Instance) -> InstanceInfo:
    """Read the contract's Instance, without its layout."""
    return InstanceInfo(
        name=message.name,
        owner=message.owner,
        version=read_version(message.version),
        architecture=message.architecture,
        arguments={k: read_argument(v) for k, v in message.arguments.items()},
        benchmark=message.benchmark,
        device=message.device,
        create_time=message.create_time.ToDatetime().replace(
            tzinfo=datetime.timezone.utc
        ),
        normalization=_normalization(message),
        digest=message.digest,
        memory_bytes=message.memory_bytes,
        tape_count=message.tape_count,
        tape_bytes=message.tape_bytes,
        forwards=message.counters.forwards,
        backwards=message.counters.backwards,
        writes=message.counters.writes,
        ephemeral=message.ephemeral,
        weights=message.weights,
        weights_sha256=message.weights_sha256,
        steps=message.counters.steps,
        optimizer=(
            read_optimizer(message.optimizer) if message.HasField("optimizer") else None
        ),
        read_only=message.settings.read_only,
        frozen=tuple(message.settings.frozen),
        shared_bytes=message.shared_bytes,
        tape_state_bytes=message.tape_state_bytes,
        demoted_tapes=message.counters.demoted_tapes,
        replayed_forwards=message.counters.replayed_forwards,
        dtype=float_name(message.dtype),
        columns=tuple(message.columns),
        feature_cache_bytes=message.settings.feature_cache_bytes,
        feature_cache=FeatureCache(
            *(getattr(message.feature_cache, name) for name in FeatureCache._fields)
        ),
    )


def _usage(message: pb.Usage) -> Usage:
    return Usage(*(getattr(message, name) for name in Usage._fields))


def _batches(message: pb.BatchCounters) -> Batches:
    return Batches(*(getattr(message, name) for name in Batches._fields))


def _normalization(message: Any) -> Normalization | None:
    if not message.HasField("normalization"):
        return None
    return Normalization(
        tuple(message.normalization.mean), tuple(message.normalization.std)
    )
