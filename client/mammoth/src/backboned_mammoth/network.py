"""Mammoth's network classes, with a forward that runs in the server."""

from __future__ import annotations

import copy
import copyreg
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from backboned.errors import InvalidArgument
from backboned.nn.autograd import Call, run, run_with_graph
from backboned.nn.hosted import HostedLink, Link
from backboned.nn.lazy import LazyParameter, as_plain
from backboned.nn.module import announce
from backboned.types import BatchNorm
from torch import nn

from backboned_mammoth.blueprint import Found
from backboned_mammoth.counterpart import Counterpart, UnsuitableError
from backboned_mammoth.families import LAYERS, Family

_COUNTERPART = "_counterpart"
# What the server refuses, and Mammoth's class may refuse in its own words.
_INPUT_REFUSED = {"SHAPE_MISMATCH", "DTYPE_MISMATCH"}


class _HereError(Exception):
    """The forward is to run here; says why, or nothing if no one need know."""


class _Plan(NamedTuple):
    """How a forward runs in the server.

    `answer` is what it gives, in the words of `Family.answers`; `with_head` says
    whether the server makes the logits too.
    """

    answer: tuple[str, ...]
    with_head: bool
    link: Link
    found: Found


class OnServer(nn.Module):
    """Mixed into a class of Mammoth: keeps its modules, and computes in the server.

    Parameters, buffers and submodules are Mammoth's own and stay here. What is
    changed of them travels with the next forward. A forward that the server cannot
    make runs here.
    """

    _counterpart: Counterpart
    _plain_class: type[nn.Module]
    _signature: inspect.Signature

    def forward(self, *args: Any, **options: Any) -> Any:
        """Give what Mammoth's class gives."""
        try:
            return _forward(self, args, options)
        except _HereError as reason:
            why = str(reason)
        result = super().forward(*args, **options)
        if why:
            counterpart = self._counterpart
            counterpart.run.ran_here(counterpart.name, why)
        return result

    def layout_parameters(self) -> list[Any]:
        """Give the parameters that the server knows, in flat order."""
        return self._counterpart.layout_parameters()

    def known_parameters(self) -> list[Any]:
        """Give them, when the instance is made if it was not.

        Raises
        ------
        UnsuitableError
            If the server has no such network as this one is now.
        """
        return self._counterpart.known_parameters(self)

    def batch_norms(self) -> list[BatchNorm]:
        """Say how the BatchNorm layers differ from what a forward would assume."""
        return self._counterpart.batch_norms(self)

    def host(self, optimizer: Any) -> HostedLink:
        """Let the server have parameters, gradients and an optimizer."""
        self._counterpart.run.hosted.add(self)
        return self._counterpart.host(self, optimizer)

    def mirror(self) -> None:
        """Bring everything here, and work mirrored from now on."""
        self._counterpart.mirror(self)

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
            super().zero_grad(set_to_none)
            return
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
            self.mirror()
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
        twin.__dict__[_COUNTERPART] = self._counterpart.twin()
        announce(twin)
        return twin

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        """Pickle as an object of Mammoth's class, for programs without Backboned."""
        state = {k: v for k, v in self.__dict__.items() if k != _COUNTERPART}
        rebuild: Any = copyreg._reconstructor  # type: ignore[attr-defined]
        return rebuild, (self._plain_class, object, None), state


def put_on_server(net: nn.Module, counterpart: Counterpart) -> None:
    """Let a network of Mammoth's compute in the server from now on."""
    net.__class__ = _class_for(type(net))
    net.__dict__[_COUNTERPART] = counterpart
    announce(net)


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _class_for(cls: type[nn.Module]) -> type[nn.Module]:
    """Give the subclass ``Remote<Class>``, made when it is first needed."""
    made = _classes.get(cls)
    if made is None:
        made = _classes[cls] = _make_class(cls)
    return made


def _make_class(cls: type[nn.Module]) -> type[nn.Module]:
    plain = cls.forward

    @functools.wraps(plain)
    def forward(self: Any, *args: Any, **options: Any) -> Any:
        return OnServer.forward(self, *args, **options)

    body = {
        "__module__": cls.__module__,
        "_plain_class": cls,
        "_signature": inspect.signature(plain),
        "forward": forward,
    }
    return type(f"Remote{cls.__name__}", (OnServer, cls), body)


