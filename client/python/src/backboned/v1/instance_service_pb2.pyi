from backboned.v1 import checkpoint_pb2 as _checkpoint_pb2
from backboned.v1 import instance_pb2 as _instance_pb2
from backboned.v1 import tensor_pb2 as _tensor_pb2
from backboned.v1 import usage_pb2 as _usage_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
LOAD_BY_NAME: LoadBy
LOAD_BY_ORDER: LoadBy
LOAD_BY_UNSPECIFIED: LoadBy
RIGHTS_ADMIN: Rights
RIGHTS_INFER: Rights
RIGHTS_TRAIN: Rights
RIGHTS_UNSPECIFIED: Rights

class Architecture(_message.Message):
    __slots__ = ["arguments", "description", "name", "source"]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    arguments: _containers.RepeatedCompositeFieldContainer[ArgumentSpec]
    description: str
    name: str
    source: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., source: _Optional[str] = ..., arguments: _Optional[_Iterable[_Union[ArgumentSpec, _Mapping]]] = ...) -> None: ...

class ArgumentSpec(_message.Message):
    __slots__ = ["choices", "default_value", "description", "maximum", "minimum", "name", "step"]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    choices: _containers.RepeatedCompositeFieldContainer[_instance_pb2.ArgumentValue]
    default_value: _instance_pb2.ArgumentValue
    description: str
    maximum: int
    minimum: int
    name: str
    step: int
    def __init__(self, name: _Optional[str] = ..., default_value: _Optional[_Union[_instance_pb2.ArgumentValue, _Mapping]] = ..., description: _Optional[str] = ..., minimum: _Optional[int] = ..., maximum: _Optional[int] = ..., choices: _Optional[_Iterable[_Union[_instance_pb2.ArgumentValue, _Mapping]]] = ..., step: _Optional[int] = ...) -> None: ...

class BatchCounters(_message.Message):
    __slots__ = ["delay", "device_idle", "full", "incompatible", "merged_forwards", "samples"]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_IDLE_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    INCOMPATIBLE_FIELD_NUMBER: _ClassVar[int]
    MERGED_FORWARDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    delay: int
    device_idle: int
    full: int
    incompatible: int
    merged_forwards: int
    samples: int
    def __init__(self, full: _Optional[int] = ..., delay: _Optional[int] = ..., incompatible: _Optional[int] = ..., device_idle: _Optional[int] = ..., merged_forwards: _Optional[int] = ..., samples: _Optional[int] = ...) -> None: ...

class Benchmark(_message.Message):
    __slots__ = ["architecture", "arguments", "batch_size", "classes_per_task", "epochs", "input_shape", "name", "normalization", "num_classes", "num_tasks", "setting", "source"]
    class ArgumentsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _instance_pb2.ArgumentValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_instance_pb2.ArgumentValue, _Mapping]] = ...) -> None: ...
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_PER_TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    NUM_CLASSES_FIELD_NUMBER: _ClassVar[int]
    NUM_TASKS_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    architecture: str
    arguments: _containers.MessageMap[str, _instance_pb2.ArgumentValue]
    batch_size: int
    classes_per_task: _containers.RepeatedScalarFieldContainer[int]
    epochs: int
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    name: str
    normalization: _instance_pb2.Normalization
    num_classes: int
    num_tasks: int
    setting: str
    source: str
    def __init__(self, name: _Optional[str] = ..., setting: _Optional[str] = ..., architecture: _Optional[str] = ..., arguments: _Optional[_Mapping[str, _instance_pb2.ArgumentValue]] = ..., num_classes: _Optional[int] = ..., num_tasks: _Optional[int] = ..., classes_per_task: _Optional[_Iterable[int]] = ..., input_shape: _Optional[_Iterable[int]] = ..., normalization: _Optional[_Union[_instance_pb2.Normalization, _Mapping]] = ..., batch_size: _Optional[int] = ..., epochs: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class CloneInstanceRequest(_message.Message):
    __slots__ = ["if_version", "instance", "name", "num_classes", "request_id", "seed", "settings", "with_grads", "with_optimizer"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUM_CLASSES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    WITH_GRADS_FIELD_NUMBER: _ClassVar[int]
    WITH_OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    name: str
    num_classes: int
    request_id: str
    seed: int
    settings: _instance_pb2.InstanceSettings
    with_grads: bool
    with_optimizer: bool
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ..., name: _Optional[str] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., settings: _Optional[_Union[_instance_pb2.InstanceSettings, _Mapping]] = ..., with_grads: bool = ..., with_optimizer: bool = ..., num_classes: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class CloneInstanceResponse(_message.Message):
    __slots__ = ["instance"]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    instance: _instance_pb2.Instance
    def __init__(self, instance: _Optional[_Union[_instance_pb2.Instance, _Mapping]] = ...) -> None: ...

class CreateInstanceRequest(_message.Message):
    __slots__ = ["architecture", "arguments", "benchmark", "columns", "device", "dtype", "exist_ok", "name", "normalization", "precision", "random_init", "request_id", "rng_state", "seed", "settings", "weights"]
    class ArgumentsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _instance_pb2.ArgumentValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_instance_pb2.ArgumentValue, _Mapping]] = ...) -> None: ...
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    BENCHMARK_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    RANDOM_INIT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RNG_STATE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    architecture: str
    arguments: _containers.MessageMap[str, _instance_pb2.ArgumentValue]
    benchmark: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    device: str
    dtype: _tensor_pb2.DataType
    exist_ok: bool
    name: str
    normalization: _instance_pb2.Normalization
    precision: _instance_pb2.Precision
    random_init: bool
    request_id: str
    rng_state: bytes
    seed: int
    settings: _instance_pb2.InstanceSettings
    weights: Weights
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., benchmark: _Optional[str] = ..., architecture: _Optional[str] = ..., arguments: _Optional[_Mapping[str, _instance_pb2.ArgumentValue]] = ..., seed: _Optional[int] = ..., rng_state: _Optional[bytes] = ..., exist_ok: bool = ..., device: _Optional[str] = ..., normalization: _Optional[_Union[_instance_pb2.Normalization, _Mapping]] = ..., weights: _Optional[_Union[Weights, _Mapping]] = ..., random_init: bool = ..., settings: _Optional[_Union[_instance_pb2.InstanceSettings, _Mapping]] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., columns: _Optional[_Iterable[str]] = ..., precision: _Optional[_Union[_instance_pb2.Precision, str]] = ...) -> None: ...

