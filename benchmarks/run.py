"""Measures the server's speed against in-process LibTorch, and reports it.

Needs a built server, its benchmark programs beside it (scripts/bench builds all), a
quiet machine, and about twenty minutes. Writes results/bench/TIME.json. A full run also
brings the tables and plots of docs/performance.md up to date.
"""

import argparse
import json
import mmap
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

import calls
import experiments
import plots
import report
import sharing
import training
from experiments import Plan, Result
from omp_wait import omp_wait
from processes import THREADS, Bench, MeasurementError

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "performance.md"

EXPERIMENTS: dict[str, Callable[[Bench, Plan], Result]] = {
    "P1": experiments.p1,
    "P3": experiments.p3,
    "P4": experiments.p4,
    "P6": experiments.transfers,
    "P12": sharing.p12,
    "P13": sharing.p13,
    "P14": sharing.p14,
    "P15": sharing.p15,
    "P16": sharing.p16,
    "P17": training.p17,
    "P18": experiments.p18,
    "P19": sharing.p19,
    "P20": sharing.p20,
    "P21": sharing.p21,
    "P22": calls.p22,
    "P23": calls.p23,
    "P24": calls.p24,
    "P25": calls.p25,
    "NET": training.network,
    "TAPES": training.tapes,
    "LAYERS": experiments.layers,
    "MEM": experiments.memory,
    "OMP": omp_wait,
}
_SAME = {"P9": "P6", "P10": "P6"}
QUICK = [name for name in EXPERIMENTS if name.startswith("P")]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "word", nargs="?", choices=["quick"], help="the same as --quick"
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds of each side (default: 7)"
    )
    parser.add_argument(
        "--only",
        type=_chosen,
        metavar="ID,...",
        help=f"only these of {', '.join([*EXPERIMENTS, *_SAME])}; leaves docs/ alone",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two short rounds, to see that it works; without --only of the ids with "
        "a P; leaves docs/ alone",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="JSON",
        help="measure nothing: report the results in this file, also in docs/",
    )
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds is at least 1")
    arguments.quick = arguments.quick or arguments.word == "quick"
    if not arguments.only:
        arguments.only = QUICK if arguments.quick else list(EXPERIMENTS)
    return arguments


def _chosen(text: str) -> list[str]:
    names = [name.strip().upper() for name in text.split(",")]
    names = [_SAME.get(name, name) for name in names]
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}"
        )
    return [name for name in EXPERIMENTS if name in names]


def find_binary() -> Path:
    """Give the server that BACKBONED_BIN names, or the release build's."""
    binary = Path(
        os.environ.get("BACKBONED_BIN", ROOT / "build" / "release" / "backboned")
    )
    if not binary.exists():
        raise MeasurementError(f"there is no {binary}; run scripts/bench")
    return binary


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip()


def describe(bench: Bench) -> dict[str, str]:
    """Say what is measured, and on what."""
    server = bench.remote.ask(do="server", target=bench.server.unix)
    python = bench.python_remote.ask(do="about")
    processor = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    changed = _output("git", "status", "--porcelain", "--", ".", ":!docs")
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit + (" with uncommitted changes" if changed else ""),
        "processor": f"{processor}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "threads": f"{THREADS} in the server, in process, and in Python",
        "C++": f"backboned {server['version']}, LibTorch {server['torch']}, "
        f"gRPC {server['grpc']}",
        "Python": f"Python {python['python']}, torch {python['torch']}, "
        f"grpcio {python['grpcio']}, NumPy {python['numpy']}",
    }


def touch_memory() -> None:
    """Use most of the free memory once, and give it back.

    A virtual machine gets each page from its host at first use, which takes longer than
    a page fault of its own, and whoever comes first would pay for it.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, free * 4 // 5, flags=flags).close()


def measure(names: list[str], plan: Plan) -> dict[str, Any]:
    """Run the experiments; give what is written to the file."""
    load = os.getloadavg()[0]
    if load > 0.7:
        print(
            f"run.py: the machine is not quiet (load {load:.1f}): "
            "do not trust the figures",
            file=sys.stderr,
        )
    results = {}
    with Bench(find_binary()) as bench:
        about = describe(bench)
        about["load before"] = f"{load:.2f}"
        for name in names:
            results[name] = EXPERIMENTS[name](bench, plan)
    took = time.monotonic() - plan.began
    plan.show("done\n" if sys.stderr.isatty() else "done")
    about["run"] = f"{plan.rounds} rounds, {took / 60:.1f} minutes"
    return {"about": about, "results": results}


def save(run: dict[str, Any]) -> Path:
    folder = ROOT / "results" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now():%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(run, indent=1))
    return path


def update_document(run: dict[str, Any]) -> None:
    """Bring the tables and plots of docs/performance.md up to date."""
    drawn = plots.draw(run["results"], DOCUMENT.with_suffix(""))
    report.fill(DOCUMENT, report.sections(run["results"], run["about"], drawn))
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")


def main() -> int:
    arguments = parse_arguments()
    whole = arguments.only == list(EXPERIMENTS) and not arguments.quick
    try:
        if arguments.source:
            run = json.loads(arguments.source.read_text())
            whole = True
        else:
            rounds = min(arguments.rounds, 2) if arguments.quick else arguments.rounds
            plan = Plan(rounds, 0.2 if arguments.quick else 1.0)
            if not arguments.quick:
                plan.show("using the free memory once")
                touch_memory()
            run = measure(arguments.only, plan)
            print(f"wrote {save(run).relative_to(ROOT)}")
    except MeasurementError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1
    if whole:
        update_document(run)
    print(report.terminal(run["results"]))
    failed = report.failed_floors(run["results"])
    if failed:
        print(f"\nbelow their floor: {'; '.join(failed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
