"""Finds the mirrored tensors in the module tree, fast, whoever replaced them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import nn

from backboned.layout import Layout
from backboned.nn.mirror import check_tensor, torch_dtype

_Module = weakref.ref[nn.Module]


class Slots:
    """The places of named tensors in a module tree, which it does not keep alive.

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
        self._root = weakref.ref(root)
        self._names = names
        self._expected = list(zip(names, shapes, dtypes))
        self._kind = kind
        self._links: list[tuple[_Module, str, _Module]] = []
        self._places: list[tuple[_Module, str]] = []

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
            kind = self._kind
            return [getattr(module(), kind)[key] for module, key in self._places]
        except KeyError:
            self._explain()

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
        for reference, key, child in self._links:
            module = reference()
            if module is None or module._modules.get(key) is not child():
                return False
        return True

    def _explain(self) -> NoReturn:
        """Raise AttributeError: say which place is empty, and what may have done it."""
        name, place, key = next(
            (name, place, key)
            for name, (module, key) in zip(self._names, self._places)
            if key not in (place := getattr(module(), self._kind))
        )
        raise AttributeError(
            f"the backbone has no {name!r} any more: it was deleted, or taken over by "
            f"{_taker(place, key)}, which the server does not compute; set it again, "
            "or take the parametrization off"
        )

    def _resolve(self) -> None:
        """Walk down to each tensor's module, and note the way."""
        root = self._root()
        if root is None:
            raise RuntimeError("the network of these tensors is gone; keep it")
        links: dict[tuple[int, str], tuple[_Module, str, _Module]] = {}
        self._places = []
        for name in self._names:
            *path, key = name.split(".")
            module: nn.Module = root
            for step in path:
                child = module._modules.get(step)
                if child is None:
                    raise AttributeError(f"the backbone has no {name!r} any more")
                link = (weakref.ref(module), step, weakref.ref(child))
                links[id(module), step] = link
                module = child
            self._places.append((weakref.ref(module), key))
        self._links = list(links.values())


def _taker(place: dict[str, Any], key: str) -> str:
    """Guess which function of PyTorch took a parameter's place."""
    if f"{key}_g" in place:
        return "torch.nn.utils.weight_norm"
    if f"{key}_orig" in place:
        return "torch.nn.utils.prune or spectral_norm"
    return "a parametrization (torch.nn.utils.weight_norm, parametrize)"


def _fits(tensor: Any, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.shape == shape
        and tensor.dtype == dtype
        and tensor.is_cpu
    )


def parameter_slots(root: nn.Module, layout: Layout, dtype: torch.dtype) -> Slots:
    """Give the places of a layout's parameters, of `dtype`."""
    return Slots(
        root,
        [p.name for p in layout.parameters],
        [p.shape for p in layout.parameters],
        [dtype] * len(layout.parameters),
        "_parameters",
    )


def buffer_slots(root: nn.Module, layout: Layout) -> Slots:
    """Give the places of a layout's buffers."""
    return Slots(
        root,
        [b.name for b in layout.buffers],
        [b.shape for b in layout.buffers],
        [torch_dtype(b.dtype) for b in layout.buffers],
        "_buffers",
    )
