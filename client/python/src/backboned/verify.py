"""Runs what a run card records again, and names what differs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from backboned import runcard
from backboned.runcard import SECTIONS, Card, CardError

SAME = 0
DIFFERS = 3

# What no second run has in common with the first.
_OWN = {
    "server.uid",
    "network.name",
    "traffic.sent_bytes",
    "traffic.received_bytes",
    "traffic.round_trips",
}


def verify(path: Path) -> int:
    """Run a card's command again, and compare what it gives.

    Executes nothing but the recorded command, with this Python, after it said which:
    the demo, or the recorded script if it is still the file that it was.

    Returns
    -------
    int
        `SAME`, or `DIFFERS`: then each difference was printed, in a line of its own.

    Raises
    ------
    CardError
        If the card cannot be read, or the run fails or makes no card.
    """
    card = runcard.read(path)
    recorded = card["command"]
    if recorded is None:
        raise CardError(
            f"{path} records no command: it was made neither by a script nor by "
            f"{runcard.MODULE}"
        )
    if "script" in recorded:
        differing = _changed_script(recorded)
        if differing:
            print(differing)
            print("not run, and so not verified")
            return DIFFERS
    now = _run_again(recorded)
    differences = compare(card, now)
    for line in differences:
        print(line)
    last = now["parameters"]["last"]
    if differences:
        print(f"not the run of {path}: {len(differences)} of its fields differ")
        return DIFFERS
    print(f"verified: the final parameters are those of {path}, SHA-256 {last}")
    return SAME


def compare(recorded: Card, now: Card) -> list[str]:
    """Name each field that differs, the environment first; one sentence each."""
    lines = []
    for section, fields in SECTIONS.items():
        for field in fields:
            name = f"{section}.{field}"
            before, after = recorded[section][field], now[section][field]
            if name not in _OWN and before is not None and before != after:
                lines.append(
                    f"{name} differs: {_spelled(before)} recorded, "
                    f"{_spelled(after)} now"
                )
    return lines


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) and value else repr(value)


def _changed_script(recorded: Card) -> str:
    """Say in what the recorded script is not what it was; empty if it is."""
    script = Path(recorded["script"])
    try:
        found = runcard.sha256_of(script)
    except OSError as error:
        raise CardError(
            f"the recorded script {script} cannot be read: {error.strerror}"
        ) from error
    if found == recorded["sha256"]:
        return ""
    return (
        f"command.sha256 differs: the script {script} had {recorded['sha256']}, and "
        f"has {found} now"
    )


def _run_again(recorded: Card) -> Card:
    if "script" in recorded:
        what = [recorded["script"], *recorded["arguments"]]
    else:
        what = ["-m", recorded["module"], *recorded["arguments"]]
    with tempfile.TemporaryDirectory(prefix="backboned-") as folder:
        place = Path(folder) / "card.json"
        print(f"running: {shlex.join([sys.executable, *what])}", flush=True)
        environment = {**os.environ, runcard.REDIRECT: str(place)}
        status = subprocess.run([sys.executable, *what], env=environment).returncode
        if status:
            raise CardError(f"the recorded command ended with status {status}")
        if not place.exists():
            raise CardError(
                "the recorded command wrote no run card; it calls net.save_run_card()"
            )
        return runcard.read(place)
