"""Reads connection files: where a server is, and what it wants to see."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from backboned.errors import InvalidArgument, Unavailable
from backboned.transport import credentials
from backboned.transport.credentials import Pem, Token

SERVER = "BACKBONED_SERVER"
"""Names a target, or a connection file."""

VARIABLE = "BACKBONED_CONNECTION"
"""Names a connection file."""

_KEYS = ("target", "ca", "certificate", "key", "token", "token-file")
_ALLOWED = "a connection file has target, ca, certificate, key, and token or token-file"
_LOOK_S = 0.05


@dataclasses.dataclass(repr=False)
class ConnectionFile:
    """The content of a connection file; None: it does not say."""

    target: str
    ca: Pem | None = None
    certificate: Pem | None = None
    key: Pem | None = None
    token: Token | None = None


def is_path(target: Any) -> bool:
    """Say whether a target is the path of a connection file."""
    return isinstance(target, os.PathLike) or target.endswith((".yaml", ".yml"))


def default_target() -> str | Path:
    """Find the target, or the connection file, of a caller who names none.

    Raises InvalidArgument if there is none.
    """
    named = os.environ.get(SERVER)
    if named:
        return named
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    file = Path(home, "backboned", "connection.yaml")
    if os.path.exists(file):
        return file
    raise InvalidArgument(
        f"no server is named: give connect() a target, set {SERVER} or {VARIABLE}, or "
        f"write {file}"
    )


def read(path: Path, wait: float = 0.0) -> ConnectionFile:
    """Read a connection file, and wait for it at most so many seconds.

    Raises Unavailable if it is not there, InvalidArgument if it is none.
    """
    end = time.monotonic() + wait
    while not os.path.exists(path):
        left = end - time.monotonic()
        if left <= 0:
            waited = f"; waited {wait:g} s" if wait else ""
            raise Unavailable(f"there is no connection file {path}{waited}")
        time.sleep(min(_LOOK_S, left))
    values = _values(path)
    if "target" not in values:
        raise InvalidArgument(f"{path}: there is no target; {_ALLOWED}")
    token_file = values.pop("token-file", None)
    if token_file is not None:
        if "token" in values:
            raise InvalidArgument(
                f"{path}: there are a token and a token-file; one is allowed"
            )
        values["token"] = path.parent / token_file
    for key in ("ca", "certificate", "key"):
        if key in values and "-----BEGIN" not in values[key]:
            values[key] = path.parent / values[key]
    return ConnectionFile(**values)


def _values(path: Path) -> dict[str, Any]:
    import yaml

    text = credentials.read_text("the connection file", path)
    try:
        # Which takes every value as it is written: a token may look like a number.
        values = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        # Not the error's text, which has the line, and so the token.
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f"line {mark.line + 1}: "
        why = getattr(error, "problem", None) or "it cannot be read"
        raise InvalidArgument(f"{path}: is no YAML: {line}{why}") from None
    if not isinstance(values, dict):
        raise InvalidArgument(f"{path}: is no map of keys; {_ALLOWED}")
    for key, value in values.items():
        if key not in _KEYS:
            raise InvalidArgument(f"{path}: there is no key {key!r}; {_ALLOWED}")
        if not isinstance(value, str) or not value:
            raise InvalidArgument(f"{path}: {key} is no text")
    return values
