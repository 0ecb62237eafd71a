"""Ctrl-C at any instant of a training leaves a client that works."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.transports

PROGRAM = pathlib.Path(__file__).with_name("interrupted.py")


def run(binary, mode, count, seconds):
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), mode, str(count), "0"],
        env={**os.environ, "BACKBONED_BIN": str(binary)},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert ended.stdout.strip() == f"{count} of {count}", ended.stderr


@pytest.mark.parametrize("mode", ["mirrored", "hosted"])
def test_a_training_goes_on_after_each_of_20_interrupts(binary, mode):
    run(binary, mode, 20, seconds=300)


@pytest.mark.nightly
@pytest.mark.parametrize("mode", ["mirrored", "hosted"])
def test_a_training_goes_on_after_each_of_200_interrupts(binary, mode):
    run(binary, mode, 200, seconds=3000)
