"""What an instance is made of, its versions, and how to name a part of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Union

import numpy as np

from backboned.dtypes import elements, numpy_dtype
from backboned.errors import InvalidArgument
from backboned.v1 import instance_pb2, selection_pb2

Select = Union[None, str, Sequence[str], range]
"""Which parameters or buffers: None is all; a glob or globs over names, ``"!glob"``
excludes, the last match decides; or a range of elements of the flat vector."""


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
        return elements(self.shape)


class Buffer(NamedTuple):
    """A tensor of the state that is not trained."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The parameters, buffers and outputs of an instance. It never changes.

    Attributes
    ----------
    parameters : tuple of Parameter
        In flat order.
    buffers : tuple of Buffer
        In order.
    elements : int
        Elements of all parameters.
    outputs : tuple of str
        What a forward can give: ``out``, ``features``, ``layers.0``, ...
    attributes : dict
        E.g. ``feature_dim``, ``num_classes``.
    input_shape : tuple of int
        C, H, W of one input; -1 is any; empty: any with the right number of elements.
    stochastic : bool
        Whether forwards in training draw random numbers.
    prerelu : bool
        Whether the stages can be given as they are before their ReLU.
    """

    parameters: tuple[Parameter, ...]
    buffers: tuple[Buffer, ...]
    elements: int
    outputs: tuple[str, ...]
    attributes: Mapping[str, int]
    input_shape: tuple[int, ...]
    stochastic: bool
    prerelu: bool


def read_layout(message: instance_pb2.Layout) -> Layout:
    """Read the contract's layout."""
    return Layout(
        parameters=tuple(
            Parameter(p.name, tuple(p.shape), p.offset, tuple(p.aliases))
            for p in message.parameters
        ),
        buffers=tuple(
            Buffer(b.name, numpy_dtype(b.dtype), tuple(b.shape))
            for b in message.buffers
        ),
        elements=message.parameter_elements,
        outputs=tuple(message.outputs),
        attributes=dict(message.attributes),
        input_shape=tuple(message.input_shape),
        stochastic=message.stochastic,
        prerelu=message.prerelu,
    )


def read_version(message: instance_pb2.Version) -> Version:
    """Read the contract's version."""
    return Version(message.uid, message.params, message.buffers)


def condition(version: Version | None) -> instance_pb2.IfVersion | None:
    """Make the contract's condition of a version; None stays None."""
    if version is None:
        return None
    return instance_pb2.IfVersion(
        uid=version.uid or "", params=version.params, buffers=version.buffers
    )


def selection(select: Select) -> selection_pb2.Selection | None:
    """Make the contract's selection.

    Raises
    ------
    InvalidArgument
        If it is a range with a step, or empty globs.
    """
    if select is None:
        return None
    if isinstance(select, range):
        if select.step != 1:
            raise InvalidArgument(f"a range of elements has no step; got {select}")
        span = selection_pb2.ElementRange(begin=select.start, end=select.stop)
        return selection_pb2.Selection(range=span)
    globs = [select] if isinstance(select, str) else list(select)
    if not globs:
        raise InvalidArgument("an empty list of names selects nothing")
    return selection_pb2.Selection(globs=globs)


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


def argument_values(
    arguments: Mapping[str, Any],
) -> dict[str, instance_pb2.ArgumentValue]:
    """Make the contract's values of an architecture's arguments.

    Raises
    ------
    InvalidArgument
        If a value is no bool, int, float or str.
    """
    return {name: _argument(name, value) for name, value in arguments.items()}


def _argument(name: str, value: Any) -> instance_pb2.ArgumentValue:
    if isinstance(value, (bool, np.bool_)):
        return instance_pb2.ArgumentValue(bool_value=bool(value))
    if isinstance(value, (int, np.integer)):
        return instance_pb2.ArgumentValue(int_value=int(value))
    if isinstance(value, (float, np.floating)):
        return instance_pb2.ArgumentValue(double_value=float(value))
    if isinstance(value, str):
        return instance_pb2.ArgumentValue(string_value=value)
    raise InvalidArgument(
        f"argument {name!r} is a bool, int, float or str; got {type(value).__name__}"
    )


def read_argument(message: instance_pb2.ArgumentValue) -> Any:
    """Read the value of an architecture's argument; None if it has none."""
    kind = message.WhichOneof("kind")
    return getattr(message, kind) if kind else None
