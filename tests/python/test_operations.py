"""Runs docs/operations.md as an admin would, in a root of its own: an overlay.

It lies over this machine, where the programs are those of the build; or over the bare
Debian that BACKBONED_BARE_ROOT names, where all of the page is run, with the wheel of
dist/. Only torch is at hand there, which pip would fetch for many minutes.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
(SCRIPT,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)

BARE = os.environ.get("BACKBONED_BARE_ROOT")
SITE = Path(sysconfig.get_path("purelib")).resolve()

# A root that is another one, but for what is changed there.
MACHINE = """set -euo pipefail
mount -t tmpfs none "$1"
mkdir "$1"/{upper,work,root}
mount -t overlay overlay \\
  -o "lowerdir=$3,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
for folder in dev sys; do mount --rbind "/$folder" "$1/root/$folder"; done
mount -t tmpfs none "$1/root/run"
mount --bind "$2" "$1/root/mnt"
if [[ $3 != / ]]; then
  mkdir -p "$1/root$4"
  mount --bind -o ro "$4" "$1/root$4"
  for file in /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
    cp "$file" "$1/root$file"
  done
fi
exec chroot "$1/root" /bin/bash /mnt/admin.sh
"""

# The machine has accounts of people already.
ADMIN = """set -euo pipefail
for name in {names}; do useradd "$name"; done
export OMP_WAIT_POLICY=PASSIVE
{programs}
{accounts}
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


# Lets scripts/install find torch.
AT_HAND = """python3 -m venv /opt/backboned
echo /mnt/torch >/opt/backboned/lib/python3.11/site-packages/torch.pth
"""


def make_torch(folder, name="torch"):
    """Link the files of a package and of all that it needs into a folder."""
    package = importlib.metadata.distribution(name)
    for file in package.files:
        top = file.parts[0]
        if top != ".." and not (folder / top).is_symlink():
            (folder / top).symlink_to(SITE / top)
    for needed in package.requires or ():
        other = re.match(r"[\w.-]+", needed)[0]
        try:
            known = importlib.metadata.distribution(other)
        except importlib.metadata.PackageNotFoundError:
            continue  # Of an extra, or of another system.
        if not (folder / Path(known._path).name).is_symlink():
            make_torch(folder, other)


def programs_of(page, home):
    """Make what the page's first commands need on a bare Debian; give the commands."""
    (home / "torch").mkdir()
    make_torch(home / "torch")
    checkout = home / "checkout"
    checkout.mkdir()
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", "HEAD"], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", checkout], input=archive.stdout, check=True)
    subprocess.run(["cp", "-r", ROOT / "dist", checkout], check=True)
    install = "scripts/install /opt/backboned"
    assert install in page
    return f"cd /mnt/checkout\n{page.replace(install, AT_HAND + install)}"


def can_overlay():
    """Say whether this account can make a root of its own."""
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    )
    return os.geteuid() == 0 and tried.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_overlay(), reason="needs root, and mounts")
def test_from_a_bare_machine_to_twenty_users(binary, tmp_path):
    programs, accounts, users, serve = BLOCKS
    names = re.findall(r"user add (\w+)", users)
    names += re.search(r"for name in (.*?);", users, re.S)[1].replace("\\", "").split()
    assert len(names) == 20
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "script.py").write_text(SCRIPT)
    (home / "admin.sh").write_text(
        ADMIN.format(
            names=" ".join(names),
            programs=programs_of(programs, home)
            if BARE
            else f"export PATH={Path(binary).resolve().parent}:$PATH",
            accounts=accounts,
            users=users,
            serve=serve.rstrip(),
            python="/opt/backboned/bin/python" if BARE else sys.executable,
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
            BARE or "/",
            SITE,
        ],
        capture_output=True,
        text=True,
        timeout=1800 if BARE else 240,
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
