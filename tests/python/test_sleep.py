"""Instances that sleep: on the disk, without memory, until their next use."""

import threading
import time

import pytest
import torch
from backboned import optim
from backboned.errors import FailedPrecondition, Internal, ResourceExhausted
from conftest import THREADS
from kept_server import KeptServer
from test_recovery import one_step
from torch.nn import functional as F
from waiting import wait_until


@pytest.fixture
def kept(binary, tmp_path):
    with KeptServer(binary, tmp_path, threads=THREADS, faulty=True) as kept:
        yield kept


def info(client, name):
    """Describe an instance, which does not wake it."""
    return client.instance(name, module=False).info()


def await_sleep(client, *names):
    wait_until(
        lambda: {i.name for i in client.instances() if i.asleep}.issuperset(names)
    )


def test_what_comes_back_sleeps_until_its_first_use(kept):
    kept.start()
    made = kept.connect().create("seq-mnist", name="net", seed=0, module=False)
    flat, before = made.get_params(), made.info()
    assert kept.end() == 0
    client = kept.start().connect()
    slept = info(client, "net")
    assert slept.asleep and slept.memory_bytes == 0
    assert slept.version == before.version and slept.idle >= 0
    assert client.instances()[0].asleep
    net = client.instance("net", module=False)
    assert net.info().asleep  # Nor does a description with the layout wake it.
    assert (net.get_params() == flat).all()
    awake = net.info()
    assert not awake.asleep and awake.memory_bytes == before.memory_bytes


@pytest.mark.parametrize("name", ["net", None])
def test_a_training_goes_on_after_sleep(kept, name):
    kept.options.append("--idle-ttl=1s")
    client = kept.start().connect()
    net = client.create("seq-mnist", name=name, seed=0)
    opt = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = [one_step(net, opt, seed) for seed in range(3)]
    before = net.instance.info(digest=True)
    await_sleep(client, before.name)
    assert net.instance.info().version == before.version
    losses += [one_step(net, opt, seed) for seed in range(3, 6)]
    assert net.instance.info(digest=True).version.params == 7
    alone = client.create("seq-mnist", name="alone", seed=0)
    opt = optim.SGD(alone.parameters(), lr=0.1, momentum=0.9)
    assert losses == [one_step(alone, opt, seed) for seed in range(6)]


def test_all_of_a_state_comes_back(kept):
    kept.options.append("--idle-ttl=1s")
    client = kept.start().connect()
    made = client.create("seq-mnist", name="net", seed=0)
    opt = optim.Adam(made.parameters(), lr=0.1)
    one_step(made, opt, 0)
    net = client.instance("net", module=False)
    net.set_grads(net.get_params() / 3)

    def everything():
        return (
            net.info(digest=True).digest,
            net.get_grads().tolist(),
            {k: v.tolist() for k, v in net.get_optimizer_state().tensors.items()},
        )

    before = everything()
    await_sleep(client, "net")
    assert everything() == before


def test_sleep_gives_memory_back(kept):
    kept.options.append("--idle-ttl=1s")
    client = kept.start().connect()
    made = client.create("seq-cifar10", name="net", seed=0, module=False)
    bytes_of_it = made.info().memory_bytes

    def used():
        return client.info().principal_usage.memory_bytes

    assert used() >= bytes_of_it
    await_sleep(client, "net")
    assert used() < bytes_of_it / 10
    made.get_params()
    assert used() >= bytes_of_it


def test_a_network_that_waits_for_a_backward_stays_awake(kept):
    kept.options.append("--idle-ttl=1s")
    client = kept.start().connect()
    waits = client.create("seq-mnist", name="waits", seed=0)
    client.create("seq-mnist", name="rests", seed=0, module=False)
    loss = waits(torch.ones(2, 1, 28, 28)).sum()
    await_sleep(client, "rests")
    time.sleep(1)
    assert not info(client, "waits").asleep
    loss.backward()


def test_a_use_counts_and_a_look_does_not(kept):
    kept.options.append("--idle-ttl=2s")
    client = kept.start().connect()
    for name in ("used", "seen"):
        client.create("seq-mnist", name=name, seed=0, module=False)
    used = client.instance("used", module=False)
    for _ in range(40):
        used.forward(torch.ones(1, 1, 28, 28).numpy())
        assert not info(client, "used").asleep
        if info(client, "seen").asleep:
            break
        time.sleep(0.1)
    assert info(client, "seen").asleep
    assert info(client, "seen").idle > info(client, "used").idle


def test_unnamed_ones_leave_nothing_behind(kept):
    kept.options.append("--idle-ttl=1s")
    client = kept.start().connect()
    gone = client.create("seq-mnist", seed=0, module=False)
    left = client.create("seq-mnist", seed=1, module=False)
    await_sleep(client, gone.name, left.name)
    assert len(kept.files("records")) == 2
    client.delete(gone.name)
    wait_until(lambda: len(kept.files("records")) == 1)
    kept.restart()
    assert not kept.connect().instances()
    assert not kept.files("records") and not kept.files("blobs")


