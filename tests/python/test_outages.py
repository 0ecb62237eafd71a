"""The network between a client and its server is away for a while; the server lives."""

import contextlib
import functools
import itertools
import re
from concurrent.futures import ThreadPoolExecutor

import backboned
import pytest
import torch
from backboned import CrossEntropy, optim
from relay import FlakyRelay
from test_faults import is_there
from test_lifecycle import wait_until
from torch.nn import functional as F

pytestmark = pytest.mark.transports

STEPS = 4
POINTS = ("forward", "backward", "step")


@pytest.fixture(scope="module")
def far(binary):
    """A server on TCP."""
    options = ["--listen=127.0.0.1:0"]
    with backboned.local_server(binary=binary, threads=2, options=options) as server:
        yield server


@contextlib.contextmanager
def relay_to(far, seconds):
    host, port = re.search(r"(127\.0\.0\.1):(\d+)", far.process.banner).groups()
    relay = FlakyRelay((host, int(port)), seconds)
    try:
        yield relay
    finally:
        relay.close()


@pytest.fixture
def relay(far):
    with relay_to(far, 1) as relay:
        yield relay


@pytest.fixture
def reached(relay):
    with backboned.connect(relay.target, reconnect_timeout=120) as server:
        yield server


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x = torch.rand(8, 3, 16, 16, generator=generator)
        yield x, torch.randint(10, (8,), generator=generator)


def network(server, **options):
    return server.create(
        architecture="resnet18", num_classes=10, num_filters=4, seed=0, **options
    )


def train(net, optimizer, at):
    losses = []
    for step, (x, y) in enumerate(batches()):
        optimizer.zero_grad()
        at(step, "forward")
        loss = F.cross_entropy(net(x), y)
        at(step, "backward")
        loss.backward()
        at(step, "step")
        optimizer.step()
        losses.append(loss.item())
    return losses


def mirrored(server, at):
    net = network(server)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    return [train(net, optimizer, at), net.state_dict()]


def hosted(server, at):
    net = network(server)
    optimizer = optim.SGD(net, lr=0.05, momentum=0.9)
    losses = train(net, optimizer, at)
    assert net.instance.info().steps == STEPS
    return [losses, net.state_dict(), optimizer.state_dict()["state"]]


def whole_steps(server, at):
    net = network(server)
    optimizer = optim.SGD(net, lr=0.05, momentum=0.9)
    losses = []
    for step, (x, y) in enumerate(batches()):
        at(step, "forward")
        losses.append(net.train_step(x, [CrossEntropy(y)], optimizer).loss)
        at(step, "step")
    assert net.instance.info().steps == STEPS
    return [losses, net.state_dict()]


def steps_in_flight(server, at):
    net = network(server)
    optimizer = optim.SGD(net, lr=0.05, momentum=0.9)
    steps = []
    for step, (x, y) in enumerate(batches()):
        at(step, "forward")
        steps.append(net.train_step_async(x, [CrossEntropy(y)], optimizer))
        at(step, "step")
    losses = [step.result().loss for step in steps]
    assert net.instance.info().steps == STEPS
    return [losses, net.state_dict()]


def frozen(server, at):
    teacher = network(server, frozen=True).eval()
    features = []
    for step, (x, _) in enumerate(batches()):
        at(step, "forward")
        features.append(teacher.features(x))
    at(0, "step")
    return [dict(enumerate(features)), teacher.state_dict()]


@functools.lru_cache
def undisturbed(server, way):
    return way(server, lambda step, point: None)


WAYS = {
    "mirrored": mirrored,
    "hosted": hosted,
    "train_step": whole_steps,
    "train_step_async": steps_in_flight,
    "frozen": frozen,
}
EVENTS = {
    "away": FlakyRelay.go_down,
    "answer lost": lambda relay: relay.lose("down"),
    "request lost": lambda relay: relay.lose("up"),
}


