"""The server's life: start, addresses, signals, and the death of either side."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import backboned
import numpy as np
import pytest
import torch
from backboned.transport.local import ServerProcess
from waiting import wait_until


class Program:
    """The server as a process of its own."""

    def __init__(self, binary, *arguments):
        self.process = subprocess.Popen(
            [binary, "--threads=1", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def banner(self):
        return self.process.stdout.readline()

    def ends(self, timeout=30):
        """Give the exit status and what it wrote on standard error."""
        _, errors = self.process.communicate(timeout=timeout)
        return self.process.returncode, errors


@pytest.fixture
def run(binary):
    programs = []

    def start_program(*arguments):
        programs.append(Program(binary, *arguments))
        return programs[-1]

    yield start_program
    for program in programs:
        program.process.kill()
        program.process.communicate()


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.cpu
def test_banner_names_addresses_device_and_threads(run, tmp_path):
    program = run(f"--listen=unix:{tmp_path}/a.sock", "--listen=127.0.0.1:0")
    banner = program.banner()
    found = re.fullmatch(
        rf"backboned {re.escape(backboned.__version__)} serving on "
        r"unix:(\S+), (127\.0\.0\.1:\d+) "
        r"\(cpu, 1 threads?\)\n",
        banner,
    )
    assert found, banner
    for target in (f"unix:{found[1]}", found[2]):
        with backboned.connect(target) as server:
            assert server.info().threads == 1
    program.process.terminate()
    assert program.ends()[0] == 0
    assert not os.path.exists(tmp_path / "a.sock")


def test_typo_in_a_hosted_instance_ends_the_start(run, tmp_path):
    program = run(f"--listen=unix:{tmp_path}/a.sock", "--instance=seq-nmist")
    status, errors = program.ends()
    assert status != 0
    for word in ("seq-nmist", "seq-mnist", "seq-cifar10", "perm-mnist"):
        assert word in errors


def test_hosted_instance_belongs_to_the_server(start):
    server = start(instances=["seq-mnist=shared", "seq-cifar10"])
    owners = {i.name: i.owner for i in server.instances()}
    assert owners == {"shared": "server", "seq-cifar10": "server"}
    net = server.instance("shared")
    assert net.instance.owner == "server"
    with torch.no_grad():
        assert net(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_second_server_on_an_address_is_refused(run, tmp_path, where):
    address = f"unix:{tmp_path}/a.sock" if where == "unix" else "127.0.0.1:0"
    banner = run(f"--listen={address}").banner()
    address = re.search(r"serving on (\S+)", banner)[1]
    status, errors = run(f"--listen={address}").ends()
    assert status != 0
    assert address in errors
    with backboned.connect(address) as server:
        assert server.info().version


def test_stale_socket_is_taken_over(run, tmp_path):
    listen = f"--listen=unix:{tmp_path}/a.sock"
    first = run(listen)
    assert first.banner()
    first.process.kill()
    first.process.wait()
    assert os.path.exists(tmp_path / "a.sock")
    assert run(listen).banner()
    backboned.connect(f"unix:{tmp_path}/a.sock").close()


def test_remote_address_needs_the_word(run):
    status, errors = run("--listen=0.0.0.0:0").ends()
    assert status != 0 and "--insecure-remote" in errors
    assert "serving on" in run("--listen=0.0.0.0:0", "--insecure-remote").banner()


def test_shares_that_nobody_has_are_warned_of(run, tmp_path):
    listen = f"--listen=unix:{tmp_path}/a.sock"
    program = run("--share=alice=2", "--quota=local=0.9", listen)
    assert program.banner()
    program.process.terminate()
    _, errors = program.ends()
    assert "--share and --quota of alice have no effect" in errors
    assert "of local have" not in errors


def test_socket_is_private(start):
    server = start()
    path = server.target[len("unix:") :]
    assert os.stat(path).st_mode & 0o077 == 0
    assert os.stat(os.path.dirname(path)).st_mode & 0o077 == 0


def test_sigterm_lets_running_calls_finish(run, tmp_path):
    program = run(f"--listen=unix:{tmp_path}/a.sock")
    assert program.banner()
    server = backboned.connect(f"unix:{tmp_path}/a.sock")
    net = server.create(architecture="resnet18", num_classes=10, module=False)
    x = np.zeros((64, 3, 32, 32), np.float32)
    net.forward(x[:1])
    result = {}
    thread = threading.Thread(target=lambda: result.update(net.forward(x).outputs))
    thread.start()
    # This question is a call itself.
    wait_until(lambda: server.info().session_usage.calls == 2)
    program.process.terminate()
    thread.join()
    assert result["out"].shape == (64, 10)
    with pytest.raises(backboned.errors.Unavailable):
        server.info()
    assert program.ends()[0] == 0
    server.close()


def test_sigint_ends_it_too(run, tmp_path):
    program = run(f"--listen=unix:{tmp_path}/a.sock")
    assert program.banner()
    program.process.send_signal(signal.SIGINT)
    assert program.ends()[0] == 0


def test_killed_server_is_an_error_at_once(start):
    server = start()
    net = server.create("seq-mnist")
    opt = torch.optim.SGD(net.parameters(), 0.1)
    x = torch.rand(4, 1, 28, 28)
    loss = net(x).square().sum()
    loss.backward()
    opt.step()
    loss = net(x).square().sum()
    os.kill(server.process.pid, signal.SIGKILL)
    before = net.get_params().detach().clone()
    for call in (loss.backward, lambda: net(x), server.info):
        begin = time.monotonic()
        with pytest.raises(backboned.errors.Unavailable, match="killed by SIGKILL"):
            call()
        assert time.monotonic() - begin < 5
    assert torch.equal(net.get_params(), before)


def test_server_killed_during_a_call_is_an_error_at_once(start):
    server = start()
    net = server.create(architecture="resnet18", num_classes=10)
    threading.Timer(0.3, os.kill, (server.process.pid, signal.SIGKILL)).start()
    begin = time.monotonic()
    with pytest.raises(backboned.errors.Unavailable, match="killed by SIGKILL"):
        net(torch.zeros(256, 3, 32, 32))
    assert time.monotonic() - begin < 10


def test_crashed_server_says_its_last_words(tmp_path):
    program = tmp_path / "backboned"
    program.write_text(
        "#!/bin/sh\necho serving on nothing\necho the disk is gone >&2\nexit 3\n"
    )
    program.chmod(0o755)
    server = backboned.local_server(binary=program)
    with pytest.raises(backboned.errors.Unavailable, match="status 3") as caught:
        server.info()
    assert "the disk is gone" in caught.value.message
    server.close()


def test_server_that_does_not_start_is_explained(binary, tmp_path):
    with pytest.raises(backboned.errors.ServerStartError, match="--no-such-option"):
        backboned.local_server(binary=binary, options=["--no-such-option"])
    with pytest.raises(backboned.errors.ServerStartError, match="not a program"):
        backboned.local_server(binary=tmp_path / "none")
    program = tmp_path / "sleepy"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(backboned.errors.ServerStartError, match="in time"):
        ServerProcess(program, start_timeout=0.2)


def test_binary_is_looked_for_where_it_is_said(monkeypatch, tmp_path):
    from backboned.transport.local import find_binary

    monkeypatch.setenv("BACKBONED_BIN", str(tmp_path / "none"))
    with pytest.raises(backboned.errors.ServerStartError, match="BACKBONED_BIN"):
        find_binary()
    program = tmp_path / "backboned"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.delenv("BACKBONED_BIN")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == program


def script(text, binary):
    """Start Python on a program that has a server; give it, and the server's pid and
    folder.
    """
    program = subprocess.Popen(
        [sys.executable, "-c", text],
        env=dict(os.environ, BACKBONED_BIN=str(binary)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pid, socket = program.stdout.readline().split()
    return program, int(pid), os.path.dirname(socket)


STARTED = """
import backboned, time
server = backboned.local_server(threads=1)
print(server.process.pid, server.target[5:], flush=True)
"""


def test_server_ends_with_the_with_block_and_leaves_nothing(start):
    server = start()
    pid, folder = server.process.pid, os.path.dirname(server.target[len("unix:") :])
    with server:
        server.create("seq-mnist", module=False)
    assert not is_running(pid) and not os.path.exists(folder)
    server.close()


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "1 / 0"])
def test_server_ends_with_its_python(binary, ending):
    program, pid, folder = script(STARTED + ending, binary)
    program.communicate(timeout=30)
    wait_until(lambda: not is_running(pid) and not os.path.exists(folder))


def test_server_ends_when_its_python_is_killed(binary):
    program, pid, folder = script(STARTED + "time.sleep(60)", binary)
    program.kill()
    program.communicate()
    wait_until(lambda: not is_running(pid))
    assert os.listdir(folder) == []  # Another server may still start in it.
    os.utime(folder, (0, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", os.path.dirname(folder))
        fresh = tempfile.mkdtemp(prefix="backboned-local-")
        backboned.local_server(binary=binary, threads=1).close()
    assert not os.path.exists(folder)
    os.rmdir(fresh)


def test_server_ends_when_its_python_is_killed_as_it_starts(binary, tmp_path):
    text = f"""
