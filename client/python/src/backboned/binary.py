"""Finds the server's program."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from backboned.errors import ServerStartError

VARIABLE = "BACKBONED_BIN"
_NAME = "backboned"
_BUILDS = ("build/release", "build/dev")
_MARK = "proto/backboned/v1/backbone_service.proto"


def find_binary(binary: str | Path | None = None) -> Path:
    """Find the server's program.

    It is `binary`, else what the environment variable ``BACKBONED_BIN`` names, else
    the ``backboned`` that the package backboned-server put beside this Python, which
    computes with the same torch, else ``backboned`` on the PATH, else what is built in
    the checkout that this package lies in: ``build/release``, then ``build/dev``.

    Raises
    ------
    ServerStartError
        If there is none; says where it looked.
    """
    if binary is not None:
        return _demand(Path(binary), "binary")
    named = os.environ.get(VARIABLE)
    if named:
        return _demand(Path(named), VARIABLE)
    installed = Path(sysconfig.get_path("scripts")) / _NAME
    if _is_program(installed):
        return installed
    on_path = shutil.which(_NAME)
    if on_path:
        return Path(on_path)
    candidates = _in_checkout()
    for candidate in candidates:
        if _is_program(candidate):
            return candidate
    tried = "".join(f", {candidate}" for candidate in candidates)
    raise ServerStartError(
        f"the server's program is not found; looked at {VARIABLE} (not set), "
        f"{installed}, the PATH{tried}. Install it with scripts/install, build it "
        f"with scripts/build, or set {VARIABLE}"
    )


def _demand(path: Path, origin: str) -> Path:
    if not _is_program(path):
        raise ServerStartError(f"{origin} is {path}, which is not a program")
    return path


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _in_checkout() -> list[Path]:
    root = _checkout()
    return [] if root is None else [root / build / _NAME for build in _BUILDS]


def _checkout() -> Path | None:
    for folder in Path(__file__).resolve().parents:
        if (folder / _MARK).is_file():
            return folder
    return None
