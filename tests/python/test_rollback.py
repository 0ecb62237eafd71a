"""A hosted training whose server is restarted, and whose steps are made again."""

import random
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from backboned import CrossEntropy, optim
from backboned.errors import ServerRestarted, Unavailable
from backboned.transport.channel import Channel
from conftest import THREADS
from kept_server import KeptServer
from torch.nn import functional as F
from waiting import wait_until

MLP = {"benchmark": "seq-mnist"}
RESNET = {"architecture": "resnet18", "num_classes": 10, "num_filters": 2}
# Draws, and has statistics.
DROPOUT = {
    "architecture": "wide-resnet",
    "num_classes": 10,
    "depth": 10,
    "widen_factor": 1,
    "dropout": 0.3,
}
STEPS = 12


@pytest.fixture
def kept(binary, tmp_path):
    # Saves what is two versions old, once a second.
    options = ("--save-interval=inf", "--save-versions=2")
    with KeptServer(binary, tmp_path, *options, threads=THREADS) as kept:
        yield kept.start()


def await_saved(net):
    """Wait until the server has saved a network; give the version."""
    return wait_until(lambda: net.instance.info().saved)


def await_saved_as(net, params):
    wait_until(lambda: await_saved(net).params == params)


class Chaos:
    """Restarts a server at random moments of a training.

    Some restarts come after a pause, in which the server may save, or may not.
    """

    def __init__(self, kept, seed, kills=5, drains=2):
        self.kept, self.random = kept, random.Random(seed)
        moments = [(step, at) for step in range(2, STEPS) for at in "abcd"]
        chosen = self.random.sample(moments, kills + drains)
        self.left = dict.fromkeys(chosen, "drain") | dict.fromkeys(
            chosen[:kills], "kill"
        )

    def __call__(self, *moment):
        how = self.left.pop(moment, None)
        if how is None:
            return
        time.sleep(self.random.choice((0, 0, 1.5)))
        if how == "kill":
            self.kept.kill()
        else:
            assert self.kept.end() == 0
        self.kept.start()


def images(net, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 28, 28) if net.instance.benchmark else (3, 32, 32)
    x = torch.randn(8, *shape, generator=generator)
    return x, torch.randint(10, (8,), generator=generator)


def whole_steps(net, opt, disturb):
    """Train by `train_step`."""
    for step in range(STEPS):
        x, y = images(net, step)
        disturb(step, "a")
        opt.param_groups[0]["lr"] *= 0.9
        made = net.train_step(x, CrossEntropy(y), opt, return_logits=True)
        disturb(step, "c")
        # The generator of torch is where the step left it.
        yield made.loss, made.logits.tobytes(), torch.rand(1).item()
        disturb(step, "d")
        disturb(step, "b")


def replay(net, opt, disturb, whole):
    """Train as DER++ does, with one backward of the whole loss, or one of each part."""
    buffer, dice = [], random.Random(0)
    for step in range(STEPS):
        x, y = images(net, step)
        disturb(step, "a")
        opt.zero_grad()
        out = net(x)
        disturb(step, "b")
        losses = [F.cross_entropy(out, y)]
        if not whole:
            losses[0].backward()
        for old, logits, labels in dice.sample(buffer, min(2, len(buffer))):
            again = net(old)
            disturb(step, "c")
            distilled = 0.5 * F.mse_loss(again, logits)
            losses.append(distilled + F.cross_entropy(again, labels))
            if not whole:
                losses[-1].backward()
        if whole:
            sum(losses).backward()
        opt.step(clip_norm=1.0 if step % 3 else None)
        disturb(step, "d")
        buffer.append((x, out.detach(), y))
        yield [loss.item() for loss in losses]
        if step % 5 == 4:
            with torch.no_grad():
                yield net.eval()(x).sum().item()
            net.train()


