"""Finds the mirrored tensors in the module tree, fast, whoever replaced them."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Union

import numpy as np
import torch
from torch import nn

from backboned.transport.tensors import BFLOAT16, as_bytes
from backboned.types import Array, Layout

Tensors = Union[Sequence[torch.Tensor], Mapping[int, torch.Tensor]]


class _Seen:
    """A tensor as the server knows it.

    - `closely`: keep a copy, to find elements that change behind PyTorch's back.
    - `before`: an earlier look, whose copy's memory is used again.
    """

    def __init__(
        self, tensor: torch.Tensor, closely: bool, before: _Seen | None
    ) -> None:
        # Keeps the memory, so that its address is not given to other values.
        self.memory = tensor.detach()
        self.stride = tensor.stride()
        self.version = version_of(tensor)
        # The bytes of the memory as long as that is at `address`.
        self.address = -1
        self.view: memoryview | None = None
        self.copy: Any = None  # A bytearray, if closely.
        if closely:
            elements = self.elements()
            copy = before.copy if before else None
            if copy is None or len(copy) != elements.nbytes:
                copy = bytearray(elements.nbytes)
            memoryview(copy)[:] = elements
            self.copy = copy

    def elements(self) -> memoryview:
        """View the bytes, without a copy if they lie densely."""
        memory = self.memory
        if not memory.is_contiguous():
            by_stride = sorted(range(memory.dim()), key=memory.stride, reverse=True)
            return as_bytes(as_array(memory.permute(by_stride)))
        elements = as_bytes(as_array(memory))
        self.address, self.view = memory.data_ptr(), elements
        return elements

    def held(self, tensor: torch.Tensor) -> bool:
        """Say whether anybody else may refer to the tensor's memory at this moment."""
        self.address, self.view = -1, None  # Which would count.
        shared: bool = tensor.is_shared()  # type: ignore[no-untyped-call]
        if _ALONE is None or shared:  # By processes, whose references do not count.
            return True
        return _references(tensor) > _ALONE + self.lies_at(tensor)

    def lies_at(self, tensor: torch.Tensor) -> bool:
        """Say whether a tensor has the memory that it had."""
        return tensor.data_ptr() == self.memory.data_ptr()


def _references(tensor: torch.Tensor) -> int:
    """Count the references to a tensor's memory, those to its storage object too."""
    storage = tensor.untyped_storage()
    uses: int = torch._C._storage_Use_Count(storage._cdata)
    return uses + sys.getrefcount(storage)


# The references to memory that one tensor has; None: this torch does not count.
_ALONE: int | None = None
if hasattr(torch._C, "_storage_Use_Count"):
    _ALONE = _references(torch.empty(1, device="cpu"))


def version_of(tensor: torch.Tensor) -> int:
    """Give how often PyTorch knows a tensor written; -1: it does not count."""
    return -1 if tensor.is_inference() else tensor._version


class Watch:
    """Remembers tensors as the server knows them; nothing is known at first.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def look(
        self,
        tensors: Tensors,
        indices: Iterable[int],
        closely: Container[int] | None = None,
    ) -> dict[int, _Seen]:
        """Look at some of the tensors as they are now, for `saw`.

        It forgets what was known of them.

        - `closely`: those of which every element is to be compared; by default all. The
          others are known by what PyTorch tracks.
        """
        return {
            index: _Seen(
                tensors[index],
                closely is None or index in closely,
                self._seen.pop(index, None),
            )
            for index in indices
        }

    def saw(self, looks: dict[int, _Seen]) -> None:
        """Note that the server has the tensors as they were at that look."""
        self._seen.update(looks)

    def known(self) -> list[int]:
        """Give the indices of the tensors that were noted."""
        return list(self._seen)

    def moved(self, tensors: Tensors, among: Iterable[int]) -> list[int]:
        """Give those of the indices whose tensors PyTorch knows to be written.

        Cheaper than `changed`, for tensors whose memory nobody else refers to.
        """
        written = []
        for i in among:
            seen, tensor = self._seen.get(i), tensors[i]
            version = -1 if tensor.is_inference() else tensor._version
            if seen is None or seen.version != version:
                written.append(i)
        return written

    def held(self, tensors: Tensors, among: Iterable[int]) -> set[int]:
        """Give those of the indices whose tensors' memory somebody may refer to."""
        seen = self._seen
        return {i for i in among if i not in seen or seen[i].held(tensors[i])}

    def foreign(self, tensors: Tensors, index: int) -> bool:
        """Say whether a tensor has memory since its last look that may be NumPy's.

        Owners outside of torch are not counted.
        """
        seen, tensor = self._seen.get(index), tensors[index]
        if seen is not None and seen.lies_at(tensor):
            return False
        return not tensor.untyped_storage().resizable()

    def relax(self, indices: Iterable[int]) -> None:
        """Compare the elements of some no more: nobody refers to their memory."""
        for index in indices:
            self._seen[index].copy = self._seen[index].view = None
            self._seen[index].address = -1

    def forget(self, indices: Iterable[int] | None = None) -> None:
        """Note that it is no longer known what the server has of some, or of all."""
        if indices is None:
            indices = self.known()
        for index in indices:
            self._seen.pop(index, None)

    def changed(
        self, tensors: Tensors, among: Iterable[int] | None = None
    ) -> list[int]:
        """Give the indices of the tensors that the server does not know.

        - `among`: the indices to look at; by default all.
        """
        changed = []
        for i in range(len(tensors)) if among is None else among:
            seen, tensor = self._seen.get(i), tensors[i]
            if (
                seen is None
                or seen.version != (-1 if tensor.is_inference() else tensor._version)
                or (address := seen.memory.data_ptr()) != tensor.data_ptr()
                or tensor.stride() != seen.stride
                or seen.copy is not None
                and seen.copy
                != (seen.view if seen.address == address else seen.elements())
            ):
                changed.append(i)
        return changed


