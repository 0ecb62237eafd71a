"""The server's log, which nobody waits for."""

import contextlib
import os
import re
import subprocess

import backboned
import pytest
from waiting import wait_until


@pytest.fixture
def unread(binary, tmp_path):
    """A server whose standard error is a pipe that nobody reads."""
    ends = os.pipe()
    process = subprocess.Popen(
        [binary, f"--listen=unix:{tmp_path}/s", "--threads=1"],
        stdout=subprocess.PIPE,
        stderr=ends[1],
        text=True,
    )
    os.close(ends[1])
    assert "serving" in process.stdout.readline()
    yield f"unix:{tmp_path}/s", ends[0], process
    process.kill()
    process.wait()
    process.stdout.close()
    os.close(ends[0])


def test_calls_and_the_end_wait_for_no_reader(unread):
    target, end, process = unread
    with backboned.connect(target, reconnect_timeout=0) as client:
        for _ in range(1000):  # Some 200 bytes each; a pipe has 64 KiB.
            client.info()
        client.info()
        os.set_blocking(end, False)
        text = []

        def lost_lines():
            with contextlib.suppress(BlockingIOError):
                text.append(os.read(end, 1 << 20).decode())
            client.info()
            return re.search(
                r" warning (\d+) lines of the log were lost", "".join(text)
            )

        lost = wait_until(lost_lines)
    assert 100 < int(lost[1]) < 1100
    process.terminate()
    assert process.wait(timeout=60) == 0
