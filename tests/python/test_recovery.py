"""Instances that come back after a restart of a server with --state-dir."""

import contextlib
import json

import pytest
import torch
from backboned import optim
from backboned.errors import ServerRestarted, StaleVersion
from backboned.types import Version
from conftest import THREADS
from kept_server import KeptServer
from torch.nn import functional as F
from waiting import wait_until


@pytest.fixture
def kept(binary, tmp_path):
    with KeptServer(binary, tmp_path, threads=THREADS) as kept:
        yield kept


def steps(net, opt, count, first=0):
    """Make training steps of given batches; give their losses."""
    losses = []
    for i in range(first, first + count):
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(8, 1, 28, 28, generator=generator)
        opt.zero_grad()
        loss = F.cross_entropy(net(x), torch.arange(8))
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert opt.last_step  # Waits for the answer.
    return losses


def records(kept):
    """Read what the folder has of living instances."""
    found = []
    for path in kept.files("records"):
        with contextlib.suppress(FileNotFoundError):  # Replaced meanwhile.
            found.append(json.loads(path.read_text()))
    return [record for record in found if record.get("recovery")]


def await_saved(kept, name, version):
    """Wait until the folder has an instance in a version of its parameters."""
    wanted = name, str(version)

    def is_saved():
        saved = [record["checkpoint"]["instance"] for record in records(kept)]
        return wanted in [(one["name"], one["version"]["params"]) for one in saved]

    wait_until(is_saved)


def test_a_training_goes_on_after_a_drain(kept):
    kept.start()
    net = kept.connect().create("seq-mnist", name="net", seed=0)
    opt = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = steps(net, opt, 3)
    before = net.instance.info(digest=True)
    assert kept.end() == 0

    again = kept.start().connect()
    after = again.instance("net", module=False).info(digest=True)
    assert after.version == before.version and after.digest == before.digest
    assert after.create_time == before.create_time
    net = again.instance("net")
    losses += steps(net, optim.resume(net), 3, first=3)

    alone = again.create("seq-mnist", name="alone", seed=0)
    opt = optim.SGD(alone.parameters(), lr=0.1, momentum=0.9)
    assert losses == steps(alone, opt, 6)


def test_a_killed_server_brings_back_what_it_saved(kept):
    kept.options += ["--save-versions=2", "--save-interval=inf"]
    net = kept.start().connect().create("seq-mnist", name="net", seed=0)
    opt = optim.SGD(net.parameters(), lr=0.1)
    await_saved(kept, "net", 1)  # Soon after it was made.
    steps(net, opt, 2)
    net.instance.info()  # Takes the answers.
    await_saved(kept, "net", 3)
    steps(net, opt, 1)
    known = net.instance.info().version
    kept.kill()

    again = kept.start().connect()
    there = again.instance("net", module=False)
    assert there.uid == known.uid
    # No number means two states: 4 was one that is lost.
    assert there.version.params == 2 << 32 and known.params == 4
    with pytest.raises(StaleVersion) as stale:
        there.get_params(if_version=Version(known.uid, known.params))
    assert "has params 4, the instance has 8589934592" in stale.value.message
    assert "restart of the server as it was saved at 3" in stale.value.message


def test_a_version_that_was_raised_stays_so(kept):
    kept.options.append("--save-interval=inf")
    net = kept.start().connect().create("seq-mnist", name="net", seed=0, module=False)
    await_saved(kept, "net", 1)
    net.set_params(net.get_params() + 1)  # Version 2, which is lost.
    kept.restart()
    flat = kept.connect().instance("net", module=False).get_params()
    assert kept.end() == 0
    net = kept.start().connect().instance("net", module=False)
    assert net.version.params == 2 << 32
    assert (net.get_params() == flat).all()


def test_a_start_that_fails_leaves_versions_as_they_are(kept):
    kept.start().connect().create("seq-mnist", name="net", seed=0, module=False)
    assert kept.end() == 0
    kept.options.append("--instance=no-such-benchmark")
    assert kept.begin() == ""
    kept.kill()
    kept.options.pop()
    assert kept.start().connect().instance("net", module=False).version.params == 1


def test_each_comes_back_though_a_session_may_have_few(kept):
    kept.options += ["--max-instances=4", "--session-quota=0.25"]
    kept.start()
    for name in ("one", "two", "three"):
        kept.connect(label=name).create("seq-mnist", name=name, seed=0, module=False)
    assert kept.end() == 0
    kept.start()
    assert len(kept.connect().instances()) == 3


def test_what_is_deleted_stays_deleted(kept):
    kept.start()
    client = kept.connect()
    for name in ("kept", "gone"):
        client.create("seq-mnist", name=name, seed=0, module=False)
        await_saved(kept, name, 1)
    client.delete("gone")
    kept.kill()
    names = [i.name for i in kept.start().connect().instances()]
    assert names == ["kept"]


def test_unnamed_instances_are_not_kept(kept):
    kept.start()
    unnamed = kept.connect().create("seq-mnist", seed=0, module=False)
    assert unnamed.ephemeral and kept.end() == 0
    assert records(kept) == []
    assert not list(kept.files("blobs"))


