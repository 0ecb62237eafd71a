"""The files for containers agree with the program and with each other."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = (
    *("backboned.service", "compose.yaml", "front/compose.yaml"),
    *("kubernetes.yaml", "kubernetes-gpu.yaml"),
)

STATUS = """\
Package: libold1
Status: install ok installed
Architecture: amd64
Version: 1.0+dfsg-1
Description: a library
 that is old

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 2.0

Package: libnew1
Status: install ok installed
Architecture: amd64
Version: 3:1.2-3
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: Expat
 Permission is hereby granted

Files: debian/*
License: GPL-2+

License: Expat
"""


@pytest.fixture(scope="module")
def known(binary):
    """The variables that the server reads."""
    listed = subprocess.run([binary, "--help"], capture_output=True, text=True).stdout
    return set(re.findall(r"Env:(BACKBONED_\w+)", listed))


@pytest.mark.parametrize("file", ["../Dockerfile", *DEPLOY])
def test_server_knows_each_variable(file, known):
    text = (ROOT / "deploy" / file).read_text()
    # In names, not in comments; of the Dockerfile, those of the image.
    text = re.sub(r"^ *#.*$|-DBACKBONED_\w+", "", text, flags=re.MULTILINE)
    named = set(re.findall(r"BACKBONED_\w+", text))
    assert "BACKBONED_LISTEN" in named or "BACKBONED_THREADS" in named
    assert named <= known


INSIDE = {
    "name": "libgrpc++-dev",
    "purl": "pkg:deb/debian/libgrpc++-dev@1.51.1-3?arch=amd64",
    "licenses": [{"license": {"name": "Apache-2.0"}}],
}


def test_list_of_parts_has_packages_program_and_wheels_with_licences(tmp_path):
    runtime, program, wheels = (tmp_path / name for name in ("r", "p", "w"))
    (runtime / "var/lib/dpkg").mkdir(parents=True)
    (runtime / "var/lib/dpkg/status").write_text(STATUS)
    (program / "sboms").mkdir(parents=True)
    listed = json.dumps({"components": [INSIDE]})
    (program / "sboms/backboned.cdx.json").write_text(listed)
    (runtime / "usr/share/doc/libnew1").mkdir(parents=True)
    (runtime / "usr/share/doc/libnew1/copyright").write_text(COPYRIGHT)
    for name in ("torch-2.11.0", "sympy-1.0"):
        (wheels / f"{name}.dist-info").mkdir(parents=True)
        (wheels / f"{name}.dist-info/METADATA").write_text(
            "Name: torch\nVersion: 2.11.0\nLicense: BSD-3-Clause\n\nText\n"
        )
    out = subprocess.run(
        [
            *(sys.executable, ROOT / "deploy/sbom.py", "image"),
            *("--runtime", runtime, "--wheels", wheels, "--program", program),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    parts = {
        part["purl"]: [entry["license"]["name"] for entry in part["licenses"]]
        for part in json.loads(out)["components"]
    }
    assert parts == {
        INSIDE["purl"]: ["Apache-2.0"],
        "pkg:deb/debian/libnew1@3:1.2-3?arch=amd64": ["Expat", "GPL-2+"],
        "pkg:deb/debian/libold1@1.0%2Bdfsg-1?arch=amd64": [],
        "pkg:pypi/torch@2.11.0": ["BSD-3-Clause"],
    }
