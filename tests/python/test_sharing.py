"""One experiment among noisy neighbours, and what a server tells of them."""

import contextlib
import threading
import time

import backboned
import numpy as np
import pytest

NEIGHBOURS = 8
STEPS = 4


@pytest.fixture
def shared(start):
    """A server of the test's own with a trunk to clone."""
    return start(threads=2, instances=["seq-cifar10=trunk"])


@contextlib.contextmanager
def noisy(server, count):
    """Keep neighbours busy with merging forwards on clones of one instance.

    Gives how many answers each has got so far.
    """
    stop = threading.Event()
    answers = [0] * count
    errors = []

    def disturb(index):
        try:
            with backboned.connect(server.target, label=f"neighbour-{index}") as own:
                clone = own.clone("trunk", module=False, num_classes=10, seed=index)
                x = images(1 + index % 3, seed=index)
                while not stop.is_set():
                    clone.forward(x, allow_merge=True)
                    answers[index] += 1
        except backboned.BackbonedError as error:
            errors.append(error)

    threads = [threading.Thread(target=disturb, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def await_answers(answers, count, seconds=60):
    """Wait until each neighbour has got so many."""
    end = time.monotonic() + seconds
    while min(answers) < count:
        assert time.monotonic() < end, f"only {answers} answers in {seconds} s"
        time.sleep(0.01)


def images(count, seed):
    random = np.random.default_rng(seed)
    return random.standard_normal((count, 3, 32, 32), dtype=np.float32)


def experiment(server):
    """Train a network a little and look at it; give every number of it as bytes."""
    with backboned.connect(server.target, label="experiment") as own:
        net = own.create("seq-cifar10", seed=7, module=False)
        seen = []
        for step in range(STEPS):
            x = images(4, seed=100 + step)
            taped = net.forward(x, training=True, tape=True)
            gradient = np.sin(taped.out, dtype=np.float32)
            grads = net.backward({taped.tape_id: {"out": gradient}}, return_grads=True)
            flat = grads.grads.flat
            net.set_params(np.asarray(net.get_params()) - np.float32(0.1) * flat)
            looked = net.forward(x, ["out", "features"])
            seen += [taped.out, flat, looked.out, looked.features]
        seen += [net.get_params(), *net.get_buffers().values()]
        net.delete()
        return [np.asarray(array).tobytes() for array in seen]


def batches(server):
    return server.info().devices[0].batches


def test_neighbours_change_no_bit_of_who_does_not_allow_merging(shared):
    alone = experiment(shared)
    with noisy(shared, NEIGHBOURS) as answers:
        await_answers(answers, 1)
        before = list(answers)
        among_others = experiment(shared)
        meanwhile = [now - then for now, then in zip(answers, before)]
    assert among_others == alone
    assert min(meanwhile) > 0
    assert batches(shared).merged_forwards > 0


def test_a_server_tells_why_batches_left(shared):
    with noisy(shared, 3) as answers:
        await_answers(answers, 5)
    told = batches(shared)
    assert told.samples >= sum(answers)
    assert told.full == told.delay == 0
    assert told.incompatible + told.device_idle > 0


def test_a_quiet_server_has_no_queue(server):
    device = server.info().devices[0]
    assert device.queued == 0
    assert device.backlog == 0.0
    assert device.ahead == 0


def test_a_server_tells_what_waits(shared):
    net = shared.instance("trunk", module=False)
    x = images(16, seed=0)
    net.forward(x)  # From then on it knows how long one takes.
    threads = [threading.Thread(target=net.forward, args=(x,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        device = shared.info().devices[0]
        seen.append(
            (device.queued, device.backlog, device.ahead, device.estimated_wait)
        )
    for thread in threads:
        thread.join()
    queued, backlog, ahead, wait = max(seen)
    assert queued >= 2
    assert backlog > 0
    assert ahead == queued  # All are of this client.
    assert wait >= backlog


def test_a_server_tells_how_much_runs_before_a_newcomer(shared):
    net = shared.instance("trunk", module=False)
    x = images(16, seed=0)
    net.forward(x)
    threads = [threading.Thread(target=net.forward, args=(x,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    seen = []
    with backboned.connect(shared.target, label="newcomer") as other:
        while any(thread.is_alive() for thread in threads):
            device = other.info().devices[0]
            seen.append((device.queued, device.ahead))
    for thread in threads:
        thread.join()
    queued, ahead = max(seen)
    assert queued >= 2
    assert ahead == 1  # The crowd is one run, and the newcomer's turn is next.


def test_a_full_queue_of_one_run_leaves_the_others_alone(start):
    server = start(
        threads=2,
        instances=["seq-cifar10=trunk"],
        options=["--max-queued-by-run", "1"],
    )
    x = images(32, seed=0)
    refused = []

    def crowd(instance):
        try:
            instance.forward(x)
        except backboned.errors.ResourceExhausted as error:
            refused.append(error)

    with (
        backboned.connect(server.target, label="crowd", retry_timeout=0) as crowded,
        backboned.connect(server.target, label="other", retry_timeout=0) as other,
    ):
        instance = crowded.instance("trunk", module=False)
        calm = other.instance("trunk", module=False)
        threads = [threading.Thread(target=crowd, args=(instance,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        calm.forward(x[:1])
        for thread in threads:
            thread.join()
    assert refused
    assert {error.limit for error in refused} == {"max-queued-by-run"}
    assert {error.limit_value for error in refused} == {1}
    assert all(error.retry_delay > 0 for error in refused)


@pytest.mark.parametrize("share", ["lab=0", "lab=-1", "lab=nan", "lab", "=2"])
def test_a_weight_that_is_none_is_refused_at_the_start(binary, share):
    with pytest.raises(backboned.errors.ServerStartError, match="positive weight"):
        backboned.local_server(binary=binary, options=["--share", share])
