#!/usr/bin/env python3
"""Checks a server on this machine's GPU, part by part: run.py [PART]...

Each part has a time of its own and is killed at its end; all together take at most
--seconds. Writes gpu-results.json into $OUT, or into ./out. A failure is kept there,
and ends no other part. Nothing outlives this program.
"""

import argparse
import ctypes
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

HERE = Path(__file__).resolve().parent
OUT = Path(os.environ.get("OUT", HERE / "out")).resolve()
DRY = bool(os.environ.get("GPU_CHECK_DRY_RUN"))
PARTS = {"machine": 40, "promises": 150, "speed": 170, "questions": 100, "pytest": 200}
"""With the seconds of each. The most wanted comes first."""

ITEM_SECONDS = 60
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def run_items(part: str, seconds: float) -> None:
    """Run the items of a part in this process, which dies with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    load_libraries()
    module = importlib.import_module("machine" if part == "pytest" else part)
    items = module.PYTEST if part == "pytest" else module.ITEMS
    module.gpu.Results(OUT / f"{part}.json", seconds).run(items, ITEM_SECONDS)


def load_libraries() -> None:
    """Load what the client's native library needs and this machine may lack."""
    left = sorted((HERE / "lib").iterdir())
    while left:
        failed = [path for path in left if not loads(path)]
        if len(failed) == len(left):
            print("run.py: no native client, for want of", *failed)
            os.environ["BACKBONED_TRANSPORT"] = "grpcio"
            return
        left = failed


def loads(path: Path) -> bool:
    try:
        ctypes.CDLL(str(path))
    except OSError:  # Perhaps others come first.
        return False
    return True


def environment() -> dict[str, str]:
    """Give where parts find torch's libraries, our modules and the server."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        sys.exit("run.py: this Python has no torch")
    torch = Path(spec.origin).parent
    libraries = [torch / "lib", *torch.parent.glob("nvidia/*/lib")]
    fake = [os.environ["GPU_CHECK_DRY_RUN"]] if DRY else []
    modules = [HERE, HERE / "client", HERE / "tests" / "python", *add_packages()]
    others = os.environ.get("PYTHONPATH", "")
    return {
        **os.environ,
        "GPU_CHECK_LIBRARIES": ":".join(map(str, [*fake, *libraries])),
        "PYTHONPATH": ":".join(map(str, [*modules, others])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "BACKBONED_BIN": str(HERE / "bin" / "backboned"),
        "BACKBONED_DEVICE": "cuda",
        "OUT": str(OUT),
    }


def children() -> Iterator[int]:
    """Give our children, which orphans of theirs have become."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:  # It has ended.
            continue
        if int(parent) == os.getpid():
            yield int(stat.parent.name)


def end_children() -> None:
    """Kill whatever is left of a part."""
    while left := list(children()):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def run_part(part: str, seconds: float, env: dict[str, str]) -> str:
    """Run a part, for some seconds at most; say how it ended."""
    command = [sys.executable, __file__, "--inside", part, "--seconds", str(seconds)]
    process = subprocess.Popen(command, env=env, cwd=HERE)
    try:
        # It ends by itself before that, unless it hangs.
        status: Optional[int] = process.wait(seconds + 10)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        process.kill()
        process.wait()
        end_children()
    return "killed" if status is None else "ended" if status == 0 else f"died, {status}"


def add_packages() -> list[Path]:
    """Install the folder's wheels if this Python lacks one; give where they are."""
    names = ("grpc", "google.protobuf", "pytest")
    site = HERE / "site"
    if all(is_there(name) for name in names):
        return []
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index"]
    install += ["--find-links", str(HERE / "wheels"), "--target", str(site)]
    subprocess.run([*install, "grpcio", "protobuf", "pytest"], check=True)
    return [site]


def is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # Of what it is in.
        return False


def read(part: str) -> dict[str, Any]:
    path = OUT / f"{part}.json"
    return json.loads(path.read_text()) if path.exists() else {"items": {}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=570)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        run_items(arguments.inside, arguments.seconds)
        return 0
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    OUT.mkdir(parents=True, exist_ok=True)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    env, begin, bad = environment(), time.monotonic(), 0
    parts: dict[str, Any] = {}
    for part in arguments.parts or PARTS:
        (OUT / f"{part}.json").unlink(missing_ok=True)
        left = arguments.seconds - 15 - (time.monotonic() - begin)
        seconds = max(0, min(PARTS[part], left))
        print(f"run.py: {part}, at most {seconds:.0f} s", flush=True)
        state = run_part(part, seconds, env) if seconds > 10 else "no time was left"
        parts[part] = {"state": state, **read(part)}
        results = {"dry_run": DRY, "parts": parts}
        (OUT / "gpu-results.json").write_text(json.dumps(results, indent=1) + "\n")
        states = {name: item["state"] for name, item in parts[part]["items"].items()}
        wrong = {name: text for name, text in states.items() if text != "done"}
        bad += len(wrong) + (state != "ended")
        print(f"run.py: {part} {state}, {len(states)} items, not done: {wrong or 0}")
    print(f"run.py: {time.monotonic() - begin:.0f} s; see {OUT}/gpu-results.json")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
