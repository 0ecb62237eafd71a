"""Tests what is sent before earlier answers came: forwards behind pushes and steps."""

import os
import signal
import subprocess
import sys
import threading
import time

import backboned
import numpy as np
import pytest
import torch
from backboned import calls, optim
from backboned.transport import messages
from hosted_pairs import assert_same, assert_same_networks, batches, make_pair
from test_faults import Phoenix, is_there
from test_forks import assert_children_start
from test_lifecycle import wait_until
from torch.nn import functional as F

pytestmark = pytest.mark.transports

SGD = {"lr": 0.1, "momentum": 0.9}
NATIVE = os.environ.get("BACKBONED_TRANSPORT", "") != "grpcio"


@pytest.fixture
def x():
    return torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def backward(net, x):
    net(x).square().sum().backward()


def make_hosted(server):
    net, local = make_pair(server, "mlp")
    return net, local, optim.SGD(net, **SGD), torch.optim.SGD(local.parameters(), **SGD)


@pytest.fixture
def order(monkeypatch):
    """Lists when each call begins, and when its answer is taken."""
    order = []
    true = {name: getattr(messages.Request, name) for name in ("begin", "call")}
    for name, function in true.items():

        def noted(self, channel, path, *rest, name=name, function=function):
            order.append((name, path.rpartition("/")[2]))
            return function(self, channel, path, *rest)

        monkeypatch.setattr(messages.Request, name, noted)
    return order


class TestPushes:
    def test_the_forward_is_sent_before_the_pushs_answer(self, net, x, order):
        net(x)
        order.clear()
        net.classifier.bias.data.add_(1)
        net(x)
        assert order[-2:] == [("call", "SetParams"), ("call", "Forward")]
        begun = [method for name, method in order if name == "begin"]
        assert begun == ["SetParams", "Forward"][: 2 if NATIVE else 1]

    def test_the_forward_is_sent_before_the_answers_of_two_pushes(self, server, order):
        net, _ = make_pair(server, "resnet")
        order.clear()
        net.bn1.running_mean.add_(0.5)
        net.conv1.weight.data.add_(1)
        ((x, _),) = batches("resnet", 1)
        net.eval()(x)
        methods = ["SetParams", "SetBuffers", "Forward"]
        begun = [("begin", method) for method in methods[: 3 if NATIVE else 1]]
        assert order == begun + [("call", method) for method in methods]

    def test_a_refused_push_is_the_error_and_no_forward_begins(self, net, x):
        net(x)
        before = net.instance.info()
        net.instance.update(read_only=True)
        net.classifier.bias.data.add_(1)
        with pytest.raises(backboned.errors.FailedPrecondition) as caught:
            net(x)
        assert caught.value.reason == "READ_ONLY"
        after = net.instance.info()
        assert after.forwards == before.forwards and after.version == before.version
        net.instance.update(read_only=False)
        net(x)
        there = torch.from_numpy(net.instance.get_params())
        assert torch.equal(there, net.get_params())

    def test_a_change_by_somebody_else_is_the_pushs_error(self, server, net, x):
        net(x)
        other = server.instance(net.name, module=False)
        other.set_params(np.zeros(other.layout.elements, np.float32))
        net.classifier.bias.data.add_(1)
        for _ in range(2):
            with pytest.raises(backboned.errors.StaleVersion, match=r"net\.pull\(\)"):
                net(x)
        net.push()
        assert torch.equal(torch.from_numpy(other.get_params()), net.get_params())

    def test_a_change_between_push_and_forward_is_the_forwards_error(
        self, server, net, x, monkeypatch
    ):
        net(x)
        other = server.instance(net.name, module=False)
        true, meddled = messages.Prepared.begin, []

        def begin(self, after=None):
            if after is not None and not meddled:
                meddled.append(1)
                zeros = np.zeros(other.layout.elements, np.float32)
                wait_until(lambda: other.info().version.params == 2)
                other.set_params(zeros)
            return true(self, after)

        if not NATIVE:
            pytest.skip("the push is made when its answer is taken")
        monkeypatch.setattr(messages.Prepared, "begin", begin)
        net.classifier.bias.data.add_(1)
        with pytest.raises(backboned.errors.StaleVersion):
            net(x)
        assert meddled

    def test_a_busy_server_is_waited_for(self, start, monkeypatch):
        server = start(options=["--max-calls", "1"], threads=2)
        net, local = make_pair(server, "mlp")
        ours = torch.optim.SGD(net.parameters(), **SGD)
        theirs = torch.optim.SGD(local.parameters(), **SGD)
        for x, y in batches("mlp", 3):
            for side, optimizer in ((net, ours), (local, theirs)):
                optimizer.zero_grad()
                F.cross_entropy(side(x), y).backward()
                optimizer.step()
        assert_same_networks(net, local)

    def test_buffers_are_pushed_behind_parameters(self, server):
        net, local = make_pair(server, "resnet")
        for x, _ in batches("resnet", 3):
            for side in (net, local):
                with torch.no_grad():
                    side.bn1.running_mean.add_(0.5)
                    side.conv1.weight.mul_(0.9)
                side.zero_grad()
                side(x).square().sum().backward()
        assert_same_networks(net, local)
        assert_same(net.conv1.weight.grad, local.conv1.weight.grad)


