"""Finds the mirrored tensors in the module tree, fast, whoever replaced them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from backboned.layout import Layout
from backboned.nn.mirror import check_tensor


class Slots:
    """The places of named tensors in a module tree.

    Parameters
    ----------
    root : torch.nn.Module
    names : sequence of str
    shapes : sequence of tuple of int
    dtypes : sequence of torch.dtype
    kind : {"_parameters", "_buffers"}
        Which of a module's dictionaries holds them.
    """

    def __init__(
        self,
        root: nn.Module,
        names: Sequence[str],
        shapes: Sequence[tuple[int, ...]],
        dtypes: Sequence[torch.dtype],
        kind: str,
    ) -> None:
        self._root = root
        self._names = names
        self._expected = list(zip(names, shapes, dtypes))
        self._kind = kind
        self._links: list[tuple[dict[str, Any], str, nn.Module]] = []
        self._places: list[tuple[dict[str, Any], str]] = []

    def found(self) -> list[Any]:
        """Give what is in the places, whatever it is, in the order of the names.

        Raises
        ------
        AttributeError
            If one is empty.
        """
        if not self._places or not self._intact():
            self._resolve()
        try:
            return [place[key] for place, key in self._places]
        except KeyError as error:
            raise AttributeError(f"the backbone has no {error} any more") from None

    def tensors(self) -> list[Any]:
        """Give the tensors in the order of the names.

        Raises
        ------
        AttributeError
            If one is gone.
        TypeError, ValueError
            If one no longer has the type or the shape that the server knows.
        """
        found = self.found()
        # Each time: `p.data = ...` changes a tensor and keeps the object.
        for tensor, (name, shape, dtype) in zip(found, self._expected):
            if not _fits(tensor, shape, dtype):
                check_tensor(name, tensor, shape, dtype)
        return found

    def _intact(self) -> bool:
        return all(modules.get(key) is child for modules, key, child in self._links)

    def _resolve(self) -> None:
        """Walk down to each tensor's module, and note the way."""
        links: dict[tuple[int, str], tuple[dict[str, Any], str, nn.Module]] = {}
        self._places = []
        for name in self._names:
            *path, key = name.split(".")
            module: nn.Module = self._root
            for step in path:
                child = module._modules.get(step)
                if child is None:
                    raise AttributeError(f"the backbone has no {name!r} any more")
                links[id(module), step] = (module._modules, step, child)
                module = child
            self._places.append((getattr(module, self._kind), key))
        self._links = list(links.values())


def _fits(tensor: Any, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.shape == shape
        and tensor.dtype == dtype
        and tensor.is_cpu
    )


def parameter_slots(root: nn.Module, layout: Layout) -> Slots:
    """Give the places of a layout's parameters."""
    return Slots(
        root,
        [p.name for p in layout.parameters],
        [p.shape for p in layout.parameters],
        [torch.float32] * len(layout.parameters),
        "_parameters",
    )


def buffer_slots(root: nn.Module, layout: Layout) -> Slots:
    """Give the places of a layout's buffers."""
    return Slots(
        root,
        [b.name for b in layout.buffers],
        [b.shape for b in layout.buffers],
        [torch.from_numpy(np.empty(0, b.dtype)).dtype for b in layout.buffers],
        "_buffers",
    )
