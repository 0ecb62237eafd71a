"""Forked processes: DataLoader workers beside a training, and calls from a child."""

import multiprocessing
import os
import signal
import threading

import backboned
import pytest
import torch
import torch.nn.functional as F
from backboned.transport import messages
from test_lifecycle import wait_until
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.transports


class Reached(torch.utils.data.Dataset):
    """Gives each sample's logits, computed in the worker by a call of its own."""

    def __init__(self, net, x):
        self.net, self.x = net, x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        with torch.no_grad():
            return self.net(self.x[index : index + 1])[0], os.getpid()


@pytest.fixture
def x():
    return torch.rand(12, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_dataloader_workers_around_a_training(server, net, x):
    labels = torch.arange(12).remainder(10)
    loader = DataLoader(TensorDataset(x, labels), batch_size=4, num_workers=2)
    opt = torch.optim.SGD(net.parameters(), 0.05)
    losses = []
    for _ in range(3):
        for inputs, targets in loader:
            opt.zero_grad()
            loss = F.cross_entropy(net(inputs), targets)
            loss.backward()
            opt.step()
            losses.append(loss.item())
    assert len(losses) == 9 and losses[-1] < losses[0]


def test_workers_may_call_the_server_too(net, x):
    with torch.no_grad():
        expected = net(x)
    loader = DataLoader(Reached(net, x), batch_size=4, num_workers=2)
    found = list(loader)
    assert torch.equal(
        torch.cat([logits for logits, _ in found]),
        torch.cat([net(x[i : i + 1]) for i in range(12)]),
    )
    torch.testing.assert_close(torch.cat([logits for logits, _ in found]), expected)
    assert os.getpid() not in {pid for _, pids in found for pid in pids.tolist()}


def test_child_has_a_session_of_its_own_and_the_parent_keeps_its_tapes(net, x):
    context = multiprocessing.get_context("fork")
    loss = net(x).square().sum()
    session = net.instance.channel.connection.session
    results = context.Queue()

    def child():
        with torch.no_grad():
            net(x)
        results.put(net.instance.channel.connection.session)

    process = context.Process(target=child)
    process.start()
    theirs = results.get(timeout=60)
    process.join(60)
    assert process.exitcode == 0
    assert theirs != session
    assert net.instance.channel.connection.session == session
    loss.backward()
    assert net.get_grads().any()


def test_child_that_ends_does_not_stop_the_server(start):
    server = start()
    pid = os.fork()
    if not pid:
        try:
            server.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert server.info().version


def test_forks_beside_the_transfers_of_another_thread(server, net, x):
    large = server.create(architecture="resnet18", num_classes=10, module=False)
    values = large.get_params()
    done = threading.Event()
    failures = []

    def transfer():
        try:
            while not done.is_set():
                large.set_params(values)
                assert (large.get_params() == values).all()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=transfer)
    thread.start()
    for _ in range(4):
        for (inputs,) in DataLoader(TensorDataset(x), batch_size=6, num_workers=2):
            net(inputs).sum().backward()
    done.set()
    thread.join()
    assert not failures


def assert_children_start():
    """Fork a child that ends at once, and see that it does."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    ended = []

    def has_ended():
        ended.append(os.waitpid(pid, os.WNOHANG))
        return ended[-1][0] == pid

    try:
        wait_until(has_ended)
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    assert ended[-1][1] == 0


@pytest.fixture
def by_grpcio(server, monkeypatch):
    monkeypatch.setenv("BACKBONED_TRANSPORT", "grpcio")
    with backboned.connect(server.target) as connected:
        yield connected.create(architecture="resnet18", num_classes=10, module=False)


def test_fork_after_ctrl_c_in_a_download(by_grpcio, monkeypatch):
    large = by_grpcio
    true, calls = messages.Receiver.accept, []

    def accept(self, *chunk):
        true(self, *chunk)
        calls.append(chunk)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(messages.Receiver, "accept", accept)
    with pytest.raises(KeyboardInterrupt):
        large.get_params()
    assert_children_start()
    monkeypatch.setattr(messages.Receiver, "accept", true)
    assert large.get_params().size == large.layout.elements


def test_fork_after_an_answer_that_was_refused(by_grpcio, monkeypatch):
    large = by_grpcio

    def refuse(self, *chunk):
        raise backboned.errors.MalformedAnswer("not this one")

    with monkeypatch.context() as patched:
        patched.setattr(messages.Receiver, "accept", refuse)
        with pytest.raises(backboned.errors.MalformedAnswer, match="not this one"):
            large.get_params()
    assert_children_start()
