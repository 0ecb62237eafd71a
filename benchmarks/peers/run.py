"""Compares ways in which several experiments train on one device.

Needs a built server (scripts/build release, or BACKBONED_BIN) and, for figures to
trust, a quiet machine; about a quarter of an hour. Writes results/peers/TIME.json, and
a full run the tables of docs/peers.md.
"""

import argparse
import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(1, str(HERE.parent))

import page  # noqa: E402
from backboned import BackbonedError  # noqa: E402
from experiments import Plan  # noqa: E402
from processes import MeasurementError  # noqa: E402
from report import fill  # noqa: E402
from trials import PEERS, Trial, missing  # noqa: E402

DOCUMENT = ROOT / "docs" / "peers.md"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    parser.add_argument("--rounds", type=int, default=3, help="of all (default: 3)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of a computing process (default: 1)"
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        metavar="PEER,...",
        help=f"only these of {', '.join(PEERS)}; leaves docs/ alone",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one short round of the MLP, up to 2 experiments; leaves docs/ alone",
    )
    parser.add_argument("--out", type=Path, metavar="JSON", help="where figures go")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="JSON",
        help="measure nothing: make the tables of docs/peers.md from this file",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.only or ()) - PEERS.keys()
    if unknown:
        parser.error(f"no {', '.join(sorted(unknown))}")
    return arguments


def networks(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Give what each network's experiments train."""
    gpu = arguments.device != "cpu"
    filters, batch, side = (64, 32, 32) if gpu else (8, 8, 16)
    common = {"threads": arguments.threads, "device": arguments.device}
    found = {
        "mlp": {"filters": 0, "shape": [32, 1, 28, 28]},
        "resnet": {"filters": filters, "shape": [batch, 3, side, side]},
    }
    names = ["mlp"] if arguments.quick else list(found)
    return {name: {"network": name, **found[name], **common} for name in names}


def trial(peer: str, work: dict[str, Any], counts: list[int], scale: float) -> Any:
    """Measure a peer with each number of experiments; then kill one."""
    seconds, again = 2 * scale, scale == 1
    found: dict[str, Any] = {"start_s": [], "losses": [], "windows": {}}
    run = Trial(peer, work)
    try:
        for count in counts:
            while len(run.clients) < count:
                begun = run.begin()
                for what, value in begun.items():
                    found[what].append(value)
            found["windows"][str(count)] = run.window(seconds)
        found["kill"] = run.kill(seconds, again)
    finally:
        run.close()
    return found


def measure(
    arguments: argparse.Namespace, plan: Plan, about: dict[str, str], path: Path
) -> dict[str, Any]:
    """Measure the peers in turn, and all of that in every round; save each round."""
    gpu = arguments.device != "cpu"
    counts = [1, 2] if arguments.quick else [1, 2, 4, 8] if gpu else [1, 2, 4]
    peers = arguments.only or list(PEERS)
    left_out = {p: why for p in peers if (why := missing(p, arguments.device))}
    works = networks(arguments)
    results: dict[str, Any] = {name: {} for name in works}
    run = {"about": about, "works": works, "results": results, "left_out": left_out}
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, plan.rounds + 1):
        for name, work in works.items():
            for peer in [peer for peer in peers if peer not in left_out]:
                plan.show(f"{name}, {peer}: round {number} of {plan.rounds}")
                try:
                    done = trial(peer, work, counts, plan.scale)
                except (MeasurementError, BackbonedError) as error:
                    done = {"error": str(error)}
                results[name].setdefault(peer, []).append(done)
        minutes = (time.monotonic() - plan.began) / 60
        about["run"] = f"{number} rounds, {minutes:.1f} minutes"
        path.write_text(json.dumps(run, indent=1))
    return run


def main() -> int:
    arguments = parse_arguments()
    if arguments.source:
        run = json.loads(arguments.source.read_text())
    else:
        rounds = 1 if arguments.quick else arguments.rounds
        plan = Plan(rounds, 0.25 if arguments.quick else 1.0)
        about = page.describe(arguments.device, arguments.threads, ROOT)
        name = f"{datetime.now():%Y%m%d-%H%M%S}.json"
        path = arguments.out or ROOT / "results" / "peers" / name
        run = measure(arguments, plan, about, path)
        print(f"wrote {path}")
    parts = page.sections(run)
    print("\n\n".join(parts.values()))
    if arguments.source or not (arguments.quick or arguments.only):
        fill(DOCUMENT, parts)
        print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
