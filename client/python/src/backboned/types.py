"""The values that calls take and give: what an instance is made of, and answers."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Union

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Architecture",
    "Argument",
    "Backward",
    "BatchNorm",
    "Batches",
    "Benchmark",
    "Buffer",
    "Device",
    "Extracted",
    "FeatureCache",
    "Forward",
    "Frozen",
    "Grads",
    "GroupSettings",
    "InstanceInfo",
    "Layout",
    "Normalization",
    "Optimizer",
    "OptimizerState",
    "Parameter",
    "ParameterGroup",
    "Select",
    "ServerInfo",
    "StepOptions",
    "Stepped",
    "Timings",
    "Traffic",
    "TrainStep",
    "Usage",
    "UsageReport",
    "UsageRow",
    "Version",
    "Waiting",
]

Array = NDArray[Any]

Select = Union[None, str, Sequence[str], range]
"""Which parameters or buffers: None is all; a glob or globs over names, ``"!glob"``
excludes, the last match decides; or a range of elements of the flat vector."""

Frozen = Union[bool, str, Sequence[str]]
"""Which parameters are not trained: a glob or globs over names, or all or none."""


class Version(NamedTuple):
    """A state of an instance. As a condition, what is None is not compared.

    `uid` is random for each creation; `params` and `buffers` rise with each change.
    """

    uid: str | None = None
    params: int | None = None
    buffers: int | None = None


class Parameter(NamedTuple):
    """A parameter: its state-dict key and its place in the flat vector (elements)."""

    name: str
    shape: tuple[int, ...]
    offset: int
    aliases: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Buffer(NamedTuple):
    """A tensor of the state that is not trained."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The parameters, buffers and outputs of an instance. It never changes.

    - `parameters`, `buffers`: in flat order.
    - `elements`: elements of all parameters.
    - `outputs`: what a forward can give: ``out``, ``features``, ``layers.0``, ...
    - `attributes`: e.g. ``feature_dim``, ``num_classes``.
    - `input_shape`: C, H, W of one input; -1 is any; empty: any with the right number
      of elements.
    - `stochastic`: whether forwards in training draw random numbers.
    - `prerelu`: whether the stages can be given as they are before their ReLU.
    """

    parameters: tuple[Parameter, ...]
    buffers: tuple[Buffer, ...]
    elements: int
    outputs: tuple[str, ...]
    attributes: Mapping[str, int]
    input_shape: tuple[int, ...]
    stochastic: bool
    prerelu: bool


def matching(globs: Sequence[str], names: Sequence[str]) -> list[str]:
    """Give the names that globs select, as the server does."""
    selected = []
    for name in names:
        chosen = bool(globs) and globs[0].startswith("!")
        for glob in globs:
            pattern = ".*".join(map(re.escape, glob.lstrip("!").split("*")))
            if re.fullmatch(pattern, name):
                chosen = not glob.startswith("!")
        if chosen:
            selected.append(name)
    return selected


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """Settings of some BatchNorm layers in one forward, in PyTorch's words.

    - `globs`: over the layers' names, e.g. ``"layer1.*"``; empty: all layers.
    - `training`: whether they are in training; by default as the forward is.
    - `track_running_stats`: False: in training, batch statistics and no change of the
      buffers; in evaluation, the running statistics all the same.
    - `eps`, `momentum`: at least 0, and in [0, 1]; by default the architecture's.
    - `cumulative`: PyTorch's ``momentum=None``: the average of all batches so far.
    """

    globs: Sequence[str] = ()
    training: bool | None = None
    track_running_stats: bool | None = None
    eps: float | None = None
    momentum: float | None = None
    cumulative: bool = False


@dataclasses.dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are stepped alike, and how; names and meaning are PyTorch's.

    `select` names them; None: all. A range may not cut one. `lr` is 0.001 by default,
    `weight_decay` 0, of AdamW 0.01. `momentum`, `dampening` and `nesterov` are SGD's;
    `betas` (by default 0.9 and 0.999), `eps` (1e-8) and `amsgrad` Adam's and AdamW's.
    """

    select: Select = None
    lr: float | None = None
    weight_decay: float | None = None
    maximize: bool = False
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] | None = None
    eps: float | None = None
    amsgrad: bool = False


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer: ``"sgd"``, ``"adam"`` or ``"adamw"``, and its groups."""

    kind: str
    groups: tuple[ParameterGroup, ...] = (ParameterGroup(),)


@dataclasses.dataclass(frozen=True)
class GroupSettings:
    """Settings of a `ParameterGroup` that a step changes; None: as it is."""

    weight_decay: float | None = None
    maximize: bool | None = None
    momentum: float | None = None
    dampening: float | None = None
    nesterov: bool | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """The options of one step.

    - `lr`: learning rates of this step and of those after it, one for each group;
      empty: as they are.
    - `clip_norm`: makes the norm of all gradients together at most this, as
      ``torch.nn.utils.clip_grad_norm_`` does.
    - `norm_type`: the p of that p-norm; infinity is the largest absolute value.
    - `clip_value`: bounds each element, as ``clip_grad_value_`` does. Not with
      `clip_norm`.
    - `zero_after`: take the gradients away afterwards.
    - `settings`: other settings of this step and of those after it, one for each group;
      what the optimizer remembers stays. Empty: as they are.
    """

    lr: Sequence[float] = ()
    clip_norm: float | None = None
    norm_type: float = 2.0
    clip_value: float | None = None
    zero_after: bool = False
    settings: Sequence[GroupSettings] = ()


class Stepped(NamedTuple):
    """The result of a step.

    `grad_norm` is the norm of the gradients before they were clipped, if `clip_norm`
    was given; `stepped_count` how many parameters changed.
    """

    version: Version
    grad_norm: float | None
    stepped_count: int


class OptimizerState(NamedTuple):
    """An optimizer with its present learning rates, and what it remembers.

    `tensors` holds ``<parameter>/momentum_buffer``, or ``<parameter>/step`` (float32,
    a scalar), ``/exp_avg``, ``/exp_avg_sq`` and ``/max_exp_avg_sq``, by parameter; a
    parameter that was never stepped has none.
    """

    optimizer: Optimizer
    tensors: dict[str, Array]
    version: Version


class Timings(NamedTuple):
    """Seconds in the server: waiting, on the device, and in all."""

    queue: float
    compute: float
    total: float


@dataclasses.dataclass(frozen=True)
class Forward:
    """The result of a forward.

    - `outputs`: by name, in the order asked for; of the instance's dtype unless asked
      for otherwise, bfloat16 as float32.
    - `version`: parameters of the forward, buffers after it.
    - `tape_id`: for `Instance.backward`; empty if no tape was asked for.
    - `tape_bytes`: bytes that the tape holds in the server.
    - `buffers`: after the forward, if asked for.
    - `rng_state`: the generator's after the forward, if one was given.
    - `cached`: the instance's feature cache had the answer; nothing was computed.
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
    """The result of a backward; lists are in the order of the request.

    - `grads`: of all parameters, if asked for.
    - `input_grads`: one for each tape, if asked for.
    - `tape_grads`: each tape's own, if asked for.
    - `squared_grads`: the sum over the tapes of the squares of each one's, if asked
      for.
    - `step`: what the step did, if there was one.
    - `held`: for each parameter, whether the instance has a gradient of it afterwards;
      empty unless it accumulated.
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

    `data` is [N, D] or [N, K], of the instance's dtype, bfloat16 as float32; `instance`
    is ``owner/name``; `digest` the SHA-256 of parameters and buffers, 64 hexadecimal
    digits.
    """

    data: Array
    instance: str
    version: Version
    digest: str


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The result of a training step.

    `version` is the one afterwards; `loss` the weighted sum of the terms, `losses` each
    term before its weight; `logits` are [N, K], if asked for; `rng_state` is the
    generator's after the forward, if one was given.
    """

    version: Version
    loss: float
    losses: tuple[float, ...]
    step: Stepped
    logits: Array | None
    timings: Timings
    rng_state: bytes = b""


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
    session, of whoever asked, which would wait some `estimated_wait` seconds. It has
    worked for `busy` seconds since the server's start. Of a GPU: its memory's
    `total_bytes`, those that no process has (`free_bytes`), and the version of CUDA of
    its `driver`.
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
    busy: float = 0.0
    total_bytes: int = 0
    free_bytes: int = 0
    driver: str = ""


class Usage(NamedTuple):
    """The amounts that somebody uses of a server's limits: counts, and bytes.

    `memory_bytes` are those of the CPU tensors that were made for it and are still
    there, whoever uses them now; `cache_bytes` those that its feature caches may take;
    `device_memory_bytes` those on GPUs of its states and tapes.
    """

    calls: int = 0
    instances: int = 0
    tapes: int = 0
    tape_bytes: int = 0
    in_flight_bytes: int = 0
    memory_bytes: int = 0
    cache_bytes: int = 0
    device_memory_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class ServerInfo:
    """The description of a server.

    `server_uid` is random for each start, `principal` whom the server takes the caller
    for, `rights` the caller's: ``infer``, ``train`` or ``admin``; empty from an older
    server. `limits` are bytes, counts, seconds (`tape_ttl`, `session_ttl`,
    `stall_timeout`), and fractions of them that one session, and the caller's
    principal, may use (`session_quota`, `principal_quota`); `session_usage` and
    `principal_usage` what this client uses of them, and all clients of its principal.
    `numerics` says what the last bits of results depend on besides LibTorch's version,
    processor and threads; empty from an older server. `transport` is what carries this
    client's calls: ``native`` or ``grpcio``. An admin sees in `refusals` how many calls
    the server refused for want of rights since its start, by reason.
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
    transport: str = ""
    rights: str = ""
    refusals: dict[str, int] = dataclasses.field(default_factory=dict)

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


