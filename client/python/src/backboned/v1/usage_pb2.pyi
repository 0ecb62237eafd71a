from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
USAGE_BY_INSTANCE: UsageBy
USAGE_BY_LABEL: UsageBy
USAGE_BY_UNSPECIFIED: UsageBy
USAGE_BY_USER: UsageBy

class UsageRow(_message.Message):
    __slots__ = ["begin", "calls", "device_time", "end", "flops", "instance", "instance_uid", "label", "principal", "received_bytes", "sent_bytes"]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    FLOPS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    begin: _timestamp_pb2.Timestamp
    calls: int
    device_time: _duration_pb2.Duration
    end: _timestamp_pb2.Timestamp
    flops: float
    instance: str
    instance_uid: str
    label: str
    principal: str
    received_bytes: int
    sent_bytes: int
    def __init__(self, principal: _Optional[str] = ..., instance: _Optional[str] = ..., instance_uid: _Optional[str] = ..., label: _Optional[str] = ..., begin: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., end: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., calls: _Optional[int] = ..., device_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., flops: _Optional[float] = ..., received_bytes: _Optional[int] = ..., sent_bytes: _Optional[int] = ...) -> None: ...

class UsageBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