def as_array(tensor: torch.Tensor) -> Array:
    """View a CPU tensor as a C-contiguous array; copies only if it must."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(BFLOAT16)
    return np.asarray(tensor.numpy(), order="C")


def as_tensor(array: Array) -> torch.Tensor:
    """View a writable C-contiguous array as a tensor."""
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


@functools.cache
def torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    """Give PyTorch's type for an array's."""
    return as_tensor(np.empty(0, dtype)).dtype


_GONE = "the network of these tensors is gone; keep it"


class ModulePaths:
    """Paths in a module tree, which it does not keep alive. ``""`` is the root."""

    def __init__(self, root: nn.Module, paths: Iterable[str]) -> None:
        self._root = weakref.ref(root)
        self._steps: dict[str, tuple[str, str]] = {}  # Those above each first.
        for path in paths:
            steps = path.split(".") if path else []
            for depth, key in enumerate(steps, 1):
                above = ".".join(steps[: depth - 1])
                self._steps[".".join(steps[:depth])] = above, key
        self._index = {path: i for i, path in enumerate(["", *self._steps])}
        self._above = [(self._index[at], key) for at, key in self._steps.values()]

    def index(self, path: str) -> int:
        """Say where `all` has the module of a path."""
        return self._index[path]

    def all(self) -> list[nn.Module]:
        """Find the modules. Raises AttributeError or KeyError if there is not each."""
        root = self._root()
        if root is None:
            raise RuntimeError(_GONE)
        modules = [root]
        for above, key in self._above:
            modules.append(modules[above]._modules[key])  # type: ignore[arg-type]
        return modules

    def find(self) -> dict[str, nn.Module | None]:
        """Find the modules, those above each first; None: there is none."""
        root = self._root()
        if root is None:
            raise RuntimeError(_GONE)
        found: dict[str, nn.Module | None] = {"": root}
        for path, (above, key) in self._steps.items():
            module = found[above]
            found[path] = None if module is None else module._modules.get(key)
        return found


class Slots:
    """The places of named tensors in a module tree, which it does not keep alive.

    - `expected`: the name, shape and dtype of each.
    - `kind` ({"_parameters", "_buffers"}): which of a module's dictionaries holds them.
    """

    def __init__(
        self,
        root: nn.Module,
        expected: Sequence[tuple[str, tuple[int, ...], torch.dtype]],
        kind: str,
    ) -> None:
        self.names = [name for name, *_ in expected]
        self._expected = expected
        self._kind = kind
        places = [name.rpartition(".")[::2] for name in self.names]
        self._paths = ModulePaths(root, [above for above, _ in places])
        self._places = [(self._paths.index(above), key) for above, key in places]

    def found(self) -> list[Any]:
        """Give what is in the places, whatever it is, in the order of the names.

        Raises AttributeError if one is empty.
        """
        kind, found = self._kind, []
        try:
            modules = self._paths.all()
            for at, key in self._places:
                found.append(getattr(modules[at], kind)[key])
        except (AttributeError, KeyError):
            self._explain()
        return found

    def tensors(self) -> list[Any]:
        """Give the tensors in the order of the names.

        Raises AttributeError if one is gone. Raises TypeError, ValueError if one no
        longer has the type or the shape that the server knows.
        """
        found = self.found()
        # Each time: `p.data = ...` changes a tensor and keeps the object.
        for tensor, (name, shape, dtype) in zip(found, self._expected):
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"{name} is {tensor!r}; in the server it is a tensor")
            if not tensor.is_cpu:
                where = tensor.device
                raise TypeError(f"{name} is on {where}; a mirror stays on the CPU")
            if tensor.dtype != dtype:
                raise TypeError(
                    f"{name} is {tensor.dtype}; in the server it is {dtype}"
                )
            if tensor.shape != shape:
                raise ValueError(
                    f"{name} has the shape {list(tensor.shape)}; "
                    f"in the server it has {list(shape)}"
                )
        return found

    def _explain(self) -> NoReturn:
        """Raise AttributeError: say which place is empty, and what may have done it."""
        modules = self._paths.find()
        places = [(name, *name.rpartition(".")[::2]) for name in self.names]
        name = next(
            name
            for name, above, key in places
            if key not in getattr(modules[above], self._kind, ())
        )
        raise AttributeError(
            f"the backbone has no {name!r} any more: it was deleted, or taken over by "
            "torch.nn.utils.prune or a parametrization (weight_norm, spectral_norm), "
            "which the server does not compute; set it again, or take that off"
        ) from None


def slots_of(root: nn.Module, layout: Layout, dtype: torch.dtype) -> dict[str, Slots]:
    """Give the places of a layout's ``"params"``, of `dtype`, and ``"buffers"``."""
    params = [(p.name, p.shape, dtype) for p in layout.parameters]
    buffers = [(b.name, b.shape, torch_dtype(b.dtype)) for b in layout.buffers]
    return {
        "params": Slots(root, params, "_parameters"),
        "buffers": Slots(root, buffers, "_buffers"),
    }
