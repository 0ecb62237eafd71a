"""The tables of docs/peers.md."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from backboned.transport import native
from report import markdown, number
from stats import ratios, spread
from trials import PEERS, asked_of_gpu

Rounds = list[dict[str, Any]]
Works = dict[str, dict[str, Rounds]]


def describe(device: str, threads: int, root: Path) -> dict[str, str]:
    """Say what is measured, and on what."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=root)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "-uno", "--", ".", ":!docs")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    where = f"a CPU of {os.cpu_count()} cores, which is the device too; no GPU"
    if device.startswith("cuda"):
        gpu = asked_of_gpu("name,driver_version,memory.total")
        where = f"{gpu} MiB, beside a CPU of {os.cpu_count()} cores"
    carrier = "the native library" if native.library() else "grpcio"
    packages = ("backboned", "torch", "grpcio", "numpy")
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git("rev-parse", "--short=12", "HEAD")
        + (" with uncommitted changes" if changed else ""),
        "measured on": where,
        "processor, system": f"{cpu}, {platform.system()} {platform.release()}",
        "threads": f"{threads} in each process that computes",
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages),
        "Backboned's clients": f"call by {carrier}",
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _spread(values: list[float], factor: float = 1.0) -> str:
    if not values:
        return ""
    middle, least, most = (number(factor * value) for value in spread(values))
    return middle if least == most else f"{middle} ({least} to {most})"


def _good(rounds: Rounds) -> Rounds:
    return [found for found in rounds if "error" not in found]


def _all_good(works: Works) -> list[tuple[str, str, Rounds]]:
    """Give network, peer and the rounds without an error, where there are any."""
    return [
        (work, peer, good)
        for work, results in works.items()
        for peer, rounds in results.items()
        if (good := _good(rounds))
    ]


def _of(rounds: Rounds, count: str, what: str, factor: float = 1.0) -> str:
    return _spread([found["windows"][count][what] for found in rounds], factor)


def _speed_table(results: dict[str, Rounds]) -> str:
    headings = ["experiments", "peer", "steps/s, all", "of torch's"]
    headings += ["Jain", "p50, ms", "p99, ms", "MB", "MB of the GPU", "cores"]
    rounds = {peer: good for _, peer, good in _all_good({"": results})}
    counts = dict.fromkeys(n for each in rounds.values() for n in each[0]["windows"])
    lines = []
    for count in counts:
        for peer, found in rounds.items():
            # Measurements of one round are compared.
            pairs = [
                [side["windows"][count]["rate"] for side in both]
                for both in zip(results[peer], results.get("torch", ()))
                if not any("error" in side for side in both)
            ]
            windows = [one["windows"][count] for one in found]
            device = max(window["device_bytes"] for window in windows)
            lines.append(
                [
                    count,
                    PEERS[peer],
                    _of(found, count, "rate"),
                    _spread(ratios(*zip(*pairs))) if pairs else "",
                    f"{min(window['jain'] for window in windows):.3f}",
                    _of(found, count, "p50_s", 1e3),
                    _of(found, count, "p99_s", 1e3),
                    number(max(window["bytes"] for window in windows) / 1e6),
                    number(device / 1e6) if device else "",
                    _of(found, count, "cores"),
                ]
            )
    return markdown(headings, lines)


def _start_table(works: Works) -> str:
    """Give the seconds to the first step of each experiment but a trial's first."""
    lines = []
    for work, peer, good in _all_good(works):
        seconds = [s for found in good for s in found["start_s"][1:]]
        lines.append([work, PEERS[peer], _spread(seconds)])
    return markdown(["network", "peer", "s"], lines)


def _kill_table(works: Works) -> str:
    headings = ["network", "peer", "the others", "their longest step before, ms"]
    headings += ["with the kill, ms", "networks held before, after", "begins again, s"]
    lines = []
    for work, peer, good in _all_good(works):
        kills = [found["kill"] for found in good]
        errors = [kill["error"] for kill in kills if "error" in kill]
        again = [kill["again_s"] for kill in kills if "again_s" in kill]
        refused = any("again_error" in kill for kill in kills)
        held = [f"{k['held']}, {k.get('held_after', '?')}" for k in kills]
        lines.append(
            [
                work,
                PEERS[peer],
                f"fail in {len(errors)} of {len(kills)}" if errors else "go on",
                _spread([kill["before_s"] for kill in kills], 1e3),
                _spread([k["longest_s"] for k in kills if "longest_s" in k], 1e3),
                "no server" if kills[0]["held"] is None else held[0],
                _spread(again) or ("no" if refused else "not tried"),
            ]
        )
    return markdown(headings, lines)


def _loss_table(works: Works) -> str:
    """Compare the losses of the first steps with torch's."""
    lines = []
    for work, peer, good in _all_good(works):
        own = _good(works[work].get("torch", []))
        if own and peer != "torch":
            theirs = np.array([found["losses"] for found in good])
            most = float(np.abs(theirs - own[0]["losses"]).max())
            lines.append([work, PEERS[peer], f"{most:.1e}" if most else "none"])
    return markdown(["network", "peer", "largest difference"], lines)


def _missing_table(run: dict[str, Any]) -> str:
    """Tell what was left out, and what failed."""
    lines = [[PEERS[peer], why] for peer, why in run["left_out"].items()]
    for work, results in run["results"].items():
        for peer, rounds in results.items():
            errors = [found["error"] for found in rounds if "error" in found]
            if errors:
                what = f"{PEERS[peer]}, {work}: {len(errors)} of {len(rounds)} rounds"
                lines.append([what, errors[0]])
    if all(work["device"] == "cpu" for work in run["works"].values()):
        again = "; on a GPU: `benchmarks/peers/run.py --device cuda`"
        lines.append(["memory of the device", "there is no GPU" + again])
    fits = "`run.py` does not try it; each experiment's memory of the GPU tells it"
    lines.append(["the number of experiments at which memory ends", fits])
    return markdown(["what", "why"], lines)


def sections(run: dict[str, Any]) -> dict[str, str]:
    """Give the text of every generated part of the page, by its name."""
    works = run["results"]
    return {
        "machine": markdown(["", ""], [[k, v] for k, v in run["about"].items()]),
        **{work: _speed_table(results) for work, results in works.items()},
        "start": _start_table(works),
        "kill": _kill_table(works),
        "losses": _loss_table(works),
        "missing": _missing_table(run),
    }