def _forward(net: OnServer, args: Any, options: Any) -> Any:
    """Run a forward in the server, or raise `_HereError`."""
    family = net._counterpart.family
    x, answer = _asked(net, args, options)
    plan = _plan(net, x, answer)
    if family.flattens:
        x = x.view(-1, x[0].numel())
    try:
        tensors = _compute(net, plan, x)
    except InvalidArgument as error:
        if error.reason in _INPUT_REFUSED:
            raise _HereError(error.message) from None
        raise
    parts = _parts(net, plan, tensors)
    return parts[0] if len(parts) == 1 else tuple(parts)


def _asked(
    net: OnServer, args: Any, options: Any
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Read the arguments as Mammoth's class does: the input, and what is wanted."""
    family = net._counterpart.family
    try:
        bound = net._signature.bind(net, *args, **options)
    except TypeError:
        raise _HereError from None
    bound.apply_defaults()
    named = bound.arguments
    _, x, *_ = named.values()  # EfficientNet's is called `inputs`.
    returnt, low_rank = named["returnt"], named.get("AB", {})
    known = isinstance(returnt, str) and returnt in family.answers
    answer = family.answers[returnt] if known else family.otherwise
    if not answer or not isinstance(x, torch.Tensor) or not isinstance(low_rank, dict):
        raise _HereError  # Mammoth's class refuses it in its own words.
    if low_rank:
        raise _HereError("its layers are given low-rank additions (AB)")
    return x, answer


def _plan(net: OnServer, x: torch.Tensor, answer: tuple[str, ...]) -> _Plan:
    counterpart = net._counterpart
    if not x.is_cpu or x.dtype != torch.float32:
        raise _HereError(
            f"its input is {x.dtype} on {x.device}, not float32 on the CPU"
        )
    if x.dim() < 2 or not x.numel():
        raise _HereError
    with as_plain():
        found = counterpart.blueprint.compare(net)
    if found.difference:
        raise _HereError(found.difference)
    prerelu = getattr(net, "return_prerelu", False)
    if not counterpart.blueprint.one_prerelu(found, prerelu):
        raise _HereError("only some of its blocks return what is before their ReLU")
    with_head = found.own_head or "out" not in answer
    try:
        link = counterpart.link(net, found.own_head)
        link.parameters()
    except (UnsuitableError, AttributeError, TypeError, ValueError) as error:
        raise _HereError(str(error)) from None
    layout = link.instance.layout
    if prerelu and LAYERS in answer and not layout.prerelu:
        raise _HereError
    if layout.stochastic and not counterpart.blueprint.one_mode(found, net.training):
        raise _HereError("only some of its modules are in training")
    return _Plan(answer, with_head, link, found)


def _outputs(plan: _Plan) -> tuple[str, ...]:
    """Name what the server is to give."""
    names: list[str] = []
    for word in plan.answer:
        if word == LAYERS:
            names += [
                n for n in plan.link.instance.layout.outputs if n.startswith(word)
            ]
        elif word != "out" or plan.with_head:
            names.append(word)
    if not plan.with_head and "features" not in names:
        names.insert(0, "features")
    return tuple(names)


def _compute(net: OnServer, plan: _Plan, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run the forward in the server; give its outputs by name."""
    counterpart = net._counterpart
    names = _outputs(plan)
    call = Call(
        plan.link,
        returnt=None,
        training=net.training,
        prerelu=LAYERS in plan.answer and getattr(net, "return_prerelu", False),
        outputs=names,
        batch_norm=counterpart.batch_norms(net),
    )
    parameters = plan.link.parameters()
    with as_plain():
        trains = x.requires_grad or any(p.requires_grad for p in parameters)
    if trains and torch.is_grad_enabled():
        tensors = run_with_graph(call, x, parameters)
    else:
        tensors = run(call, x)
    counterpart.run.counts["forwards"] += 1
    return dict(zip(names, tensors))


def _parts(net: OnServer, plan: _Plan, tensors: dict[str, torch.Tensor]) -> list[Any]:
    """Put the answer together, with logits made here if the head is."""
    parts: list[Any] = []
    for word in plan.answer:
        if word == LAYERS:
            parts.append([t for name, t in tensors.items() if name.startswith(word)])
        elif word == "out" and not plan.with_head:
            parts.append(_head(net, net._counterpart.family, tensors["features"]))
        else:
            parts.append(tensors[word])
    return parts


def _head(net: OnServer, family: Family, features: torch.Tensor) -> torch.Tensor:
    if family.before_head:
        features = getattr(net, family.before_head)(features)
    logits: torch.Tensor = getattr(net, family.head)(features)
    return logits