class TestSteps:
    def test_bits_are_those_of_torch(self, server):
        net, local, ours, theirs = make_hosted(server)
        schedulers = [
            torch.optim.lr_scheduler.StepLR(each, 2, 0.5) for each in (ours, theirs)
        ]
        for x, y in batches("mlp", 6):
            for side, optimizer in ((net, ours), (local, theirs)):
                optimizer.zero_grad()
                loss = F.cross_entropy(side(x), y)
                loss.backward(retain_graph=True)
                loss.backward()
                optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
        assert_same_networks(net, local)
        assert net.instance.info().steps == 6

    @pytest.mark.skipif(not NATIVE, reason="grpcio waits, and keeps the error")
    def test_the_step_does_not_wait(self, start, x):
        with start() as server:
            net = server.create("seq-mnist", seed=0)
            optimizer = optim.SGD(net, lr=0.1)
            for _ in range(2):
                backward(net, x)
                optimizer.step()
                optimizer.zero_grad()
            backward(net, x)
            os.kill(server.process.pid, signal.SIGSTOP)
            try:
                optimizer.step()
                optimizer.zero_grad()
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            net(x)
            assert optimizer.last_step.stepped_count == len(list(net.parameters()))
            assert net.instance.info().steps == 3

    def test_two_steps_without_anything_between(self, server):
        net, local, ours, theirs = make_hosted(server)
        ((x, _),) = batches("mlp", 1)
        for side, optimizer in ((net, ours), (local, theirs)):
            backward(side, x)
            optimizer.step()
            optimizer.step()
        assert_same_networks(net, local)

    def test_a_step_without_gradients_does_nothing(self, net, x):
        optimizer = optim.SGD(net, lr=0.1)
        optimizer.step()
        assert optimizer.last_step is None
        backward(net, x)
        optimizer.step()
        optimizer.zero_grad()
        optimizer.step()
        assert optimizer.last_step is None
        assert net.instance.info().steps == 1

    @pytest.mark.parametrize(
        "use",
        [
            lambda net, optimizer, x: net(x),
            lambda net, optimizer, x: net.fc1.weight.norm(),
            lambda net, optimizer, x: net.state_dict(),
            lambda net, optimizer, x: net.instance,
            lambda net, optimizer, x: optimizer.last_step,
            lambda net, optimizer, x: optimizer.state_dict(),
            lambda net, optimizer, x: optimizer.step(),
            lambda net, optimizer, x: net.mirror(),
            lambda net, optimizer, x: net.pull(),
        ],
        ids=[
            *("forward", "read", "state_dict", "instance", "last_step"),
            *("optimizer", "step", "mirror", "pull"),
        ],
    )
    def test_the_next_use_raises_the_error_with_the_steps_number(
        self, server, net, x, use
    ):
        optimizer = optim.SGD(net, lr=0.1)
        backward(net, x)
        optimizer.step()
        other, before = net.instance, net.instance.info()
        optimizer.zero_grad()
        backward(net, x)
        forwards = other.info().forwards
        release(net)
        optimizer.step()
        with pytest.raises(
            backboned.errors.FailedPrecondition, match="^step 2, which was not awaited"
        ) as caught:
            use(net, optimizer, x)
        assert caught.value.reason == "TAPE_NOT_FOUND"
        info = other.info()
        assert info.version == before.version and info.forwards == forwards
        optimizer.zero_grad()
        backward(net, x)
        optimizer.step()
        assert net.instance.info().version.params == before.version.params + 1

    def test_a_change_by_somebody_else_is_the_forwards_error(self, server, net, x):
        optimizer = optim.SGD(net, lr=0.1)
        backward(net, x)
        other = server.instance(net.name, module=False)
        other.set_params(np.zeros(other.layout.elements, np.float32))
        optimizer.step()
        with pytest.raises(backboned.errors.StaleVersion, match=r"net\.pull\(\)"):
            net(x)
        net.pull()
        net(x)

    def test_a_change_behind_a_step_is_noticed_though_nothing_was_known(
        self, server, net, x
    ):
        optimizer = optim.SGD(net, lr=0.1)
        backward(net, x)
        optimizer.step()
        optimizer.zero_grad()
        net.push()  # Nothing is here; from now on any version is taken.
        backward(net, x)
        other = server.instance(net.name, module=False)
        optimizer.step()
        wait_until(lambda: other.info().steps == 2)
        other.set_params(np.zeros(other.layout.elements, np.float32))
        with pytest.raises(backboned.errors.StaleVersion, match=r"net\.pull\(\)"):
            net(x)

    def test_a_write_behind_a_step_counts(self, server):
        net, local, ours, theirs = make_hosted(server)
        for x, _ in batches("mlp", 3):
            for side, optimizer in ((net, ours), (local, theirs)):
                optimizer.zero_grad()
                backward(side, x)
                optimizer.step()
                side.classifier.bias.data = torch.arange(10.0)
        assert_same_networks(net, local)

    def test_its_deadline_passes_while_nobody_asks(self, server):
        net, local, ours, theirs = make_hosted(server)
        net.timeout = 2
        ((x, _),) = batches("mlp", 1)
        for side, optimizer in ((net, ours), (local, theirs)):
            backward(side, x)
            optimizer.step()
        time.sleep(2.5)
        assert_same_networks(net, local)
        assert net.instance.info().steps == 1

    def test_all_calls_of_a_step_are_sent_at_once(self, server, x):
        net = server.create("seq-mnist", seed=0)
        optimizer = optim.SGD(list(net.parameters())[-2:], lr=0.1)
        watcher = server.instance(net.name, module=False)
        for loss in [net(x).sum() for _ in range(3)]:
            loss.backward()  # A call of its own each, and the step another.
        optimizer.step()
        wait_until(lambda: watcher.info().steps == 1)
        net(x)
        assert net.instance.info().backwards == 3

    @pytest.mark.skipif(not NATIVE, reason="grpcio waits for each answer")
    def test_each_call_is_sent_behind_the_one_before_it(self, net, x, monkeypatch):
        optimizer = optim.SGD(list(net.parameters())[-2:], lr=0.1)
        for loss in [net(x).sum() for _ in range(3)]:
            loss.backward()  # A call of its own each, and the step another.
        begun, taken = [], []
        begin, call = messages.Request.begin, messages.Request.call

        def noted_begin(self, channel, path, timeout, after=None):
            begun.append((path.rpartition("/")[2], self, after))
            return begin(self, channel, path, timeout, after)

        def noted_call(self, *rest):
            taken.append((self, len(begun)))
            return call(self, *rest)

        monkeypatch.setattr(messages.Request, "begin", noted_begin)
        monkeypatch.setattr(messages.Request, "call", noted_call)
        optimizer.step()
        net(x)
        names, requests, before = zip(*begun)
        assert names == (*3 * ["Backward"], "Step", "Forward")
        assert before == (None, *requests[:-1])
        assert taken == [(request, 5) for request in requests]

    def test_after_a_step_that_was_refused_there_are_no_gradients(self, net, x):
        optimizer = optim.SGD(net, lr=0.1)
        backward(net, x)
        optimizer.step()
        optimizer.zero_grad()
        backward(net, x)
        release(net)
        optimizer.step()
        with pytest.raises(backboned.errors.FailedPrecondition, match="^step 2, "):
            net(x)
        assert all(p.grad is None for p in net.parameters())
        optimizer.step()
        assert optimizer.last_step is None
        assert net.instance.info().steps == 1

    def test_a_backward_that_is_refused_to_a_reader_is_of_no_step(self, net, x):
        optim.SGD(net, lr=0.1)
        backward(net, x)
        release(net)
        with pytest.raises(backboned.errors.FailedPrecondition) as caught:
            net.fc1.weight.grad.norm()
        assert caught.value.reason == "TAPE_NOT_FOUND"
        assert not caught.value.message.startswith("step")

    def test_a_long_call_of_a_step_is_sent_at_once(self, server):
        net = server.create("seq-cifar10", seed=0)
        optimizer = optim.SGD(net, lr=0.1)
        watcher = server.instance(net.name, module=False)
        x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        out, layers = net(x, returnt="full")  # Its gradients take several parts.
        sum(each.sum() for each in (out, *layers)).backward()
        optimizer.step()
        wait_until(lambda: watcher.info().steps == 1)

    def test_a_forward_behind_a_step_that_finds_nothing(self, server, x):
        net = server.create("seq-mnist", seed=0)
        first = next(iter(net.parameters()))
        optimizer = optim.SGD([first], lr=0.1)
        first.requires_grad_(False)
        backward(net, x)
        optimizer.step()
        net(x)
        assert net.instance.info().steps == 0 and optimizer.last_step is None

    def test_a_busy_server_is_waited_for(self, start):
        server = start(options=["--max-calls", "1"], threads=2)
        net, local, ours, theirs = make_hosted(server)
        for x, _ in batches("mlp", 3):
            for side, optimizer in ((net, ours), (local, theirs)):
                optimizer.zero_grad()
                backward(side, x)
                optimizer.step()
        assert_same_networks(net, local)
        assert net.instance.info().steps == 3

    @pytest.mark.parametrize("end", ["drop", "close", "exit"])
    def test_a_step_that_nobody_waits_for_is_made(self, server, mlp, end):
        program = f"""
import backboned, torch
server = backboned.connect({server.target!r})
net = server.instance({mlp.address!r})
optimizer = backboned.optim.SGD(net, lr=0.1)
net(torch.rand(6, 1, 28, 28)).sum().backward()
optimizer.step()
if {end!r} == "drop":
    del net, optimizer
    import os
    os._exit(0)
if {end!r} == "close":
    server.close()
    import os
    os._exit(0)
"""
        subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
        assert mlp.info().steps == 1

    def test_forks_behind_a_step(self, server):
        net, local, ours, theirs = make_hosted(server)
        for x, _ in batches("mlp", 3):
            for side, optimizer in ((net, ours), (local, theirs)):
                optimizer.zero_grad()
                backward(side, x)
                optimizer.step()
            assert_children_start()
        assert_same_networks(net, local)

    @pytest.mark.parametrize("use", ["forward", "read"])
    def test_a_forked_child_has_no_part_in_it(self, net, x, use):
        optimizer = optim.SGD(net, lr=0.1)
        backward(net, x)
        optimizer.step()
        pid = os.fork()
        if not pid:
            try:
                with torch.no_grad():
                    net(x) if use == "forward" else net.fc1.bias.tolist()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        net(x)
        assert net.instance.info().steps == 1

    def test_ctrl_c_behind_a_step(self, start):
        with start(threads=2) as server:
            net, local, ours, theirs = make_hosted(server)
            ((x, _),) = batches("mlp", 1)
            for side, optimizer in ((net, ours), (local, theirs)):
                backward(side, x)
                optimizer.step()
            os.kill(server.process.pid, signal.SIGSTOP)
            try:
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
                with pytest.raises(KeyboardInterrupt):
                    net(x)
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            assert_same(net(x), local(x))
            assert_same_networks(net, local)
            assert net.instance.info().steps == 1

    @pytest.mark.parametrize("back", [False, True])
    def test_a_server_that_is_killed_behind_a_step(self, binary, tmp_path, x, back):
        phoenix = Phoenix(binary, tmp_path / "server.sock")
        with backboned.connect(phoenix.target, reconnect_timeout=0.3) as server:
            net = server.create("seq-mnist", seed=0)
            optimizer = optim.SGD(net, lr=0.1)
            for _ in range(2):
                optimizer.zero_grad()
                backward(net, x)
                optimizer.step()
            phoenix.kill()
            if back:
                phoenix.start()
                wait_until(lambda: is_there(server))
            kind = "ServerRestarted" if back else "Unavailable"
            with pytest.raises(
                getattr(backboned.errors, kind), match="resume from a checkpoint"
            ):
                net(x)
        if back:
            phoenix.kill()


def release(net):
    """Let the server forget the tape whose backward waits."""
    (item,) = net._link._pending._queue
    request = calls.pb.ReleaseTapesRequest(tape_ids=[item.tape.tape_id])
    calls.ask(net.instance.channel, request)
