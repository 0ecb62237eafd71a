"""Mammoth's network classes, with a forward that runs in the server."""

from __future__ import annotations

import copy
import copyreg
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from backboned.calls import ForwardOptions
from backboned.errors import InvalidArgument
from backboned.nn.autograd import any_trains, run
from backboned.nn.hosted import Link
from backboned.nn.lazy import LazyParameter
from backboned.nn.module import announce
from torch import nn

from backboned_mammoth.blueprint import UnsuitableError
from backboned_mammoth.counterpart import Counterpart
from backboned_mammoth.families import LAYERS

_COUNTERPART = "_counterpart"
# Reasons of the server, of inputs that Mammoth's class may refuse in its own words.
_INPUT_REFUSED = {"SHAPE_MISMATCH", "DTYPE_MISMATCH"}


class OnServer(nn.Module):
    """Mixed into a class of Mammoth: keeps its modules, and computes in the server.

    Parameters, buffers and submodules are Mammoth's own and stay here.
    Changes of them travel with the next forward. A forward that the server cannot
    make runs here.
    """

    _counterpart: Counterpart
    _plain_class: type[nn.Module]
    _signature: inspect.Signature

    def forward(self, *args: Any, **options: Any) -> Any:
        """Give what Mammoth's class gives."""
        try:
            return _forward(self, args, options)
        except UnsuitableError as reason:
            why = str(reason)
        result = super().forward(*args, **options)
        if why:
            run = self._counterpart.run
            run.counts["forwards here"] += 1
            run.runs_here(self._counterpart.name, why)
        return result

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """Give the state dict; what is in the server is fetched at once."""
        hosted = self._counterpart.hosted
        if hosted is not None:
            hosted.show_all()
        return super().state_dict(*args, **options)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Take all gradients away, or make those that there are zero."""
        hosted = self._counterpart.hosted
        if hosted is None or not set_to_none:
            return super().zero_grad(set_to_none)
        hosted.zero_grad()
        for parameter in self.parameters():
            if not isinstance(parameter, LazyParameter):
                parameter.grad = None

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> OnServer:
        """Convert the tensors; those in the server stay, if they are to stay alike."""
        if self._counterpart.hosted is not None:
            probe = torch.zeros(1, device="cpu")
            if fn(probe) is probe:
                return self
            self._counterpart.mirror()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> OnServer:
        """Make an independent network; its instance is made when it is used."""
        hosted = self._counterpart.hosted
        if hosted is not None:
            hosted.show_all()
        twin: OnServer = type(self).__new__(type(self))
        memo[id(self)] = twin
        for key, value in self.__dict__.items():
            if key != _COUNTERPART:
                twin.__dict__[key] = copy.deepcopy(value, memo)
        put_on_server(twin, dataclasses.replace(self._counterpart))
        return twin

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        """Pickle as an object of Mammoth's class, for programs without Backboned."""
        state = {k: v for k, v in self.__dict__.items() if k != _COUNTERPART}
        rebuild: Any = copyreg._reconstructor  # type: ignore[attr-defined]
        return rebuild, (self._plain_class, object, None), state


def put_on_server(net: nn.Module, counterpart: Counterpart) -> None:
    """Let a network of Mammoth's compute in the server from now on."""
    if not isinstance(net, OnServer):
        cls: Any = type(net)
        net.__class__ = _remote_class(cls)
    net.__dict__[_COUNTERPART] = counterpart
    counterpart.net = net
    announce(counterpart)


@functools.cache
def _remote_class(cls: Any) -> type[nn.Module]:
    """Make the subclass ``Remote<Class>``."""

    @functools.wraps(cls.forward)
    def forward(self: Any, *args: Any, **options: Any) -> Any:
        return OnServer.forward(self, *args, **options)

    body = {
        "__module__": cls.__module__,
        "_plain_class": cls,
        "_signature": inspect.signature(cls.forward),
        "forward": forward,
    }
    return type(f"Remote{cls.__name__}", (OnServer, cls), body)


def _forward(net: OnServer, args: Any, options: Any) -> Any:
    """Run a forward in the server, or raise UnsuitableError."""
    family = net._counterpart.family
    x, answer = _asked(net, args, options)
    link, with_head = _link(net, x, answer)
    layers = [n for n in link.instance.layout.outputs if n.startswith(LAYERS)]
    needed = {LAYERS: layers, "out": ["out"] if with_head else ["features"]}
    names = dict.fromkeys(n for word in answer for n in needed.get(word, [word]))
    call: ForwardOptions = {
        "outputs": tuple(names),
        "training": net.training,
        "prerelu": LAYERS in answer and getattr(net, "return_prerelu", False),
        "batch_norm": tuple(net._counterpart.batch_norms()),
    }
    x = x.view(-1, x[0].numel()) if family.flattens else x
    parameters = link.parameters()
    graph = any_trains(parameters) or (x.requires_grad and torch.is_grad_enabled())
    try:
        given = run(link, call, x, parameters if graph else None)
    except InvalidArgument as error:
        if error.reason in _INPUT_REFUSED:
            raise UnsuitableError(error.message) from None
        raise
    net._counterpart.run.counts["forwards"] += 1
    tensors = dict(zip(names, given))
    parts: list[Any] = []
    for word in answer:
        if word == LAYERS:
            parts.append([tensors[name] for name in layers])
        elif word in tensors:
            parts.append(tensors[word])
        else:  # The logits of a head that is here.
            logits = tensors["features"]
            for module in filter(None, (family.before_head, family.head)):
                logits = getattr(net, module)(logits)
            parts.append(logits)
    return parts[0] if len(parts) == 1 else tuple(parts)


def _asked(
    net: OnServer, args: Any, options: Any
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Read the arguments as Mammoth's class does: the input, and what is wanted."""
    family = net._counterpart.family
    try:
        bound = net._signature.bind(net, *args, **options)
    except TypeError:
        raise UnsuitableError from None
    bound.apply_defaults()
    named = bound.arguments
    _, x, *_ = named.values()  # EfficientNet's is called `inputs`.
    returnt, low_rank = named["returnt"], named.get("AB", {})
    known = isinstance(returnt, str) and returnt in family.answers
    answer = family.answers[returnt] if known else family.otherwise
    if not answer or not isinstance(x, torch.Tensor) or not isinstance(low_rank, dict):
        raise UnsuitableError  # Mammoth's class refuses it in its own words.
    if low_rank:
        raise UnsuitableError("its layers are given low-rank additions (AB)")
    return x, answer


def _link(net: OnServer, x: torch.Tensor, answer: tuple[str, ...]) -> tuple[Link, bool]:
    """Give what runs the forward, and whether the server makes the logits too."""
    counterpart = net._counterpart
    if not x.is_cpu or x.dtype != torch.float32:
        raise UnsuitableError(
            f"its input is {x.dtype} on {x.device}, not float32 on the CPU"
        )
    if x.dim() < 2 or not x.numel():
        raise UnsuitableError
    modules, own_head = counterpart.blueprint.find(net)
    prerelu = getattr(net, "return_prerelu", False)
    if any(
        vars(module)["return_prerelu"] != prerelu
        for part, module in modules
        if part.has_prerelu
    ):
        raise UnsuitableError(
            "only some of its blocks return what is before their ReLU"
        )
    link = counterpart.link(own_head)
    layout = link.instance.layout
    if prerelu and LAYERS in answer and not layout.prerelu:
        raise UnsuitableError
    if layout.stochastic and any(
        module.training != net.training and not part.is_norm for part, module in modules
    ):
        raise UnsuitableError("only some of its modules are in training")
    return link, own_head
