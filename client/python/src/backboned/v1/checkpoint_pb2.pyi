from backboned.v1 import instance_pb2 as _instance_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Checkpoint(_message.Message):
    __slots__ = ["bytes", "create_time", "instance", "name", "number", "owner", "server_version", "torch_version"]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    create_time: _timestamp_pb2.Timestamp
    instance: _instance_pb2.Instance
    name: str
    number: int
    owner: str
    server_version: str
    torch_version: str
    def __init__(self, name: _Optional[str] = ..., owner: _Optional[str] = ..., number: _Optional[int] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., instance: _Optional[_Union[_instance_pb2.Instance, _Mapping]] = ..., bytes: _Optional[int] = ..., server_version: _Optional[str] = ..., torch_version: _Optional[str] = ...) -> None: ...