class Rollback(NamedTuple):
    """The marks that a crash of the server left on an instance that came back.

    Its state was `saved` under these versions, the newest last: several if it did not
    change between crashes. Those after them are lost. It came back under the version
    `raised`, above all of those.
    """

    saved: tuple[Version, ...]
    raised: Version


@dataclasses.dataclass(frozen=True)
class InstanceInfo:
    """The description of an instance; sizes in bytes, time in UTC.

    `benchmark` is empty if it was made from an `architecture`; `arguments` are that
    one's, defaults filled in. `device` is e.g. ``"cpu"``. `normalization` is of uint8
    images; None: they are refused. If it is `ephemeral`, it was not named, and dies
    with the session that made it.
    `weights` is the weights file that it began with, empty for none; `weights_sha256`
    is that file's SHA-256. `optimizer` is what the server steps, None for nothing.
    `read_only`, `frozen` and `shared` are its settings. Of its `memory_bytes`, another
    instance holds `shared_bytes` too; besides, its tapes hold `tape_state_bytes` of
    parameters and buffers that it has left. `demoted_tapes` gave up their graph for
    want of room, and `replayed_forwards` were run again for them.
    Its `feature_cache` may take `feature_cache_bytes`; 0: it has none.
    `dtype` is its parameters' element type, e.g. ``"float32"``; `precision` that of its
    products and convolutions, as `Server.create` takes it; `columns` are the
    earlier columns of a progressive network, as ``owner/name``.
    It is `asleep` if its state is on the server's disk and takes no memory; its next
    use brings it back. `idle` are the seconds since a call last used it.
    `saved` is the newest version whose state would come back after a restart of the
    server; None: none would. `rollback` says how it came back after a crash; None: it
    did not. Its gradients changed `gradient_changes` times since its parameters or
    buffers did.
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
    precision: str | None = None
    columns: tuple[str, ...] = ()
    feature_cache_bytes: int = 0
    shared: bool = False
    feature_cache: FeatureCache = FeatureCache()
    asleep: bool = False
    idle: float = dataclasses.field(default=0.0, compare=False)
    saved: Version | None = None
    rollback: Rollback | None = None
    gradient_changes: int = 0


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The state of an instance at one version, on the server's disk; time in UTC.

    It has parameters, buffers, gradients, generator, and the optimizer with its state.
    Several of one `name` and `owner` differ in their `number`; a later one's is higher.
    `instance` says how the instance was then, with its version and digest. `bytes` are
    those of its files, some of which it may share.
    """

    name: str
    owner: str
    number: int
    create_time: datetime.datetime
    instance: InstanceInfo
    bytes: int
    server_version: str
    torch_version: str


