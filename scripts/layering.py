#!/usr/bin/env python3
"""Checks that every include points in the direction of the architecture.

Usage: layering.py [--levels] [ROOT]

Reads the #include lines of our C++ files under ROOT (default: this repository).
Prints one line for each include that its room may not have, and one for a circle
of files. `--levels` prints the rooms, each below those that may use it.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

# A room is a folder, or one file. Files that lie deeper are of it too, unless there
# are rooms inside. Each row lists the rooms and the heavy libraries that a room may
# include besides itself. None: everything.
MAY_USE: dict[str, set[str] | None] = {
    # nlohmann-json reads the header of a safetensors file.
    "base": {"OpenSSL", "nlohmann-json"},
    "users": {"base", "yaml-cpp"},
    # OpenSSL computes digests.
    "proto/wire": {"proto", "gRPC", "OpenSSL", "Protobuf"},
    "backbones": {"base", "LibTorch"},
    "server/scheduler": set(),
    "server/metrics": {"prometheus-cpp"},
    # SQLite's header lies in no folder.
    "server/usage": {"base", "spdlog"},
    # An exception of LibTorch's becomes a status, and a line of the log.
    "server/limits": {"base", "LibTorch", "spdlog"},
    "server/memory": {"server/limits", "LibTorch"},
    "server/device": {"base", "server/limits", "server/scheduler", "LibTorch"},
    "server/tapes": {"base", "server/limits", "LibTorch"},
    # A record of an audit is a line of JSON.
    "server/callers": {
        *("base", "users", "server/limits", "nlohmann-json", "spdlog"),
    },
    # Records are in JSON, by Protobuf.
    "server/checkpoints": {
        *("base", "proto", "backbones", "server/limits", "server/device"),
        *("LibTorch", "Protobuf", "spdlog"),
    },
    "server/instances": {
        *("base", "backbones", "server/limits", "server/device", "server/tapes"),
        *("server/callers", "server/checkpoints", "LibTorch"),
    },
    "server/compute": {
        *("base", "backbones", "server/limits", "server/device", "server/tapes"),
        *("server/instances", "LibTorch"),
    },
    # The options and the folders of the process, for main.cc alone.
    "server/process": {
        *("base", "users", "server/limits", "server/scheduler", "server/device"),
        *("server/callers", "CLI11", "spdlog", "yaml-cpp"),
    },
    # The parts that a server owns.
    "server": {
        *("base", "server/limits", "server/memory", "server/device", "server/tapes"),
        *("server/callers", "server/checkpoints", "server/instances"),
        *("server/usage", "LibTorch"),
    },
    "server/rpc/convert": {
        *("base", "backbones", "proto", "proto/wire", "server/memory"),
        *("server/device", "server/checkpoints", "server/instances", "LibTorch"),
        "Protobuf",
    },
    # For calls, and for the server itself.
    "server/rpc/checkpoints": {
        *("base", "proto", "backbones", "server/limits", "server/device"),
        *("server/checkpoints", "server/instances", "server", "server/rpc/convert"),
        "spdlog",
    },
    "server/rpc/transport": {
        *("base", "proto", "proto/wire", "server/limits", "server/device"),
        *("server/metrics", "server/callers", "server/instances", "server"),
        *("server/rpc/convert", "gRPC", "Protobuf", "spdlog"),
    },
    # The services that are gRPC's, not ours.
    "server/rpc/standard": {
        *("base", "proto/wire", "server/limits", "server/device", "server/callers"),
        *("server/instances", "server", "server/rpc/transport", "gRPC", "Protobuf"),
    },
    "server/rpc/backbone": {
        *("base", "backbones", "proto", "proto/wire", "server/device"),
        *("server/callers", "server/instances", "server/compute", "server"),
        *("server/rpc/convert", "server/rpc/transport", "LibTorch", "Protobuf"),
    },
    "server/rpc/instances": {
        *("base", "proto", "proto/wire", "server/memory", "server/device"),
        *("server/instances", "server/checkpoints", "server/usage"),
        *("server/rpc/checkpoints", "server/rpc/convert", "server/rpc/transport"),
        "Protobuf",
    },
    "server/rpc": {
        *("server", "server/metrics", "server/rpc/transport", "server/rpc/backbone"),
        *("server/rpc/instances", "server/rpc/standard", "gRPC"),
    },
    # HTTP for those who watch the server.
    "server/admin": {
        *("base", "backbones", "server/limits", "server/memory", "server/device"),
        *("server/metrics", "server/checkpoints", "server/instances"),
        *("server/usage", "server", "server/rpc/transport", "server/rpc"),
        *("Boost", "nlohmann-json", "prometheus-cpp"),
    },
    "server/main.cc": None,
    # OpenSSL looks at certificates and keys before gRPC takes them.
    "client/cpp": {
        *("base", "proto", "proto/wire", "gRPC", "OpenSSL", "Protobuf", "yaml-cpp"),
    },
    # The program backbonectl: instances, users, tokens, a front.
    "client/cli": {
        *("base", "proto", "users", "client/cpp"),
        *("CLI11", "nlohmann-json", "OpenSSL", "Protobuf", "yaml-cpp"),
    },
    "client/native": {"client/cpp", "proto/wire"},
    "client/examples": {"client/cpp", "CLI11", "OpenSSL"},
    "tests": None,
    "benchmarks": None,
}

# The library of a header, by the folder that its path starts with.
LIBRARIES = {
    "ATen": "LibTorch",
    "boost": "Boost",
    "c10": "LibTorch",
    "torch": "LibTorch",
    "grpc": "gRPC",
    "grpcpp": "gRPC",
    "google": "Protobuf",
    "CLI": "CLI11",
    "nlohmann": "nlohmann-json",
    "openssl": "OpenSSL",
    "prometheus": "prometheus-cpp",
    "spdlog": "spdlog",
    "yaml-cpp": "yaml-cpp",
    "benchmark": "benchmark",
    "gmock": "GoogleTest",
    "gtest": "GoogleTest",
    # Free for all.
    "absl": "",
    "arpa": "",
    "linux": "",
    "netinet": "",
    "sanitizer": "",
    "sys": "",
}

FOLDERS = (
    "base",
    "users",
    "proto",
    "backbones",
    "server",
    "client",
    "tests",
    "benchmarks",
)
INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')


def room_of(file: str) -> str | None:
    """Return the room that a file is in."""
    folders = [str(folder) for folder in PurePosixPath(file).parents]
    room = next((r for r in (file, *folders) if r in MAY_USE), None)
    has_rooms = any(other.startswith(f"{room}/") for other in MAY_USE)
    return None if has_rooms and room != folders[0] else room


def owner_of(header: str) -> str | None:
    """Return the room or the library that a header is of; empty: free for all."""
    if header.startswith("backboned/v1/"):
        return "proto"
    return room_of(header) or LIBRARIES.get(header.split("/")[0])


def complaint(file: str, quote: str, header: str) -> str | None:
    """Return what is wrong with one include, if anything."""
    if "/" not in header:
        if quote == '"':
            return f'"{header}" must be named from the repository\'s root'
        return None
    owner = owner_of(header)
    if owner is None:
        return f"{header} is of no room or library known to scripts/layering.py"
    room = room_of(file)
    if room is None:
        return f"no room of scripts/layering.py has {file}"
    allowed = MAY_USE[room]
    if allowed is None or owner in {"", room, *allowed}:
        return None
    return f"{room}/ may not include {header}"


def includes(root: Path) -> Iterator[tuple[str, int, str, str]]:
    """Yield file, line, quote and header of every include of ours."""
    files = (f for folder in FOLDERS for f in (root / folder).rglob("*.*"))
    for path in sorted(f for f in files if f.suffix in {".cc", ".h"}):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if match := INCLUDE.match(line):
                yield path.relative_to(root).as_posix(), number, match[1], match[2]


def circle(uses: dict[str, set[str]]) -> list[str]:
    """Return nodes of which each uses the one before, the first also the last."""
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def violations(root: Path) -> Iterator[str]:
    """Yield `file:line: message` for every include against the direction.

    Then a circle of files, if there is one; a header and its source are one.
    """
    units: dict[str, set[str]] = {}
    for file, number, quote, header in includes(root):
        if message := complaint(file, quote, header):
            yield f"{file}:{number}: {message}"
        unit, used = (str(Path(name).with_suffix("")) for name in (file, header))
        if used != unit and (root / header).exists():
            units.setdefault(unit, set()).add(used)
    if files := circle(units):
        yield f"files include each other: {' <- '.join(files)}"


def levels() -> Iterator[list[str]]:
    """Yield the rooms by level: each may use rooms of the levels before only."""
    sorter = TopologicalSorter(
        {
            room: {used for used in uses if used in MAY_USE or used == "proto"}
            for room, uses in MAY_USE.items()
            if uses is not None
        }
    )
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        yield sorted(ready)
        sorter.done(*ready)


def main() -> int:
    """Print the violations, or the levels; return 1 if there are violations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--levels", action="store_true", help="print the rooms' levels")
    arguments = parser.parse_args()
    if arguments.levels:
        for level, rooms in enumerate(levels()):
            print(level, *rooms)
        return 0
    found = list(violations(arguments.root.resolve()))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
