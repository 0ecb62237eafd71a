from backboned.v1 import instance_pb2 as _instance_pb2
from backboned.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
RETURN_TYPE_BOTH: ReturnType
RETURN_TYPE_FEATURES: ReturnType
RETURN_TYPE_FULL: ReturnType
RETURN_TYPE_OUT: ReturnType
RETURN_TYPE_UNSPECIFIED: ReturnType

class BackwardHeader(_message.Message):
    __slots__ = ["accumulate", "input_grad", "instance", "request_id", "retain", "return_grads", "tapes", "zero_before"]
    ACCUMULATE_FIELD_NUMBER: _ClassVar[int]
    INPUT_GRAD_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RETAIN_FIELD_NUMBER: _ClassVar[int]
    RETURN_GRADS_FIELD_NUMBER: _ClassVar[int]
    TAPES_FIELD_NUMBER: _ClassVar[int]
    ZERO_BEFORE_FIELD_NUMBER: _ClassVar[int]
    accumulate: bool
    input_grad: bool
    instance: str
    request_id: str
    retain: bool
    return_grads: bool
    tapes: _containers.RepeatedCompositeFieldContainer[TapeGradients]
    zero_before: bool
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., tapes: _Optional[_Iterable[_Union[TapeGradients, _Mapping]]] = ..., return_grads: bool = ..., accumulate: bool = ..., input_grad: bool = ..., retain: bool = ..., zero_before: bool = ...) -> None: ...