@dataclasses.dataclass(frozen=True)
class UsageRow:
    """The usage of calls; times in UTC, of hours that are whole.

    `principal`, `instance` (``owner/name``), `instance_uid` and `label` are empty if
    the row is of all, or of calls that have none. `device_time` is in seconds: of work
    that ran together with others' its part by samples. `flops` are the operations of
    forwards and backwards (docs/usage.md). Bytes are those of the calls' messages.
    """

    principal: str
    instance: str
    instance_uid: str
    label: str
    begin: datetime.datetime
    end: datetime.datetime
    calls: int
    device_time: float
    flops: int
    received_bytes: int
    sent_bytes: int


class UsageReport(NamedTuple):
    """Rows, and the seconds that all devices worked meanwhile, for whomever."""

    rows: tuple[UsageRow, ...]
    device_busy: float


@dataclasses.dataclass(frozen=True)
class Traffic:
    """The traffic so far; the difference of two says what travelled in between.

    Bytes are those of gRPC's messages, without the few that HTTP/2 adds.
    """

    sent_bytes: int = 0
    received_bytes: int = 0
    round_trips: int = 0

    def __sub__(self, earlier: Traffic) -> Traffic:
        """Give what travelled since."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(earlier))
        return Traffic(*(now - then for now, then in pairs))

    def __add__(self, other: Traffic) -> Traffic:
        """Give what travelled in both, e.g. for two networks."""
        if not isinstance(other, Traffic):
            return NotImplemented
        return self - (Traffic() - other)

    def __radd__(self, nothing: int) -> Traffic:
        """Let `sum` begin with its 0."""
        return self if nothing == 0 else NotImplemented

    def __str__(self) -> str:
        """Say it in megabytes."""
        return (
            f"{self.sent_bytes / 1e6:.3f} MB sent, "
            f"{self.received_bytes / 1e6:.3f} MB received, "
            f"{self.round_trips} round trips"
        )


class Waiting(NamedTuple):
    """The reason why a call waits.

    The server is too busy to begin it: `limit`, of `scope`, is reached, and the call
    would be number `place` of `limit_value`. Or the server does not answer: `absence`
    says so, and `limit` is empty. It is made again after `pause` seconds, and has
    waited `waited` seconds so far.
    """

    limit: str
    scope: str
    place: int
    limit_value: int
    pause: float
    waited: float
    absence: str = ""

    def __str__(self) -> str:
        """Give a line for people."""
        if self.absence:
            return f"{self.absence}; waited {self.waited:.0f} s, and goes on waiting"
        return (
            f"the server is busy: {self.limit} of the {self.scope or 'server'} is "
            f"{self.limit_value}, this would be {self.place}; again in "
            f"{self.pause:.1f} s"
        )
