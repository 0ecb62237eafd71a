#!/usr/bin/env python3
"""Lists what program and image consist of, as CycloneDX 1.5: ``sbom.py --help``.

Runs while they are built, offline, with Python's standard library.

``program``: the packages of Debian of which something went into the static program,
which the linker's map names, those of which only headers did, and those whose shared
libraries the program needs besides; with their licences. Without a map it is a shared
library.

``image``: the packages of Debian that the image has installed, the PyPI wheels whose
libraries it carries, and what is in the program.
"""

from __future__ import annotations

import argparse
import email
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HEADERS = (
    *("libboost1.74-dev", "libcli11-dev", "libfmt-dev", "libspdlog-dev"),
    "nlohmann-json3-dev",
)
# Libraries of a system without anything, and torch.
GIVEN = re.compile(
    r"(lib(c|m|stdc\+\+|gcc_s|c10|torch_cpu)|ld-linux-x86-64)\.so(\.\d+)?"
)
LIST = "sboms/backboned.cdx.json"
PROJECT = Path(__file__).resolve().parents[1]
VERSION = PROJECT / "client/python/src/backboned/version.py"
WHEELS = re.compile(r"(torch|nvidia_\w+)-[^-]+\.dist-info")


def main() -> int:
    """Write the list, and the program's licences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--version", type=Path, default=VERSION, help="file that has the version"
    )
    of = parser.add_subparsers(dest="of", required=True)
    program = of.add_parser("program", help="into a folder, with the licences")
    program.add_argument("--map", type=Path, help="the linker's")
    program.add_argument("--program", type=Path, required=True, help="the file")
    program.add_argument("--out", type=Path, required=True, help="the folder")
    image = of.add_parser("image", help="to the standard output")
    image.add_argument(
        "--runtime", type=Path, required=True, help="root with the image's dpkg status"
    )
    image.add_argument(
        "--wheels", type=Path, required=True, help="folder with the wheels' metadata"
    )
    image.add_argument(
        "--program", type=Path, required=True, help=f"folder with {LIST}"
    )
    options = parser.parse_args()
    if options.of == "program":
        names = owners(libraries(options.program))
        if options.map:
            names |= owners(archives(options.map.read_text())) | {*HEADERS}
        describe_program(version(options.version), names, options.out)
        return 0
    inside = json.loads((options.program / LIST).read_text())["components"]
    found = {
        part["purl"]: part
        for part in (*packages(options.runtime), *inside, *wheels(options.wheels))
    }
    made = document("container", version(options.version), found.values())
    json.dump(made, sys.stdout, indent=1)
    return 0


def version(file: Path) -> str:
    """Read Backboned's version, e.g. ``0.1.0``."""
    found = re.search(r'^__version__ = "(.+)"$', file.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"sbom: {file} has no version")
    return found[1]


def describe_program(version: str, names: set[str], out: Path) -> None:
    """Write the list and the licences of packages into a folder, made anew."""
    parts = [part for part in packages(Path("/")) if part["name"] in names]
    missing = names - {part["name"] for part in parts}
    if missing:
        raise SystemExit(f"sbom: not installed: {', '.join(sorted(missing))}")
    shutil.rmtree(out, ignore_errors=True)
    licenses = out / "licenses"
    (licenses / "backboned").mkdir(parents=True)
    shutil.copyfile(PROJECT / "LICENSE", licenses / "backboned/LICENSE")
    for name in sorted(names):
        copy_licenses(Path("/usr/share"), name, licenses)
    (out / LIST).parent.mkdir()
    made = document("application", version, parts)
    (out / LIST).write_text(json.dumps(made, indent=1) + "\n")


def archives(linker_map: str) -> set[Path]:
    """Give the system's archives of which the linker took a member."""
    found = re.findall(r"^(/\S+\.a)\(", linker_map, re.MULTILINE)
    return {Path(archive).resolve() for archive in found}


def libraries(program: Path) -> set[Path]:
    """Give the shared libraries that a wheel of the program has to carry."""
    listed = subprocess.run(
        ["ldd", program], check=True, capture_output=True, text=True
    ).stdout
    found = dict(re.findall(r"^\s*(\S+) => (/\S+)", listed, re.MULTILINE))
    own: set[Path] = set()
    names = foreign(needed(program))
    while names:
        library = Path(found[names.pop()]).resolve()
        if library not in own:
            own.add(library)
            names += foreign(needed(library))
    return own


def needed(program: Path | str) -> list[str]:
    """Read the names of the libraries that a program is linked to."""
    return re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic(program))


def dynamic(program: Path | str) -> str:
    """Give what readelf tells of a program's dynamic section."""
    return subprocess.run(
        ["readelf", "--wide", "--dynamic", program],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def foreign(libraries: Iterable[str]) -> list[str]:
    """Give those libraries that neither a bare system nor torch has."""
    return [library for library in libraries if not GIVEN.fullmatch(library)]


def owners(files: Iterable[Path]) -> set[str]:
    """Name the Debian packages that files of the system belong to.

    Raises SystemExit if one belongs to none: nobody knows its licence.
    """
    names = set()
    for file in files:
        # Some packages say /lib and /bin of what is in /usr.
        paths = [str(file), str(file).removeprefix("/usr")]
        found = subprocess.run(
            ["dpkg-query", "--search", *paths], capture_output=True, text=True
        ).stdout
        if not found:
            raise SystemExit(f"sbom: {file} is in the program and of no package")
        names.add(found.partition(":")[0])
    return names


def copy_licenses(share: Path, package: str, out: Path) -> None:
    """Copy a package's copyright file, and the common licences that it refers to."""
    source = share / "doc" / package / "copyright"
    if not source.is_file():
        raise SystemExit(f"sbom: there is no {source}")
    (out / package).mkdir()
    shutil.copyfile(source, out / package / "copyright")
    text = source.read_text(encoding="utf-8", errors="replace")
    common = out / "common-licenses"
    common.mkdir(exist_ok=True)
    for name in re.findall(r"/usr/share/common-licenses/([\w.+-]*\w)", text):
        shutil.copyfile(share / "common-licenses" / name, common / name)


def document(
    kind: str, version: str, components: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """Put components into a document about Backboned, a `kind` of CycloneDX."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": kind,
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
