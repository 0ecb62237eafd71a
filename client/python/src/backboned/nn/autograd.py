"""The forward in the server as one node of autograd's graph."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from backboned.calls import BackwardOptions, ForwardOptions
from backboned.nn.hosted import Link
from backboned.nn.lazy import as_plain
from backboned.nn.pending_calls import PendingBackward
from backboned.nn.watch import as_array, as_tensor
from backboned.types import Array


def check_input(x: Any) -> None:
    """Raise TypeError unless `x` is a floating-point or uint8 tensor."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"the input is a tensor; got {type(x).__name__}")
    if not x.dtype.is_floating_point and x.dtype != torch.uint8:
        raise TypeError(f"the input is floating-point or uint8; got {x.dtype}")


_trains = operator.attrgetter("requires_grad")


def any_trains(parameters: Sequence[torch.nn.Parameter]) -> bool:
    """Say whether a parameter wants a gradient, and PyTorch computes any."""
    with as_plain():
        return torch.is_grad_enabled() and any(map(_trains, parameters))


def run(
    link: Link,
    options: ForwardOptions,
    x: torch.Tensor,
    parameters: Sequence[torch.nn.Parameter] | None,
) -> tuple[torch.Tensor, ...]:
    """Run a forward; if parameters are given, its outputs know how to go backward.

    Raises RuntimeError where gradients in the server would not be averaged.
    """
    if parameters is None:
        result = link.forward(as_array(x), options)
        return tuple(map(as_tensor, result.outputs.values()))
    if link.hosting and DistributedDataParallel._active_ddp_module is not None:
        raise RuntimeError(
            "DistributedDataParallel averages gradients that are in this process, and "
            "a hosted network's stay in the server, so that its copies would drift "
            "apart; call net.mirror() and train it with an optimizer of torch.optim, "
            "or freeze it"
        )
    node: Any = RemoteForward
    outputs: tuple[torch.Tensor, ...]
    outputs = node.apply((link, options), x, _ANCHOR, *parameters)
    return outputs


# An input that nobody asks the gradient of: PyTorch goes to it only in a backward that
# goes everywhere, not in one to chosen inputs.
_ANCHOR = torch.zeros(0, requires_grad=True, device="cpu")

_PARAMETERS = 3
"""Where the parameters begin among the inputs of the node."""

# Smaller gradients get memory of their own.
_OWN_BYTES = 64 << 10


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
        call: tuple[Link, ForwardOptions],
        x: torch.Tensor,
        anchor: torch.Tensor,
        *parameters: torch.nn.Parameter,
    ) -> tuple[torch.Tensor, ...]:
        """Run the forward and keep its tape."""
        link, options = call
        options["tape"], options["input_grad"] = True, ctx.needs_input_grad[1]
        wanted = ctx.needs_input_grad[_PARAMETERS:]
        _choose_gradients(options, link, wanted)
        result = link.forward(as_array(x), options)
        # The token is an array, whose death a finalizer sees; PyTorch keeps it alive.
        token = np.empty(1, np.int8)
        ctx.save_for_backward(torch.from_numpy(token))
        ctx.set_materialize_grads(False)
        ctx.link = link
        wants = (ctx.needs_input_grad[1], *wanted)
        ctx.sources = list(itertools.compress((x, *parameters), wants))
        ctx.tape = link.hold(x, options, result, token)
        ctx.output_names = list(result.outputs)
        return tuple(map(as_tensor, result.outputs.values()))

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
        return _fetch(forward, dict(zip(names, tensors)))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> NoReturn:
        """Raise RuntimeError: there are no gradients of gradients."""
        raise RuntimeError(
            "gradients of gradients of a network in the server are not available: its "
            "backward runs in the server, and autograd cannot go back through it. "
            "Gradient penalties, Hessians, jvp and hvp need a network in this process"
        )


def _wait(
    ctx: Any, named: dict[str, torch.Tensor], token: torch.Tensor
) -> tuple[Any, ...]:
    """Queue a backward; send it at once if the input's gradient is wanted."""
    item = PendingBackward(
        task=torch._C._current_graph_task_id(),
        tape=ctx.tape,
        # Copies, since the caller may go on to write what it gave.
        gradients={name: as_array(grad).copy() for name, grad in named.items()},
        retain=_keeps_graph(),
        token=token,
    )
    input_grad = None
    if ctx.needs_input_grad[1]:
        input_grad = as_tensor(ctx.link.backward_now(item))
    else:
        ctx.link.queue(item)
    if not item.retain:
        ctx.sources = []
    return (None, input_grad, *[None] * (len(ctx.needs_input_grad) - 2))


def _fetch(ctx: Any, grads: dict[str, torch.Tensor]) -> tuple[Any, ...]:
    """Run a backward, and give its gradients to PyTorch."""
    link: Link = ctx.link
    named = {name: as_array(grad) for name, grad in grads.items()}
    wants_input = ctx.needs_input_grad[1]
    wants = ctx.needs_input_grad[_PARAMETERS:]
    options: BackwardOptions = {
        "return_grads": any(wants),
        "input_grad": wants_input,
        "retain": _keeps_graph(),
    }
    result = link.backward(ctx.tape, named, options)
    if not options["retain"]:
        ctx.tape.done()
        ctx.sources = []
    parts: list[torch.Tensor | None] = [None] * len(wants)
    if result.grads is not None:
        parts = [
            _as_gradient(part) if part is not None and wanted else None
            for part, wanted in zip(result.grads.split(link.instance.layout), wants)
        ]
    input_grad = as_tensor(result.input_grads[0]) if wants_input else None
    return (None, input_grad, None, *parts)


def _as_gradient(part: Array) -> torch.Tensor:
    """Make a tensor of a part of all gradients.

    A small one is copied, so that whoever keeps it does not keep all the others.
    """
    tensor = torch.from_numpy(part)
    return tensor.clone() if part.nbytes < _OWN_BYTES else tensor


def _nobody_looks(ctx: Any) -> bool:
    """Say whether PyTorch would add to all gradients, and show none to a hook.

    It adds to none of a parameter that was frozen since the forward, and to others if
    the forward was of other tensors: `torch.func.functional_call`.
    """
    wants = ctx.needs_input_grad[_PARAMETERS:]
    nodes = ctx.next_functions[_PARAMETERS - 1 :]  # Without one for the call.
    parameters = ctx.link.parameters()
    with as_plain():
        for parameter, wanted, (node, _) in zip(parameters, wants, nodes):
            if wanted and not (
                parameter.requires_grad
                and not parameter._backward_hooks
                and getattr(node, "variable", None) is parameter
            ):
                return False
    return True


def _goes_everywhere(ctx: Any) -> bool:
    """Say whether the backward goes to all inputs, and adds to their `grad`."""
    anchor = ctx.next_functions[1][0]
    goes: bool = torch._C._will_engine_execute_node(anchor)
    return goes


def _choose_gradients(
    options: ForwardOptions, link: Link, wanted: Sequence[bool]
) -> None:
    """Say in the options which parameters get gradients."""
    if not any(wanted):
        options["no_param_grads"] = True
    elif not all(wanted):
        pairs = zip(link.instance.layout.parameters, wanted)
        options["grad_params"] = tuple(p.name for p, yes in pairs if yes)
    elif link.instance.frozen:
        options["grad_params"] = "*"


def _keeps_graph() -> bool:
    """Say whether the backward under way was called with `retain_graph`.

    Where PyTorch does not say, yes: the token then releases the tape all the same.
    """
    keeps = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if keeps is None else bool(keeps())
