"""Says what machine this is, and runs the tests that compute in a server there."""

import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common as gpu
import grpc
import numpy as np
import pytest
import torch


def _asked(what: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def machine(results: gpu.Results) -> None:
    about = {"commit": (gpu.HERE / "COMMIT").read_text().strip()}
    about["date"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if not gpu.DRY:
        about["card"] = torch.cuda.get_device_properties(0).name
        about["driver"] = _asked("driver_version")
        about["memory and clocks"] = _asked("memory.used,memory.total,clocks.sm")
        about["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line for line in lines if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0))
    about["processor"] = f"{model.split(':')[1].strip()}, {cores} cores"
    about["system"] = f"{platform.system()} {platform.release()}"
    about["Python"] = f"{platform.python_version()}, torch {torch.__version__}, "
    about["Python"] += f"grpcio {grpc.__version__}, NumPy {np.__version__}"
    begin = time.monotonic()
    with gpu.start() as server:
        about["start of the server"] = f"{time.monotonic() - begin:.1f} s"
        info = server.info()
        device = f"{info.devices[0].name}, {info.devices[0].description}"
        about["server"] = f"{info.version}, LibTorch {info.torch_version}, {device}"
        about["transport"] = info.transport
    for what, value in about.items():
        results.row(what, value=value)


class Recorder:
    """Counts the tests of each file, and keeps those that fail."""

    def __init__(self, results: gpu.Results) -> None:
        self._results = results
        self.passed = self.failed = self.skipped = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.passed and getattr(report, "when", "") == "call"
        self.skipped += report.skipped
        self.failed += report.failed
        if report.failed:
            said = getattr(report.longrepr, "reprcrash", None)
            text = said.message if said else report.longreprtext
            self._results.row(report.nodeid, False, said=text.splitlines()[0][:120])

    pytest_collectreport = pytest_runtest_logreport


def tests_of(file: str) -> Callable[[gpu.Results], None]:
    def run(results: gpu.Results) -> None:
        recorder = Recorder(results)
        options = ["-q", "--tb=line", "-p", "no:cacheprovider", "-m", "not cpu"]
        status = pytest.main([*options, str(gpu.HERE / file)], [recorder])
        counts = {"passed": recorder.passed, "skipped": recorder.skipped}
        results.row("all", failed=recorder.failed, **counts)
        if status == pytest.ExitCode.INTERRUPTED and not recorder.failed:
            raise gpu.TimeUpError

    return run


ITEMS = {"machine": machine}
FILES = (gpu.HERE / "TESTS").read_text().split()
PYTEST = {Path(file).stem: tests_of(file) for file in FILES[: 1 if gpu.DRY else None]}
