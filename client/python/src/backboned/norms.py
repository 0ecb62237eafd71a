"""How BatchNorm layers run in one forward, and the buffers that it begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backboned.dtypes import Array
from backboned.errors import InvalidArgument
from backboned.layout import Layout
from backboned.v1 import backbone_service_pb2 as pb


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """What differs from the defaults in some BatchNorm layers, in PyTorch's words.

    Attributes
    ----------
    globs : sequence of str
        Over the layers' names, e.g. ``"layer1.*"``; empty: all layers.
    training : bool, optional
        Whether they are in training; by default as the forward is.
    track_running_stats : bool, optional
        False: in training, batch statistics and no change of the buffers; in
        evaluation, the running statistics all the same.
    eps : float, optional
        At least 0; by default the architecture's.
    momentum : float, optional
        In [0, 1]; by default the architecture's.
    cumulative : bool
        PyTorch's ``momentum=None``: the average of all batches so far.
    """

    globs: Sequence[str] = ()
    training: bool | None = None
    track_running_stats: bool | None = None
    eps: float | None = None
    momentum: float | None = None
    cumulative: bool = False

    def message(self) -> pb.BatchNormOverride:
        """Make the contract's message.

        Raises
        ------
        InvalidArgument
            If there is both a momentum and `cumulative`.
        """
        if self.cumulative and self.momentum is not None:
            raise InvalidArgument("give either momentum or cumulative, not both")
        message = pb.BatchNormOverride(globs=self.globs)
        for name in ("training", "track_running_stats", "eps", "momentum"):
            value = getattr(self, name)
            if value is not None:
                setattr(message, name, value)
        if self.cumulative:
            message.cumulative = True
        return message


def in_order(layout: Layout, values: Mapping[str, Any]) -> dict[str, Array]:
    """Make C-contiguous arrays of all buffers of a layout, in its order.

    Raises
    ------
    InvalidArgument
        If a buffer is missing, or there is none of a name.
    """
    names = [buffer.name for buffer in layout.buffers]
    wrong = sorted(set(names) ^ set(values))
    if wrong:
        missing = wrong[0] in names
        raise InvalidArgument(
            f"a forward takes all {len(names)} buffers: {wrong[0]!r} is "
            f"{'missing' if missing else 'none of them'}"
        )
    return {name: np.asarray(values[name], order="C") for name in names}
