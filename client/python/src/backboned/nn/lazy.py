"""Tensors whose values are in the server until somebody looks at them.

A lazy tensor is an ordinary parameter or buffer whose class was changed in place, so
that every reference to it becomes lazy too. `__torch_function__` sees each function of
PyTorch before it touches the memory, and has the keeper bring the values first. A
function that only asks for a shape or a type passes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable

import torch
from torch import nn

as_plain = torch._C.DisableTorchFunctionSubclass
"""A context in which lazy tensors are plain ones, with the memory that they have."""


class LazyTensor(torch.Tensor):
    """A buffer whose values its keeper brings: a `HostedLink`."""

    keeper: Any

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of PyTorch on values that are there."""
        options = kwargs or {}
        about_grad = _GRADS.get(func)
        if about_grad is not None:
            return about_grad(*args)
        target = args[0] if func in _OVERWRITES else None
        if func in _LOOKS_AT_NO_VALUE:
            with as_plain():
                return func(*args, **options)
        given = [*args[1:], *options.values()]
        blind = target is not None and not _any_shares(given, target)
        looked_at = [t for t in _lazies(args, options) if not blind or t is not target]
        _show(looked_at)
        with as_plain():
            result = func(*args, **options)
            shared = [t for t in looked_at if _shares(result, t)]
        for tensor in shared:
            if isinstance(tensor, LazyTensor):  # A gradient that was brought is plain.
                tensor.keeper.shared(tensor)
        if isinstance(target, LazyTensor):
            target.keeper.overwritten(target)
        return result

    def _plain(self) -> torch.Tensor:
        """Give a plain one with the same memory."""
        return self.detach()

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        """Give a plain one with memory of its own."""
        twin = memo[id(self)] = copy.deepcopy(self._plain(), memo)
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be pickled as a plain one."""
        plain: Any = self._plain()
        return plain.__reduce_ex__(protocol)

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]
        """Print as a plain one does."""
        return repr(self._plain())


class LazyParameter(LazyTensor, nn.Parameter):
    """A parameter whose values, and whose gradient, its keeper brings."""

    def _plain(self) -> nn.Parameter:
        return nn.Parameter(self.detach(), self.requires_grad)


_LAZY: dict[type, type] = {nn.Parameter: LazyParameter, torch.Tensor: LazyTensor}
_PLAIN = {lazy: plain for plain, lazy in _LAZY.items()}


def make_lazy(tensor: torch.Tensor, keeper: Any, name: str) -> None:
    """Hand a plain parameter or buffer to a keeper.

    Raises TypeError if it is of a class of its own, or another keeper has it.
    """
    kind = type(tensor)
    if kind in _PLAIN:
        raise TypeError(f"{name} belongs to another network in the server")
    if kind not in _LAZY:
        raise TypeError(
            f"{name} is a {kind.__name__}; in a hosted or frozen network it is a "
            "plain parameter or tensor"
        )
    tensor.__class__ = _LAZY[kind]
    tensor.keeper = keeper  # type: ignore[attr-defined]


def make_plain(tensor: torch.Tensor) -> None:
    """Take a tensor back from its keeper, with the values that it has."""
    if isinstance(tensor, LazyTensor):
        del tensor.keeper
        tensor.__class__ = _PLAIN[type(tensor)]


def _lazies(args: Iterable[Any], options: Mapping[str, Any]) -> Iterator[LazyTensor]:
    """Find the lazy tensors in a function's arguments, in lists and dicts too."""
    for value in (*args, *options.values()):
        if isinstance(value, LazyTensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _lazies(value, {})
        elif isinstance(value, dict):
            yield from _lazies((), value)


def _shares(result: Any, tensor: torch.Tensor) -> bool:
    """Say whether a result may be another reference to a tensor's memory."""
    if result is tensor or result is None:
        return False
    if isinstance(result, (bool, int, float, complex, str)):
        return False
    if isinstance(result, (list, tuple)):
        return any(_shares(item, tensor) for item in result)
    if isinstance(result, torch.Tensor) and result.layout == torch.strided:
        return (
            result.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
        )
    return True


def _any_shares(values: Iterable[Any], tensor: torch.Tensor) -> bool:
    """Say whether one of the values is the tensor, or a view of its memory."""
    with as_plain():
        return any(
            value is tensor or _shares(value, tensor)
            for value in values
            if isinstance(value, torch.Tensor)
        )


def _show(tensors: Iterable[LazyTensor]) -> None:
    kept: dict[int, tuple[Any, list[torch.Tensor]]] = {}
    for tensor in tensors:
        kept.setdefault(id(tensor.keeper), (tensor.keeper, []))[1].append(tensor)
    for keeper, its in kept.values():
        keeper.show(its)


def _property(name: str) -> Any:
    return getattr(torch.Tensor, name)


_GRADS: dict[Any, Callable[..., Any]] = {
    _property("grad").__get__: lambda t: t.keeper.grad(t),
    _property("grad").__set__: lambda t, grad: t.keeper.set_grad(t, grad),
    _property("grad").__delete__: lambda t: t.keeper.set_grad(t, None),
}

# Functions after which nothing is left of what the first argument held.
_OVERWRITES = {
    _property("data").__set__,
    torch.Tensor.copy_,
    torch.Tensor.fill_,
    torch.Tensor.zero_,
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
}

# Properties and methods that look at no value. Not every version of torch has each.
_PROPERTIES = (
    "device dtype grad_fn is_cpu is_cuda is_leaf is_meta is_sparse itemsize "
    "layout name names nbytes ndim output_nr requires_grad retains_grad shape "
    "_backward_hooks _version "
)
_METHODS = (
    "__len__ dim element_size get_device is_complex is_contiguous "
    "is_floating_point is_inference is_pinned ndimension nelement new_empty "
    "new_full new_ones new_zeros numel register_hook "
    "register_post_accumulate_grad_hook requires_grad_ retain_grad size stride "
)
_LOOKS_AT_NO_VALUE = {
    *(
        _property(name).__get__
        for name in _PROPERTIES.split()
        if hasattr(torch.Tensor, name)
    ),
    *(_property(name) for name in _METHODS.split() if hasattr(torch.Tensor, name)),
    _property("requires_grad").__set__,
    _property("_backward_hooks").__set__,
    torch.autograd.grad,
    torch.empty_like,
    torch.is_complex,
    torch.is_floating_point,
    torch.numel,
    torch.ones_like,
    torch.zeros_like,
}
