"""Forwards of other tensors than a hosted network has: `functional_call` of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, TypeVar

import torch
from torch import nn

from backboned.instance import Instance
from backboned.nn.lazy import raw
from backboned.nn.link import Link

T = TypeVar("T")


class Scratch(Link):
    """Connects the tensors that are in a hosted network now with a clone in the server.

    Gradients come here, to whatever the tensors were made of. The clone is deleted when
    the graph is gone.

    Parameters
    ----------
    instance : Instance
        The clone.
    root : torch.nn.Module
        The network.
    own : two sequences of Tensor
        Its own parameters and buffers, which the clone has already.
    """

    def __init__(
        self,
        instance: Instance,
        root: nn.Module,
        own: tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]],
    ) -> None:
        super().__init__(instance, root)
        self._version = instance.version
        with raw():
            for (slots, watch), known in zip(self._pairs(), own):
                tensors = slots.tensors()
                same = [i for i, tensor in enumerate(tensors) if tensor is known[i]]
                watch.saw(watch.look(tensors, same, closely=()))

    def surviving(self, call: Callable[[], T]) -> T:
        """Make a call; a lost server has lost the network too."""
        return call()

    def _push_changes(self) -> None:
        with raw():
            super()._push_changes()
