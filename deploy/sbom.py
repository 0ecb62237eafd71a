#!/usr/bin/env python3
"""Lists what the image consists of, as CycloneDX 1.5: ``sbom.py --help``.

Runs while the image is built, offline, with Python's standard library. What it lists:
the packages of Debian that the image has installed, those of which only headers went
into the program, and the PyPI wheels whose libraries the image carries.
"""

from __future__ import annotations

import argparse
import email
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADERS = ("libcli11-dev", "nlohmann-json3-dev")
WHEELS = re.compile(r"(torch|nvidia_\w+)-[^-]+\.dist-info")


def main() -> int:
    """Write the list to standard output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runtime", type=Path, required=True, help="root with the image's dpkg status"
    )
    parser.add_argument(
        "--build",
        type=Path,
        default=Path("/"),
        help="root that the program is built in",
    )
    parser.add_argument(
        "--wheels", type=Path, required=True, help="folder with the wheels' metadata"
    )
    parser.add_argument(
        "--version", type=Path, default=Path("version.py"), help="has the version"
    )
    options = parser.parse_args()
    headers = [p for p in packages(options.build) if p["name"] in HEADERS]
    found = [*packages(options.runtime), *headers, *wheels(options.wheels)]
    json.dump(document(version(options.version), found), sys.stdout, indent=1)
    return 0


def version(file: Path) -> str:
    """Read Backboned's version, e.g. ``0.1.0``."""
    found = re.search(r'^__version__ = "(.+)"$', file.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"sbom: {file} has no version")
    return found[1]


def document(version: str, components: list[dict[str, Any]]) -> dict[str, Any]:
    """Put components into a document about Backboned."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": "backboned",
                "name": "backboned",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": sorted(components, key=lambda c: str(c["purl"])),
    }


def packages(root: Path) -> Iterator[dict[str, Any]]:
    """Read the installed Debian packages below `root`."""
    status = (root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    for paragraph in status.strip().split("\n\n"):
        fields = email.message_from_string(paragraph)
        if fields["Status"] != "install ok installed":
            continue
        name = fields["Package"]
        yield component(
            name,
            fields["Version"],
            f"pkg:deb/debian/{name}@{fields['Version']}?arch={fields['Architecture']}",
            debian_licenses(root / "usr/share/doc" / name / "copyright"),
        )


def debian_licenses(copyright_file: Path) -> list[str]:
    """Give the licences that a package's copyright file names, in its words.

    There are none if the file is not there, or older than Debian's format for it.
    """
    if not copyright_file.is_file():
        return []
    text = copyright_file.read_text(encoding="utf-8", errors="replace")
    return sorted(set(re.findall(r"^License: *(\S.*?) *$", text, re.MULTILINE)))


def wheels(folder: Path) -> Iterator[dict[str, Any]]:
    """Read the metadata of the wheels whose libraries the image carries."""
    for info in sorted(folder.glob("*.dist-info")):
        if not WHEELS.fullmatch(info.name):
            continue
        fields = email.message_from_string((info / "METADATA").read_text())
        license_name = fields["License-Expression"] or fields["License"]
        name = fields["Name"]
        yield component(
            name,
            fields["Version"],
            f"pkg:pypi/{name}@{fields['Version']}",
            [license_name] if license_name else [],
        )


def component(
    name: str, version: str, purl: str, licenses: list[str]
) -> dict[str, Any]:
    """Describe one package."""
    purl = purl.replace("+", "%2B")
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"name": text}} for text in licenses],
    }


if __name__ == "__main__":
    sys.exit(main())
