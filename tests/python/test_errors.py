"""Tests what errors, warnings and the log say."""

import dataclasses
import gc
import io
import logging
import os
import subprocess
import sys
import threading
import traceback

import backboned
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backboned import CrossEntropy, optim

X = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
Y = torch.arange(4)


@pytest.mark.parametrize("label", ["λ=0.5", "my\nrun", "my run", "", "a" * 65])
def test_a_wrong_label_is_refused_here(server, label):
    with pytest.raises(
        backboned.errors.InvalidArgument, match="label is .*1 to 64 char"
    ):
        backboned.connect(server.target, label=label)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "zero"])
def test_a_wrong_seed_is_named(server, seed):
    with pytest.raises(
        backboned.errors.InvalidArgument, match="seed is .*2\\*\\*64 - 1"
    ):
        server.create("seq-mnist", seed=seed)


def test_a_seed_may_be_any_kind_of_integer(server):
    server.create("seq-mnist", seed=np.int64(7), module=False)
    server.create("seq-mnist", seed=2**64 - 1, module=False)


@pytest.mark.parametrize("weights", ["folder/w", "w.safetensors/", "W", ""])
def test_wrong_weights_are_named(server, weights):
    with pytest.raises(
        backboned.errors.InvalidArgument, match="weights is .*--weights-dir"
    ):
        server.create("seq-mnist", weights=weights)


@pytest.mark.parametrize("timeout", [float("inf"), 1e10, 1e300])
def test_a_timeout_may_be_for_ever(server, timeout):
    assert server.info(timeout=timeout).version
    with backboned.connect(server.target, timeout=timeout) as other:
        assert other.create("seq-mnist", module=False).info().version


@pytest.mark.parametrize("timeout", [float("nan"), -1, "long"])
def test_a_timeout_that_is_none_is_named(server, timeout):
    with pytest.raises(backboned.errors.InvalidArgument, match="timeout is .*seconds"):
        server.info(timeout=timeout)


def test_a_function_is_no_term(net):
    optimizer = optim.SGD(net, lr=0.1)
    with pytest.raises(
        backboned.errors.InvalidArgument, match="a term is cross_entropy"
    ):
        net.train_step(X, [F.cross_entropy], optimizer)


REFUSED = {
    "create": lambda server, net, opt: server.create("no-such-benchmark"),
    "instance": lambda server, net, opt: server.instance("nobody"),
    "connect": lambda server, net, opt: backboned.connect("unix:/nowhere"),
    "set_params": lambda server, net, opt: net.instance.set_params([1.0]),
    "train_step": lambda server, net, opt: net.train_step(
        X, [CrossEntropy(Y + 100)], opt
    ),
    "future": lambda server, net, opt: net.train_step_async(
        X, [CrossEntropy(Y + 100)], opt
    ).result(),
    "forward": lambda server, net, opt: net(torch.rand(2, 5, 5)),
}


@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED)
def test_an_error_comes_without_the_frames_below_the_verb(server, net, use):
    optimizer = optim.SGD(net, lr=0.1)
    with pytest.raises(backboned.BackbonedError) as caught:
        use(server, net, optimizer)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    ours = [
        frame.name
        for frame in traceback.extract_tb(caught.value.__traceback__)
        if "backboned/" in frame.filename
    ]
    assert len(ours) <= 2  # A mixin's verb may be above the one that raised.
    assert ours[-1] == "verb"


def test_the_log_says_what_moved_and_why(server, caplog):
    gc.collect()  # Networks of other tests are deleted with the next `create`.
    net = server.create("seq-mnist", seed=0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    F.cross_entropy(net(X), Y).backward()
    optimizer.step()
    with caplog.at_level(logging.DEBUG, "backboned"):
        net(X)
    size = net.layout.elements * 4
    push, call, forward = (record.getMessage() for record in caplog.records)
    assert push.startswith(f"push 6 tensors, {size} bytes: changed here (fc1.weight, ")
    assert call.startswith("SetParams: 35") and " bytes sent, " in call
    assert forward.startswith("Forward: ") and forward.endswith(" s")


@pytest.mark.cpu
def test_what_bits_depend_on_is_compared_once(server, recwarn):
    with backboned.connect(server.target) as other:
        other.create("seq-mnist")
        assert not [w for w in recwarn if w.category is RuntimeWarning]
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        with backboned.connect(server.target) as other:
            told = f"last bits .*threads {before} there, {before + 1} here"
            with pytest.warns(RuntimeWarning, match=told) as warned:
                other.create("seq-mnist")
                other.create("seq-mnist")
    finally:
        torch.set_num_threads(before)
    assert len(warned) == 1 and warned[0].filename == __file__


@pytest.mark.cpu
def test_all_that_bits_depend_on_is_compared(server, monkeypatch):
    from backboned.nn import numerics

    info = server.info()
    assert numerics.differences(info) == []
    assert info.numerics["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    info.numerics.update(cpu_capability="AVX", MKL_CBWR="OTHER", unknown="x")
    capability = torch.backends.cpu.get_cpu_capability()
    assert numerics.differences(info) == [
        f"instruction set AVX there, {capability} here",
        f"MKL_CBWR OTHER there, {os.environ.get('MKL_CBWR', 'unset')} here",
    ]
    assert numerics.differences(info, "cuda:0") == []
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert "MKL_CBWR OTHER there, COMPATIBLE here" in numerics.differences(info)


@pytest.mark.cpu
def test_a_processor_without_a_name_is_that_of_a_server_beside_it(server, monkeypatch):
    from backboned.nn import numerics

    info = server.info()
    nameless = "processor\t: 0\nBogoMIPS\t: 50.00\n"
    monkeypatch.setattr(
        numerics, "open", lambda _: io.StringIO(nameless), raising=False
    )
    (device,) = info.devices
    for name, differences in (
        ("unknown processor", []),
        ("Z80", ["processor Z80 there, unknown processor here"]),
    ):
        devices = (device._replace(description=name),)
        there = dataclasses.replace(info, devices=devices)
        assert numerics.differences(there) == differences


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100
    )


def test_the_package_is_imported_where_there_are_no_forks():
    ended = run("import os; del os.register_at_fork, os.fork; import backboned")
    assert ended.returncode == 0, ended.stderr


def test_a_star_needs_no_torch():
    ended = run(
        "import sys; sys.modules['torch'] = None\n"
        "from backboned import *\n"
        "import backboned\n"
        "assert {'optim', 'RemoteBackbone', 'connect'} <= set(dir(backboned))"
    )
    assert ended.returncode == 0, ended.stderr


def test_a_busy_server_is_waited_for_by_default(server):
    assert server.channel.retry_timeout >= 8 * 3600
    assert server.channel.on_wait is backboned.transport.retries.show_waiting


def test_waiting_is_shown_on_a_terminal_only(capsys, monkeypatch):
    from backboned.transport.retries import _OnTerminal
    from backboned.types import Waiting

    waiting = Waiting("max-queued", "server", 4, 3, 0.5, 1.0)
    _OnTerminal()(waiting)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    show = _OnTerminal()
    show(waiting)
    show(waiting)  # Too soon after the first.
    assert capsys.readouterr().err.count("max-queued of the server is 3") == 1


def test_locks_of_other_threads_are_free_in_a_child(net):
    import os

    link = net._link
    held, done = threading.Event(), threading.Event()

    def hold():
        with link._lock, net.instance.channel.meter._lock, net.instance.steps._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            import signal

            signal.alarm(60)
            with torch.no_grad():
                net.eval()(X)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    done.set()
    thread.join()
    assert status == 0
