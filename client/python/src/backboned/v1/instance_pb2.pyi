from backboned.v1 import optimizer_pb2 as _optimizer_pb2
from backboned.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
PRECISION_BFLOAT16: Precision
PRECISION_HIGHEST: Precision
PRECISION_TF32: Precision
PRECISION_UNSPECIFIED: Precision

class ArgumentValue(_message.Message):
    __slots__ = ["bool_value", "double_value", "int_value", "string_value"]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    bool_value: bool
    double_value: float
    int_value: int
    string_value: str
    def __init__(self, int_value: _Optional[int] = ..., double_value: _Optional[float] = ..., bool_value: bool = ..., string_value: _Optional[str] = ...) -> None: ...

class Buffer(_message.Message):
    __slots__ = ["dtype", "name", "shape"]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    dtype: _tensor_pb2.DataType
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class FeatureCache(_message.Message):
    __slots__ = ["bytes", "entries", "evictions", "hits", "misses", "too_large", "unknown_digests"]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    MISSES_FIELD_NUMBER: _ClassVar[int]
    TOO_LARGE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    entries: int
    evictions: int
    hits: int
    misses: int
    too_large: int
    unknown_digests: int
    def __init__(self, bytes: _Optional[int] = ..., entries: _Optional[int] = ..., hits: _Optional[int] = ..., misses: _Optional[int] = ..., unknown_digests: _Optional[int] = ..., evictions: _Optional[int] = ..., too_large: _Optional[int] = ...) -> None: ...

class IfVersion(_message.Message):
    __slots__ = ["buffers", "params", "uid"]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    buffers: int
    params: int
    uid: str
    def __init__(self, uid: _Optional[str] = ..., params: _Optional[int] = ..., buffers: _Optional[int] = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ["architecture", "arguments", "asleep", "benchmark", "columns", "counters", "create_time", "device", "digest", "dtype", "ephemeral", "feature_cache", "gradient_changes", "idle", "layout", "memory_bytes", "name", "normalization", "optimizer", "owner", "precision", "rollback", "saved", "settings", "shared_bytes", "tape_bytes", "tape_count", "tape_state_bytes", "version", "weights", "weights_sha256"]
    class ArgumentsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ArgumentValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ArgumentValue, _Mapping]] = ...) -> None: ...
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    ASLEEP_FIELD_NUMBER: _ClassVar[int]
    BENCHMARK_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_FIELD_NUMBER: _ClassVar[int]
    FEATURE_CACHE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_CHANGES_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SHARED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TAPE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TAPE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TAPE_STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    architecture: str
    arguments: _containers.MessageMap[str, ArgumentValue]
    asleep: bool
    benchmark: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    counters: InstanceCounters
    create_time: _timestamp_pb2.Timestamp
    device: str
    digest: str
    dtype: _tensor_pb2.DataType
    ephemeral: bool
    feature_cache: FeatureCache
    gradient_changes: int
    idle: _duration_pb2.Duration
    layout: Layout
    memory_bytes: int
    name: str
    normalization: Normalization
    optimizer: _optimizer_pb2.Optimizer
    owner: str
    precision: Precision
    rollback: Rollback
    saved: Version
    settings: InstanceSettings
    shared_bytes: int
    tape_bytes: int
    tape_count: int
    tape_state_bytes: int
    version: Version
    weights: str
    weights_sha256: str
    def __init__(self, name: _Optional[str] = ..., owner: _Optional[str] = ..., version: _Optional[_Union[Version, _Mapping]] = ..., architecture: _Optional[str] = ..., arguments: _Optional[_Mapping[str, ArgumentValue]] = ..., benchmark: _Optional[str] = ..., device: _Optional[str] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., normalization: _Optional[_Union[Normalization, _Mapping]] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., digest: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., tape_count: _Optional[int] = ..., tape_bytes: _Optional[int] = ..., counters: _Optional[_Union[InstanceCounters, _Mapping]] = ..., ephemeral: bool = ..., weights: _Optional[str] = ..., weights_sha256: _Optional[str] = ..., settings: _Optional[_Union[InstanceSettings, _Mapping]] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., optimizer: _Optional[_Union[_optimizer_pb2.Optimizer, _Mapping]] = ..., columns: _Optional[_Iterable[str]] = ..., shared_bytes: _Optional[int] = ..., tape_state_bytes: _Optional[int] = ..., feature_cache: _Optional[_Union[FeatureCache, _Mapping]] = ..., precision: _Optional[_Union[Precision, str]] = ..., asleep: bool = ..., idle: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., saved: _Optional[_Union[Version, _Mapping]] = ..., rollback: _Optional[_Union[Rollback, _Mapping]] = ..., gradient_changes: _Optional[int] = ...) -> None: ...