import os, signal, subprocess
server = subprocess.Popen(
    [{str(binary)!r}, "--listen=unix:{tmp_path}/s", "--die-with-parent"],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
)
print(server.pid, "{tmp_path}/s", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    program, pid, _ = script(text, binary)
    program.communicate()
    wait_until(lambda: not is_running(pid))


def test_children_of_its_python_neither_keep_nor_end_it(binary):
    text = (
        STARTED
        + """
import os, sys
if not os.fork():  # Ends first.
    os._exit(0)
os.wait()
child = os.fork()
if not child:  # Stays, and knows nothing of the server.
    os.close(1), os.close(2)
    time.sleep(600)
print(server.info().version, child, flush=True)
time.sleep(600)
"""
    )
    program, pid, folder = script(text, binary)
    version, child = program.stdout.readline().split()
    assert version == backboned.__version__
    program.kill()
    program.communicate()
    wait_until(lambda: not is_running(pid))
    os.kill(int(child), signal.SIGKILL)
    os.rmdir(folder)


def test_ctrl_c_reaches_the_server_through_python_only(binary):
    text = """
import backboned, time
server = backboned.local_server(threads=1)
try:
    print(server.process.pid, server.target[5:], flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print(server.info().version, flush=True)
"""
    program, pid, folder = script(text, binary)
    os.killpg(program.pid, signal.SIGINT)
    output, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (0, "")
    assert output.strip() == backboned.__version__
    wait_until(lambda: not is_running(pid) and not os.path.exists(folder))


def serve(binary, folder, *options):
    """Starts a server at a socket of a folder, and gives it once it serves."""
    process = subprocess.Popen(
        [binary, f"--listen=unix:{folder}/s", "--threads=1", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "serving on" in process.stdout.readline()
    return process


def test_a_ready_file_is_there_while_the_server_serves(binary, tmp_path):
    ready = tmp_path / "ready.yaml"
    with serve(binary, tmp_path, f"--ready-file={ready}") as process:
        assert ready.read_text() == f'target: "unix:{tmp_path}/s"\n'
        assert ready.stat().st_mode & 0o777 == 0o600
        process.terminate()
    assert not ready.exists()


def test_a_ready_file_of_another_server_stays(binary, tmp_path):
    ready = tmp_path / "ready.yaml"
    with serve(binary, tmp_path, f"--ready-file={ready}") as process:
        ready.write_text("target: unix:/another\n")
        process.terminate()
    assert ready.read_text() == "target: unix:/another\n"


def test_a_ready_file_that_cannot_be_written_ends_the_start(binary, tmp_path):
    ended = subprocess.run(
        [binary, f"--listen=unix:{tmp_path}/s", f"--ready-file={tmp_path}/none/r"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("backboned: --ready-file: cannot write ")


@pytest.fixture
def child(binary, tmp_path):
    """Gives a process, and the pid of the server that it has started."""
    program = f"""
import subprocess, sys, threading
def start():
    server = subprocess.Popen(
        [{str(binary)!r}, "--listen=unix:{tmp_path}/s", "--die-with-parent"],
        stdout=subprocess.PIPE,
    )
    print(server.stdout.readline() and server.pid, flush=True)
thread = threading.Thread(target=start)  # Its end is not the parent's.
thread.start()
thread.join()
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        pid = int(parent.stdout.readline())
        yield parent, pid
        parent.kill()
    wait_until(lambda: not is_running(pid))


def test_a_server_dies_with_its_parent(child, tmp_path):
    time.sleep(0.5)
    with backboned.connect(f"unix:{tmp_path}/s") as server:
        server.info()
    child[0].kill()
    wait_until(lambda: not is_running(child[1]))


def test_a_server_that_drains_outlives_its_parent(child, tmp_path):
    """Ctrl-C reaches both, and calls under way end as ever."""
    parent, pid = child
    x = np.zeros((64, 3, 32, 32), np.float32)
    with backboned.connect(f"unix:{tmp_path}/s") as server:
        net = server.create(architecture="resnet18", num_classes=10, module=False)
        net.forward(x)
        results = []
        calls = [
            threading.Thread(target=lambda: results.append(net.forward(x).outputs))
            for _ in range(4)
        ]
        for call in calls:
            call.start()
        time.sleep(0.3)
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.2)
        parent.kill()
        for call in calls:
            call.join(60)
    assert len(results) == 4
