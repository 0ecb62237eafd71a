"""Checks that every include points in the direction of the architecture.

Usage: layering.py [ROOT]

Reads the #include lines of our C++ files under ROOT (default: this repository)
and prints one line for each that its folder may not have.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

# What a folder may include of our own folders and of the heavy libraries. The
# longest prefix decides; None: everything.
MAY_USE: dict[str, set[str] | None] = {
    # OpenSSL computes digests.
    "proto/wire": {"proto", "proto/wire", "gRPC", "OpenSSL", "Protobuf"},
    # nlohmann-json reads the header of a weights file.
    "backbones": {"backbones", "LibTorch", "nlohmann-json"},
    "server/scheduler": {"server/scheduler"},
    "server": {
        *("server", "server/scheduler", "backbones", "LibTorch"),
        *("CLI11", "OpenSSL", "spdlog"),
    },
    "client": {"client", "proto", "proto/wire", "gRPC", "Protobuf"},
    "client/examples": {"client", "proto", "OpenSSL"},
    "server/main.cc": None,
    "tests": None,
    "benchmarks": None,
}
# The services use what the server uses, and the wire.
MAY_USE["server/rpc"] = {
    *(MAY_USE["server"] or ()),
    *("server/rpc", "proto", "proto/wire", "gRPC", "Protobuf"),
}

# Whose header an include is, by how its path starts.
OWNERS = {
    "backboned/v1/": "proto",
    "proto/wire/": "proto/wire",
    "backbones/": "backbones",
    "server/scheduler/": "server/scheduler",
    "server/rpc/": "server/rpc",
    "server/": "server",
    "client/": "client",
    "tests/": "tests",
    "benchmarks/": "benchmarks",
    "ATen/": "LibTorch",
    "c10/": "LibTorch",
    "torch/": "LibTorch",
    "grpc/": "gRPC",
    "grpcpp/": "gRPC",
    "google/": "Protobuf",
    "CLI/": "CLI11",
    "nlohmann/": "nlohmann-json",
    "openssl/": "OpenSSL",
    "prometheus/": "prometheus-cpp",
    "spdlog/": "spdlog",
    "yaml-cpp/": "yaml-cpp",
    "benchmark/": "benchmark",
    "gmock/": "GoogleTest",
    "gtest/": "GoogleTest",
    # Free for all.
    "absl/": "",
    "linux/": "",
    "netinet/": "",
    "sanitizer/": "",
    "sys/": "",
}

FOLDERS = ("proto", "backbones", "server", "client", "tests", "benchmarks")
INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')


def longest_prefix(path: str, prefixes: dict) -> str | None:
    """Return the longest key of `prefixes` that `path` starts with."""
    return max((p for p in prefixes if path.startswith(p)), key=len, default=None)


def folder_of(file: str) -> str | None:
    """Return the key of `MAY_USE` that rules over a file."""
    rules = {key if key.endswith(".cc") else key + "/": key for key in MAY_USE}
    prefix = longest_prefix(file, rules)
    return rules[prefix] if prefix else None


def complaint(file: str, quote: str, header: str) -> str | None:
    """Return what is wrong with one include, if anything."""
    if "/" not in header:
        if quote == '"':
            return f'"{header}" must be named from the repository\'s root'
        return None
    owner = longest_prefix(header, OWNERS)
    if owner is None:
        return f"{header} is of no library known to scripts/layering.py"
    folder = folder_of(file)
    if folder is None:
        return f"no rule of scripts/layering.py covers {file}"
    allowed = MAY_USE[folder]
    if allowed is None or OWNERS[owner] in {"", *allowed}:
        return None
    where = folder if folder.endswith(".cc") else folder + "/"
    return f"{where} may not include {header}"


def violations(root: Path) -> Iterator[str]:
    """Yield `file:line: message` for every include against the direction."""
    files = (f for folder in FOLDERS for f in (root / folder).rglob("*.*"))
    for path in sorted(f for f in files if f.suffix in {".cc", ".h"}):
        file = path.relative_to(root).as_posix()
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            match = INCLUDE.match(line)
            message = match and complaint(file, match[1], match[2])
            if message:
                yield f"{file}:{number}: {message}"


def main() -> int:
    """Print the violations; return 1 if there are any."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    found = list(violations(root.resolve()))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
