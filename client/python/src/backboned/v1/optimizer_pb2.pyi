from backboned.v1 import selection_pb2 as _selection_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
OPTIMIZER_KIND_ADAM: OptimizerKind
OPTIMIZER_KIND_ADAMW: OptimizerKind
OPTIMIZER_KIND_SGD: OptimizerKind
OPTIMIZER_KIND_UNSPECIFIED: OptimizerKind

class ClipNorm(_message.Message):
    __slots__ = ["max_norm", "norm_type"]
    MAX_NORM_FIELD_NUMBER: _ClassVar[int]
    NORM_TYPE_FIELD_NUMBER: _ClassVar[int]
    max_norm: float
    norm_type: float
    def __init__(self, max_norm: _Optional[float] = ..., norm_type: _Optional[float] = ...) -> None: ...

class GroupSettings(_message.Message):
    __slots__ = ["beta1", "beta2", "dampening", "eps", "maximize", "momentum", "nesterov", "weight_decay"]
    BETA1_FIELD_NUMBER: _ClassVar[int]
    BETA2_FIELD_NUMBER: _ClassVar[int]
    DAMPENING_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    MAXIMIZE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    NESTEROV_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    beta1: float
    beta2: float
    dampening: float
    eps: float
    maximize: bool
    momentum: float
    nesterov: bool
    weight_decay: float
    def __init__(self, weight_decay: _Optional[float] = ..., maximize: bool = ..., momentum: _Optional[float] = ..., dampening: _Optional[float] = ..., nesterov: bool = ..., beta1: _Optional[float] = ..., beta2: _Optional[float] = ..., eps: _Optional[float] = ...) -> None: ...

class Optimizer(_message.Message):
    __slots__ = ["groups", "kind"]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[ParameterGroup]
    kind: OptimizerKind
    def __init__(self, kind: _Optional[_Union[OptimizerKind, str]] = ..., groups: _Optional[_Iterable[_Union[ParameterGroup, _Mapping]]] = ...) -> None: ...

class ParameterGroup(_message.Message):
    __slots__ = ["amsgrad", "beta1", "beta2", "dampening", "eps", "lr", "maximize", "momentum", "nesterov", "selection", "weight_decay"]
    AMSGRAD_FIELD_NUMBER: _ClassVar[int]
    BETA1_FIELD_NUMBER: _ClassVar[int]
    BETA2_FIELD_NUMBER: _ClassVar[int]
    DAMPENING_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    LR_FIELD_NUMBER: _ClassVar[int]
    MAXIMIZE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    NESTEROV_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    amsgrad: bool
    beta1: float
    beta2: float
    dampening: float
    eps: float
    lr: float
    maximize: bool
    momentum: float
    nesterov: bool
    selection: _selection_pb2.Selection
    weight_decay: float
    def __init__(self, selection: _Optional[_Union[_selection_pb2.Selection, _Mapping]] = ..., lr: _Optional[float] = ..., weight_decay: _Optional[float] = ..., maximize: bool = ..., momentum: _Optional[float] = ..., dampening: _Optional[float] = ..., nesterov: bool = ..., beta1: _Optional[float] = ..., beta2: _Optional[float] = ..., eps: _Optional[float] = ..., amsgrad: bool = ...) -> None: ...

class StepOptions(_message.Message):
    __slots__ = ["clip_norm", "clip_value", "lr", "settings", "zero_after"]
    CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    CLIP_VALUE_FIELD_NUMBER: _ClassVar[int]
    LR_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    ZERO_AFTER_FIELD_NUMBER: _ClassVar[int]
    clip_norm: ClipNorm
    clip_value: float
    lr: _containers.RepeatedScalarFieldContainer[float]
    settings: _containers.RepeatedCompositeFieldContainer[GroupSettings]
    zero_after: bool
    def __init__(self, lr: _Optional[_Iterable[float]] = ..., clip_norm: _Optional[_Union[ClipNorm, _Mapping]] = ..., clip_value: _Optional[float] = ..., zero_after: bool = ..., settings: _Optional[_Iterable[_Union[GroupSettings, _Mapping]]] = ...) -> None: ...

class StepResult(_message.Message):
    __slots__ = ["grad_norm", "stepped_count"]
    GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    STEPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    grad_norm: float
    stepped_count: int
    def __init__(self, grad_norm: _Optional[float] = ..., stepped_count: _Optional[int] = ...) -> None: ...

class OptimizerKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
