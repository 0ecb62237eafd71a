"""Notices which of the mirrored tensors were changed since the server last saw them.

A tensor counts as changed if it is another object, lies at another address, or its
version counter moved: every way to change a tensor that PyTorch tracks, an optimizer's
step, `load_state_dict` and ``p.data = t`` among them. What PyTorch does not track,
``p.data.add_(t)``, is looked for in a few elements of each tensor, or with `strict` in
all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

import numpy as np
import torch

from backboned.dtypes import BFLOAT16, Array

_WITNESSES = 16

Tensors = Union[Sequence[torch.Tensor], Mapping[int, torch.Tensor]]


class _Seen:
    """A tensor as the server knows it."""

    def __init__(self, tensor: torch.Tensor, strict: bool) -> None:
        self._tensor = tensor
        # Keeps the memory, so that its address is not given to other values.
        self._memory = tensor.detach()
        self._version = version_of(tensor)
        self._witness = _in_memory(self._memory)
        if not strict and self._witness.size and self._witness.flags.c_contiguous:
            flat = self._witness.reshape(-1)
            self._witness = flat[:: -(-flat.size // _WITNESSES)]
        self._testimony = self._witness.tobytes()

    def same(self, tensor: torch.Tensor) -> bool:
        """Whether PyTorch knows of no change."""
        return (
            tensor is self._tensor
            and version_of(tensor) == self._version
            and tensor.data_ptr() == self._memory.data_ptr()
            and tensor.stride() == self._memory.stride()
        )

    def written(self, version: int) -> bool:
        """Whether a version counter says that the tensor was written."""
        return version != self._version

    def betrayed(self) -> bool:
        """Whether elements changed behind PyTorch's back."""
        return self._witness.tobytes() != self._testimony


def _in_memory(tensor: torch.Tensor) -> Array:
    """View a CPU tensor, its dimensions in the order in which they lie in memory."""
    if not tensor.is_contiguous():
        strides = tensor.stride()
        order = sorted(range(tensor.dim()), key=lambda d: strides[d], reverse=True)
        tensor = tensor.permute(order)
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.int16)
    return tensor.numpy()


def version_of(tensor: torch.Tensor) -> int:
    """Give how often PyTorch knows a tensor written; -1: it does not count."""
    return -1 if tensor.is_inference() else tensor._version


class Watch:
    """Remembers tensors as the server knows them; nothing is known at first.

    Not thread-safe.

    Attributes
    ----------
    strict : bool
        Compare every element, which costs a pass over the memory and a copy of it.
    """

    def __init__(self) -> None:
        self.strict = False
        self._seen: dict[int, _Seen] = {}

    def look(self, tensors: Tensors, indices: Iterable[int]) -> dict[int, _Seen]:
        """Look at some of the tensors as they are now, for `saw`."""
        return {index: _Seen(tensors[index], self.strict) for index in indices}

    def saw(self, looks: dict[int, _Seen]) -> None:
        """Note that the server has the tensors as they were at that look."""
        self._seen.update(looks)

    def known(self) -> list[int]:
        """Give the indices of the tensors that were noted."""
        return list(self._seen)

    def moved(self, tensors: Sequence[torch.Tensor], among: Iterable[int]) -> list[int]:
        """Give those of the indices whose tensors PyTorch knows to be written.

        Cheaper than `changed`, for tensors whose memory nobody else refers to.
        """
        seen = self._seen
        return [
            i for i in among if i not in seen or seen[i].written(version_of(tensors[i]))
        ]

    def forget(self, indices: Iterable[int] | None = None) -> None:
        """Note that it is no longer known what the server has of some, or of all."""
        if indices is None:
            self._seen.clear()
        else:
            for index in indices:
                self._seen.pop(index, None)

    def changed(
        self, tensors: Tensors, among: Sequence[int] | None = None
    ) -> list[int]:
        """Give the indices of the tensors that the server does not know.

        If one was changed behind PyTorch's back, all of them are suspected.

        Parameters
        ----------
        tensors : sequence, or dict by index, of Tensor
        among : sequence of int, optional
            The indices to look at; by default all.
        """
        indices = range(len(tensors)) if among is None else among
        changed = []
        for index in indices:
            seen = self._seen.get(index)
            if seen is None or not seen.same(tensors[index]):
                changed.append(index)
            elif seen.betrayed():
                return list(indices)
        return changed


def as_array(tensor: torch.Tensor) -> Array:
    """View a CPU tensor as a C-contiguous array; copies only if it must."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(BFLOAT16)
    return np.asarray(tensor.numpy(), order="C")


def as_tensor(array: Array) -> torch.Tensor:
    """View a writable C-contiguous array as a tensor."""
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    """Give PyTorch's type for an array's."""
    return as_tensor(np.empty(0, dtype)).dtype


def check_tensor(name: str, tensor: Any, shape: Sequence[int], dtype: Any) -> None:
    """Raise TypeError or ValueError unless a mirrored tensor is what it must be."""
    if tensor.device.type != "cpu":
        raise TypeError(f"{name} is on {tensor.device}; a mirror stays on the CPU")
    if tensor.dtype != dtype:
        raise TypeError(f"{name} is {tensor.dtype}; in the server it is {dtype}")
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(
            f"{name} has the shape {list(tensor.shape)}; "
            f"in the server it has {list(shape)}"
        )
