"""Waits for what comes to pass soon."""

import time


def wait_until(condition, timeout=60):
    """Wait until a condition gives something true, and give that."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)
    return value
