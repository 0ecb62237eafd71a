"""backbonectl top: the table, once and in a terminal, which it leaves as it was."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading

import numpy as np
import pytest
from backbonectl_runs import Control

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def ctl(backbonectl, start, tmp_path):
    server = start()
    server.create("seq-mnist", name="busy", module=False)
    server.create("seq-mnist", name="idle", module=False)
    control = Control(backbonectl, server.target, tmp_path)
    control.server = server
    return control


@pytest.fixture
def load(ctl):
    """Forwards of one instance, one after another."""
    net = ctl.server.instance("busy", module=False)
    ends = threading.Event()

    def run():
        while not ends.is_set():
            net.forward(np.zeros((1, 1, 28, 28), np.float32), outputs=["out"])

    thread = threading.Thread(target=run)
    thread.start()
    yield
    ends.set()
    thread.join()


@pytest.mark.usefixtures("load")
def test_one_table(ctl):
    figures = ctl.json("top", "--interval", "0.3")
    busy, idle = figures["instances"]  # Those with most calls first.
    assert (busy["name"], idle["name"]) == ("busy", "idle")
    assert busy["forwards_per_second"] == busy["calls_per_second"] > 0
    assert idle["calls_per_second"] == busy["writes_per_second"] == 0
    assert idle["memory_bytes"] == 89610 * 4
    (device,) = figures["devices"]
    assert (device["name"], device["most_calls"]) == ("cpu", "local/busy")
    assert 0 < device["busy"] <= 1
    (principal,) = figures["principals"]
    assert (principal["name"], principal["instances"]) == ("local", 2)
    assert principal["calls_per_second"] == busy["calls_per_second"]
    assert principal["memory_bytes"] == busy["memory_bytes"] + idle["memory_bytes"]
    assert figures["interval_seconds"] >= 0.3


@pytest.mark.usefixtures("load")
def test_where_there_is_no_terminal_it_prints_once(ctl):
    table = ctl("top", "--interval", "0.3")
    assert table == re.sub(r"\x1b", "", table)
    assert table.startswith("backboned ")
    assert "you are local (admin); 2 instances" in table
    assert re.search(r"^cpu +\d+% .* local/busy$", table, re.M), table
    assert re.search(r"^local +busy +cpu +[1-9]", table, re.M), table
    assert re.search(r"^local +idle +cpu +0 ", table, re.M), table


class Terminal:
    """Runs a command in a terminal of 10 lines."""

    def __init__(self, ctl, *arguments, **variables):
        self.master, self.slave = pty.openpty()
        size = struct.pack("HHHH", 10, 80, 0, 0)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, size)
        self.mode = termios.tcgetattr(self.slave)
        self.shown = ""
        self.process = subprocess.Popen(
            ctl.command(*arguments),
            env={**ctl.environment, "TERM": "xterm", **variables},
            stdin=self.slave,
            stdout=self.slave,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def await_text(self, text):
        while text not in self.shown:
            self.shown += os.read(self.master, 1 << 16).decode()

    def type(self, keys):
        os.write(self.master, keys)

    def end(self):
        """Wait for the end; give the code, and what stood on standard error."""
        self.await_text(LEAVE)
        _, said = self.process.communicate(timeout=60)
        mode = termios.tcgetattr(self.slave)
        for side in (self.master, self.slave):
            os.close(side)
        assert mode == self.mode
        assert self.shown.count(ENTER) == self.shown.count(LEAVE) == 1
        assert self.shown.endswith(f"\x1b[?7h\x1b[?25h{LEAVE}")
        return self.process.returncode, said


@pytest.fixture
def terminal(ctl):
    terminal = Terminal(ctl, "top", "--interval", "0.1")
    terminal.await_text("PRINCIPAL")
    return terminal


def test_q_ends_it(terminal):
    assert not termios.tcgetattr(terminal.slave)[3] & (termios.ICANON | termios.ECHO)
    terminal.type(b"xq")
    assert terminal.end() == (0, "")


def test_ctrl_c_ends_it(terminal):
    terminal.type(b"\x03")
    assert terminal.end() == (130, "")


def test_a_signal_ends_it(terminal):
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == (143, "")


def test_it_goes_on(terminal):
    pictures = 4
    while terminal.shown.count("\x1b[H") < pictures:
        terminal.shown += os.read(terminal.master, 1 << 16).decode()
    terminal.type(b"q")
    terminal.end()
    _, *drawn = terminal.shown.partition(LEAVE)[0].split("\x1b[H")
    for picture in drawn:
        assert picture.count("\r\n") <= 9  # The terminal's lines.
        assert "DEVICE" in picture


def test_a_server_that_ends(ctl, terminal):
    os.kill(ctl.server.process.pid, signal.SIGKILL)
    code, said = terminal.end()
    assert code == 3
    assert said.startswith("backbonectl: ")
    assert len(said.splitlines()) == 1


def test_no_colour_where_none_is_wanted(ctl):
    for variables, is_bold in (
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ):
        terminal = Terminal(ctl, "top", "--interval", "0.1", **variables)
        terminal.await_text("PRINCIPAL")
        terminal.type(b"q")
        terminal.end()
        assert ("\x1b[1m" in terminal.shown) == is_bold
