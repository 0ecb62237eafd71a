"""The files for containers agree with the program and with each other."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FRONT = "/etc/backboned/front"
DEPLOY = (
    *("backboned.service", "compose.yaml", "front/compose.yaml"),
    *("kubernetes.yaml", "kubernetes-gpu.yaml", "front/kubernetes.yaml"),
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


def test_the_pod_of_a_front_is_what_backbonectl_writes_for(backbonectl, tmp_path):
    page = (ROOT / "deploy/front/README.md").read_text()
    page = page[page.index("## Kubernetes") : page.index("## JSON")]
    written = (
        re.search(r"backbonectl (front .*\n.*)", page)[1].replace("\\", "").split()
    )
    subprocess.run(
        [backbonectl, *written, "--out", tmp_path],
        env={**os.environ, "BACKBONED_USERS": str(tmp_path / "users.yaml")},
        check=True,
        timeout=60,
    )
    text = (tmp_path / "envoy.yaml").read_text().replace(str(tmp_path), FRONT)
    envoy = yaml.safe_load(text)
    pod = ROOT / "deploy/front/kubernetes.yaml"
    deployment, service = yaml.safe_load_all(pod.read_text())
    spec = deployment["spec"]["template"]["spec"]
    server, front = spec["containers"]
    mounts = [
        {m["mountPath"]: m["name"] for m in c["volumeMounts"]} for c in (server, front)
    ]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    # All that Envoy reads is in the Secret of the page, and mounted where it is sought.
    read = set(re.findall(rf"{FRONT}/([\w.]+)", text)) | {"envoy.yaml"}
    assert read == set(re.findall(rf"--from-file={FRONT}/([\w.]+)", page))
    assert mounts[1][FRONT] == "front" and f"{FRONT}/envoy.yaml" in front["args"]
    assert volumes["front"]["secret"]["secretName"] == "backboned-front"
    assert f"secret {volumes['users']['secret']['secretName']} --from-file" in page
    # Both sockets are in the folder that the containers share, and the server's is it.
    admin = envoy["admin"]["address"]["pipe"]["path"]
    endpoints = envoy["static_resources"]["clusters"][0]["load_assignment"]["endpoints"]
    address = endpoints[0]["lb_endpoints"][0]["endpoint"]["address"]["pipe"]["path"]
    shared = {mounted["/run/backboned"] for mounted in mounts}
    assert len(shared) == 1 and "emptyDir" in volumes[shared.pop()]
    assert {str(Path(path).parent) for path in (admin, address)} == {"/run/backboned"}
    variables = {variable["name"]: variable["value"] for variable in server["env"]}
    assert variables["BACKBONED_LISTEN"].startswith(f"unix:{address},principal-from=")
    users = Path(variables["BACKBONED_USERS"])
    assert mounts[0][str(users.parent)] == "users" and users.name == "users.yaml"
    # The port, from the listener to the Service.
    port = envoy["static_resources"]["listeners"][0]["address"]["socket_address"]
    assert front["ports"] == [{"name": "grpc", "containerPort": port["port_value"]}]
    assert service["spec"]["ports"][0]["targetPort"] == "grpc"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels


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