def test_a_sleeper_in_a_raised_version_keeps_it(kept):
    kept.options.append("--save-interval=inf")
    kept.start().connect().create("seq-mnist", name="net", seed=0, module=False)
    assert kept.end() == 0
    kept.start().kill()
    raised = info(kept.start().connect(), "net")
    assert raised.asleep and raised.version.params >> 32
    assert kept.end() == 0
    again = info(kept.start().connect(), "net")
    assert again.asleep and again.version == raised.version


def test_many_wake_one_at_once(kept):
    kept.start()
    flat = kept.connect().create("seq-cifar10", name="net", seed=0, module=False)
    flat = flat.get_params()
    assert kept.end() == 0
    kept.start()
    equal = []

    def read():
        net = kept.connect().instance("net", module=False)
        equal.append((net.get_params() == flat).all())

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal == [True] * 8


def test_a_damaged_sleeper_says_so_and_the_others_go_on(kept):
    kept.start()
    client = kept.connect()
    for seed, name in enumerate(("bad", "good")):
        made = client.create("seq-mnist", name=name, seed=seed, module=False)
        if name == "bad":
            assert kept.end() == 0
            blob = max(kept.files("blobs"), key=lambda path: path.stat().st_size)
            client = kept.start().connect()
    flat = made.get_params()
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(FailedPrecondition) as damaged:
        client.instance("bad", module=False).get_params()
    assert damaged.value.reason == "CHECKPOINT_UNREADABLE"
    assert info(client, "bad").asleep
    with pytest.raises(FailedPrecondition):
        client.instance("bad", module=False).get_params()
    assert (client.instance("good", module=False).get_params() == flat).all()
    client.delete("bad")
    assert [i.name for i in client.instances()] == ["good"]


def test_a_disk_that_refuses_once_leaves_it_asleep(kept):
    kept.start()
    flat = kept.connect().create("seq-mnist", name="net", seed=0, module=False)
    flat = flat.get_params()
    assert kept.end() == 0
    net = kept.start().connect().instance("net", module=False)
    kept.order("read fail-once 1")
    with pytest.raises(Internal) as refused:
        net.get_params()
    assert refused.value.reason == "STORAGE_FAILED"
    kept.heal()
    assert (net.get_params() == flat).all()


def test_a_full_disk_keeps_it_awake(kept):
    kept.options += ["--idle-ttl=1s", "--save-interval=inf"]
    client = kept.start().connect()
    net = client.create("seq-mnist", seed=0, module=False)
    flat = net.get_params()
    kept.order("write full 0")
    wait_until(lambda: "cannot save" in kept.log())
    assert not info(client, net.name).asleep
    assert (net.get_params() == flat).all()


def test_a_sleeper_without_room_sleeps_on(kept):
    kept.start()
    made = kept.connect().create("seq-cifar10", name="net", seed=0, module=False)
    flat = made.get_params()
    assert kept.end() == 0
    kept.options.append("--max-memory-bytes=8MiB")
    net = kept.start().connect().instance("net", module=False)
    with pytest.raises(ResourceExhausted):
        net.get_params()
    assert net.info().asleep and kept.end() == 0
    kept.options.pop()
    net = kept.start().connect().instance("net", module=False)
    assert (net.get_params() == flat).all()


def test_those_who_wake_one_together_get_all_of_it_or_nothing(kept):
    kept.start()
    made = kept.connect().create("seq-cifar10", name="net", seed=0)
    opt = optim.SGD(made.parameters(), lr=0.1, momentum=0.9)
    F.cross_entropy(made(torch.ones(2, 3, 32, 32)), torch.arange(2)).backward()
    opt.step()
    before = made.instance.get_optimizer_state().tensors
    assert kept.end() == 0
    kept.options.append("--max-memory-bytes=64MiB")  # Not for the momentum, too.
    kept.start()
    outcomes = []

    def wake():
        try:
            kept.connect().instance("net", module=False).info(digest=True)
            outcomes.append("awake")
        except ResourceExhausted:
            outcomes.append("no room")

    threads = [threading.Thread(target=wake) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["no room"] * 8
    assert kept.end() == 0
    kept.options.pop()
    net = kept.start().connect().instance("net", module=False)
    after = net.get_optimizer_state().tensors
    assert after.keys() == before.keys()
    assert all((after[name] == before[name]).all() for name in before)


def test_settings_that_change_as_it_falls_asleep_are_kept(kept):
    kept.options += ["--idle-ttl=1s", "--save-interval=inf"]
    client = kept.start().connect()
    net = client.create("seq-mnist", name="net", seed=0, module=False)
    await_sleep(client, "net")
    net.set_params(net.get_params() + 1)
    kept.order("write stick 0")  # The save that goes before sleep waits.
    time.sleep(2.5)
    net.update(read_only=True)
    kept.heal()
    await_sleep(client, "net")
    assert info(client, "net").read_only
    assert kept.end() == 0
    assert info(kept.start().connect(), "net").read_only