class CreateInstanceResponse(_message.Message):
    __slots__ = ["existed", "instance", "missing_keys", "rng_state", "unexpected_keys"]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    MISSING_KEYS_FIELD_NUMBER: _ClassVar[int]
    RNG_STATE_FIELD_NUMBER: _ClassVar[int]
    UNEXPECTED_KEYS_FIELD_NUMBER: _ClassVar[int]
    existed: bool
    instance: _instance_pb2.Instance
    missing_keys: _containers.RepeatedScalarFieldContainer[str]
    rng_state: bytes
    unexpected_keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, instance: _Optional[_Union[_instance_pb2.Instance, _Mapping]] = ..., existed: bool = ..., rng_state: _Optional[bytes] = ..., missing_keys: _Optional[_Iterable[str]] = ..., unexpected_keys: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteCheckpointRequest(_message.Message):
    __slots__ = ["checkpoint", "number", "request_id"]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    checkpoint: str
    number: int
    request_id: str
    def __init__(self, request_id: _Optional[str] = ..., checkpoint: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class DeleteCheckpointResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class DeleteInstanceRequest(_message.Message):
    __slots__ = ["if_version", "instance", "request_id"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    request_id: str
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ...) -> None: ...

class DeleteInstanceResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Device(_message.Message):
    __slots__ = ["ahead", "allocated_bytes", "backlog", "batches", "busy", "default", "description", "driver", "estimated_wait", "free_bytes", "name", "pooled_bytes", "queued", "threads", "total_bytes"]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    POOLED_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    ahead: int
    allocated_bytes: int
    backlog: _duration_pb2.Duration
    batches: BatchCounters
    busy: _duration_pb2.Duration
    default: bool
    description: str
    driver: str
    estimated_wait: _duration_pb2.Duration
    free_bytes: int
    name: str
    pooled_bytes: int
    queued: int
    threads: int
    total_bytes: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., threads: _Optional[int] = ..., allocated_bytes: _Optional[int] = ..., pooled_bytes: _Optional[int] = ..., default: bool = ..., queued: _Optional[int] = ..., backlog: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., batches: _Optional[_Union[BatchCounters, _Mapping]] = ..., ahead: _Optional[int] = ..., estimated_wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., busy: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., total_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., driver: _Optional[str] = ...) -> None: ...

class GetInstanceRequest(_message.Message):
    __slots__ = ["digest", "instance"]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    digest: bool
    instance: str
    def __init__(self, instance: _Optional[str] = ..., digest: bool = ...) -> None: ...

class GetInstanceResponse(_message.Message):
    __slots__ = ["instance"]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    instance: _instance_pb2.Instance
    def __init__(self, instance: _Optional[_Union[_instance_pb2.Instance, _Mapping]] = ...) -> None: ...

class GetServerRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class GetServerResponse(_message.Message):
    __slots__ = ["capabilities", "devices", "limits", "numerics", "principal", "principal_usage", "refusals", "rights", "server_uid", "session_usage", "torch_version", "version"]
    class NumericsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class RefusalsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_USAGE_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    SERVER_UID_FIELD_NUMBER: _ClassVar[int]
    SESSION_USAGE_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    limits: Limits
    numerics: _containers.ScalarMap[str, str]
    principal: str
    principal_usage: Usage
    refusals: _containers.ScalarMap[str, int]
    rights: Rights
    server_uid: str
    session_usage: Usage
    torch_version: str
    version: str
    def __init__(self, version: _Optional[str] = ..., torch_version: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., server_uid: _Optional[str] = ..., principal: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., session_usage: _Optional[_Union[Usage, _Mapping]] = ..., principal_usage: _Optional[_Union[Usage, _Mapping]] = ..., numerics: _Optional[_Mapping[str, str]] = ..., rights: _Optional[_Union[Rights, str]] = ..., refusals: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ["max_cache_bytes", "max_calls", "max_checkpoint_bytes", "max_chunk_bytes", "max_device_memory_bytes", "max_in_flight_bytes", "max_instances", "max_memory_bytes", "max_message_bytes", "max_queued", "max_stream_age", "max_streams", "max_tape_bytes", "max_tapes", "principal_quota", "session_quota", "session_ttl", "stall_timeout", "tape_ttl"]
    MAX_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_CHECKPOINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_DEVICE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_AGE_FIELD_NUMBER: _ClassVar[int]
    MAX_TAPES_FIELD_NUMBER: _ClassVar[int]
    MAX_TAPE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_QUOTA_FIELD_NUMBER: _ClassVar[int]
    SESSION_QUOTA_FIELD_NUMBER: _ClassVar[int]
    SESSION_TTL_FIELD_NUMBER: _ClassVar[int]
    STALL_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TAPE_TTL_FIELD_NUMBER: _ClassVar[int]
    max_cache_bytes: int
    max_calls: int
    max_checkpoint_bytes: int
    max_chunk_bytes: int
    max_device_memory_bytes: int
    max_in_flight_bytes: int
    max_instances: int
    max_memory_bytes: int
    max_message_bytes: int
    max_queued: int
    max_stream_age: _duration_pb2.Duration
    max_streams: int
    max_tape_bytes: int
    max_tapes: int
    principal_quota: float
    session_quota: float
    session_ttl: _duration_pb2.Duration
    stall_timeout: _duration_pb2.Duration
    tape_ttl: _duration_pb2.Duration
    def __init__(self, max_instances: _Optional[int] = ..., max_tapes: _Optional[int] = ..., max_tape_bytes: _Optional[int] = ..., max_in_flight_bytes: _Optional[int] = ..., max_queued: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_chunk_bytes: _Optional[int] = ..., tape_ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., session_ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., stall_timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_memory_bytes: _Optional[int] = ..., max_calls: _Optional[int] = ..., session_quota: _Optional[float] = ..., principal_quota: _Optional[float] = ..., max_cache_bytes: _Optional[int] = ..., max_streams: _Optional[int] = ..., max_stream_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_device_memory_bytes: _Optional[int] = ..., max_checkpoint_bytes: _Optional[int] = ...) -> None: ...

class ListArchitecturesRequest(_message.Message):
    __slots__ = ["page_size", "page_token"]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListArchitecturesResponse(_message.Message):
    __slots__ = ["architectures", "next_page_token"]
    ARCHITECTURES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    architectures: _containers.RepeatedCompositeFieldContainer[Architecture]
    next_page_token: str
    def __init__(self, architectures: _Optional[_Iterable[_Union[Architecture, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListBenchmarksRequest(_message.Message):
    __slots__ = ["page_size", "page_token"]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListBenchmarksResponse(_message.Message):
    __slots__ = ["benchmarks", "next_page_token"]
    BENCHMARKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    benchmarks: _containers.RepeatedCompositeFieldContainer[Benchmark]
    next_page_token: str
    def __init__(self, benchmarks: _Optional[_Iterable[_Union[Benchmark, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ["page_size", "page_token"]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ["checkpoints", "next_page_token"]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[_checkpoint_pb2.Checkpoint]
    next_page_token: str
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[_checkpoint_pb2.Checkpoint, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListInstancesRequest(_message.Message):
    __slots__ = ["page_size", "page_token"]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListInstancesResponse(_message.Message):
    __slots__ = ["instances", "next_page_token"]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    instances: _containers.RepeatedCompositeFieldContainer[_instance_pb2.Instance]
    next_page_token: str
    def __init__(self, instances: _Optional[_Iterable[_Union[_instance_pb2.Instance, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListUsageRequest(_message.Message):
    __slots__ = ["by", "page_size", "page_token", "since", "until"]
    BY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    by: _containers.RepeatedScalarFieldContainer[_usage_pb2.UsageBy]
    page_size: int
    page_token: str
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    def __init__(self, by: _Optional[_Iterable[_Union[_usage_pb2.UsageBy, str]]] = ..., since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListUsageResponse(_message.Message):
    __slots__ = ["device_busy", "next_page_token", "rows"]
    DEVICE_BUSY_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    device_busy: _duration_pb2.Duration
    next_page_token: str
    rows: _containers.RepeatedCompositeFieldContainer[_usage_pb2.UsageRow]
    def __init__(self, rows: _Optional[_Iterable[_Union[_usage_pb2.UsageRow, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., device_busy: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class LoadCheckpointRequest(_message.Message):
    __slots__ = ["checkpoint", "device", "name", "number", "request_id", "settings"]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    checkpoint: str
    device: str
    name: str
    number: int
    request_id: str
    settings: _instance_pb2.InstanceSettings
    def __init__(self, request_id: _Optional[str] = ..., checkpoint: _Optional[str] = ..., number: _Optional[int] = ..., name: _Optional[str] = ..., device: _Optional[str] = ..., settings: _Optional[_Union[_instance_pb2.InstanceSettings, _Mapping]] = ...) -> None: ...

class LoadCheckpointResponse(_message.Message):
    __slots__ = ["checkpoint", "instance"]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    checkpoint: _checkpoint_pb2.Checkpoint
    instance: _instance_pb2.Instance
    def __init__(self, instance: _Optional[_Union[_instance_pb2.Instance, _Mapping]] = ..., checkpoint: _Optional[_Union[_checkpoint_pb2.Checkpoint, _Mapping]] = ...) -> None: ...

class SaveCheckpointRequest(_message.Message):
    __slots__ = ["if_version", "instance", "keep", "name", "request_id"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    keep: int
    name: str
    request_id: str
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ..., name: _Optional[str] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., keep: _Optional[int] = ...) -> None: ...

class SaveCheckpointResponse(_message.Message):
    __slots__ = ["checkpoint"]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    checkpoint: _checkpoint_pb2.Checkpoint
    def __init__(self, checkpoint: _Optional[_Union[_checkpoint_pb2.Checkpoint, _Mapping]] = ...) -> None: ...

class UpdateInstanceRequest(_message.Message):
    __slots__ = ["if_version", "instance", "request_id", "settings", "update_mask"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    request_id: str
    settings: _instance_pb2.InstanceSettings
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ..., settings: _Optional[_Union[_instance_pb2.InstanceSettings, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ...) -> None: ...

class UpdateInstanceResponse(_message.Message):
    __slots__ = ["instance"]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    instance: _instance_pb2.Instance
    def __init__(self, instance: _Optional[_Union[_instance_pb2.Instance, _Mapping]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ["cache_bytes", "calls", "checkpoint_bytes", "device_memory_bytes", "in_flight_bytes", "instances", "memory_bytes", "tape_bytes", "tapes"]
    CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    TAPES_FIELD_NUMBER: _ClassVar[int]
    TAPE_BYTES_FIELD_NUMBER: _ClassVar[int]
    cache_bytes: int
    calls: int
    checkpoint_bytes: int
    device_memory_bytes: int
    in_flight_bytes: int
    instances: int
    memory_bytes: int
    tape_bytes: int
    tapes: int
    def __init__(self, calls: _Optional[int] = ..., instances: _Optional[int] = ..., tapes: _Optional[int] = ..., tape_bytes: _Optional[int] = ..., in_flight_bytes: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., cache_bytes: _Optional[int] = ..., device_memory_bytes: _Optional[int] = ..., checkpoint_bytes: _Optional[int] = ...) -> None: ...

class Weights(_message.Message):
    __slots__ = ["load_by", "name", "partial", "resize_position_embedding"]
    LOAD_BY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    RESIZE_POSITION_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    load_by: LoadBy
    name: str
    partial: bool
    resize_position_embedding: bool
    def __init__(self, name: _Optional[str] = ..., load_by: _Optional[_Union[LoadBy, str]] = ..., partial: bool = ..., resize_position_embedding: bool = ...) -> None: ...

class Rights(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class LoadBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
