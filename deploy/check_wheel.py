#!/usr/bin/env python3
"""Checks wheels of server and client: ``check_wheel.py WHEEL...`` prints what is wrong.

The program, and the client's library, may need libraries of libc, libstdc++ and torch,
and those that the wheel carries; the program finds torch's by RPATH; and each part that
the wheel's list names has its licence.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from sbom import LIST, dynamic, foreign, needed

PROGRAM = "backboned_server/bin/backboned"
CONTROL = "backboned_server/bin/backbonectl"
CLIENT = "libbackboned_client.so"
GRAFTED = "sboms/auditwheel.cdx.json"
RPATH = "$ORIGIN/../../torch/lib"
TAG = "-py3-none-manylinux_2_34_x86_64.whl"
LARGEST_BYTES = 40 * 2**20


def main() -> int:
    """Check the wheels; say what is wrong, and give the exit status."""
    return 1 if any([check(Path(wheel)) for wheel in sys.argv[1:]]) else 0


def check(wheel: Path) -> list[str]:
    """Tell what is wrong with a wheel; print it."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = archive.namelist()
        (library,) = [name for name in names if name.endswith(f"/{CLIENT}")]
        (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        listed = f"{info}/{LIST}" if PROGRAM in names else f"{info}/{GRAFTED}"
        parts = [
            part["name"]
            for part in json.loads(archive.read(listed))["components"]
            if part["purl"].startswith("pkg:deb/")
        ]
        client = archive.extract(library, folder)
        wrong = [
            *wrong_libraries("the client's library", needed(client), names),
            *missing_licenses(parts, names, info),
        ]
        if PROGRAM in names:
            program = archive.extract(PROGRAM, folder)
            control = archive.extract(CONTROL, folder)
            wrong += wrong_libraries("the program", needed(program), names)
            wrong += wrong_libraries("backbonectl", needed(control), names)
            wrong += wrong_path(rpaths(program))
    if not parts:
        wrong.append("its list names no part")
    if not wheel.name.endswith(TAG):
        wrong.append(f"its name does not end with {TAG}")
    size = wheel.stat().st_size
    if size > LARGEST_BYTES:
        wrong.append(f"it has {size} bytes, over {LARGEST_BYTES}")
    for sentence in wrong:
        print(f"{wheel.name}: {sentence}", file=sys.stderr)
    number = len(set(parts))
    print(f"{wheel.name}: {size / 1e6:.1f} MB, {number} parts, {len(wrong)} faults")
    return wrong


def wrong_libraries(
    who: str, libraries: Iterable[str], names: Iterable[str]
) -> list[str]:
    """Tell the libraries that neither the system, nor torch, nor the wheel has."""
    carried = {os.path.basename(n) for n in names if ".libs/" in n}
    return [
        f"{who} needs {library}, which a bare system lacks"
        for library in foreign(libraries)
        if library not in carried
    ]


def rpaths(program: str) -> dict[str, list[str]]:
    """Read where a program looks for libraries: the folders of RPATH and RUNPATH."""
    found = re.findall(r"\((RPATH|RUNPATH)\).*\[(.*)\]", dynamic(program))
    return {kind: folders.split(":") for kind, folders in found}


def wrong_path(folders: dict[str, list[str]]) -> list[str]:
    """Tell whether the program would find another torch than the one beside it."""
    if RPATH not in folders.get("RPATH", []):
        return [f"the program's RPATH lacks {RPATH}"]
    if "RUNPATH" in folders:
        return ["the program has a RUNPATH, which LD_LIBRARY_PATH comes before"]
    return []


def missing_licenses(
    parts: Iterable[str], names: Iterable[str], info: str
) -> list[str]:
    """Tell the parts whose licence is not in the wheel."""
    known = {name for name in names if name.startswith(f"{info}/licenses/")}
    return [
        f"there is no licence of {part}"
        for part in sorted(set(parts))
        if not any(name.endswith(f"/{part}/copyright") for name in known)
    ]


if __name__ == "__main__":
    sys.exit(main())
