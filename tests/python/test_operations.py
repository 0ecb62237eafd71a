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
SECTIONS = dict(re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
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
serve() {{ # In a terminal of its own, or by systemd.
  {{ {serve}; }} 3>&- &
  until backbonectl health >/dev/null 2>&1; do sleep 0.1; done
}}
end() {{ # Sends SIGTERM to the server, and waits for its end.
  local process
  for process in $(grep -lz '^backboned$' /proc/[0-9]*/cmdline 2>/dev/null); do
    process=${{process//[!0-9]/}}
    kill "$process"
    tail --pid="$process" -f /dev/null
  done
}}
people() {{ # NAME [SCRIPT]: runs the page's script, or another, as this account.
  runuser -u "$1" -- {python} "/mnt/${{2-script.py}}" 2>&1 | tail -n 1
}}
digests() {{ # Of networks that nobody trains.
  local name
  for name in {{alice,bob,dave}}/mine; do
    echo "$name $(backbonectl show "$name" --digest | grep -i digest)"
  done
}}
export BACKBONED_SERVER=unix:/run/backboned/lab.sock
serve
for name in alice bob carol dave games; do
  echo "said $name: $(people "$name")"
done
runuser -u bob -- backbonectl checkpoint save mine baseline
run backbonectl user remove dave
sleep 2.5
echo "said dave: $(people dave)"

mkfifo -m 0666 /run/steps # Each line lets Erin make a step.
people erin trainer.py >/run/erin &
trainer=$!
exec 3>/run/steps # Once Erin's network is there.
echo >&3
{upgrade}
end
echo >&3
serve
{backup}
digests >/run/before
end
echo >&3
{leave_with}
rm -r /etc/backboned /var/lib/backboned /run/backboned
userdel backboned
useradd --system backboned --uid 64999
install -d -o backboned -m 0711 /run/backboned
{arrive_with}
serve
exec 3>&- # The last step.
wait $trainer
echo "said erin: $(</run/erin)"

backbonectl rm --yes alice/mine
end
{restore}
serve
digests | diff /run/before -
{leave}
while runuser -u bob -- backbonectl ls >/dev/null 2>&1; do sleep 0.1; done
backbonectl ls
cp /etc/backboned/audit.jsonl /mnt/
end
"""

# Trains as somebody does who knows nothing of what happens to the server.
TRAINER = """import backboned
import torch
from torch.nn import functional as F

def train(name, rounds):
    net = server.create("seq-mnist", name=name, seed=0)
    net.on_rollback = "replay"
    opt = backboned.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    count = 0
    for count, _ in enumerate(rounds, 1):
        for i in range(5):
            opt.zero_grad()
            x = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(i))
            F.cross_entropy(net(x), torch.arange(8)).backward()
            opt.step()
    assert opt.last_step
    return count, net.instance.info(digest=True).digest

def told():
    with open("/run/steps") as lines:
        yield from lines

server = backboned.connect("unix:/run/backboned/lab.sock")
count, digest = train("run", told())
print(count, digest == train("alone", range(count))[1])
"""

# Lets scripts/install find torch.
AT_HAND = """python3 -m venv /opt/backboned
echo /mnt/torch >/opt/backboned/lib/python3.11/site-packages/torch.pth
"""


def blocks(section):
    """Give the commands of a section of the page."""
    return re.findall(r"^```sh\n(.*?)^```$", SECTIONS[section], re.M | re.S)


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
    programs, accounts = blocks("Install")
    (users,), (serve,) = blocks("Users"), blocks("Serve")
    leave_with, arrive_with = blocks("Move to another machine")
    names = re.findall(r"user add (\w+)", users)
    names += re.search(r"for name in (.*?);", users, re.S)[1].replace("\\", "").split()
    assert len(names) == 20
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "script.py").write_text(SCRIPT)
    (home / "trainer.py").write_text(TRAINER)
    (home / "admin.sh").write_text(
        ADMIN.format(
            names=" ".join(names),
            programs=programs_of(programs, home)
            if BARE
            else f"export PATH={Path(binary).resolve().parent}:$PATH",
            accounts=accounts,
            users=users,
            serve=serve.rstrip(),
            upgrade=blocks("Upgrade")[0] if BARE else "",
            backup=blocks("Back up")[0],
            restore="".join(blocks("Restore")),
            leave_with=leave_with,
            arrive_with=arrive_with,
            leave="".join(blocks("A user leaves")),
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
        timeout=1800 if BARE else 400,
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
    assert said["erin"] == "3 True"
    after = ended.stdout.split("said erin: ")[1]
    assert "removed bob; what bob made stays" in ended.stderr
    left = after.split("deleted bob/baseline")[1]
    assert re.search("^alice +mine ", left, re.M) and "bob" not in left
    lines = (home / "audit.jsonl").read_text().splitlines()
    events = [(r["event"], r.get("principal")) for r in map(json.loads, lines)]
    assert {name for event, name in events if event == "user added"} == {*names}
    assert ("user removed", "dave") in events and ("user removed", "bob") in events
