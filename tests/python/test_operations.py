"""Runs docs/operations.md as an admin would, in a root of its own: an overlay."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
(SCRIPT,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)

# A root that is this one, but for what is changed there.
MACHINE = """set -euo pipefail
mount -t tmpfs none "$1"
mkdir "$1"/{upper,work,root}
mount -t overlay overlay \\
  -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
for folder in dev sys; do mount --rbind "/$folder" "$1/root/$folder"; done
mount -t tmpfs none "$1/root/run"
mount --bind "$2" "$1/root/mnt"
exec chroot "$1/root" /bin/bash /mnt/admin.sh
"""

# The machine has accounts of people already, who can use these programs.
ADMIN = """set -euo pipefail
for name in {names}; do useradd "$name"; done
export PATH={programs}:$PATH OMP_WAIT_POLICY=PASSIVE
began=$SECONDS
{install}
{users}
{serve} & # A terminal of its own, or systemd.
until [[ -S /run/backboned/lab.sock ]]; do sleep 0.1; done
people() {{ # NAME: runs the page's script as this account, and prints what it says.
  runuser -u "$1" -- {python} /mnt/script.py 2>&1 | tail -n 1
}}
for name in alice bob carol dave games; do
  echo "said $name: $(people "$name")"
done
run backbonectl user remove dave
sleep 2.5
echo "said dave: $(people dave)"
cp /etc/backboned/audit.jsonl /mnt/
kill %1
wait %1 || true
"""


def can_overlay():
    """Say whether this account can make a root of its own."""
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    )
    return os.geteuid() == 0 and tried.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_overlay(), reason="needs root, and mounts")
def test_from_a_bare_machine_to_twenty_users(binary, tmp_path):
    install, users, serve = BLOCKS
    names = re.findall(r"user add (\w+)", users)
    names += re.search(r"for name in (.*?);", users, re.S)[1].replace("\\", "").split()
    assert len(names) == 20
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "script.py").write_text(SCRIPT)
    (home / "admin.sh").write_text(
        ADMIN.format(
            names=" ".join(names),
            programs=Path(binary).resolve().parent,
            install=install,
            users=users,
            serve=serve.rstrip(),
            python=sys.executable,
        )
    )
    root = tmp_path / "root"
    root.mkdir()
    began = time.monotonic()
    ended = subprocess.run(
        [
            "unshare",
            "-m",
            "-p",
            "-f",
            "--kill-child",
            "bash",
            "-c",
            MACHINE,
            "machine",
            root,
            home,
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    print(f"{time.monotonic() - began:.0f} s")
    for name in names:
        assert re.search(rf"^{name} +(admin|train|infer) ", ended.stdout, re.M), name
    said = dict(re.findall(r"^said (\w+): (.*)$", ended.stdout, re.M))
    # The admin saw the networks that were there then: her own.
    assert said["alice"] == "alice admin ['mine']"
    assert said["bob"] == "bob train ['mine']"
    assert "carol has the right to infer" in said["carol"]
    assert '"games" is no user of this server' in said["games"]
    assert '"dave" is no user of this server' in said["dave"]
    records = (home / "audit.jsonl").read_text().splitlines()
    events = [json.loads(record)["event"] for record in records]
    assert events.count("user added") == 20 and "user removed" in events
