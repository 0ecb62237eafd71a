"""``python -m backboned_mammoth -- --model=er ...``: Mammoth, remote backbones."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import backboned_mammoth
from backboned_mammoth.run import (
    MODE,
    MODES,
    ON_ROLLBACK,
    REQUIRE_REMOTE,
    ROLLBACKS,
    SERVER,
)

# Mammoth's program, and where it was until 2025.
_SCRIPTS = ("main.py", "utils/main.py")


def main(arguments: Sequence[str]) -> None:
    """Run Mammoth with the options behind ``--``, as ``python main.py`` does."""
    parser = argparse.ArgumentParser(
        prog="python -m backboned_mammoth",
        usage="%(prog)s [options] -- MAMMOTH_OPTIONS",
        description="Run Mammoth's main.py, with its backbones in a server.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--server",
        metavar="TARGET",
        help="unix:/path or host:port; by default a server of one's own is started",
    )
    parser.add_argument(
        "--require-remote",
        action="store_true",
        help="fail where a backbone cannot run in the server, and do not run it here",
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        help="mirrored: parameters and optimizer stay here; hosted: they are in the "
        "server; auto (unless given): hosted where a method only steps",
    )
    parser.add_argument(
        "--on-rollback",
        choices=ROLLBACKS,
        help="what to do if a restart of the server loses steps of a hosted network: "
        "raise an error (unless given), or replay them; the latter needs a server with "
        "--state-dir",
    )
    parser.add_argument(
        "--mammoth",
        metavar="DIR",
        type=Path,
        default=Path(),
        help="Mammoth's checkout; by default the working directory",
    )
    words = list(arguments)
    mark = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:mark])
    if mark == len(words):
        parser.error("give Mammoth's options behind --")
    folder = options.mammoth.resolve()
    script = next(filter(Path.is_file, (folder / name for name in _SCRIPTS)), None)
    if script is None or not (folder / "backbone").is_dir():
        parser.error(f"{folder} is no checkout of Mammoth: no main.py and backbone/")
    if options.server:
        os.environ[SERVER] = options.server
    if options.mode:
        os.environ[MODE] = options.mode
    if options.on_rollback:
        os.environ[ON_ROLLBACK] = options.on_rollback
    if options.require_remote:
        os.environ[REQUIRE_REMOTE] = "1"
    backboned_mammoth.engage()
    os.chdir(folder)
    sys.argv = [str(script), *words[mark + 1 :]]
    sys.path[0] = str(script.parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
