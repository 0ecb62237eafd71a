"""The forward in the server as one node of autograd's graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn, Union

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from backboned import compute, garbage
from backboned.dtypes import Array
from backboned.layout import Select
from backboned.nn.hosted import HostedLink
from backboned.nn.lazy import raw
from backboned.nn.link import Link
from backboned.nn.mirror import as_array, torch_dtype
from backboned.nn.queue import Waiting
from backboned.nn.taped import Taped
from backboned.norms import BatchNorm

AnyLink = Union[Link, HostedLink]


class Call(NamedTuple):
    """A forward that is to be run, and over which link.

    `outputs`, if there are any, names what it gives in place of `returnt`.
    """

    link: AnyLink
    returnt: str | None
    training: bool
    prerelu: bool
    batch_norm: Sequence[BatchNorm]
    outputs: Sequence[str] = ()


class Room:
    """Makes the memory of outputs as torch tensors: aligned as torch's own are."""

    def __init__(self) -> None:
        self._made: list[tuple[Array, torch.Tensor]] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Make one more tensor, and give it as an array."""
        tensor = torch.empty(shape, dtype=torch_dtype(dtype), device="cpu")
        array = as_array(tensor)
        self._made.append((array, tensor))
        return array

    def newest(self) -> torch.Tensor:
        """Give the tensor that was made last."""
        return self._made[-1][1]

    def tensors(self, arrays: Iterable[Array]) -> tuple[torch.Tensor, ...]:
        """Give the tensors of arrays that were made here."""
        made = {id(array): tensor for array, tensor in self._made}
        return tuple(made[id(array)] for array in arrays)


def check_input(x: Any) -> None:
    """Refuse what no forward takes.

    Raises
    ------
    TypeError
        If `x` is no floating-point or uint8 tensor.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"the input is a tensor; got {type(x).__name__}")
    if not x.dtype.is_floating_point and x.dtype != torch.uint8:
        raise TypeError(f"the input is floating-point or uint8; got {x.dtype}")


def run(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Run a forward that needs no gradient; give its outputs."""
    room = Room()
    result = call.link.forward(as_array(x), _options(call), room.empty)
    return room.tensors(result.outputs.values())


def run_with_graph(
    call: Call, x: torch.Tensor, parameters: Sequence[torch.nn.Parameter]
) -> tuple[torch.Tensor, ...]:
    """Run a forward whose outputs know how to go backward."""
    _refuse_data_parallel(call.link)
    node: Any = RemoteForward
    outputs: tuple[torch.Tensor, ...] = node.apply(call, x, _ANCHOR, *parameters)
    return outputs


def _refuse_data_parallel(link: AnyLink) -> None:
    """Raise RuntimeError where gradients in the server would not be averaged."""
    if link.hosting and DistributedDataParallel._active_ddp_module is not None:
        raise RuntimeError(
            "DistributedDataParallel averages gradients that are in this process, and "
            "a hosted network's stay in the server, so that its copies would drift "
            "apart; call net.mirror() and train it with an optimizer of torch.optim, "
            "or freeze it"
        )


# An input that nobody asks the gradient of: PyTorch goes to it only in a backward that
# goes everywhere, not in one to chosen inputs.
_ANCHOR = torch.zeros(0, requires_grad=True, device="cpu")


def _options(call: Call) -> dict[str, Any]:
    return {
        "returnt": call.returnt,
        "outputs": call.outputs,
        "training": call.training,
        "prerelu": call.prerelu,
        "batch_norm": call.batch_norm,
    }


class RemoteForward(torch.autograd.Function):
    """One forward in the server: a function of the input and of every parameter.

    The tape in the server lives as long as PyTorch keeps what a local node saved. A
    backward without `retain_graph` uses it up. With `retain_graph`, or when the graph
    dies unused, a token saved in the node dies at the moment when PyTorch would free
    its saved tensors, and notes the tape to be released with the next forward.

    In a hosted network a backward that goes everywhere only waits: the gradients of
    parameters stay in the server, unless one has a hook, or PyTorch takes the backward
    into a graph (`create_graph`).
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        call: Call,
        x: torch.Tensor,
        anchor: torch.Tensor,
        *parameters: torch.nn.Parameter,
    ) -> tuple[torch.Tensor, ...]:
        """Run the forward and keep its tape."""
        room = Room()
        options = _options(call)
        options.update(tape=True, input_grad=ctx.needs_input_grad[1])
        options.update(_masked(call.link, ctx.needs_input_grad[_PARAMETERS:]))
        result = call.link.forward(as_array(x), options, room.empty)
        # The token is an array, whose death a finalizer sees; PyTorch keeps it alive.
        token = np.empty(1, np.int8)
        ctx.save_for_backward(torch.from_numpy(token))
        ctx.set_materialize_grads(False)
        ctx.link = call.link
        wanted = (ctx.needs_input_grad[1], *ctx.needs_input_grad[_PARAMETERS:])
        ctx.sources = [t for t, yes in zip((x, *parameters), wanted) if yes]
        channel = call.link.instance.channel
        if isinstance(call.link, Link):
            ctx.taped = Taped(x, options, result, token, channel)
        else:
            ctx.tape_id = result.tape_id
            ctx.release = garbage.release_tape_with(token, channel, result.tape_id)
        ctx.output_names = list(result.outputs)
        return room.tensors(result.outputs.values())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        """Fetch the gradients of the input and of every parameter, or let them wait."""
        (token,) = ctx.saved_tensors  # PyTorch's own error if the graph was freed.
        named = {
            name: grad
            for name, grad in zip(ctx.output_names, grads)
            if grad is not None
        }
        if not named:
            return (None,) * len(ctx.needs_input_grad)
        if torch.is_grad_enabled():
            node: Any = RemoteBackward
            parts: tuple[Any, ...] = node.apply(
                ctx, list(named), *named.values(), *ctx.sources
            )
            return parts
        if ctx.link.hosting and any(ctx.needs_input_grad[_PARAMETERS:]):
            if _goes_everywhere(ctx) and _nobody_looks(ctx):
                return _wait(ctx, named, token)
            ctx.link.settle_gradients()  # The tape may wait already.
        return _fetch(ctx, named)


