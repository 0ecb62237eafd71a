"""`scripts/test NAME` runs one test of either kind; with stubs for what runs tests."""

import json
from pathlib import Path

import pytest
from checkout import ROOT, Checkout

RECORDING = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$*" in *get_cpu_capability*) echo AVX2 ;; esac
"""
FILE = """def test_reads(): pass
def test_writes(): pass
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path)
    made.stub("ctest", RECORDING)
    (made.root / "scripts" / "build").write_text("#!/bin/sh\n")
    for script in ("front-test", "gpu-check"):
        (made.root / "scripts" / script).write_text(RECORDING)
    python = made.root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORDING)
    python.chmod(0o755)
    (made.root / "tests" / "python").mkdir(parents=True)
    (made.root / "tests" / "python" / "test_files.py").write_text(FILE)
    return made


def runs(checkout: Checkout, *arguments: str) -> str:
    """Give the one run of tests, without its options that are always there."""
    done = checkout.run("test", *arguments)
    assert done.returncode == 0, done
    (call,) = checkout.calls().splitlines()
    for always in (
        "-m pytest -q -rs ",
        "-m nightly or not nightly ",
        "--preset release ",
    ):
        call = call.replace(always, "")
    return call


@pytest.mark.parametrize("name", ["TensorReaderTest.RejectsGap", "TensorReader"])
def test_a_case_of_cpp(checkout: Checkout, name: str) -> None:
    assert runs(checkout, name).endswith(f"--no-tests=error -R {name}")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("test_files", ""),
        ("test_files.py", ""),
        ("tests/python/test_files.py", ""),
        ("test_files.py::test_reads", "::test_reads"),
    ],
)
def test_a_file_of_python(checkout: Checkout, name: str, found: str) -> None:
    assert runs(checkout, name) == f"python tests/python/test_files.py{found}"


@pytest.mark.parametrize("name", ["test_reads", "test_read", "test_reads[float64]"])
def test_a_test_of_python(checkout: Checkout, name: str) -> None:
    assert runs(checkout, name) == f"python -k {name} tests/python/test_files.py"


def test_a_name_that_nothing_has(checkout: Checkout) -> None:
    line = checkout.refusal("test", "test_nothing")
    assert line == "test: no Python test is called test_nothing"
    assert "one name at a time" in checkout.refusal("test", "test_files", "Other")


def test_without_a_name_everything_runs_side_by_side(checkout: Checkout) -> None:
    done = checkout.run("test", ATEN_CPU_CAPABILITY="avx2")
    assert done.returncode == 0, done
    calls = checkout.calls()
    assert "ctest --preset release --parallel" in calls and " -R " not in calls
    assert "-m pytest -q -rs --numprocesses" in calls
    assert "--dist loadfile --no-loadscope-reorder tests/python\n" in calls
    assert "front-test \n" in calls and "gpu-check --dry-run\n" in calls


def test_a_dev_container_runs_scripts_that_are_there() -> None:
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text()
    described = json.loads(text)
    assert described["image"] == "debian:bookworm"  # As scripts/setup asks for.
    commands = described["postCreateCommand"].split(" && ")
    assert commands == ["scripts/setup", "scripts/build"]
    assert all((ROOT / command).exists() for command in commands)
