"""The server's program, which computes with the torch of the environment it is in."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TORCH = "2.11.0"
BINARY = Path(__file__).resolve().parent / "bin" / "backboned"
_OWN_ENVIRONMENT = (
    "give the server an environment of its own, by uv tool install or pipx install of "
    "its wheel"
)


class TorchError(Exception):
    """There is no torch that the program can compute with; says what to do."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Become the server, under the same process id. ``backboned --help`` has options.

    Ends with a sentence and status 1 if there is no torch that it can compute with.
    """
    if arguments is None:
        arguments = sys.argv[1:]
    try:
        variables = environment(os.environ)
    except TorchError as error:
        sys.exit(f"backboned: {error}")
    os.execve(BINARY, ["backboned", *arguments], variables)


def control() -> None:
    """Become ``backbonectl``, which needs no torch."""
    program = BINARY.with_name("backbonectl")
    os.execv(program, [program.name, *sys.argv[1:]])


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that the program is started with, so that it finds torch.

    The program looks in ``../../torch/lib``, which is right where one folder holds both
    packages. Where torch lies elsewhere (in the system's folder, the user's, or one
    that a .pth file names), ``LD_LIBRARY_PATH`` says so.

    Raises
    ------
    TorchError
        If there is no torch, another version's, or one without its libraries.
    """
    beside = BINARY.parents[2] / "torch"
    torch = beside if beside.is_dir() else find_torch()
    found = version_of(torch)
    if found.partition("+")[0] != TORCH:
        raise TorchError(
            f"the server needs torch {TORCH}, and {torch} is {found}: "
            f"pip install torch=={TORCH}, or {_OWN_ENVIRONMENT}"
        )
    libraries = torch / "lib"
    if not (libraries / "libtorch_cpu.so").is_file():
        raise TorchError(
            f"{libraries} has no libtorch_cpu.so: "
            f"pip install --force-reinstall torch=={TORCH}"
        )
    result = dict(base)
    if torch != beside:
        known = base.get("LD_LIBRARY_PATH")
        result["LD_LIBRARY_PATH"] = f"{libraries}:{known}" if known else str(libraries)
    return result


def find_torch() -> Path:
    """Find the folder of the torch that Python would import, without importing it.

    Raises TorchError if there is none.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise TorchError(
            f"the server needs torch {TORCH}, and {sys.executable} has none: "
            f"pip install torch=={TORCH}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def version_of(torch: Path) -> str:
    """Read the version in the metadata beside a torch: ``2.11.0+cpu``."""
    places = [str(torch.parent), *sys.path]
    for distribution in importlib.metadata.distributions(name="torch", path=places):
        return distribution.version
    return "of a version that nothing tells"
