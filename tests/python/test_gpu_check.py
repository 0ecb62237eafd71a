"""Tests that the bundle of scripts/gpu-check runs, leaves nothing, and says where."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_gpu
import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"


def gpu_check(*arguments):
    return subprocess.run(
        [ROOT / "scripts" / "gpu-check", *arguments],
        env={**os.environ, "GPU_CHECK_BUILD": str(BUILD)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not fake_gpu.is_built():
        pytest.skip("there is no fake device here")
    folder = tmp_path_factory.mktemp("packed") / "check"
    packed = gpu_check(str(folder))
    assert packed.returncode == 0, packed.stderr
    assert "python3 check/run.py" in packed.stdout
    return folder


def start(folder, out, *arguments):
    fake = BUILD / "tests" / "fake_cuda"
    return subprocess.Popen(
        [sys.executable, folder / "run.py", *arguments],
        env={**os.environ, "GPU_CHECK_DRY_RUN": str(fake), "OUT": str(out)},
        stdout=subprocess.PIPE,
        text=True,
    )


def left_of(folder):
    """Give the processes whose command names a file of the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(folder) in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # It has ended.
            pass
    return found


def test_a_part_runs_and_its_results_are_no_gpus(folder, tmp_path):
    run = start(folder, tmp_path, "machine")
    said = run.communicate(timeout=60)[0]
    assert run.returncode == 0, said
    assert not left_of(folder)
    found = tmp_path / "gpu-results.json"
    machine = json.loads(found.read_text())["parts"]["machine"]["items"]["machine"]
    values = {row["case"]: row["value"] for row in machine["rows"]}
    assert machine["state"] == "done" and values["transport"] == "native"
    for page in ((), (ROOT / "docs" / "other.md",)):
        refused = gpu_check("--report", found, *page)
        assert refused.returncode == 1
        assert "not of a GPU" in refused.stdout
    written = gpu_check("--report", found, tmp_path / "page.md")
    assert written.returncode == 0, written.stderr
    text = (tmp_path / "page.md").read_text()
    assert "dry run: they say nothing of a GPU" in text
    assert "| promises |  | not run |  | `run.py promises` |" in text


def test_nothing_is_left_of_a_run_that_is_ended(folder, tmp_path):
    run = start(folder, tmp_path, "promises")
    for line in run.stdout:
        if "again" in line:  # A server is there.
            break
    assert len(left_of(folder)) >= 3  # The run, its part, the server.
    run.send_signal(signal.SIGTERM)
    run.wait(20)
    run.stdout.close()
    end = time.monotonic() + 5
    while left_of(folder) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left_of(folder)


def item(state, *rows, **more):
    return {"state": state, "rows": list(rows), **more}


def row(case, holds=None, **figures):
    return {"case": case, "holds": holds, **figures}


def results(**more):
    machine = item("done", row("card", value="NVIDIA H100"))
    parts = {"machine": {"state": "ended", "items": {"machine": machine}}, **more}
    return {"dry_run": False, "parts": parts}


def page_of(found, folder):
    (folder / "found.json").write_text(json.dumps(found))
    done = gpu_check("--report", folder / "found.json", folder / "page.md")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "page.json").read_text()) == found
    return (folder / "page.md").read_text()


def test_a_page_has_the_card_the_figures_and_what_is_missing(tmp_path):
    promises = item("failed", row("again", True), row("as in torch", False, apart=0.5))
    ratio = {"torch / Backboned": [0.9, 0.8, 1.0]}
    speed = {"steps": item("done", row("batch 32", **ratio)), "first": item("stopped")}
    failures = [row(f"test_{i}", False, said="a | b") for i in range(9)]
    counted = item("done", *failures, row("all", failed=9, passed=1))
    page = page_of(
        results(
            promises={"state": "ended", "items": {"evaluation": promises}},
            speed={"state": "killed", "items": speed},
            pytest={"state": "ended", "items": {"test_state": counted}},
        ),
        tmp_path,
    )
    assert "| card | NVIDIA H100 |" in page
    assert "one run on the card below" in page
    assert "| as in torch | **NO** | 0.500 |" in page
    assert "| batch 32 | 0.900 (0.800 to 1.00) |" in page
    assert "| speed | first | stopped |  | `run.py speed` |" in page
    assert "| speed |  | killed |  | `run.py speed` |" in page
    assert "| questions |  | not run |  | `run.py questions` |" in page
    assert "test_4" in page and "test_5" not in page and "a / b" in page


def test_results_without_a_card_are_no_gpus(tmp_path):
    found = results(machine={"state": "killed", "items": {}})
    assert "say nothing of a GPU" in page_of(found, tmp_path)
