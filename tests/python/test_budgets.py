"""Many experiments within budgets that few of them would break alone."""

import os
import threading
import time

import backboned
import numpy as np
import pytest
from backboned.types import ParameterGroup, StepOptions

# The tests run on a CPU, and on a fake GPU.
MEMORY_LIMIT = (
    "max-device-memory-bytes"
    if os.environ.get("BACKBONED_DEVICE", "cpu") != "cpu"
    else "max-memory-bytes"
)
HEADS = 200
MEMORY = 210_000_000  # Bytes; five networks' parameters are 223 million.
TRAININGS = 4
TAPES = 4  # Of a step.


def images(count, seed, size=32):
    random = np.random.default_rng(seed)
    return random.standard_normal((count, 3, size, size), dtype=np.float32)


def train_head(fork, seed, steps=2):
    """Train a fork's classifier, its trunk left as it is; give its parameters."""
    fork.configure_optimizer("sgd", [ParameterGroup(lr=0.1, momentum=0.9)])
    for step in range(steps):
        x = images(2, seed * steps + step)
        taped = fork.forward(x, tape=True, grad_params=["classifier.*"])
        gradient = np.sin(taped.out + seed, dtype=np.float32)
        fork.backward(
            {taped.tape_id: {"out": gradient}},
            accumulate=True,
            step=StepOptions(zero_after=True),
        )
    return fork.get_params(["classifier.*"]).tobytes()


def test_200_heads_on_one_trunk_in_the_memory_of_5_networks(server, start):
    tight = start(
        threads=2,
        instances=["seq-cifar10=trunk"],
        options=[f"--{MEMORY_LIMIT}={MEMORY}"],
    )
    trunk = tight.instance("trunk", module=False)
    digest = trunk.info(digest=True).digest
    forks = [trunk.clone(num_classes=5, seed=seed) for seed in range(HEADS)]
    heads = [train_head(fork, seed) for seed, fork in enumerate(forks)]
    assert len(set(heads)) == HEADS
    assert trunk.info(digest=True).digest == digest
    own = [info.memory_bytes - info.shared_bytes for info in tight.instances()]
    assert sum(own) < 200 * 60_000  # Heads, their momentum, and no trunk.
    # As they would be alone, with all the memory there is.
    roomy = server.create("seq-cifar10", seed=0, module=False)
    for seed in (0, HEADS - 1):
        assert train_head(roomy.clone(num_classes=5, seed=seed), seed) == heads[seed]
    with pytest.raises(backboned.errors.ResourceExhausted) as caught:
        whole = [tight.create("seq-cifar10", module=False) for _ in range(5)]
        assert len(whole) == 5  # Kept until here.
    assert caught.value.limit == MEMORY_LIMIT
    assert train_head(forks[0], 0) != heads[0]  # Goes on from there.


def train(target, seed):
    """Train with several tapes a step; give all parameters, and the demotions."""
    with backboned.connect(target, label=f"training-{seed}") as own:
        net = own.create(
            architecture="resnet18",
            num_classes=3,
            num_filters=8,
            seed=seed,
            module=False,
        )
        net.configure_optimizer("sgd", [ParameterGroup(lr=0.05, momentum=0.9)])
        for step in range(3):
            tapes = {}
            for part in range(TAPES):
                x = images(4, seed=seed + 100 * step + 10 * part, size=16)
                taped = net.forward(x, training=True, tape=True)
                tapes[taped.tape_id] = {"out": np.cos(taped.out, dtype=np.float32)}
            net.backward(tapes, accumulate=True, step=StepOptions(zero_after=True))
        numbers = [net.get_params(), *net.get_buffers().values()]
        return [np.asarray(n).tobytes() for n in numbers], net.info().demoted_tapes


