"""Networks of a process that is silent for longer than a session lives."""

import gc
import logging
import os

import backboned
import pytest
import torch
from backboned import optim
from test_lifecycle import wait_until

X = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def brief(start):
    """A server whose sessions live for six seconds."""
    return start(options=["--session-ttl=6s"])


def ask_no_more(server):
    """Let the server hear nothing of a client any more but its calls."""
    server.channel.connection.guards.clear()


def test_a_silent_process_keeps_its_networks(brief):
    mirrored, hosted = (brief.create("seq-mnist", seed=0) for _ in range(2))
    optimizer = optim.SGD(hosted, lr=0.1)
    hosted(X).sum().backward()
    optimizer.step()
    expected = hosted.state_dict()
    uids = mirrored.instance.uid, hosted.instance.uid
    with (
        backboned.connect(brief.target) as mute,
        backboned.connect(brief.target) as observer,
    ):
        forgotten = mute.create("seq-mnist", module=False)
        ask_no_more(mute)
        names = {forgotten.name, mirrored.name, hosted.name}
        assert names <= {i.name for i in observer.instances()}
        wait_until(lambda: len(observer.instances()) < len(names))
        assert {i.name for i in observer.instances()} == names - {forgotten.name}
    mirrored(X)
    assert (mirrored.instance.uid, hosted.instance.uid) == uids
    found = hosted.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_mirrored_network_that_was_forgotten_is_made_again(server, caplog):
    net = server.create("seq-mnist", seed=0)
    loss = net(X).square().sum()
    loss.backward(retain_graph=True)
    expected = net.get_grads().clone()
    net.zero_grad()
    server.delete(net.instance.address)  # As the end of its session does.
    with caplog.at_level(logging.WARNING, "backboned"):
        loss.backward()
    assert torch.equal(net.get_grads(), expected)
    assert "had forgotten the network: it heard nothing" in caplog.text
    server.delete(net.instance.address)
    net.push()
    with torch.no_grad():
        net(X)
    assert torch.equal(torch.from_numpy(net.instance.get_params()), net.get_params())


def test_a_network_that_was_deleted_stays_deleted(server):
    net = server.create("seq-mnist", seed=0)
    net.delete()
    with pytest.raises(backboned.errors.NotFound, match="no instance"):
        net(X)


def test_a_hosted_network_that_was_forgotten_says_why(server):
    net = server.create("seq-mnist", seed=0)
    optim.SGD(net, lr=0.1)
    server.delete(net.instance.address)
    why = r"hears nothing from its client for 86400 s.*resume from a checkpoint"
    with pytest.raises(backboned.errors.NotFound, match=why):
        net(X)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_of_ones_own_ends_with_the_last_object_that_needs_it(binary):
    server = backboned.local_server(binary=binary, threads=1)
    pid = server.process.pid
    net = server.create("seq-mnist", seed=0)
    del server
    gc.collect()
    with torch.no_grad():
        net(X)
    del net
    gc.collect()
    assert not is_running(pid)


def test_it_keeps_sessions_and_tapes_for_a_day(server):
    limits = server.info().limits
    assert (limits["session_ttl"], limits["tape_ttl"]) == (86400, 86400)