def test_settings_come_back(kept):
    kept.start()
    made = kept.connect().create(
        "seq-mnist",
        name="net",
        seed=0,
        module=False,
        feature_cache="1MiB",
        frozen=["classifier.*"],
    )
    assert kept.end() == 0
    kept.start()
    client = kept.connect()
    client.instance("net", module=False).update(read_only=True, shared=True)
    assert kept.end() == 0
    info = kept.start().connect().instance("net", module=False).info()
    assert info.version.uid == made.uid
    assert info.read_only and info.shared and info.frozen == ("classifier.*",)
    assert info.feature_cache_bytes == 1 << 20


def test_what_is_hosted_from_the_start_comes_back_too(kept):
    kept.options.append("--instance=seq-mnist")
    kept.start()
    net = kept.connect().instance("server/seq-mnist", module=False)
    flat = net.get_params()
    net.set_params(flat + 1)
    assert kept.end() == 0
    again = kept.start().connect().instance("server/seq-mnist", module=False)
    assert again.uid == net.uid
    assert (again.get_params() == flat + 1).all()


@pytest.mark.transports
def test_a_hosted_training_takes_a_drain_for_a_pause(kept):
    kept.start()
    client = kept.connect(reconnect_timeout=60)
    net = client.create("seq-mnist", name="net", seed=0)
    opt = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(3):
        losses += steps(net, opt, 2, first=len(losses))
        assert kept.end() == 0
        kept.start()
    losses += steps(net, opt, 2, first=len(losses))
    with torch.no_grad():
        assert kept.end() == 0
        kept.start()
        seen = net(torch.ones(2, 1, 28, 28))
    alone = client.create("seq-mnist", name="alone", seed=0)
    opt = optim.SGD(alone.parameters(), lr=0.1, momentum=0.9)
    assert losses == steps(alone, opt, 8)
    assert torch.equal(seen, alone(torch.ones(2, 1, 28, 28)))


@pytest.mark.transports
def test_a_hosted_training_with_batch_norm_does_too(kept):
    kept.start()
    client = kept.connect(reconnect_timeout=60)
    shape = {"architecture": "resnet18", "num_classes": 8, "num_filters": 2}
    nets = [client.create(**shape, name=name, seed=0) for name in ("one", "two")]
    opts = [optim.Adam(net.parameters(), lr=0.01) for net in nets]

    def step(net, opt, seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(8, 3, 32, 32, generator=generator)
        opt.zero_grad()
        loss = F.cross_entropy(net(x), torch.arange(8))
        loss.backward()
        opt.step()
        assert opt.last_step
        return loss.item()

    losses = []
    for seed in range(3):
        losses.append(step(nets[0], opts[0], seed))
        assert kept.end() == 0
        kept.start()
    assert losses == [step(nets[1], opts[1], seed) for seed in range(3)]
    infos = [net.instance.info(digest=True) for net in nets]
    assert infos[0].digest == infos[1].digest


@pytest.mark.transports
def test_a_mirrored_training_does_not_notice_a_crash(kept):
    kept.options += ["--save-versions=2", "--save-interval=inf"]
    kept.start()
    client = kept.connect(reconnect_timeout=60)
    nets = [client.create("seq-mnist", name=name, seed=0) for name in ("one", "two")]
    opts = [torch.optim.Adam(net.parameters(), lr=0.01) for net in nets]
    losses = []
    for seed in range(6):
        if seed in (2, 3, 5):
            kept.restart()
        losses.append(one_step(nets[0], opts[0], seed))
    assert losses == [one_step(nets[1], opts[1], seed) for seed in range(6)]
    for one, two in zip(*(net.state_dict().values() for net in nets)):
        assert torch.equal(one, two)


def one_step(net, opt, seed):
    x = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    opt.zero_grad()
    loss = F.cross_entropy(net(x), torch.arange(8))
    loss.backward()
    opt.step()
    return loss.item()


def test_a_hosted_network_says_how_to_go_on(kept):
    kept.options += ["--save-versions=2", "--save-interval=inf"]
    kept.start()
    net = kept.connect(reconnect_timeout=60).create("seq-mnist", name="net", seed=0)
    opt = optim.SGD(net.parameters(), lr=0.1)
    await_saved(kept, "net", 1)
    steps(net, opt, 1)
    net.instance.info()
    kept.restart()
    with pytest.raises(ServerRestarted) as restarted:
        steps(net, opt, 1)
    message = restarted.value.message
    assert "'net' came back as it was saved last, at version 8589934592" in message
    assert "backboned.optim.resume(net)" in message


def test_one_that_cannot_come_back_stays_on_the_disk(kept):
    kept.start()
    client = kept.connect()
    for name in ("one", "two"):
        client.create("seq-mnist", name=name, seed=ord(name[0]), module=False)
    assert kept.end() == 0
    two = next(r for r in records(kept) if r["checkpoint"]["name"] == "two")
    blob = two["files"][0]["sha256"]
    (kept.state / "blobs" / f"{blob}.safetensors").unlink()
    kept.start()
    assert [i.name for i in kept.connect().instances()] == ["one"]
    assert "cannot bring back instance=local/two" in kept.log()
    kept.connect().create("seq-mnist", name="two", seed=5, module=False)
    assert kept.end() == 0
    assert len(records(kept)) == 3
    kept.start()
    assert kept.end() == 0