NIGHTLY = pytest.mark.nightly
KINDS = [
    pytest.param(MLP, whole_steps, {}, id="mlp, whole steps", marks=NIGHTLY),
    pytest.param(DROPOUT, whole_steps, {}, id="dropout, whole steps"),
    pytest.param(RESNET, replay, {"whole": True}, id="resnet, one backward"),
    pytest.param(
        RESNET, replay, {"whole": False}, id="resnet, a backward each", marks=NIGHTLY
    ),
    pytest.param(DROPOUT, replay, {"whole": False}, id="dropout, a backward each"),
]


@pytest.mark.parametrize(("arguments", "train", "how"), KINDS)
def test_a_training_is_that_of_a_server_that_nobody_killed(
    kept, arguments, train, how, seed=0
):
    client = kept.connect(reconnect_timeout=60)
    found = []
    chaos = Chaos(kept, seed)
    for name, disturb in (("alone", lambda *_: None), ("net", chaos)):
        torch.manual_seed(0)
        random.seed(0)
        net = client.create(**arguments, name=name, seed=0)
        opt = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        if name == "net":
            net.on_rollback = "replay"
            await_saved(net)
        results = list(train(net, opt, disturb, **how))
        state = opt.state_dict()["state"].values()
        moments = [entry["momentum_buffer"].tolist() for entry in state]
        digest = net.describe()["digest"]
        generators = torch.get_rng_state().tolist(), random.getstate()
        found.append((results, moments, digest, generators))
    assert not chaos.left
    assert found[0] == found[1]


@pytest.fixture
def trained(kept):
    """A hosted network after a step that was saved, and two that were not."""
    kept.end()
    kept.options[-1] = "--save-versions=0"
    client = kept.start().connect(reconnect_timeout=60)
    net = client.create(**RESNET, name="net", seed=0)
    opt = optim.SGD(net.parameters(), lr=0.05)
    await_saved(net)
    return net, opt


def step(net, opt, seed):
    x, y = images(net, seed)
    opt.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    opt.step()
    return loss.item()


def test_says_what_is_lost_and_what_to_do(kept, trained):
    net, opt = trained
    for seed in range(3):
        step(net, opt, seed)
    assert opt.last_step.version.params == 4
    kept.restart()
    with pytest.raises(ServerRestarted) as restarted:
        net.state_dict()
    message = restarted.value.message
    assert f"at version {3 << 32} of its parameters, which was 1 before" in message
    assert "this network had 4, so 3 steps or writes are lost" in message
    assert 'net.on_rollback = "replay"' in message
    assert "backboned.optim.resume(net) go on from there" in message
    info = net.instance.info()
    assert info.version.params == info.saved.params == 3 << 32
    assert [version.params for version in info.rollback.saved] == [1]
    assert info.rollback.raised == info.version


def test_keeps_no_more_than_it_may(kept, trained):
    net, opt = trained
    net.on_rollback, net.replay_bytes = "replay", "512KiB"  # Five steps or so.
    losses = [step(net, opt, seed) for seed in range(3)]
    kept.restart()
    losses.append(step(net, opt, 3))
    losses += [step(net, opt, seed) for seed in range(4, 12)]
    kept.restart()
    with pytest.raises(ServerRestarted) as restarted:
        step(net, opt, 12)
    assert "for which net.replay_bytes makes room" in restarted.value.message
    other = kept.connect().create(**RESNET, name="other", seed=0)
    opt = optim.SGD(other.parameters(), lr=0.05)
    assert losses == [step(other, opt, seed) for seed in range(12)]


def test_what_was_saved_is_not_kept(kept):
    client = kept.connect(reconnect_timeout=60)
    net = client.create(**RESNET, name="net", seed=0)
    net.on_rollback, net.replay_bytes = "replay", "1MiB"
    opt = optim.SGD(net.parameters(), lr=0.05)
    for seed in range(40):
        step(net, opt, seed)
        if seed % 4 == 3:
            await_saved_as(net, opt.last_step.version.params)
    kept.restart()
    assert step(net, opt, 40) > 0


