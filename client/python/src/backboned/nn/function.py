"""The forward in the server as one node of autograd's graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from backboned import compute, garbage
from backboned.dtypes import Array
from backboned.nn.link import Link
from backboned.nn.mirror import as_array
from backboned.norms import BatchNorm


class Call(NamedTuple):
    """A forward that is to be run, and over which link.

    `outputs`, if there are any, names what it gives in place of `returnt`.
    """

    link: Link
    returnt: str | None
    training: bool
    prerelu: bool
    outputs: tuple[str, ...] = ()
    batch_norm: tuple[BatchNorm, ...] = ()


class Room:
    """Makes the memory of outputs as torch tensors: aligned as torch's own are."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Make one more tensor, and give it as an array."""
        like = torch.from_numpy(np.empty(0, dtype)).dtype
        tensor = torch.empty(shape, dtype=like)
        self.tensors.append(tensor)
        array: Array = tensor.numpy()
        return array


def run(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Run a forward that needs no gradient; give its outputs."""
    room = Room()
    result = call.link.forward(as_array(x), _options(call), room.empty)
    return tuple(room.tensors[: len(result.outputs)])


def run_with_graph(
    call: Call, x: torch.Tensor, parameters: Sequence[torch.nn.Parameter]
) -> tuple[torch.Tensor, ...]:
    """Run a forward whose outputs know how to go backward."""
    node: Any = RemoteForward
    outputs: tuple[torch.Tensor, ...] = node.apply(call, x, *parameters)
    return outputs


def _options(call: Call) -> dict[str, Any]:
    return {
        "returnt": call.returnt,
        "outputs": call.outputs,
        "batch_norm": call.batch_norm,
        "training": call.training,
        "prerelu": call.prerelu,
    }


class RemoteForward(torch.autograd.Function):
    """One forward in the server: a function of the input and of every parameter.

    The tape in the server lives as long as PyTorch keeps what a local node saved. A
    backward without `retain_graph` uses it up. With `retain_graph`, or when the graph
    dies unused, a token saved in the node dies at the moment when PyTorch would free
    its saved tensors, and notes the tape to be released with the next forward.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, call: Call, x: torch.Tensor, *parameters: torch.nn.Parameter
    ) -> tuple[torch.Tensor, ...]:
        """Run the forward and keep its tape."""
        instance = call.link.instance
        room = Room()
        options = _options(call)
        options.update(tape=True, input_grad=ctx.needs_input_grad[1])
        options.update(_masked(call.link, ctx.needs_input_grad[2:]))
        result = call.link.forward(as_array(x), options, room.empty)
        # The token is an array, whose death a finalizer sees; PyTorch keeps it alive.
        token = np.empty(1, np.int8)
        ctx.release = garbage.release_tape_with(token, instance.channel, result.tape_id)
        ctx.save_for_backward(torch.from_numpy(token))
        ctx.set_materialize_grads(False)
        ctx.instance = instance
        ctx.names = call.link.names
        ctx.timeout = call.link.timeout
        ctx.tape_id = result.tape_id
        ctx.output_names = list(result.outputs)
        return tuple(room.tensors[: len(result.outputs)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        """Fetch the gradients of the input and of every parameter."""
        ctx.saved_tensors  # noqa: B018  PyTorch's own error if the graph was freed.
        wants_input = ctx.needs_input_grad[1]
        wants = ctx.needs_input_grad[2:]
        named = {
            name: as_array(grad)
            for name, grad in zip(ctx.output_names, grads)
            if grad is not None
        }
        if not named:
            return (None,) * len(ctx.needs_input_grad)
        retain = _keeps_graph()
        room = Room()
        result = compute.backward(
            ctx.instance,
            {ctx.tape_id: named},
            compute.BackwardOptions(
                return_grads=any(wants), input_grad=wants_input, retain=retain
            ),
            ctx.timeout,
            room.empty,
        )
        if not retain:
            ctx.release.detach()
        parts: list[torch.Tensor | None] = [None] * len(wants)
        if result.grads is not None:
            layout = ctx.instance.layout
            found = dict(
                zip([p.name for p in layout.parameters], result.grads.split(layout))
            )
            parts = [
                torch.from_numpy(found[name])
                if wanted and found[name] is not None
                else None
                for name, wanted in zip(ctx.names, wants)
            ]
        return (None, room.tensors[0] if wants_input else None, *parts)


def _masked(link: Link, wanted: Sequence[bool]) -> dict[str, Any]:
    """Say which parameters get gradients."""
    names = [name for name, yes in zip(link.names, wanted) if yes]
    if len(names) == len(link.instance.layout.parameters):
        return {}
    return {"grad_params": names} if names else {"no_param_grads": True}


def _keeps_graph() -> bool:
    """Whether the backward under way was called with `retain_graph`.

    Where PyTorch does not say, yes: the token then releases the tape all the same.
    """
    keeps = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if keeps is None else bool(keeps())
