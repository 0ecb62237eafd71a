"""Runs pytest in the copy of the tree, each time in a new process.

It is forked when torch is loaded, and nothing of ours.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import tempfile
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mutation import ROOT, TOO_LONG

SOURCES = "client/python/src"
COPY = ROOT / "build/mutation_python"
# Optimizers import torch._dynamo.
LOADED = ["grpc", "hypothesis", "numpy", "pytest", "torch", "torch._dynamo"]


SWITCH = """\
import os

_at = os.environ.get("MUTANTS_REACHED")
_chosen = int(os.environ.get("MUTANT", "0"))
reached = set()


def note(line):
    log = os.open(_at, os.O_WRONLY | os.O_APPEND)
    os.write(log, f"{line}\\n".encode())
    os.close(log)


def _reach(number):
    if number not in reached:
        reached.add(number)
        note(number)
    return False


on = _reach if _at else _chosen.__eq__
"""


class Told:
    """Tells which test runs: a plugin of pytest, in the process of a run."""

    def __init__(self, to: Connection) -> None:
        self._to = to
        self._outcome, self._seconds = "passed", 0.0

    def _note(self, line: str) -> None:
        switch = sys.modules.get("mutant_switch")
        if switch is not None and "MUTANTS_REACHED" in os.environ:
            switch.note(line)
            switch.reached.clear()

    def pytest_collectreport(self, report: Any) -> None:
        """Tell what cannot be collected."""
        if report.failed:
            self._to.send(report.nodeid)

    def pytest_collection_finish(self) -> None:
        """See that the copy is what runs."""
        import backboned

        assert Path(backboned.__file__).is_relative_to(COPY), backboned.__file__

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tell which test comes."""
        self._to.send(nodeid)
        self._note(f"> {nodeid}")
        self._outcome, self._seconds = "passed", 0.0

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take the outcome, and the time without that of fixtures, which others use."""
        if report.when == "call":
            self._seconds = report.duration
        if not report.passed:
            self._outcome = report.outcome

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note how the test went."""
        self._note(f"< {self._outcome} {self._seconds:.3f}")


def child(to: Connection, tests: list[str], environment: dict[str, str]) -> None:
    """Run tests, in a process of their own."""
    os.setpgid(0, 0)
    gc.freeze()  # Tests that collect garbage need not look at what was loaded.
    multiprocessing.set_start_method("fork", force=True)  # As where nothing set it.
    os.environ |= environment
    os.chdir(COPY)
    sys.path.insert(0, str(COPY / SOURCES))
    sys.dont_write_bytecode = False  # Rewriting the tests' assertions takes a while.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    import pytest

    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    if "MUTANT" in environment:
        options.append("-x")
    status = int(pytest.main([*options, *tests], plugins=[Told(to)]))
    sys.stdout.flush()
    to.send(status)


def run_tests(
    tests: list[str], seconds: dict[str, float] | None = None, **environment: str
) -> str:
    """Run tests; give the one that fails, or ''.

    - `seconds`: what each took; one that takes far longer has failed. None: no limit.
    """
    context = multiprocessing.get_context("forkserver")
    got, to = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment |= {"TMPDIR": folder}
        process = context.Process(target=child, args=(to, tests, environment))
        process.start()
        to.close()
        current, status, limit = "", None, 120.0
        while status is None:
            ready = wait([got, process.sentinel], limit if seconds else None)
            if not ready:
                current += f": {TOO_LONG}"
                break
            try:
                heard = got.recv() if got in ready else None
            except EOFError:
                heard = None
            if isinstance(heard, str):
                current = heard
                limit = 60 + 20 * (seconds or {}).get(current, 0)
            else:
                status = -1 if heard is None else heard
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.join()
    return "" if status == 0 else current or f"exit code {process.exitcode}"
