from backboned.v1 import error_pb2 as _error_pb2
from backboned.v1 import instance_pb2 as _instance_pb2
from backboned.v1 import optimizer_pb2 as _optimizer_pb2
from backboned.v1 import selection_pb2 as _selection_pb2
from backboned.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

CACHE_USE_HIT: CacheUse
CACHE_USE_KEPT: CacheUse
CACHE_USE_TOO_LARGE: CacheUse
CACHE_USE_UNSPECIFIED: CacheUse
DESCRIPTOR: _descriptor.FileDescriptor
NOTICE_DRAINING: Notice
NOTICE_MOVE: Notice
NOTICE_UNSPECIFIED: Notice
RETURN_TYPE_BOTH: ReturnType
RETURN_TYPE_FEATURES: ReturnType
RETURN_TYPE_FULL: ReturnType
RETURN_TYPE_OUT: ReturnType
RETURN_TYPE_UNSPECIFIED: ReturnType

class BackwardHeader(_message.Message):
    __slots__ = ["accumulate", "input_grad", "instance", "output_dtype", "per_tape_grads", "request_id", "retain", "return_grads", "squared_grads", "step", "tapes", "zero_before"]
    ACCUMULATE_FIELD_NUMBER: _ClassVar[int]
    INPUT_GRAD_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_DTYPE_FIELD_NUMBER: _ClassVar[int]
    PER_TAPE_GRADS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RETAIN_FIELD_NUMBER: _ClassVar[int]
    RETURN_GRADS_FIELD_NUMBER: _ClassVar[int]
    SQUARED_GRADS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TAPES_FIELD_NUMBER: _ClassVar[int]
    ZERO_BEFORE_FIELD_NUMBER: _ClassVar[int]
    accumulate: bool
    input_grad: bool
    instance: str
    output_dtype: _tensor_pb2.DataType
    per_tape_grads: bool
    request_id: str
    retain: bool
    return_grads: bool
    squared_grads: bool
    step: _optimizer_pb2.StepOptions
    tapes: _containers.RepeatedCompositeFieldContainer[TapeGradients]
    zero_before: bool
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., tapes: _Optional[_Iterable[_Union[TapeGradients, _Mapping]]] = ..., return_grads: bool = ..., accumulate: bool = ..., input_grad: bool = ..., retain: bool = ..., zero_before: bool = ..., per_tape_grads: bool = ..., step: _Optional[_Union[_optimizer_pb2.StepOptions, _Mapping]] = ..., output_dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., squared_grads: bool = ...) -> None: ...

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
    __slots__ = ["grads", "held", "input_grads", "squared_grads", "step", "tape_grads", "timings", "version"]
    GRADS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    INPUT_GRADS_FIELD_NUMBER: _ClassVar[int]
    SQUARED_GRADS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TAPE_GRADS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    grads: FlatGrads
    held: _containers.RepeatedScalarFieldContainer[bool]
    input_grads: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    squared_grads: FlatGrads
    step: _optimizer_pb2.StepResult
    tape_grads: _containers.RepeatedCompositeFieldContainer[FlatGrads]
    timings: Timings
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., grads: _Optional[_Union[FlatGrads, _Mapping]] = ..., input_grads: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., tape_grads: _Optional[_Iterable[_Union[FlatGrads, _Mapping]]] = ..., step: _Optional[_Union[_optimizer_pb2.StepResult, _Mapping]] = ..., squared_grads: _Optional[_Union[FlatGrads, _Mapping]] = ..., held: _Optional[_Iterable[bool]] = ...) -> None: ...

class BatchNormOverride(_message.Message):
    __slots__ = ["cumulative", "eps", "globs", "momentum", "track_running_stats", "training"]
    CUMULATIVE_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    GLOBS_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    TRACK_RUNNING_STATS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    cumulative: bool
    eps: float
    globs: _containers.RepeatedScalarFieldContainer[str]
    momentum: float
    track_running_stats: bool
    training: bool
    def __init__(self, globs: _Optional[_Iterable[str]] = ..., training: bool = ..., track_running_stats: bool = ..., eps: _Optional[float] = ..., momentum: _Optional[float] = ..., cumulative: bool = ...) -> None: ...

