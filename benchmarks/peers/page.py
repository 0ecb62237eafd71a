"""The tables of docs/peers.md."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from report import markdown, number
from stats import ratios, spread
from trials import PEERS

Rounds = list[dict[str, Any]]


def describe(device: str, threads: int, root: Path) -> dict[str, str]:
    """Say what is measured, and on what."""

    def output(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, cwd=root)
        return done.stdout.strip()

    changed = output("git", "status", "--porcelain", "-uno", "--", ".", ":!docs")
    cpu = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    where = f"a CPU of {os.cpu_count()} cores, which is the device too; no GPU"
    if device.startswith("cuda"):
        query = (
            "nvidia-smi",
            "--query-gpu=name,driver_version",
            "--format=csv,noheader",
        )
        where = f"{output(*query)}, beside {os.cpu_count()} cores"
    packages = ("backboned", "torch", "grpcio", "numpy")
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": output("git", "rev-parse", "--short=12", "HEAD")
        + (" with uncommitted changes" if changed else ""),
        "measured on": where,
        "processor": cpu,
        "system": f"{platform.system()} {platform.release()}",
        "threads": f"{threads} in each process that computes",
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages),
    }


def _spread(values: list[float], factor: float = 1.0) -> str:
    middle, least, most = (number(factor * value) for value in spread(values))
    return middle if least == most else f"{middle} ({least} to {most})"


def _good(rounds: Rounds) -> Rounds:
    return [found for found in rounds if "error" not in found]


def _of(rounds: Rounds, count: str, what: str) -> list[float]:
    return [found["windows"][count][what] for found in rounds]


def _speed_table(results: dict[str, Rounds]) -> str:
    headings = ["experiments", "peer", "steps/s, all", "of torch's"]
    headings += ["Jain", "p50, ms", "p99, ms", "MB", "MB of the GPU", "cores"]
    rounds = {peer: good for peer in results if (good := _good(results[peer]))}
    counts = dict.fromkeys(n for each in rounds.values() for n in each[0]["windows"])
    lines = []
    for count in counts:
        own = _of(rounds["torch"], count, "rate") if "torch" in rounds else []
        for peer, found in rounds.items():
            rates = _of(found, count, "rate")
            device = max(_of(found, count, "device_bytes"))
            lines.append(
                [
                    count,
                    PEERS[peer],
                    _spread(rates),
                    _spread(ratios(rates, own)) if own else "",
                    f"{min(_of(found, count, 'jain')):.3f}",
                    _spread(_of(found, count, "p50_s"), 1e3),
                    _spread(_of(found, count, "p99_s"), 1e3),
                    number(max(_of(found, count, "bytes")) / 1e6),
                    number(device / 1e6) if device else "",
                    _spread(_of(found, count, "cores")),
                ]
            )
    return markdown(headings, lines)


def _start_table(works: dict[str, dict[str, Rounds]]) -> str:
    """Give the seconds to the first step of each experiment but a trial's first."""
    lines = []
    for peer, name in PEERS.items():
        cells = []
        for results in works.values():
            good = _good(results.get(peer, []))
            cells.append([s for found in good for s in found["start_s"][1:]])
        if any(cells):
            lines.append([name, *(_spread(cell) if cell else "" for cell in cells)])
    return markdown(["peer", *(f"{work}, s" for work in works)], lines)


def _again(kills: list[dict[str, Any]]) -> str:
    return "no" if any("again_error" in kill for kill in kills) else "not tried"


def _kill_table(works: dict[str, dict[str, Rounds]]) -> str:
    headings = ["network", "peer", "the others", "their longest step before, ms"]
    headings += ["with the kill, ms", "networks held before, after", "begins again, s"]
    lines = []
    for work, results in works.items():
        for peer, rounds in results.items():
            kills = [found["kill"] for found in _good(rounds)]
            if not kills:
                continue
            errors = [k["error"] for k in kills if "error" in k]
            on = [k for k in kills if "error" not in k]
            again = [k["again_s"] for k in kills if "again_s" in k]
            held = kills[0]["held"], kills[0].get("held_after", "?")
            lines.append(
                [
                    work,
                    PEERS[peer],
                    f"fail in {len(errors)} of {len(kills)}" if errors else "go on",
                    _spread([k["before_s"] for k in kills], 1e3),
                    _spread([k["longest_s"] for k in on], 1e3) if on else "",
                    "no server" if held[0] is None else f"{held[0]}, {held[1]}",
                    _spread(again) if again else _again(kills),
                ]
            )
    return markdown(headings, lines)


def _loss_table(works: dict[str, dict[str, Rounds]]) -> str:
    """Compare the losses of the first steps with torch's."""
    lines = []
    for work, results in works.items():
        own = _good(results.get("torch", []))
        for peer, rounds in results.items():
            good = _good(rounds)
            if not own or not good or peer == "torch":
                continue
            theirs = [np.array(found["losses"]) for found in good]
            most = max(float(np.abs(x - own[0]["losses"]).max()) for x in theirs)
            last = median(x[0, -1] for x in theirs)
            cells = ["equal to the bit" if not most else f"{most:.1e}", f"{last:.4f}"]
            lines.append([work, PEERS[peer], *cells])
    headings = ["network", "peer", "largest difference", "loss of the last step"]
    return markdown(headings, lines)


def _missing_table(run: dict[str, Any]) -> str:
    lines = [[PEERS[peer], why] for peer, why in run["left_out"].items()]
    for work, results in run["results"].items():
        for peer, rounds in results.items():
            errors = [found["error"] for found in rounds if "error" in found]
            if errors:
                what = f"{PEERS[peer]}, {work}: {len(errors)} of {len(rounds)} rounds"
                lines.append([what, errors[0]])
    if not any(w["device"].startswith("cuda") for w in run["works"].values()):
        lines.append(["memory of the device, experiments until it is full", "no GPU"])
    return markdown(["what", "why"], lines)


def sections(run: dict[str, Any]) -> dict[str, str]:
    """Give the text of every generated part of the page, by its name."""
    results = run["results"]
    speeds = {work: _speed_table(results[work]) for work in results}
    return {
        "machine": markdown(["", ""], [[k, v] for k, v in run["about"].items()]),
        **speeds,
        "start": _start_table(results),
        "kill": _kill_table(results),
        "losses": _loss_table(results),
        "missing": _missing_table(run),
    }