class BackwardRequest(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: BackwardHeader
    def __init__(self, header: _Optional[_Union[BackwardHeader, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class BackwardResponse(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: BackwardResult
    def __init__(self, header: _Optional[_Union[BackwardResult, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class BackwardResult(_message.Message):
    __slots__ = ["grads", "input_grads", "timings", "version"]
    GRADS_FIELD_NUMBER: _ClassVar[int]
    INPUT_GRADS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    grads: FlatGrads
    input_grads: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    timings: Timings
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., grads: _Optional[_Union[FlatGrads, _Mapping]] = ..., input_grads: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class ExtractRequest(_message.Message):
    __slots__ = ["allow_merge", "data", "input", "instance", "l2_normalize", "output"]
    ALLOW_MERGE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    L2_NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    allow_merge: bool
    data: bytes
    input: _tensor_pb2.TensorSpec
    instance: str
    l2_normalize: bool
    output: str
    def __init__(self, instance: _Optional[str] = ..., input: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ..., data: _Optional[bytes] = ..., output: _Optional[str] = ..., l2_normalize: bool = ..., allow_merge: bool = ...) -> None: ...

class ExtractResponse(_message.Message):
    __slots__ = ["data", "digest", "instance", "output", "version"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    digest: str
    instance: str
    output: _tensor_pb2.TensorSpec
    version: _instance_pb2.Version
    def __init__(self, instance: _Optional[str] = ..., version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., digest: _Optional[str] = ..., output: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class FlatGrads(_message.Message):
    __slots__ = ["present", "spec"]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    present: _containers.RepeatedScalarFieldContainer[bool]
    spec: _tensor_pb2.TensorSpec
    def __init__(self, spec: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ..., present: _Optional[_Iterable[bool]] = ...) -> None: ...

class ForwardHeader(_message.Message):
    __slots__ = ["allow_merge", "grad_params", "if_version", "input_grad", "inputs", "instance", "no_param_grads", "outputs", "prerelu", "release_tapes", "request_id", "return_buffers", "return_type", "rng_state", "tape", "training"]
    ALLOW_MERGE_FIELD_NUMBER: _ClassVar[int]
    GRAD_PARAMS_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_GRAD_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NO_PARAM_GRADS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    PRERELU_FIELD_NUMBER: _ClassVar[int]
    RELEASE_TAPES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RETURN_BUFFERS_FIELD_NUMBER: _ClassVar[int]
    RETURN_TYPE_FIELD_NUMBER: _ClassVar[int]
    RNG_STATE_FIELD_NUMBER: _ClassVar[int]
    TAPE_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    allow_merge: bool
    grad_params: _instance_pb2.Selection
    if_version: _instance_pb2.IfVersion
    input_grad: bool
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    instance: str
    no_param_grads: bool
    outputs: _containers.RepeatedScalarFieldContainer[str]
    prerelu: bool
    release_tapes: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    return_buffers: bool
    return_type: ReturnType
    rng_state: bytes
    tape: bool
    training: bool
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., outputs: _Optional[_Iterable[str]] = ..., return_type: _Optional[_Union[ReturnType, str]] = ..., training: bool = ..., tape: bool = ..., input_grad: bool = ..., grad_params: _Optional[_Union[_instance_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., allow_merge: bool = ..., release_tapes: _Optional[_Iterable[str]] = ..., inputs: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., return_buffers: bool = ..., no_param_grads: bool = ..., prerelu: bool = ..., rng_state: _Optional[bytes] = ...) -> None: ...

class ForwardRequest(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: ForwardHeader
    def __init__(self, header: _Optional[_Union[ForwardHeader, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class ForwardResponse(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: ForwardResult
    def __init__(self, header: _Optional[_Union[ForwardResult, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class ForwardResult(_message.Message):
    __slots__ = ["buffers", "outputs", "rng_state", "tape_bytes", "tape_id", "timings", "version"]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    RNG_STATE_FIELD_NUMBER: _ClassVar[int]
    TAPE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TAPE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    buffers: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    rng_state: bytes
    tape_bytes: int
    tape_id: str
    timings: Timings
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., tape_id: _Optional[str] = ..., tape_bytes: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., buffers: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., rng_state: _Optional[bytes] = ...) -> None: ...

class GetBuffersRequest(_message.Message):
    __slots__ = ["if_version", "instance", "selection"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    selection: _instance_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., selection: _Optional[_Union[_instance_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ...) -> None: ...

class GetBuffersResponse(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: GetBuffersResult
    def __init__(self, header: _Optional[_Union[GetBuffersResult, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class GetBuffersResult(_message.Message):
    __slots__ = ["buffers", "version"]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    buffers: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., buffers: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ...) -> None: ...

class GetGradsRequest(_message.Message):
    __slots__ = ["allow_absent", "instance", "selection"]
    ALLOW_ABSENT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    allow_absent: bool
    instance: str
    selection: _instance_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., selection: _Optional[_Union[_instance_pb2.Selection, _Mapping]] = ..., allow_absent: bool = ...) -> None: ...

class GetGradsResponse(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: GetGradsResult
    def __init__(self, header: _Optional[_Union[GetGradsResult, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class GetGradsResult(_message.Message):
    __slots__ = ["grads", "version"]
    GRADS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    grads: FlatGrads
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., grads: _Optional[_Union[FlatGrads, _Mapping]] = ...) -> None: ...

class GetParamsRequest(_message.Message):
    __slots__ = ["if_version", "instance", "selection"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    selection: _instance_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., selection: _Optional[_Union[_instance_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ...) -> None: ...

class GetParamsResponse(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: GetParamsResult
    def __init__(self, header: _Optional[_Union[GetParamsResult, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class GetParamsResult(_message.Message):
    __slots__ = ["spec", "version"]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    spec: _tensor_pb2.TensorSpec
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., spec: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ...) -> None: ...

class ReleaseTapesRequest(_message.Message):
    __slots__ = ["tape_ids"]
    TAPE_IDS_FIELD_NUMBER: _ClassVar[int]
    tape_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tape_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ReleaseTapesResponse(_message.Message):
    __slots__ = ["released_count"]
    RELEASED_COUNT_FIELD_NUMBER: _ClassVar[int]
    released_count: int
    def __init__(self, released_count: _Optional[int] = ...) -> None: ...

class SetBuffersHeader(_message.Message):
    __slots__ = ["buffers", "if_version", "instance", "request_id", "selection"]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    buffers: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    if_version: _instance_pb2.IfVersion
    instance: str
    request_id: str
    selection: _instance_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., selection: _Optional[_Union[_instance_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., buffers: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ...) -> None: ...

class SetBuffersRequest(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: SetBuffersHeader
    def __init__(self, header: _Optional[_Union[SetBuffersHeader, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class SetBuffersResponse(_message.Message):
    __slots__ = ["version"]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ...) -> None: ...

class SetGradsHeader(_message.Message):
    __slots__ = ["grads", "if_version", "instance", "request_id", "selection"]
    GRADS_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    grads: FlatGrads
    if_version: _instance_pb2.IfVersion
    instance: str
    request_id: str
    selection: _instance_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., selection: _Optional[_Union[_instance_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., grads: _Optional[_Union[FlatGrads, _Mapping]] = ...) -> None: ...

class SetGradsRequest(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: SetGradsHeader
    def __init__(self, header: _Optional[_Union[SetGradsHeader, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class SetGradsResponse(_message.Message):
    __slots__ = ["version"]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ...) -> None: ...

class SetParamsHeader(_message.Message):
    __slots__ = ["if_version", "instance", "request_id", "selection", "spec"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    request_id: str
    selection: _instance_pb2.Selection
    spec: _tensor_pb2.TensorSpec
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., selection: _Optional[_Union[_instance_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., spec: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ...) -> None: ...

class SetParamsRequest(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: SetParamsHeader
    def __init__(self, header: _Optional[_Union[SetParamsHeader, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class SetParamsResponse(_message.Message):
    __slots__ = ["version"]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ...) -> None: ...

class TapeGradients(_message.Message):
    __slots__ = ["gradients", "tape_id"]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    TAPE_ID_FIELD_NUMBER: _ClassVar[int]
    gradients: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    tape_id: str
    def __init__(self, tape_id: _Optional[str] = ..., gradients: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ["compute", "queue", "total"]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    compute: _duration_pb2.Duration
    queue: _duration_pb2.Duration
    total: _duration_pb2.Duration
    def __init__(self, queue: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., compute: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., total: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ZeroGradsRequest(_message.Message):
    __slots__ = ["instance", "request_id", "selection"]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    instance: str
    request_id: str
    selection: _instance_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., selection: _Optional[_Union[_instance_pb2.Selection, _Mapping]] = ...) -> None: ...

class ZeroGradsResponse(_message.Message):
    __slots__ = ["version"]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ...) -> None: ...

class ReturnType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