def test_only_a_network_that_comes_back_can_replay(server):
    net = server.create("seq-mnist", seed=0)
    with pytest.raises(ValueError, match='make it with name="..."'):
        net.on_rollback = "replay"
    with pytest.raises(ValueError, match="it is 'raise' or 'replay'"):
        net.on_rollback = "redo"
    with pytest.raises(ValueError, match="replay_bytes is 'much'"):
        net.replay_bytes = "much"
    assert (net.on_rollback, net.replay_bytes) == ("raise", 1 << 30)


@pytest.mark.parametrize("on_rollback", ["raise", "replay"])
def test_nothing_notices_a_drain(kept, on_rollback):
    client = kept.connect(reconnect_timeout=60)
    made = []
    for name in ("alone", "net"):
        net = client.create(**RESNET, name=name, seed=0)
        opt = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        net.on_rollback = on_rollback

        def drain(name=name, opt=opt):
            if on_rollback == "raise":
                _ = opt.last_step  # Its tape does not come back, so it must be done.
            if name == "net":
                assert kept.end() == 0
                kept.start()

        x, y = images(net, 0)
        losses = [net.train_step(x, CrossEntropy(y), opt).loss]
        drain()
        losses.append(net.train_step(x, CrossEntropy(y), opt).loss)
        drain()
        weight = net.conv1.weight.detach().clone()
        drain()
        moments = opt.state_dict()
        drain()
        digest = net.describe()["digest"]
        drain()
        net.conv1.weight.data.mul_(0.5)
        losses.append(step(net, opt, 1))
        drain()
        assert net.save(name, keep=9).instance.version == net.instance.version
        drain()
        losses.append(net.train_step(x, CrossEntropy(y), opt).loss)
        losses.append(step(net, opt, 2))
        tensors = [entry["momentum_buffer"] for entry in moments["state"].values()]
        made.append((losses, weight.tolist(), [t.tolist() for t in tensors], digest))
    assert made[0] == made[1]
    assert len(net.checkpoints()) == 1


def test_a_backward_says_that_its_tape_went_with_the_server(kept):
    client = kept.connect(reconnect_timeout=60)
    net = client.create("seq-mnist", name="net", seed=0)
    opt = optim.SGD(net.parameters(), lr=0.05)
    x, y = images(net, 0)
    loss = F.cross_entropy(net(x), y)
    assert kept.end() == 0
    kept.start()
    loss = loss + F.cross_entropy(net(x), y)
    with pytest.raises(ServerRestarted, match="between this forward and its backward"):
        loss.backward()
        opt.step()
        opt.last_step  # noqa: B018  If it is not noticed before.
    alone = client.create("seq-mnist", name="alone", seed=0)
    other = optim.SGD(alone.parameters(), lr=0.05)
    assert step(net, opt, 1) == step(alone, other, 1)
    assert torch.equal(net.get_params(), alone.get_params())


class LostAnswer:
    """Loses the answer to the next call that a server makes before a drain."""

    def __init__(self, kept, monkeypatch):
        self.kept, self.armed = kept, False
        patiently = Channel.patiently

        def losing(channel, attempt, *rest, **options):
            def once(seconds):
                answer = attempt(seconds)
                if self.armed:
                    self.armed = False
                    assert kept.end() == 0
                    kept.start()
                    raise Unavailable("the answer is lost")
                return answer

            return patiently(channel, once, *rest, **options)

        monkeypatch.setattr(Channel, "patiently", losing)


