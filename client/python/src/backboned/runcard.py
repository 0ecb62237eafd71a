"""Run cards: what a training ran on and what it gave, as JSON, to be run again.

`RemoteBackbone.run_card` makes one, ``python -m backboned verify`` compares.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from backboned.errors import BackbonedError

VERSION = 1

REDIRECT = "BACKBONED_RUN_CARD"
"""Environment variable: where `write` writes whatever it is told, if set."""

MODULE = "backboned.demo"
"""The only module whose command a card records."""

Card = dict[str, Any]

_TEXT = str
_MAYBE_TEXT = (str, type(None))

# Each field of a section, and of which types its value is.
SECTIONS: dict[str, dict[str, Any]] = {
    "server": {
        "version": _TEXT,
        "libtorch": _TEXT,
        "device": _TEXT,
        "processor": _TEXT,
        "threads": int,
        "uid": _TEXT,
    },
    "client": {
        "backboned": _TEXT,
        "torch": _TEXT,
        "grpcio": _TEXT,
        "python": _TEXT,
        "threads": int,
    },
    "network": {
        "name": _TEXT,
        "mode": _TEXT,
        "benchmark": _TEXT,
        "architecture": _TEXT,
        "arguments": dict,
        "weights": _TEXT,
        "weights_sha256": _TEXT,
        "seed": (int, type(None)),
    },
    "parameters": {"first": _MAYBE_TEXT, "last": _TEXT},
    "merging": {"allowed": bool, "merged_batches": int},
    "counts": {"forwards": int, "backwards": int, "steps": int},
    "traffic": {"sent_bytes": int, "received_bytes": int, "round_trips": int},
}

_COMMANDS: tuple[dict[str, Any], ...] = (
    {"module": _TEXT, "arguments": list},
    {"script": _TEXT, "sha256": _TEXT, "arguments": list},
)


class CardError(BackbonedError):
    """A run card cannot be read, or says something else than a card says."""


def client(threads: int) -> Card:
    """Describe this side."""
    return {
        "backboned": metadata_version("backboned"),
        "torch": metadata_version("torch"),
        "grpcio": metadata_version("grpcio"),
        "python": platform.python_version(),
        "threads": threads,
    }


def metadata_version(package: str) -> str:
    """Give an installed package's version; of this one, its own."""
    if package == "backboned":
        import backboned

        return backboned.__version__
    return metadata.version(package)


def command(arguments: Sequence[str] | None = None) -> Card | None:
    """Describe what Python runs: the demo, or a script; None if it is neither.

    Parameters
    ----------
    arguments : sequence of str, optional
        In place of the command line's.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        known = spec.name in (MODULE, f"{MODULE}.__main__")
        return {"module": MODULE, "arguments": given} if known else None
    script = Path(sys.argv[0]) if sys.argv else Path()
    if not script.is_file() or not hasattr(main, "__file__"):
        return None
    return {"script": str(script), "sha256": sha256_of(script), "arguments": given}


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(card: Card, path: Path | str) -> Path:
    """Write a card to a file, whose folder is made; give where it is."""
    place = Path(os.environ.get(REDIRECT) or path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(card, indent=2) + "\n")
    return place


def read(path: Path) -> Card:
    """Read a card, and check that every field is one of a card.

    Raises
    ------
    CardError
        With one sentence.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise CardError(f"cannot read the run card {path}: {reason}") from error
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CardError(f"{path} is no run card: it is not JSON ({error})") from error
    _check(card, path)
    return dict(card)


def _check(card: Any, path: Path) -> None:
    what = {"card": int, "command": (dict, type(None))}
    what.update({name: dict for name in SECTIONS})
    _check_fields(card, what, "", path)
    if card["card"] != VERSION:
        raise CardError(
            f"{path} is a run card of version {card['card']}; this program reads "
            f"version {VERSION}"
        )
    for name, fields in SECTIONS.items():
        _check_fields(card[name], fields, f"{name}.", path)
    if card["command"] is not None:
        _check_command(card["command"], path)


def _check_command(recorded: Card, path: Path) -> None:
    kind = _COMMANDS[1 if "script" in recorded else 0]
    _check_fields(recorded, kind, "command.", path)
    if not all(isinstance(argument, str) for argument in recorded["arguments"]):
        raise CardError(f"{path}: command.arguments is not a list of texts")
    if recorded.get("module", MODULE) != MODULE:
        raise CardError(
            f"{path}: command.module is {recorded['module']!r}; only {MODULE} is run "
            "again"
        )


def _check_fields(found: Any, fields: Card, prefix: str, path: Path) -> None:
    if not isinstance(found, dict):
        raise CardError(f"{path} is no run card: it is not a JSON object")
    unknown = [name for name in found if name not in fields]
    if unknown:
        raise CardError(f"{path}: there is no field {prefix}{unknown[0]} in a run card")
    for name, kinds in fields.items():
        if name not in found:
            raise CardError(f"{path}: the field {prefix}{name} is missing")
        if not _is_of(found[name], kinds):
            kinds = kinds if isinstance(kinds, tuple) else (kinds,)
            words = " or ".join(_WORDS[kind] for kind in kinds)
            raise CardError(f"{path}: the field {prefix}{name} is not {words}")


_WORDS = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    type(None): "null",
}


def _is_of(value: Any, kinds: Any) -> bool:
    """Whether a value is of one of the types; a bool is no int."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    return type(value) in kinds