class CallsRequest(_message.Message):
    __slots__ = ["after", "backward", "call", "cancel", "chunk", "configure_optimizer", "forward", "get_buffers", "get_grads", "get_optimizer_state", "get_params", "release_tapes", "set_buffers", "set_grads", "set_optimizer_state", "set_params", "step", "timeout", "traceparent", "train_step", "zero_grads"]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    BACKWARD_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CONFIGURE_OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    FORWARD_FIELD_NUMBER: _ClassVar[int]
    GET_BUFFERS_FIELD_NUMBER: _ClassVar[int]
    GET_GRADS_FIELD_NUMBER: _ClassVar[int]
    GET_OPTIMIZER_STATE_FIELD_NUMBER: _ClassVar[int]
    GET_PARAMS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_TAPES_FIELD_NUMBER: _ClassVar[int]
    SET_BUFFERS_FIELD_NUMBER: _ClassVar[int]
    SET_GRADS_FIELD_NUMBER: _ClassVar[int]
    SET_OPTIMIZER_STATE_FIELD_NUMBER: _ClassVar[int]
    SET_PARAMS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRAIN_STEP_FIELD_NUMBER: _ClassVar[int]
    ZERO_GRADS_FIELD_NUMBER: _ClassVar[int]
    after: int
    backward: BackwardHeader
    call: int
    cancel: bool
    chunk: _tensor_pb2.Chunk
    configure_optimizer: ConfigureOptimizerRequest
    forward: ForwardHeader
    get_buffers: GetBuffersRequest
    get_grads: GetGradsRequest
    get_optimizer_state: GetOptimizerStateRequest
    get_params: GetParamsRequest
    release_tapes: ReleaseTapesRequest
    set_buffers: SetBuffersHeader
    set_grads: SetGradsHeader
    set_optimizer_state: SetOptimizerStateHeader
    set_params: SetParamsHeader
    step: StepRequest
    timeout: _duration_pb2.Duration
    traceparent: str
    train_step: TrainStepHeader
    zero_grads: ZeroGradsRequest
    def __init__(self, call: _Optional[int] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., after: _Optional[int] = ..., cancel: bool = ..., traceparent: _Optional[str] = ..., forward: _Optional[_Union[ForwardHeader, _Mapping]] = ..., backward: _Optional[_Union[BackwardHeader, _Mapping]] = ..., train_step: _Optional[_Union[TrainStepHeader, _Mapping]] = ..., release_tapes: _Optional[_Union[ReleaseTapesRequest, _Mapping]] = ..., get_params: _Optional[_Union[GetParamsRequest, _Mapping]] = ..., set_params: _Optional[_Union[SetParamsHeader, _Mapping]] = ..., get_grads: _Optional[_Union[GetGradsRequest, _Mapping]] = ..., set_grads: _Optional[_Union[SetGradsHeader, _Mapping]] = ..., zero_grads: _Optional[_Union[ZeroGradsRequest, _Mapping]] = ..., get_buffers: _Optional[_Union[GetBuffersRequest, _Mapping]] = ..., set_buffers: _Optional[_Union[SetBuffersHeader, _Mapping]] = ..., configure_optimizer: _Optional[_Union[ConfigureOptimizerRequest, _Mapping]] = ..., step: _Optional[_Union[StepRequest, _Mapping]] = ..., get_optimizer_state: _Optional[_Union[GetOptimizerStateRequest, _Mapping]] = ..., set_optimizer_state: _Optional[_Union[SetOptimizerStateHeader, _Mapping]] = ...) -> None: ...