@pytest.mark.parametrize("on_rollback", ["raise", "replay"])
def test_what_was_made_is_not_made_again(kept, monkeypatch, on_rollback):
    client = kept.connect(reconnect_timeout=60)
    nets = [client.create(**RESNET, name=name, seed=0) for name in ("alone", "net")]
    lost = LostAnswer(kept, monkeypatch)
    made = []
    for net in nets:
        net.on_rollback = on_rollback
        is_lost = net is nets[1]
        opt = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        results = [step(net, opt, 0)]
        opt.last_step  # noqa: B018  Waits for it.
        x, y = images(net, 1)
        # A whole step.
        lost.armed = is_lost
        if is_lost:
            with pytest.raises(ServerRestarted, match="It had done this"):
                net.train_step(x, CrossEntropy(y), opt)
        else:
            net.train_step(x, CrossEntropy(y), opt)
        # A forward that moves statistics.
        opt.zero_grad()
        lost.armed = is_lost
        loss = F.cross_entropy(net(x), y)
        if is_lost and on_rollback == "raise":
            assert not lost.armed
        loss.backward()
        opt.step()
        # A step that was not awaited.
        lost.armed = is_lost
        assert (opt.last_step is None) is is_lost
        # A write, and a checkpoint.
        net.conv1.weight.data.mul_(0.5)
        lost.armed = is_lost
        digest = net.describe()["digest"]
        lost.armed = is_lost
        net.save(net.name, keep=9)
        assert len(net.checkpoints()) == 1 and not lost.armed
        results += [loss.item(), step(net, opt, 2), digest]
        made.append((results, net.get_params().tolist()))
    assert made[0] == made[1]


class CrashError(Exception):
    """The trainer's end."""


def test_the_recipe_resumes_after_anything(kept, binary, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/checkpoints.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    (recipe,) = [block for block in blocks if "def begin" in block]
    servers, events = [kept], {}

    def train_one_epoch(net, opt):
        for _ in range(3):
            events.pop((count[0], net.name), lambda _: None)(net)
            count[0] += 1
            x, y = torch.randn(8, 1, 28, 28), torch.randint(10, (8,))
            opt.zero_grad()
            F.cross_entropy(net(x), y).backward()
            opt.step()

    def connect(_target, label):
        return servers[-1].connect(label=label, reconnect_timeout=60)

    def run(folder):
        """Run the recipe until it ends well; give the digest of its network."""
        folder.mkdir()
        torch.manual_seed(0)
        for _ in range(5):
            monkeypatch.chdir(folder)
            names = {
                "backboned": SimpleNamespace(connect=connect, optim=optim),
                "train_one_epoch": train_one_epoch,
            }
            try:
                exec(recipe, names)
                return names["net"].describe()["digest"]
            except CrashError:
                torch.manual_seed(1)  # A new process begins with other numbers.
        raise AssertionError("it never ended")

    def server_crashes(net):
        await_saved(net)
        kept.restart()

    def trainer_crashes(_net):
        raise CrashError

    def both_are_gone(_net):
        # The file first: the folder then has the checkpoint that it names.
        shutil.copytree(tmp_path / "disturbed", tmp_path / "copied")
        (tmp_path / "other").mkdir()
        for part in ("records", "blobs", "format", "starts"):
            source, target = kept.state / part, tmp_path / "other" / "state" / part
            copy = shutil.copytree if source.is_dir() else shutil.copy
            target.parent.mkdir(exist_ok=True)
            copy(source, target)
        kept.kill()
        servers.append(KeptServer(binary, tmp_path / "other", threads=THREADS).start())
        monkeypatch.chdir(tmp_path / "copied")
        shutil.rmtree(tmp_path / "disturbed")
        (tmp_path / "copied").rename(tmp_path / "disturbed")
        raise CrashError

    count = [0]
    undisturbed = run(tmp_path / "undisturbed")
    with kept.connect() as client:
        client.delete("run-7")
        client.delete_checkpoint("run-7")
    events = {
        (1, "run-7"): server_crashes,
        (4, "run-7"): trainer_crashes,
        (9, "run-7"): both_are_gone,
    }
    count = [0]
    try:
        assert run(tmp_path / "disturbed") == undisturbed
        assert not events and len(servers) == 2
    finally:
        servers[-1].kill()