def train_all(target):
    results = [None] * TRAININGS

    def run(seed):
        results[seed] = train(target, seed)

    threads = [threading.Thread(target=run, args=(s,)) for s in range(TRAININGS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_4_trainings_in_a_quarter_of_the_tapes_they_need(start):
    roomy = start(threads=2)
    probe = roomy.create(
        architecture="resnet18", num_classes=3, num_filters=8, module=False
    )
    one = probe.forward(images(4, 0, size=16), training=True, tape=True).tape_bytes
    expected = [numbers for numbers, _ in train_all(roomy.target)]
    quarter = one * TRAININGS * TAPES // 4
    tight = start(threads=2, options=[f"--max-tape-bytes={quarter}"])
    results = train_all(tight.target)
    assert [numbers for numbers, _ in results] == expected
    assert sum(demoted for _, demoted in results) >= 12
    assert tight.info().principal_usage.tape_bytes == 0


def test_tapes_tell_what_only_they_hold(start):
    server = start()
    net = server.create("seq-mnist", seed=0, module=False)
    x = np.zeros((2, 1, 28, 28), np.float32)
    tape = net.forward(x, tape=True).tape_id
    assert net.info().tape_state_bytes == 0
    net.set_params(np.asarray(net.get_params()) + np.float32(1))
    assert net.info().tape_state_bytes == 89_610 * 4
    net.release_tapes([tape])
    assert net.info().tape_state_bytes == 0


def test_one_session_leaves_room_for_others(start):
    server = start(options=["--max-instances=6", "--session-quota=0.5"])
    greedy = backboned.connect(server.target)
    with greedy, backboned.connect(server.target) as modest:
        made = [greedy.create("seq-mnist", module=False) for _ in range(3)]
        with pytest.raises(
            backboned.errors.ResourceExhausted,
            match="no room for 1 more instance: this session uses 3 of its 3 "
            "of max-instances",
        ) as caught:
            greedy.create("seq-mnist", module=False)
        assert caught.value.limit == "max-instances"
        assert caught.value.limit_scope == "session"
        assert (caught.value.limit_value, caught.value.requested_value) == (3, 4)
        modest.create("seq-mnist", module=False)
        info = greedy.info()
        assert info.session_usage.instances == len(made)
        usage = info.session_usage
        assert usage.memory_bytes + usage.device_memory_bytes >= 3 * 89_610 * 4
        assert info.principal_usage.instances == 4
        assert info.limits["session_quota"] == 0.5


def test_who_starts_a_server_of_his_own_may_use_all_of_it(server):
    assert server.info().limits["session_quota"] == 1


def test_a_principals_quota_is_counted_for_all_its_sessions(start):
    server = start(options=["--max-instances=4", "--quota=local=0.5"])
    with (
        backboned.connect(server.target) as one,
        backboned.connect(server.target) as two,
    ):
        nets = [each.create("seq-mnist", module=False) for each in (one, two)]
        with pytest.raises(
            backboned.errors.ResourceExhausted, match="this principal uses 2 of"
        ):
            two.create("seq-mnist", module=False)
        nets[0].delete()
        two.create("seq-mnist", module=False)


@pytest.mark.parametrize(
    "option",
    ["--quota=lab=0", "--quota=lab=-1", "--quota=lab=1.5", "--quota=lab=nan"]
    + ["--quota=lab", "--session-quota=0", "--session-quota=2", "--session-quota=x"],
)
def test_a_quota_that_is_none_is_refused_at_the_start(binary, option):
    with pytest.raises(backboned.errors.ServerStartError, match="and at most 1"):
        backboned.local_server(binary=binary, options=[option])


def test_memory_of_what_is_deleted_goes_back_to_the_system(start):
    server = start()

    def resident():
        status = open(f"/proc/{server.process.pid}/status").read()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    before = resident()
    nets = [server.create("seq-cifar10", module=False) for _ in range(4)]
    held = resident()
    assert held - before > 4 * 44_000_000
    for net in nets:
        net.delete()
    end = time.monotonic() + 60  # It takes two sweeps, 10 seconds each.
    while resident() - before > 0.1 * (held - before):
        assert time.monotonic() < end, f"{resident() - before} bytes are still there"
        time.sleep(0.5)
    assert server.info().devices[0].pooled_bytes < 10_000_000
