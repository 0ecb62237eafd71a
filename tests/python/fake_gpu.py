"""A server on the fake CUDA device of tests/testing/fake_cuda."""

import contextlib
import os
import re
import subprocess
from pathlib import Path

import backboned

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests/testing/fake_cuda/backboned"


def is_built():
    """Say whether the device was built, with the release preset."""
    return (ROOT / "build/release/tests/fake_cuda/libtorch_cuda.so").is_file()


class Counts:
    """The counts of the device, once its server has ended, and how that ended."""

    def __init__(self):
        self.text, self.status = "", None

    def __getitem__(self, what):
        """Give the number of ``operations``, ``copies in``, ``waits`` and so on."""
        return int(re.search(rf"(\d+) {what}", self.text)[1])


@contextlib.contextmanager
def serving(folder, device="cuda", options=(), **settings):
    """Serve on fake devices; give a connection, and its counts for afterwards.

    `settings`: of the device, as in tests/testing/fake_cuda/operators.cc: `kernel_us`.
    `options` are the server's. With a `fault` it must end by itself.
    """
    env = {f"FAKE_CUDA_{name.upper()}": str(value) for name, value in settings.items()}
    env.update(FAKE_CUDA_LOG="1", BACKBONED_DEVICE=device, BACKBONED_THREADS="1")
    target, counts = f"unix:{folder}/gpu.sock", Counts()
    process = subprocess.Popen(
        [FAKE, "--listen", target, *options],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "cuda:0" in process.stdout.readline()
        with backboned.connect(target, reconnect_timeout=0) as server:
            yield server, counts
        if "fault" not in settings:
            process.terminate()
        counts.text = process.communicate(timeout=60)[1]
        counts.status = process.returncode
    finally:
        process.kill()
        process.wait()