class CallsResponse(_message.Message):
    __slots__ = ["backward", "call", "chunk", "configure_optimizer", "forward", "get_buffers", "get_grads", "get_optimizer_state", "get_params", "notice", "release_tapes", "set_buffers", "set_grads", "set_optimizer_state", "set_params", "status", "step", "timings", "train_step", "zero_grads"]
    BACKWARD_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CONFIGURE_OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    FORWARD_FIELD_NUMBER: _ClassVar[int]
    GET_BUFFERS_FIELD_NUMBER: _ClassVar[int]
    GET_GRADS_FIELD_NUMBER: _ClassVar[int]
    GET_OPTIMIZER_STATE_FIELD_NUMBER: _ClassVar[int]
    GET_PARAMS_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_TAPES_FIELD_NUMBER: _ClassVar[int]
    SET_BUFFERS_FIELD_NUMBER: _ClassVar[int]
    SET_GRADS_FIELD_NUMBER: _ClassVar[int]
    SET_OPTIMIZER_STATE_FIELD_NUMBER: _ClassVar[int]
    SET_PARAMS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_STEP_FIELD_NUMBER: _ClassVar[int]
    ZERO_GRADS_FIELD_NUMBER: _ClassVar[int]
    backward: BackwardResult
    call: int
    chunk: _tensor_pb2.Chunk
    configure_optimizer: ConfigureOptimizerResponse
    forward: ForwardResult
    get_buffers: GetBuffersResult
    get_grads: GetGradsResult
    get_optimizer_state: GetOptimizerStateResult
    get_params: GetParamsResult
    notice: Notice
    release_tapes: ReleaseTapesResponse
    set_buffers: SetBuffersResponse
    set_grads: SetGradsResponse
    set_optimizer_state: SetOptimizerStateResponse
    set_params: SetParamsResponse
    status: _error_pb2.StatusDetails
    step: StepResponse
    timings: Timings
    train_step: TrainStepResult
    zero_grads: ZeroGradsResponse
    def __init__(self, call: _Optional[int] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ..., status: _Optional[_Union[_error_pb2.StatusDetails, _Mapping]] = ..., notice: _Optional[_Union[Notice, str]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., forward: _Optional[_Union[ForwardResult, _Mapping]] = ..., backward: _Optional[_Union[BackwardResult, _Mapping]] = ..., train_step: _Optional[_Union[TrainStepResult, _Mapping]] = ..., release_tapes: _Optional[_Union[ReleaseTapesResponse, _Mapping]] = ..., get_params: _Optional[_Union[GetParamsResult, _Mapping]] = ..., set_params: _Optional[_Union[SetParamsResponse, _Mapping]] = ..., get_grads: _Optional[_Union[GetGradsResult, _Mapping]] = ..., set_grads: _Optional[_Union[SetGradsResponse, _Mapping]] = ..., zero_grads: _Optional[_Union[ZeroGradsResponse, _Mapping]] = ..., get_buffers: _Optional[_Union[GetBuffersResult, _Mapping]] = ..., set_buffers: _Optional[_Union[SetBuffersResponse, _Mapping]] = ..., configure_optimizer: _Optional[_Union[ConfigureOptimizerResponse, _Mapping]] = ..., step: _Optional[_Union[StepResponse, _Mapping]] = ..., get_optimizer_state: _Optional[_Union[GetOptimizerStateResult, _Mapping]] = ..., set_optimizer_state: _Optional[_Union[SetOptimizerStateResponse, _Mapping]] = ...) -> None: ...

class ConfigureOptimizerRequest(_message.Message):
    __slots__ = ["if_version", "instance", "optimizer", "request_id"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    optimizer: _optimizer_pb2.Optimizer
    request_id: str
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., optimizer: _Optional[_Union[_optimizer_pb2.Optimizer, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ...) -> None: ...

class ConfigureOptimizerResponse(_message.Message):
    __slots__ = ["optimizer", "version"]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    optimizer: _optimizer_pb2.Optimizer
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., optimizer: _Optional[_Union[_optimizer_pb2.Optimizer, _Mapping]] = ...) -> None: ...

class CrossEntropy(_message.Message):
    __slots__ = ["class_mask", "label_smoothing", "labels"]
    CLASS_MASK_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LABEL_SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    class_mask: _containers.RepeatedScalarFieldContainer[bool]
    label_smoothing: float
    labels: _tensor_pb2.TensorSpec
    def __init__(self, labels: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ..., class_mask: _Optional[_Iterable[bool]] = ..., label_smoothing: _Optional[float] = ...) -> None: ...

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
    __slots__ = ["cache_use", "data", "digest", "instance", "output", "version"]
    CACHE_USE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    cache_use: CacheUse
    data: bytes
    digest: str
    instance: str
    output: _tensor_pb2.TensorSpec
    version: _instance_pb2.Version
    def __init__(self, instance: _Optional[str] = ..., version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., digest: _Optional[str] = ..., output: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ..., data: _Optional[bytes] = ..., cache_use: _Optional[_Union[CacheUse, str]] = ...) -> None: ...

class FlatGrads(_message.Message):
    __slots__ = ["present", "spec"]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    present: _containers.RepeatedScalarFieldContainer[bool]
    spec: _tensor_pb2.TensorSpec
    def __init__(self, spec: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ..., present: _Optional[_Iterable[bool]] = ...) -> None: ...

class ForwardHeader(_message.Message):
    __slots__ = ["allow_merge", "batch_norm", "buffers", "grad_params", "if_version", "input_digest", "input_grad", "inputs", "instance", "no_param_grads", "output_dtype", "outputs", "prerelu", "release_tapes", "request_id", "return_buffers", "return_type", "rng_state", "tape", "training"]
    ALLOW_MERGE_FIELD_NUMBER: _ClassVar[int]
    BATCH_NORM_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    GRAD_PARAMS_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INPUT_GRAD_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NO_PARAM_GRADS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_DTYPE_FIELD_NUMBER: _ClassVar[int]
    PRERELU_FIELD_NUMBER: _ClassVar[int]
    RELEASE_TAPES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RETURN_BUFFERS_FIELD_NUMBER: _ClassVar[int]
    RETURN_TYPE_FIELD_NUMBER: _ClassVar[int]
    RNG_STATE_FIELD_NUMBER: _ClassVar[int]
    TAPE_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    allow_merge: bool
    batch_norm: _containers.RepeatedCompositeFieldContainer[BatchNormOverride]
    buffers: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    grad_params: _selection_pb2.Selection
    if_version: _instance_pb2.IfVersion
    input_digest: bytes
    input_grad: bool
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    instance: str
    no_param_grads: bool
    output_dtype: _tensor_pb2.DataType
    outputs: _containers.RepeatedScalarFieldContainer[str]
    prerelu: bool
    release_tapes: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    return_buffers: bool
    return_type: ReturnType
    rng_state: bytes
    tape: bool
    training: bool
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., outputs: _Optional[_Iterable[str]] = ..., return_type: _Optional[_Union[ReturnType, str]] = ..., training: bool = ..., tape: bool = ..., input_grad: bool = ..., grad_params: _Optional[_Union[_selection_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., allow_merge: bool = ..., release_tapes: _Optional[_Iterable[str]] = ..., inputs: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., return_buffers: bool = ..., no_param_grads: bool = ..., prerelu: bool = ..., rng_state: _Optional[bytes] = ..., batch_norm: _Optional[_Iterable[_Union[BatchNormOverride, _Mapping]]] = ..., buffers: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., output_dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., input_digest: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ["buffers", "cache_use", "outputs", "rng_state", "tape_bytes", "tape_id", "timings", "version"]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    CACHE_USE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    RNG_STATE_FIELD_NUMBER: _ClassVar[int]
    TAPE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TAPE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    buffers: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    cache_use: CacheUse
    outputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    rng_state: bytes
    tape_bytes: int
    tape_id: str
    timings: Timings
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., tape_id: _Optional[str] = ..., tape_bytes: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., buffers: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., rng_state: _Optional[bytes] = ..., cache_use: _Optional[_Union[CacheUse, str]] = ...) -> None: ...

class GetBuffersRequest(_message.Message):
    __slots__ = ["if_version", "instance", "selection"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    selection: _selection_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., selection: _Optional[_Union[_selection_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ...) -> None: ...

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
    __slots__ = ["allow_absent", "dtype", "instance", "selection"]
    ALLOW_ABSENT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    allow_absent: bool
    dtype: _tensor_pb2.DataType
    instance: str
    selection: _selection_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., selection: _Optional[_Union[_selection_pb2.Selection, _Mapping]] = ..., allow_absent: bool = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ...) -> None: ...

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

class GetOptimizerStateRequest(_message.Message):
    __slots__ = ["if_version", "instance"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    def __init__(self, instance: _Optional[str] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ...) -> None: ...

class GetOptimizerStateResponse(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: GetOptimizerStateResult
    def __init__(self, header: _Optional[_Union[GetOptimizerStateResult, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class GetOptimizerStateResult(_message.Message):
    __slots__ = ["optimizer", "tensors", "version"]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    optimizer: _optimizer_pb2.Optimizer
    tensors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., optimizer: _Optional[_Union[_optimizer_pb2.Optimizer, _Mapping]] = ..., tensors: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ...) -> None: ...

class GetParamsRequest(_message.Message):
    __slots__ = ["dtype", "if_version", "instance", "selection"]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    dtype: _tensor_pb2.DataType
    if_version: _instance_pb2.IfVersion
    instance: str
    selection: _selection_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., selection: _Optional[_Union[_selection_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ...) -> None: ...

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

class KlDivergence(_message.Message):
    __slots__ = ["target", "temperature"]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    target: _tensor_pb2.TensorSpec
    temperature: float
    def __init__(self, target: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ..., temperature: _Optional[float] = ...) -> None: ...

class LossTerm(_message.Message):
    __slots__ = ["cross_entropy", "kl_divergence", "mean_squared_error", "row_begin", "row_end", "weight"]
    CROSS_ENTROPY_FIELD_NUMBER: _ClassVar[int]
    KL_DIVERGENCE_FIELD_NUMBER: _ClassVar[int]
    MEAN_SQUARED_ERROR_FIELD_NUMBER: _ClassVar[int]
    ROW_BEGIN_FIELD_NUMBER: _ClassVar[int]
    ROW_END_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    cross_entropy: CrossEntropy
    kl_divergence: KlDivergence
    mean_squared_error: MeanSquaredError
    row_begin: int
    row_end: int
    weight: float
    def __init__(self, row_begin: _Optional[int] = ..., row_end: _Optional[int] = ..., weight: _Optional[float] = ..., cross_entropy: _Optional[_Union[CrossEntropy, _Mapping]] = ..., mean_squared_error: _Optional[_Union[MeanSquaredError, _Mapping]] = ..., kl_divergence: _Optional[_Union[KlDivergence, _Mapping]] = ...) -> None: ...

class MeanSquaredError(_message.Message):
    __slots__ = ["target"]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    target: _tensor_pb2.TensorSpec
    def __init__(self, target: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ...) -> None: ...

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
    selection: _selection_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., selection: _Optional[_Union[_selection_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., buffers: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ...) -> None: ...

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
    selection: _selection_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., selection: _Optional[_Union[_selection_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., grads: _Optional[_Union[FlatGrads, _Mapping]] = ...) -> None: ...

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

class SetOptimizerStateHeader(_message.Message):
    __slots__ = ["if_version", "instance", "optimizer", "request_id", "tensors"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    optimizer: _optimizer_pb2.Optimizer
    request_id: str
    tensors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., optimizer: _Optional[_Union[_optimizer_pb2.Optimizer, _Mapping]] = ..., tensors: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ...) -> None: ...

class SetOptimizerStateRequest(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: SetOptimizerStateHeader
    def __init__(self, header: _Optional[_Union[SetOptimizerStateHeader, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class SetOptimizerStateResponse(_message.Message):
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
    selection: _selection_pb2.Selection
    spec: _tensor_pb2.TensorSpec
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., selection: _Optional[_Union[_selection_pb2.Selection, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., spec: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ...) -> None: ...

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

class StepRequest(_message.Message):
    __slots__ = ["if_version", "instance", "options", "request_id"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    if_version: _instance_pb2.IfVersion
    instance: str
    options: _optimizer_pb2.StepOptions
    request_id: str
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., options: _Optional[_Union[_optimizer_pb2.StepOptions, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ...) -> None: ...

class StepResponse(_message.Message):
    __slots__ = ["result", "version"]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    result: _optimizer_pb2.StepResult
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., result: _Optional[_Union[_optimizer_pb2.StepResult, _Mapping]] = ...) -> None: ...

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

class TrainStepHeader(_message.Message):
    __slots__ = ["batch_norm", "if_version", "input", "instance", "request_id", "return_logits", "rng_state", "step", "terms"]
    BATCH_NORM_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RETURN_LOGITS_FIELD_NUMBER: _ClassVar[int]
    RNG_STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    batch_norm: _containers.RepeatedCompositeFieldContainer[BatchNormOverride]
    if_version: _instance_pb2.IfVersion
    input: _tensor_pb2.TensorSpec
    instance: str
    request_id: str
    return_logits: bool
    rng_state: bytes
    step: _optimizer_pb2.StepOptions
    terms: _containers.RepeatedCompositeFieldContainer[LossTerm]
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., input: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ..., terms: _Optional[_Iterable[_Union[LossTerm, _Mapping]]] = ..., step: _Optional[_Union[_optimizer_pb2.StepOptions, _Mapping]] = ..., if_version: _Optional[_Union[_instance_pb2.IfVersion, _Mapping]] = ..., batch_norm: _Optional[_Iterable[_Union[BatchNormOverride, _Mapping]]] = ..., rng_state: _Optional[bytes] = ..., return_logits: bool = ...) -> None: ...

class TrainStepRequest(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: TrainStepHeader
    def __init__(self, header: _Optional[_Union[TrainStepHeader, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class TrainStepResponse(_message.Message):
    __slots__ = ["chunk", "header"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.Chunk
    header: TrainStepResult
    def __init__(self, header: _Optional[_Union[TrainStepResult, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.Chunk, _Mapping]] = ...) -> None: ...

class TrainStepResult(_message.Message):
    __slots__ = ["logits", "loss", "losses", "rng_state", "step", "timings", "version"]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    RNG_STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    logits: _tensor_pb2.TensorSpec
    loss: float
    losses: _containers.RepeatedScalarFieldContainer[float]
    rng_state: bytes
    step: _optimizer_pb2.StepResult
    timings: Timings
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ..., losses: _Optional[_Iterable[float]] = ..., loss: _Optional[float] = ..., step: _Optional[_Union[_optimizer_pb2.StepResult, _Mapping]] = ..., logits: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., rng_state: _Optional[bytes] = ...) -> None: ...

class ZeroGradsRequest(_message.Message):
    __slots__ = ["instance", "request_id", "selection"]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    instance: str
    request_id: str
    selection: _selection_pb2.Selection
    def __init__(self, instance: _Optional[str] = ..., request_id: _Optional[str] = ..., selection: _Optional[_Union[_selection_pb2.Selection, _Mapping]] = ...) -> None: ...

class ZeroGradsResponse(_message.Message):
    __slots__ = ["version"]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _instance_pb2.Version
    def __init__(self, version: _Optional[_Union[_instance_pb2.Version, _Mapping]] = ...) -> None: ...

class ReturnType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class CacheUse(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Notice(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
