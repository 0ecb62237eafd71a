"""The places at which the drop-in takes hold of Mammoth, and whether they are there.

No commit of Mammoth is asked for: a checkout will do whose seams are there.

- ``backbone.REGISTERED_BACKBONES``: a dict from a name to a dict whose ``class`` builds
  the network. Without it nothing can be remote.
- ``ContinualModel.get_optimizer(self, params=None, ...)`` in
  ``models.utils.continual_model``. Without it every network is mirrored.
- Of each class in `families`: ``forward(self, x, returnt=...)`` and the modules that it
  uses on the way from features to logits. Without them that class runs here.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from backboned.errors import FailedPrecondition
from torch import nn

from backboned_mammoth.families import Family


class SeamError(FailedPrecondition):
    """The Mammoth that is here lacks what the drop-in takes hold of; says what."""


def registry(package: ModuleType) -> dict[str, Any]:
    """Give the table of factories of Mammoth's package ``backbone``.

    It is empty if the package is not Mammoth's. Entries for which `is_entry` is false
    build nothing.

    Raises
    ------
    SeamError
        If it is, and has no such table.
    """
    found = getattr(package, "REGISTERED_BACKBONES", None)
    if isinstance(found, dict) and any(map(is_entry, found.values())):
        return found
    if not hasattr(package, "MammothBackbone"):
        return {}
    raise SeamError(
        f"{_file_of(package)} has no table REGISTERED_BACKBONES of factories by name, "
        "which the drop-in replaces: take a Mammoth of August 2024 or newer"
    )


def is_entry(entry: Any) -> bool:
    """Whether an entry of that table has a factory."""
    return isinstance(entry, dict) and callable(entry.get("class"))


def missing_of_optimizers(module: ModuleType) -> str:
    """Say what ``models.utils.continual_model`` lacks; or nothing."""
    get = getattr(getattr(module, "ContinualModel", None), "get_optimizer", None)
    if not callable(get):
        return f"{_file_of(module)} has no ContinualModel.get_optimizer"
    if "params" not in inspect.signature(get).parameters:
        return f"ContinualModel.get_optimizer of {_file_of(module)} takes no params"
    return ""


def missing_of_network(net: nn.Module, family: Family) -> str:
    """Say what a network lacks of what its family has; or nothing."""
    name = type(net).__qualname__
    if "returnt" not in inspect.signature(type(net).forward).parameters:
        return f"this Mammoth's {name}.forward has no parameter returnt"
    for module in filter(None, (family.head, family.before_head)):
        if not isinstance(getattr(net, module, None), nn.Module):
            return f"this Mammoth's {name} has no module {module}"
    return ""


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__
