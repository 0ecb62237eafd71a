"""What a server promises on a GPU and a CPU keeps by itself: order, time, waits."""

import backboned
import numpy as np
import pytest
from backboned.types import ParameterGroup, StepOptions
from fake_gpu import is_built, serving

pytestmark = pytest.mark.skipif(not is_built(), reason="there is no fake device here")

# Of the perceptron's backward, which has a ReLU.
IN_BACKWARD = "aten::threshold_backward"


def made(server):
    net = server.create("seq-mnist", seed=0, module=False)
    net.configure_optimizer("sgd", (ParameterGroup(lr=0.1),))
    return net


@pytest.fixture
def x():
    return np.random.default_rng(0).random((8, 1, 28, 28), np.float32)


def train_step(net, x, terms=1):
    return net.train_step(x, [backboned.CrossEntropy(np.arange(8))] * terms)


def taped(net, x):
    return net.forward(x, training=True, tape=True)


def backward(net, tape, **options):
    ones = {"out": np.ones((8, 10), np.float32)}
    return net.backward({tape.tape_id: ones}, accumulate=True, **options)


def failed(call, *arguments, **options):
    with pytest.raises(backboned.errors.Internal):
        call(*arguments, **options)


def test_a_failure_ends_the_train_step_that_caused_it(tmp_path, x):
    with serving(tmp_path, fault=f"{IN_BACKWARD}:3") as (server, _):
        net = made(server)
        before = train_step(net, x).version  # Two of them in each.
        failed(train_step, net, x)
        assert net.info().version == before


@pytest.mark.parametrize("step", [None, StepOptions()], ids=["alone", "and step"])
def test_a_failure_ends_the_backward_that_caused_it(tmp_path, x, step):
    with serving(tmp_path, fault=IN_BACKWARD) as (server, _):
        net = made(server)
        tape = taped(net, x)
        failed(backward, net, tape, step=step, return_grads=False)
        assert net.info().version == tape.version


def test_a_failure_ends_the_step_that_caused_it(tmp_path, x):
    with serving(tmp_path, fault="aten::add") as (server, _):
        net = made(server)
        done = backward(net, taped(net, x), return_grads=False)
        failed(net.step)
        assert net.info().version == done.version


def test_the_time_of_work_is_the_devices(tmp_path, x):
    with serving(tmp_path, kernel_us=3000) as (server, counts):
        net = made(server)
        tape = taped(net, x)
        forward_s = tape.timings.compute
        backward_s = backward(net, tape, return_grads=False).timings.compute
        step_s = train_step(net, x).timings.compute
    # Three products with their biases, and two activations.
    assert forward_s >= 5 * 0.003
    assert backward_s >= 10 * 0.003
    assert step_s >= forward_s + backward_s


def waits_of(folder, call, times):
    with serving(folder) as (server, counts):
        net = made(server)
        for _ in range(times):
            call(net)
    return counts["waits"]


def test_nothing_waits_inside_a_training_step(tmp_path, x):
    """The input's upload waits, the losses, the new state, and the work's end."""
    few, many = (
        waits_of(tmp_path, lambda net: train_step(net, x, terms=3), n) for n in (1, 6)
    )
    assert (many - few) / 5 == 4


def test_one_thread_gives_work_to_the_device(tmp_path, x):
    """LibTorch would have another one for backwards."""
    with serving(tmp_path) as (server, counts):
        net = made(server)
        backward(net, taped(net, x))
        train_step(net, x)
    assert counts["threads"] == 1


def test_numbers_are_those_of_the_cpu(tmp_path, x, start):
    with serving(tmp_path) as (gpu, _):
        pairs = zip(trained(gpu, x), trained(start(device="cpu"), x))
        assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def trained(server, x):
    net = made(server)
    losses = [train_step(net, x).loss for _ in range(3)]
    return net.get_params(), np.array(losses), net.forward(x).out
