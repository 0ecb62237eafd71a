"""Optimizers that the server runs, their steps and their state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backboned.dtypes import Array
from backboned.errors import InvalidArgument, MalformedAnswer
from backboned.layout import Select, Version, selection
from backboned.v1 import optimizer_pb2

_KINDS: Mapping[str, optimizer_pb2.OptimizerKind] = {
    "sgd": optimizer_pb2.OPTIMIZER_KIND_SGD,
    "adam": optimizer_pb2.OPTIMIZER_KIND_ADAM,
    "adamw": optimizer_pb2.OPTIMIZER_KIND_ADAMW,
}
_NAMES = {number: name for name, number in _KINDS.items()}


@dataclasses.dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are stepped alike, and how; names and meaning are PyTorch's.

    Attributes
    ----------
    select : Select
        Which parameters; None: all. A range may not cut one.
    lr : float, optional
        By default 0.001.
    weight_decay : float, optional
        By default 0, of AdamW 0.01.
    maximize : bool
    momentum, dampening, nesterov
        SGD's.
    betas : tuple of two float, optional
        Adam's and AdamW's; by default (0.9, 0.999).
    eps : float, optional
        Adam's and AdamW's; by default 1e-8.
    amsgrad : bool
        Adam's and AdamW's.
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

    def message(self) -> optimizer_pb2.ParameterGroup:
        """Make the contract's group."""
        return optimizer_pb2.ParameterGroup(
            selection=selection(self.select),
            lr=self.lr,
            weight_decay=self.weight_decay,
            maximize=self.maximize,
            momentum=self.momentum,
            dampening=self.dampening,
            nesterov=self.nesterov,
            beta1=None if self.betas is None else self.betas[0],
            beta2=None if self.betas is None else self.betas[1],
            eps=self.eps,
            amsgrad=self.amsgrad,
        )


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer: ``"sgd"``, ``"adam"`` or ``"adamw"``, and its groups."""

    kind: str
    groups: tuple[ParameterGroup, ...] = (ParameterGroup(),)

    def message(self) -> optimizer_pb2.Optimizer:
        """Make the contract's optimizer.

        Raises
        ------
        InvalidArgument
            If there is no such kind.
        """
        if self.kind not in _KINDS:
            raise InvalidArgument(
                f"no optimizer {self.kind!r}; there are {', '.join(_KINDS)}"
            )
        groups = [group.message() for group in self.groups]
        return optimizer_pb2.Optimizer(kind=_KINDS[self.kind], groups=groups)


@dataclasses.dataclass(frozen=True)
class GroupSettings:
    """Settings of a group that a step changes; None: as it is.

    Attributes
    ----------
    weight_decay, maximize, momentum, dampening, nesterov, betas, eps
        As of a `ParameterGroup`.
    """

    weight_decay: float | None = None
    maximize: bool | None = None
    momentum: float | None = None
    dampening: float | None = None
    nesterov: bool | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None

    def message(self) -> optimizer_pb2.GroupSettings:
        """Make the contract's settings."""
        settings = optimizer_pb2.GroupSettings(
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            dampening=self.dampening,
            beta1=None if self.betas is None else self.betas[0],
            beta2=None if self.betas is None else self.betas[1],
            eps=self.eps,
        )
        if self.maximize is not None:
            settings.maximize = self.maximize
        if self.nesterov is not None:
            settings.nesterov = self.nesterov
        return settings


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How one step is to be made.

    Attributes
    ----------
    lr : sequence of float
        Learning rates of this step and of those after it, one for each group; empty:
        as they are.
    clip_norm : float, optional
        Makes the norm of all gradients together at most this, as
        ``torch.nn.utils.clip_grad_norm_`` does.
    norm_type : float
        The p of that p-norm; infinity is the largest absolute value.
    clip_value : float, optional
        Bounds each element, as ``clip_grad_value_`` does. Not with `clip_norm`.
    zero_after : bool
        Take the gradients away afterwards.
    settings : sequence of GroupSettings
        Other settings of this step and of those after it, one for each group; what the
        optimizer remembers stays. Empty: as they are.
    """

    lr: Sequence[float] = ()
    clip_norm: float | None = None
    norm_type: float = 2.0
    clip_value: float | None = None
    zero_after: bool = False
    settings: Sequence[GroupSettings] = ()

    def message(self) -> optimizer_pb2.StepOptions:
        """Make the contract's options.

        Raises
        ------
        InvalidArgument
            If both norm and elements are to be bounded.
        """
        options = optimizer_pb2.StepOptions(
            lr=self.lr,
            zero_after=self.zero_after,
            settings=[settings.message() for settings in self.settings],
        )
        if self.clip_norm is not None and self.clip_value is not None:
            raise InvalidArgument("give clip_norm or clip_value, not both")
        if self.clip_norm is not None:
            options.clip_norm.max_norm = self.clip_norm
            options.clip_norm.norm_type = self.norm_type
        if self.clip_value is not None:
            options.clip_value = self.clip_value
        return options


class Stepped(NamedTuple):
    """What a step did.

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


def read_optimizer(message: optimizer_pb2.Optimizer) -> Optimizer:
    """Read the contract's optimizer.

    Raises
    ------
    MalformedAnswer
        If its kind is unknown.
    """
    if message.kind not in _NAMES:
        raise MalformedAnswer(f"the answer has an optimizer of kind {message.kind}")
    return Optimizer(
        _NAMES[message.kind], tuple(_read_group(group) for group in message.groups)
    )


def _read_group(group: optimizer_pb2.ParameterGroup) -> ParameterGroup:
    select: Select = list(group.selection.globs) or None
    if group.selection.HasField("range"):
        select = range(group.selection.range.begin, group.selection.range.end)
    betas = (group.beta1, group.beta2) if group.HasField("beta1") else None
    return ParameterGroup(
        select=select,
        lr=group.lr,
        weight_decay=group.weight_decay,
        maximize=group.maximize,
        momentum=group.momentum,
        dampening=group.dampening,
        nesterov=group.nesterov,
        betas=betas,
        eps=group.eps if group.HasField("eps") else None,
        amsgrad=group.amsgrad,
    )


def read_step(version: Version, message: optimizer_pb2.StepResult) -> Stepped:
    """Read what a step did."""
    norm = message.grad_norm if message.HasField("grad_norm") else None
    return Stepped(version, norm, message.stepped_count)
