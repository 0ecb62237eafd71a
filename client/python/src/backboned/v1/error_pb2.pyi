from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
ERROR_REASON_ANSWER_EXPIRED: ErrorReason
ERROR_REASON_ARCHITECTURE_NOT_FOUND: ErrorReason
ERROR_REASON_BENCHMARK_NOT_FOUND: ErrorReason
ERROR_REASON_CACHE_MISS: ErrorReason
ERROR_REASON_CHECKPOINT_NOT_FOUND: ErrorReason
ERROR_REASON_CHECKPOINT_UNREADABLE: ErrorReason
ERROR_REASON_CLIENT_STALLED: ErrorReason
ERROR_REASON_COMPUTE_FAILED: ErrorReason
ERROR_REASON_DEVICE_LOST: ErrorReason
ERROR_REASON_DRAINING: ErrorReason
ERROR_REASON_DTYPE_MISMATCH: ErrorReason
ERROR_REASON_IDENTITY_REFUSED: ErrorReason
ERROR_REASON_INSTANCE_EXISTS: ErrorReason
ERROR_REASON_INSTANCE_NOT_FOUND: ErrorReason
ERROR_REASON_INVALID_OPTION: ErrorReason
ERROR_REASON_LIMIT_REACHED: ErrorReason
ERROR_REASON_MALFORMED_STREAM: ErrorReason
ERROR_REASON_NOT_BEGUN: ErrorReason
ERROR_REASON_NOT_PERMITTED: ErrorReason
ERROR_REASON_NO_GRADIENTS: ErrorReason
ERROR_REASON_NO_OPTIMIZER: ErrorReason
ERROR_REASON_NO_STATE_FOLDER: ErrorReason
ERROR_REASON_OUT_OF_MEMORY: ErrorReason
ERROR_REASON_READ_ONLY: ErrorReason
ERROR_REASON_REQUEST_ID_REUSED: ErrorReason
ERROR_REASON_SHAPE_MISMATCH: ErrorReason
ERROR_REASON_STALE_VERSION: ErrorReason
ERROR_REASON_STORAGE_FAILED: ErrorReason
ERROR_REASON_TAPE_NOT_FOUND: ErrorReason
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_WEIGHTS_NOT_FOUND: ErrorReason
ERROR_REASON_WEIGHTS_REQUIRED: ErrorReason
ERROR_REASON_WEIGHTS_UNREADABLE: ErrorReason
LIMIT_SCOPE_PRINCIPAL: LimitScope
LIMIT_SCOPE_RUN: LimitScope
LIMIT_SCOPE_SERVER: LimitScope
LIMIT_SCOPE_SESSION: LimitScope
LIMIT_SCOPE_UNSPECIFIED: LimitScope

class ErrorDetail(_message.Message):
    __slots__ = ["limit", "limit_value", "reason", "requested_value", "retry_delay", "scope"]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_VALUE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_VALUE_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    limit: str
    limit_value: int
    reason: ErrorReason
    requested_value: int
    retry_delay: _duration_pb2.Duration
    scope: LimitScope
    def __init__(self, reason: _Optional[_Union[ErrorReason, str]] = ..., limit: _Optional[str] = ..., limit_value: _Optional[int] = ..., requested_value: _Optional[int] = ..., retry_delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., scope: _Optional[_Union[LimitScope, str]] = ...) -> None: ...

class StatusDetails(_message.Message):
    __slots__ = ["code", "details", "message"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    details: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ...) -> None: ...

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class LimitScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
