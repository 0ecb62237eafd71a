"""Puts the server behind Mammoth's registered backbones."""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from backboned_mammoth.blueprint import Blueprint
from backboned_mammoth.counterpart import Counterpart
from backboned_mammoth.families import KNOWN, Family
from backboned_mammoth.network import OnServer, put_on_server
from backboned_mammoth.routing import route_optimizers
from backboned_mammoth.run import RUN, Run, SeamError

PREFIX = "remote-"
_MARK = "_backboned_engaged"


def engage() -> None:
    """Put the server behind Mammoth's backbones: now, or once they are imported."""
    for name, action in _ACTIONS.items():
        if name in sys.modules:
            action(sys.modules[name])
        else:
            _Finder.waiting[name] = action
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def disengage() -> None:
    """Do not wait for Mammoth's import any more. Replaced classes stay so."""
    if _Finder in sys.meta_path:
        sys.meta_path.remove(_Finder)


def replace_factories(module: ModuleType, run: Run = RUN) -> None:
    """Replace what Mammoth's registry builds, and add names with ``remote-``.

    Does nothing to a package ``backbone`` that is not Mammoth's. Idempotent.

    Raises SeamError if it is Mammoth's and has no registry: no dict from a name to a
    dict whose ``class`` builds the network.
    """
    if hasattr(module, _MARK):
        return
    table = getattr(module, "REGISTERED_BACKBONES", None)
    if not isinstance(table, dict) or not any(map(_has_factory, table.values())):
        if not hasattr(module, "MammothBackbone"):
            return
        raise SeamError(
            f"{module} has no table REGISTERED_BACKBONES of factories by name, "
            "which the drop-in replaces: take a Mammoth of August 2024 or newer"
        )
    setattr(module, _MARK, True)
    for name, entry in list(table.items()):
        if _has_factory(entry):
            entry["class"] = _remote(name, entry["class"], run)
            if name in KNOWN:
                table.setdefault(PREFIX + name, dict(entry))


def _has_factory(entry: Any) -> bool:
    return isinstance(entry, dict) and callable(entry.get("class"))


def _remote(
    name: str, factory: Callable[..., nn.Module], run: Run
) -> Callable[..., nn.Module]:
    """Make a function that builds the same network, to compute in the server.

    The network is built here first, so that the generator moves as it does without.
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory, updated=())
    def build(*args: Any, **options: Any) -> nn.Module:
        net = factory(*args, **options)
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        if not isinstance(net, OnServer):
            _adopt(name, net, bound.arguments, run)
        return net

    return build


def _adopt(name: str, net: nn.Module, arguments: dict[str, Any], run: Run) -> None:
    """Let a network that was just built compute in the server, if it can."""
    known = KNOWN.get(name)
    if known is None:
        run.runs_here(name, "the server does not know this backbone")
        return
    family = known.family
    if difference := _difference(net, family):
        run.runs_here(name, difference)
        return
    run.server  # noqa: B018  Fails here rather than in the middle of the run.
    run.counts["networks"] += 1
    wanted = {key: arguments[key] for key in known.arguments if key in arguments}
    # The mnistmlp of before June 2025 is not told.
    head = getattr(net, family.head)
    wanted.setdefault("num_classes", getattr(head, "out_features", 0))
    blueprint = Blueprint(net, family.head)
    put_on_server(net, Counterpart(run, name, wanted, family, blueprint))


def _difference(net: nn.Module, family: Family) -> str:
    """Say what a network lacks of what its family has; or nothing."""
    cls = type(net)
    if (cls.__module__, cls.__qualname__) != (family.module, family.name):
        return f"it is a {cls.__module__}.{cls.__qualname__}"
    if "returnt" not in inspect.signature(cls.forward).parameters:
        return f"this Mammoth's {family.name}.forward has no parameter returnt"
    for module in filter(None, (family.head, family.before_head)):
        if not isinstance(getattr(net, module, None), nn.Module):
            return f"this Mammoth's {family.name} has no module {module}"
    return ""


class _Finder(importlib.abc.MetaPathFinder):
    """Waits for the import of Mammoth's modules, and acts after each ran."""

    waiting: dict[str, Callable[[ModuleType], None]] = {}

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module as Python does."""
        action = cls.waiting.pop(name, None)
        if action is None:
            return None
        spec = importlib.util.find_spec(name)
        loader: Any = spec and spec.loader
        if loader is not None:
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                action(module)

            loader.exec_module = exec_module
        return spec


_ACTIONS: dict[str, Callable[[ModuleType], None]] = {
    "backbone": replace_factories,
    "models.utils.continual_model": route_optimizers,
}