def assert_same(found, expected):
    for mine, other in zip(found, expected):
        if isinstance(mine, list):
            assert mine == other
            continue
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            pair = (
                (value["momentum_buffer"], other[key]["momentum_buffer"])
                if isinstance(value, dict)
                else (value, other[key])
            )
            assert torch.equal(*pair), key


def train_through(far, relay, way, event):
    """Train with an outage at each point, and compare with an undisturbed training."""
    expected = undisturbed(far, way)
    wanted = set(zip(itertools.count(), POINTS))

    def at(step, point):
        if (step, point) in wanted:
            wanted.discard((step, point))
            event(relay)

    with backboned.connect(relay.target, reconnect_timeout=120) as reached:
        assert_same(way(reached, at), expected)
        assert relay.outages >= 1
        assert reached.info().server_uid == far.info().server_uid


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_training_goes_on_with_the_same_bits(far, relay, way, event):
    train_through(far, relay, way, event)


@pytest.mark.nightly
@pytest.mark.parametrize("seconds", [10, 60])
def test_trainings_side_by_side_go_on_with_the_same_bits(far, seconds):
    def run(way, event):
        torch.set_num_threads(2)  # It is a thread's own.
        with relay_to(far, seconds) as relay:
            train_through(far, relay, way, event)

    pairs = list(itertools.product(WAYS.values(), EVENTS.values()))
    for way in WAYS.values():
        undisturbed(far, way)
    with ThreadPoolExecutor(len(pairs)) as pool:
        running = [pool.submit(run, *pair) for pair in pairs]
    for each in running:
        each.result()


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_what_is_made_in_an_outage_is_made_once(far, relay, reached, event):
    def count():
        return len(far.instances())

    before = count()
    event(relay)
    net = network(reached)
    assert count() == before + 1
    event(relay)
    assert net.instance.info().version.uid == net.instance.uid
    event(relay)
    net.delete()
    assert count() == before


def test_a_hosted_forward_in_training_mode_goes_on(relay, reached):
    net = reached.create("seq-mnist", seed=0)  # Without BatchNorm: nothing moves.
    optim.SGD(net)
    x = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        expected = net.train()(x)
        relay.lose("down")
        assert torch.equal(net(x), expected)
    assert relay.outages == 1


def test_raw_calls_with_an_id_or_without_effect_go_on(relay, reached):
    instance = network(reached, module=False)
    x = torch.rand(2, 3, 16, 16).numpy()
    expected = instance.forward(x).out
    relay.lose("down")
    assert (instance.forward(x).out == expected).all()
    relay.lose("down")
    taped = instance.forward(x, tape=True, request_id="mine")
    assert instance.info().tape_count == 1 and taped.tape_id
    relay.lose("down")
    version = instance.set_params(instance.get_params() * 0)
    assert version.params == instance.version.params == 2


def test_a_raw_forward_that_keeps_a_tape_is_not_repeated_without_an_id(relay, reached):
    instance = network(reached, module=False)
    x = torch.rand(2, 3, 16, 16).numpy()
    relay.lose("down")
    with pytest.raises(backboned.errors.Unavailable):
        instance.forward(x, tape=True)


def test_who_does_not_want_to_wait_does_not(relay):
    with backboned.connect(relay.target, reconnect_timeout=0) as server:
        net = network(server)
        optimizer = optim.SGD(net, lr=0.1)
        x, y = next(batches())
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        relay.go_down()
        lives = "lives in it: call again when it can be reached"
        with pytest.raises(backboned.errors.Unavailable, match=lives):
            optimizer.step()
        wait_until(lambda: is_there(server))
        optimizer.step()
        assert net.instance.info().steps == 1


def test_waiting_is_told(relay):
    told = []
    with backboned.connect(relay.target, on_wait=told.append) as server:
        relay.go_down()
        network(server)
    assert told
    assert all(waiting.limit == "" for waiting in told)
    assert "does not answer" in str(told[0]) and "goes on waiting" in str(told[0])
    assert [w.waited for w in told] == sorted(w.waited for w in told)