class RemoteBackward(torch.autograd.Function):
    """A backward as a node of a graph, for `create_graph`.

    It is a function of the outputs' gradients, of the input and of every parameter.
    The server computes no gradients of it, so that whoever asks for them gets an error.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, forward: Any, names: list[str], *tensors: torch.Tensor
    ) -> tuple[Any, ...]:
        """Run the backward of a forward, whose gradients come here."""
        if forward.link.hosting:
            forward.link.settle_gradients()  # The tape may wait already.
        return _fetch(forward, dict(zip(names, tensors)))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> NoReturn:
        """Refuse.

        Raises
        ------
        RuntimeError
            Always.
        """
        raise RuntimeError(
            "gradients of gradients of a network in the server are not available: its "
            "backward runs in the server, and autograd cannot go back through it. "
            "Gradient penalties, Hessians, jvp and hvp need a network in this process"
        )


_PARAMETERS = 3
"""Where the parameters begin among the inputs of the node."""


def _wait(
    ctx: Any, named: dict[str, torch.Tensor], token: torch.Tensor
) -> tuple[Any, ...]:
    """Queue a backward; send it at once if the input's gradient is wanted."""
    wants_input = ctx.needs_input_grad[1]
    item = Waiting(
        task=torch._C._current_graph_task_id(),
        tape_id=ctx.tape_id,
        # Copies, since the caller may go on to write what it gave.
        gradients={name: as_array(grad.clone()) for name, grad in named.items()},
        retain=_keeps_graph(),
        token=token,
        release=ctx.release,
    )
    input_grad = None
    if wants_input:
        room = Room()
        ctx.link.backward_now(item, room.empty)
        input_grad = room.newest()
    else:
        ctx.link.queue(item)
    if not item.retain:
        ctx.sources = []
    return (None, input_grad, *[None] * (len(ctx.needs_input_grad) - 2))


def _fetch(ctx: Any, grads: dict[str, torch.Tensor]) -> tuple[Any, ...]:
    """Run a backward, and give its gradients to PyTorch."""
    named = {name: as_array(grad) for name, grad in grads.items()}
    wants_input = ctx.needs_input_grad[1]
    wants = ctx.needs_input_grad[_PARAMETERS:]
    retain = _keeps_graph()
    room = Room()
    options = compute.BackwardOptions(
        return_grads=any(wants), input_grad=wants_input, retain=retain
    )
    if isinstance(ctx.link, Link):
        result = ctx.link.backward(ctx.taped, named, options, room.empty)
        done = ctx.taped.done
    else:
        result = ctx.link.backward(ctx.tape_id, named, options, room.empty)
        done = ctx.release.detach
    if not retain:
        done()
        ctx.sources = []
    parts: list[torch.Tensor | None] = [None] * len(wants)
    if result.grads is not None:
        parts = [
            _as_gradient(part) if part is not None and wanted else None
            for part, wanted in zip(result.grads.split(ctx.link.instance.layout), wants)
        ]
    return (None, room.newest() if wants_input else None, None, *parts)


# Smaller gradients get memory of their own.
_OWN_BYTES = 64 << 10


def _as_gradient(part: Array) -> torch.Tensor:
    """Make a tensor of a part of all gradients.

    A small one is copied, so that whoever keeps it does not keep all the others.
    """
    tensor = torch.from_numpy(part)
    return tensor.clone() if part.nbytes < _OWN_BYTES else tensor


def _nobody_looks(ctx: Any) -> bool:
    """Whether PyTorch would add to all gradients, and show none to a hook.

    It adds to none of a parameter that was frozen since the forward, and to others if
    the forward was of other tensors: `torch.func.functional_call`.
    """
    wants = ctx.needs_input_grad[_PARAMETERS:]
    nodes = ctx.next_functions[_PARAMETERS - 1 :]  # Without one for the call.
    with raw():
        return all(
            parameter.requires_grad
            and not parameter._backward_hooks
            and getattr(node, "variable", None) is parameter
            for parameter, wanted, (node, _) in zip(ctx.link.parameters(), wants, nodes)
            if wanted
        )


def _goes_everywhere(ctx: Any) -> bool:
    """Whether the backward under way goes to all inputs, and adds to their `grad`."""
    anchor = ctx.next_functions[1][0]
    goes: bool = torch._C._will_engine_execute_node(anchor)
    return goes


def _masked(link: AnyLink, wanted: Sequence[bool]) -> dict[str, Any]:
    """Say which parameters get gradients."""
    if all(wanted):
        return {"grad_params": ["*"]} if link.instance.frozen else {}
    names: Select = [
        parameter.name
        for parameter, yes in zip(link.instance.layout.parameters, wanted)
        if yes
    ]
    return {"grad_params": names} if names else {"no_param_grads": True}


def _keeps_graph() -> bool:
    """Whether the backward under way was called with `retain_graph`.

    Where PyTorch does not say, yes: the token then releases the tape all the same.
    """
    keeps = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if keeps is None else bool(keeps())