class InstanceCounters(_message.Message):
    __slots__ = ["backwards", "demoted_tapes", "forwards", "replayed_forwards", "steps", "writes"]
    BACKWARDS_FIELD_NUMBER: _ClassVar[int]
    DEMOTED_TAPES_FIELD_NUMBER: _ClassVar[int]
    FORWARDS_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FORWARDS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    backwards: int
    demoted_tapes: int
    forwards: int
    replayed_forwards: int
    steps: int
    writes: int
    def __init__(self, forwards: _Optional[int] = ..., backwards: _Optional[int] = ..., writes: _Optional[int] = ..., steps: _Optional[int] = ..., demoted_tapes: _Optional[int] = ..., replayed_forwards: _Optional[int] = ...) -> None: ...

class InstanceSettings(_message.Message):
    __slots__ = ["feature_cache_bytes", "frozen", "read_only", "shared"]
    FEATURE_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    feature_cache_bytes: int
    frozen: _containers.RepeatedScalarFieldContainer[str]
    read_only: bool
    shared: bool
    def __init__(self, read_only: bool = ..., frozen: _Optional[_Iterable[str]] = ..., feature_cache_bytes: _Optional[int] = ..., shared: bool = ...) -> None: ...

class Layout(_message.Message):
    __slots__ = ["attributes", "buffers", "input_shape", "outputs", "parameter_elements", "parameters", "prerelu", "stochastic"]
    class AttributesEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    PRERELU_FIELD_NUMBER: _ClassVar[int]
    STOCHASTIC_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.ScalarMap[str, int]
    buffers: _containers.RepeatedCompositeFieldContainer[Buffer]
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    outputs: _containers.RepeatedScalarFieldContainer[str]
    parameter_elements: int
    parameters: _containers.RepeatedCompositeFieldContainer[Parameter]
    prerelu: bool
    stochastic: bool
    def __init__(self, parameters: _Optional[_Iterable[_Union[Parameter, _Mapping]]] = ..., buffers: _Optional[_Iterable[_Union[Buffer, _Mapping]]] = ..., parameter_elements: _Optional[int] = ..., outputs: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Mapping[str, int]] = ..., input_shape: _Optional[_Iterable[int]] = ..., stochastic: bool = ..., prerelu: bool = ...) -> None: ...

class Normalization(_message.Message):
    __slots__ = ["mean", "std"]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    mean: _containers.RepeatedScalarFieldContainer[float]
    std: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, mean: _Optional[_Iterable[float]] = ..., std: _Optional[_Iterable[float]] = ...) -> None: ...

class Parameter(_message.Message):
    __slots__ = ["aliases", "name", "offset", "shape"]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    aliases: _containers.RepeatedScalarFieldContainer[str]
    name: str
    offset: int
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., offset: _Optional[int] = ..., aliases: _Optional[_Iterable[str]] = ...) -> None: ...

class Rollback(_message.Message):
    __slots__ = ["raised", "saved"]
    RAISED_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    raised: Version
    saved: _containers.RepeatedCompositeFieldContainer[Version]
    def __init__(self, saved: _Optional[_Iterable[_Union[Version, _Mapping]]] = ..., raised: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ["buffers", "params", "uid"]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    buffers: int
    params: int
    uid: str
    def __init__(self, uid: _Optional[str] = ..., params: _Optional[int] = ..., buffers: _Optional[int] = ...) -> None: ...

class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
