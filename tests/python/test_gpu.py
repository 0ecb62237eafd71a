"""Tests what a server promises on a GPU, and a CPU keeps by itself: order, time."""

import contextlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import backboned
import grpc
import numpy as np
import pytest
from backboned.types import ParameterGroup, StepOptions
from backboned.v1 import backbone_service_pb2 as pb
from fake_gpu import FAKE, ROOT, is_built, serving
from test_lifecycle import wait_until
from test_random_streams import reason_of

pytestmark = pytest.mark.skipif(not is_built(), reason="there is no fake device here")

# Of the perceptron's backward, which has a ReLU.
IN_BACKWARD = "aten::threshold_backward"


def made(server):
    net = server.create("seq-mnist", seed=0, module=False)
    net.configure_optimizer("sgd", (ParameterGroup(lr=0.1),))
    return net


def x_of(rows):
    return np.random.default_rng(0).random((rows, 1, 28, 28), np.float32)


@pytest.fixture
def x():
    return x_of(8)


def train_step(net, x, terms=1):
    return net.train_step(x, [backboned.CrossEntropy(np.arange(8))] * terms)


def taped(net, x):
    return net.forward(x, training=True, tape=True)


def backward(net, tape, **options):
    ones = {"out": np.ones((8, 10), np.float32)}
    return net.backward({tape.tape_id: ones}, accumulate=True, **options)


def fails(call, *arguments, **options):
    with pytest.raises(backboned.errors.Unavailable) as raised:
        call(*arguments, **options)
    assert raised.value.reason == "DEVICE_LOST"
    assert "cuda:0" in raised.value.message


def test_a_failure_ends_the_train_step_that_caused_it(tmp_path, x):
    # Two of these are in each.
    with serving(tmp_path, fault=f"{IN_BACKWARD}:3") as (server, _):
        net = made(server)
        train_step(net, x)
        fails(train_step, net, x)


@pytest.mark.parametrize("step", [None, StepOptions()], ids=["alone", "and step"])
def test_a_failure_ends_the_backward_that_caused_it(tmp_path, x, step):
    with serving(tmp_path, fault=IN_BACKWARD) as (server, _):
        net = made(server)
        fails(backward, net, taped(net, x), step=step, return_grads=False)


def test_a_failure_ends_the_step_that_caused_it(tmp_path, x):
    with serving(tmp_path, fault="aten::_foreach_add") as (server, _):
        net = made(server)
        backward(net, taped(net, x), return_grads=False)
        fails(net.step)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_server_ends_that_has_lost_its_device(tmp_path, x, devices):
    names = ",".join(f"cuda:{i}" for i in range(devices))
    settings = {"fault": "aten::addmm", "devices": devices}
    with serving(tmp_path, names, **settings) as (server, ended):
        nets = [
            server.create("seq-mnist", seed=0, module=False, device=name)
            for name in names.split(",")
        ]
        fails(nets[0].forward, x)
        for net in nets:  # All of CUDA is lost to the process. It drains by now.
            with pytest.raises(backboned.errors.Unavailable):
                net.forward(x)
    assert ended.status == 3
    assert "illegal memory access" in ended.text
    assert "draining signal=DEVICE_LOST" in ended.text
    assert "a new process may have it again\n" in ended.text


def test_a_network_comes_back_from_a_lost_device(tmp_path, x):
    state = tmp_path / "state"
    state.mkdir()
    options = ("--state-dir", state)
    with serving(tmp_path, options=options, fault="aten::addmm") as (server, ended):
        net = server.create("seq-mnist", name="net", seed=0, module=False)
        before = net.info(digest=True).digest
        wait_until(lambda: [*state.glob("records/*.json")])
        fails(net.forward, x)
    assert ended.status == 3
    with serving(tmp_path, options=options) as (server, _):
        net = server.instance("net", module=False)
        assert net.info(digest=True).digest == before
        net.forward(x)


def test_a_server_does_not_start_that_loses_its_device(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_FAULT", "aten::copy_")
    ended = subprocess.run(
        [FAKE, "--device=cuda", "--instance=seq-mnist", f"--listen=unix:{tmp_path}/s"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 3
    assert "--instance seq-mnist: the device cuda:0 is lost" in ended.stderr


def test_the_time_of_work_is_the_devices(tmp_path, x):
    with serving(tmp_path, kernel_us=3000) as (server, counts):
        net = made(server)
        tape = taped(net, x)
        forward_s = tape.timings.compute
        backward_s = backward(net, tape, return_grads=False).timings.compute
        step_s = train_step(net, x).timings.compute
    # Three products with their biases and two activations; and their gradients.
    assert forward_s >= 5 * 0.003
    assert backward_s >= 10 * 0.003
    assert step_s >= 20 * 0.003  # A loss and the optimizer's step besides.


def counted(folder, times):
    with serving(folder) as (server, counts):
        net = made(server)
        for _ in range(times):
            train_step(net, x_of(8), terms=3)
    return counts


def test_nothing_waits_inside_a_training_step(tmp_path):
    """The input's upload waits, the losses, the new state, and the work's end."""
    few, many = (counted(tmp_path, times) for times in (1, 6))
    waits, operations = ((many[n] - few[n]) / 5 for n in ("waits", "operations"))
    assert waits == 4
    # All but the input's upload and the losses' download.
    assert many["in a row without one"] >= operations - 2


def launches(folder, net_of, call, options=()):
    """Count the launches of one more call, after some."""
    totals = []
    for times in (2, 4):
        with serving(folder, options=options) as (server, counts):
            net = net_of(server)
            for _ in range(times):
                call(net)
        totals.append(counts["operations"])
    return (totals[1] - totals[0]) / 2


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("sgd", {}, 1),
        ("sgd", {"momentum": 0.9}, 3),
        ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, 5),
        ("adam", {}, 7),
        ("adam", {"amsgrad": True, "weight_decay": 0.1, "maximize": True}, 10),
        ("adamw", {"weight_decay": 0.1}, 8),
    ],
)
def test_an_optimizer_steps_all_parameters_by_the_same_launches(
    tmp_path, kind, settings, expected
):
    """A ResNet18 has 62 parameters."""

    def net_of(server):
        net = server.create(architecture="resnet18", num_classes=10, module=False)
        net.configure_optimizer(kind, [ParameterGroup(lr=0.1, **settings)])
        net.set_grads(np.ones(net.layout.elements, np.float32))
        return net

    assert launches(tmp_path, net_of, lambda net: net.step()) == expected


def test_parameters_that_were_stepped_more_often_are_stepped_right(tmp_path, start):
    """Their step counts and slots differ, and their groups."""

    def stepped(server):
        net = server.create("seq-mnist", seed=0, module=False)
        groups = [
            ParameterGroup(select=["classifier.*"], lr=0.1),
            ParameterGroup(select=["fc*"], lr=0.01, amsgrad=True),
        ]
        net.configure_optimizer("adam", groups)
        grads = np.random.default_rng(0).normal(size=net.layout.elements)
        for select in (["*weight"], ["*bias"], None):
            net.zero_grads()
            count = net.get_params(select).size
            net.set_grads(grads[:count].astype(np.float32), select)
            net.step(StepOptions(clip_norm=1.0))
        return net.get_params()

    with serving(tmp_path) as (gpu, _):
        assert np.array_equal(stepped(gpu), stepped(start(device="cpu")))


def test_statistics_of_all_layers_are_renewed_by_two_launches(tmp_path):
    """A ResNet18 has 20 BatchNorm layers."""
    x = np.ones((2, 3, 32, 32), np.float32)

    def net_of(server):
        return server.create(architecture="resnet18", num_classes=10, module=False)

    def count(training):
        return launches(tmp_path, net_of, lambda net: net.forward(x, training=training))

    trains, evaluates = count(True), count(False)
    assert trains == evaluates + 2


def test_a_server_says_what_memory_tensors_have(tmp_path):
    def allocated_bytes(server):
        return server.info().devices[0].allocated_bytes

    with serving(tmp_path) as (server, _):
        before = allocated_bytes(server)
        net = server.create("seq-mnist", seed=0, module=False)
        assert allocated_bytes(server) - before >= net.layout.elements * 4


def test_one_thread_computes_on_the_device(tmp_path, x):
    """LibTorch would have another one for backwards."""
    with serving(tmp_path) as (server, counts):
        net = made(server)
        backward(net, taped(net, x))
        train_step(net, x)
    # The start's, which tries the device, the worker's, and that of its copies.
    assert counts["threads"] == 3


def test_numbers_are_those_of_the_cpu(tmp_path, x, start):
    with serving(tmp_path) as (gpu, _):
        pairs = zip(trained(gpu, x), trained(start(device="cpu"), x))
        assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def trained(server, x):
    net = made(server)
    losses = [train_step(net, x).loss for _ in range(3)]
    return net.get_params(), np.array(losses), net.forward(x).out


# The accounts would refuse what is to find the device full.
FULL = {"bytes": 16 << 20, "options": ["--max-device-memory-bytes=1GiB"]}


def no_memory(call, *arguments, **options):
    with pytest.raises(backboned.errors.ResourceExhausted) as raised:
        call(*arguments, **options)
    assert raised.value.reason == "OUT_OF_MEMORY"


def test_a_call_that_finds_the_device_full_changes_nothing(tmp_path, x):
    with serving(tmp_path, **FULL) as (server, _):
        net, other = made(server), made(server)
        before, out = net.get_params(), net.forward(x).out
        no_memory(net.forward, x_of(6000))
        no_memory(taped, net, x_of(6000))
        targets = [backboned.CrossEntropy(np.zeros(6000, np.int64))]
        no_memory(net.train_step, x_of(6000), targets)
        assert np.array_equal(net.get_params(), before)
        assert np.array_equal(net.forward(x).out, out)
        assert train_step(net, x).loss == train_step(other, x).loss


@pytest.mark.parametrize("call", ["forward", "train_step", "backward", "set_params"])
def test_a_full_device_demotes_tapes_and_runs_the_call_again(tmp_path, call):
    """As it would run without them; and the tapes' backwards do, too."""

    def run(tapes, **settings):
        with serving(tmp_path, **settings) as (server, _):
            net, holder = made(server), made(server)
            mine = taped(net, x_of(1000))
            held = [taped(holder, x_of(200)) for _ in range(tapes)]
            if call == "forward":
                done = net.forward(x_of(2000)).out
            elif call == "train_step":
                targets = [backboned.CrossEntropy(np.zeros(2000, np.int64))]
                done = net.train_step(x_of(2000), targets).loss
            elif call == "backward":
                ones = {"out": np.ones((1000, 10), np.float32)}
                tapes = {mine.tape_id: ones}
                done = net.backward(tapes).grads.flat
            else:
                clones = [net.clone() for _ in range(9)]
                for clone in clones:
                    clone.set_params(net.get_params() + np.float32(1))
                done = [clone.get_params() for clone in clones]
            demoted = holder.info().demoted_tapes + net.info().demoted_tapes
            ones = {"out": np.ones((200, 10), np.float32)}
            grads = [
                holder.backward({tape.tape_id: ones}).grads.flat for tape in held[:3]
            ]
            return done, grads, demoted

    roomy, roomy_grads, none = run(3)
    done, grads, demoted = run(14, **FULL)
    assert none == 0 and demoted > 0
    assert np.array_equal(done, roomy)
    assert all(map(np.array_equal, grads, roomy_grads))


def test_states_and_tapes_of_a_session_are_limited(tmp_path, x):
    """A perceptron has 358,440 bytes; a session, half of the device's."""
    limit = ["--max-device-memory-bytes=3MB"]
    with serving(tmp_path, options=limit) as (server, _):
        nets = [server.create("seq-mnist", module=False) for _ in range(3)]
        used = server.info().session_usage.device_memory_bytes
        assert used == 3 * 358_440
        with pytest.raises(backboned.errors.ResourceExhausted) as raised:
            for _ in range(3):
                nets.append(nets[0].clone())
                nets[-1].set_params(nets[-1].get_params() + np.float32(1))
        assert raised.value.limit == "max-device-memory-bytes"
        assert raised.value.limit_scope == "session"
        assert server.info().session_usage.device_memory_bytes == 4 * 358_440
        with pytest.raises(backboned.errors.ResourceExhausted):
            taped(nets[0], x_of(400))
        assert server.info().session_usage.tapes == 0
        tape = taped(nets[0], x)
        usage = server.info().session_usage
        held = usage.device_memory_bytes - 4 * 358_440
        assert 0 < held < tape.tape_bytes
        out = 320  # The answer, which was there when the tape was weighed.
        rest = tape.tape_bytes - held - out
        assert usage.tape_bytes == tape.tape_bytes
        # The server frees the answer some time after it has sent it.
        wait_until(lambda: server.info().session_usage.memory_bytes == rest)
        nets[0].release_tapes([tape.tape_id])
        for net in nets:
            net.delete()
        assert server.info().session_usage.device_memory_bytes == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"DEVICES": 0, "DRIVER": 0},
            "there is no NVIDIA driver on this machine, which",
        ),
        (
            {"DEVICES": 0, "DRIVER": 12080},
            "the NVIDIA driver has CUDA 12.8, and LibTorch needs 13.0: update",
        ),
        (
            {"DEVICES": 0},
            'LibTorch finds no CUDA device on this machine, CUDA_VISIBLE_DEVICES is "',
        ),
        ({"DEVICES": 1, "BYTES": 0}, "cannot use cuda:0: cannot map a fake device"),
        (
            {"DEVICES": 1, "FAULT": "aten::fill_"},
            "cannot use cuda:0: CUDA error: an illegal memory access",
        ),
    ],
    ids=["no driver", "old driver", "hidden", "full", "broken"],
)
def test_a_gpu_that_cannot_be_used_is_one_sentence(
    tmp_path, monkeypatch, settings, sentence
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    for name, value in settings.items():
        monkeypatch.setenv(f"FAKE_CUDA_{name}", str(value))
    ended = subprocess.run(
        [FAKE, "--device=cuda", f"--listen=unix:{tmp_path}/s"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"backboned: {sentence}")
    assert ended.stderr.count("\n") == 1


def test_a_server_describes_its_gpu(tmp_path, x):
    with serving(tmp_path, kernel_us=3000, bytes=1 << 30) as (server, _):
        before = server.info().devices[0]
        compute_s = made(server).forward(x).timings.compute
        device = server.info().devices[0]
    assert device.description == "Fake GPU"
    assert device.driver == "13.0"
    assert device.total_bytes == 1 << 30
    assert device.free_bytes <= device.total_bytes - device.allocated_bytes
    assert device.busy - before.busy >= compute_s


def test_least_is_the_gpu_with_most_free_memory(tmp_path):
    with serving(tmp_path, "cpu,cuda:0,cuda:1", devices=2) as (server, _):
        nets = [
            server.create("seq-mnist", name=f"net-{i}", device="least", module=False)
            for i in range(4)
        ]
        devices = [net.info().device for net in nets]
        assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
        again = server.create(
            "seq-mnist", name="net-1", device="least", exist_ok=True, module=False
        )
        assert again.info().device == "cuda:1"
        with pytest.raises(backboned.errors.AlreadyExists):
            server.create("seq-mnist", name="net-1", device="cpu", exist_ok=True)
        columns = {"architecture": "mnistmlp-pnn", "num_classes": 2, "input_size": 8}
        first = server.create(device="cuda:0", module=False, **columns)
        later = server.create(device="least", columns=[first], module=False, **columns)
        assert later.info().device == "cuda:0"


def test_a_batch_of_many_clients_is_one_copy_in_and_one_out(tmp_path):
    """Their outputs differ in kind; each gets its own rows."""
    x = x_of(8)
    options = ["--max-batch=8", "--max-delay-us=1000000"]
    wanted = ["out", "features", "both", "out"] * 2

    def ask(net, i):
        return net.forward(x[i : i + 1], returnt=wanted[i], allow_merge=True)

    def run(folder, merges):
        folder.mkdir()
        with serving(folder, options=options) as (server, counts):
            net = server.create("seq-mnist", seed=0, module=False)
            alone = [net.forward(x[i : i + 1], returnt="both") for i in range(8)]
            found = []
            if merges:
                with ThreadPoolExecutor(8) as threads:
                    found = list(threads.map(ask, [net] * 8, range(8)))
                assert server.info().devices[0].batches.merged_forwards == 8
        return alone, found, [counts[f"copies {way}"] for way in ("in", "out")]

    _, _, before = run(tmp_path / "apart", merges=False)
    alone, found, after = run(tmp_path / "together", merges=True)
    assert [b - a for a, b in zip(before, after)] == [1, 1]
    for expected, answer, returnt in zip(alone, found, wanted):
        for name in ("out", "features") if returnt == "both" else (returnt,):
            ours, theirs = answer.outputs[name], expected.outputs[name]
            assert np.allclose(ours, theirs, atol=1e-5)


GRAPHS = ["--graph-bytes=1GiB"]


def several_steps(server, kind):
    """Train with learning rates, labels, weights, masks and batches that change."""
    rng = np.random.default_rng(0)
    nets = [server.create("seq-cifar10", seed=i, module=False) for i in range(2)]
    for net in nets:
        net.configure_optimizer(kind, [ParameterGroup(lr=0.1)])
    numbers = []
    for step in range(26):
        net, rows = nets[step % 2], (4, 6)[step // 8 % 2]
        x = rng.random((rows, 3, 32, 32), np.float32)
        labels = rng.integers(0, 10, rows)
        weight = 0.5 if step % 5 == 4 else 1
        terms = [backboned.CrossEntropy(labels, weight=weight)]
        if step % 7 == 6:
            mask = [label < 4 for label in range(10)]
            terms[0] = backboned.CrossEntropy(labels % 4, class_mask=mask)
        if step >= 10:
            terms.append(backboned.MeanSquaredError(rng.random((rows, 10), np.float32)))
        if step == 13:
            net.set_params(net.get_params() * np.float32(0.5))
        if step in (0, 1, 21, 22):
            net.update(frozen=["conv1.*"] if step < 2 else [])
        options = StepOptions(lr=[0.1 / (step + 1)], clip_norm=1.0)
        numbers.append(net.train_step(x, terms, options).loss)
    return numbers, [net.get_params() for net in nets]


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_graphs_change_no_number(tmp_path, kind, start):
    with serving(tmp_path, options=GRAPHS) as (gpu, counts):
        ours, theirs = (
            several_steps(gpu, kind),
            several_steps(start(device="cpu"), kind),
        )
        assert ours[0] == theirs[0]
        assert all(map(np.array_equal, ours[1], theirs[1]))


@pytest.mark.parametrize("allow_merge", [True, False])
def test_graphs_of_forwards_change_no_number(tmp_path, start, allow_merge):
    def outputs(server):
        rng, found = np.random.default_rng(0), []
        nets = [server.create("seq-cifar10", seed=i, module=False) for i in range(2)]
        for call in range(20):
            net, returnt = nets[call % 2], ("out", "both")[call // 8 % 2]
            if call == 5:
                net.set_params(net.get_params() * np.float32(0.5))
            x = rng.random(((2, 3)[call // 4 % 2], 3, 32, 32), np.float32)
            given = {"training": call == 12, "allow_merge": allow_merge}
            found += net.forward(x, returnt=returnt, **given).outputs.values()
        return found

    with serving(tmp_path, options=GRAPHS) as (gpu, _):
        assert all(map(np.array_equal, outputs(gpu), outputs(start(device="cpu"))))


def test_a_graph_of_a_forward_is_one_launch(tmp_path):
    """Beside it: copies of the input, the parameters, buffers and outputs."""
    x = np.ones((2, 3, 32, 32), np.float32)

    def net_of(server):
        net = server.create(architecture="resnet18", num_classes=10, module=False)
        for _ in range(3):
            net.forward(x)
        return net

    def forward(net):
        net.forward(x)

    assert launches(tmp_path, net_of, forward) > 50
    assert launches(tmp_path, net_of, forward, options=GRAPHS) < 8


def test_a_graph_of_a_step_is_one_launch(tmp_path):
    """Beside it: copies, the optimizer's, and what reads the loss."""
    x = np.ones((2, 3, 32, 32), np.float32)

    def net_of(server):
        net = server.create(architecture="resnet18", num_classes=10, module=False)
        net.configure_optimizer("sgd", [ParameterGroup(lr=0.1, momentum=0.9)])
        for _ in range(3):
            net.train_step(x, [backboned.CrossEntropy([0, 1])])
        return net

    def step(net):
        net.train_step(x, [backboned.CrossEntropy([0, 1])])

    assert launches(tmp_path, net_of, step) > 100
    assert launches(tmp_path, net_of, step, options=GRAPHS) < 20


def test_a_server_does_not_start_without_the_library_of_its_graphs(tmp_path):
    device = "libtorch_cuda.so"
    (tmp_path / device).symlink_to(ROOT / "build/release/tests/fake_cuda" / device)
    ended = subprocess.run(
        [ROOT / "build/release/backboned", "--device=cuda", *GRAPHS],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "cannot load the library of CUDA graphs: " in line


def test_a_full_device_gives_graphs_up(tmp_path):
    """Four graphs keep 2 MB of images each; the last step needs their place."""

    def step(net, rows):
        terms = [backboned.CrossEntropy(np.zeros(rows, np.int64))]
        return net.train_step(x_of(rows), terms).loss

    options = [*GRAPHS, "--max-device-memory-bytes=1GiB"]
    with serving(tmp_path, bytes=24 << 20, options=options) as (server, _):
        net = made(server)
        for rows in (700, 710, 720, 730):
            for _ in range(3):
                step(net, rows)
        assert np.isfinite(step(net, 2500))
        assert np.isfinite(step(net, 700))


@pytest.mark.parametrize("most", ["0", "4MiB", "1GiB"])
def test_pinned_memory_changes_no_number(tmp_path, most, start):
    """A ResNet18's largest parameters have 9 MB; they are pinned once, and pooled."""

    def filled(server):
        net = server.create(architecture="resnet18", num_classes=10, module=False)
        values = np.random.default_rng(0).normal(size=net.layout.elements)
        for factor in range(1, 4):
            net.set_params(values * factor)
        return net.get_params()

    with serving(tmp_path, options=[f"--pinned-bytes={most}"]) as (gpu, counts):
        assert np.array_equal(filled(gpu), filled(start(device="cpu")))
    assert (counts["blocks pinned"] > 0) == (most != "0")


def test_memory_that_cannot_be_pinned_serves_as_well(tmp_path):
    with serving(tmp_path, pins=0, options=["--pinned-bytes=1GiB"]) as (server, counts):
        net = server.create(architecture="resnet18", num_classes=10, module=False)
        net.set_params(net.get_params())
    assert counts["blocks pinned"] == 0


@pytest.fixture
def broken(tmp_path):
    """Serve a ResNet18 on a device that is lost in a turn of its parameters' read."""

    def made(server):
        return server.create(architecture="resnet18", num_classes=10, module=False)

    @contextlib.contextmanager
    def serve(turn):
        (tmp_path / "whole").mkdir()
        with serving(tmp_path / "whole") as (server, counts):
            made(server)
        copies = counts["copies in"] + counts["copies out"]
        fault = f"aten::copy_:{copies + turn}"
        with serving(tmp_path, fault=fault) as (server, counts):
            yield server, made(server)
        assert counts.status == 3

    return serve


TURNS = pytest.mark.parametrize("turn", [1, 5])  # Some bytes have left at the fifth.


@TURNS
def test_a_read_that_fails_is_an_error_at_once(broken, turn):
    with broken(turn) as (_, net):
        fails(net.get_params)


@TURNS
def test_calls_behind_a_read_that_fails_do_not_begin(broken, turn):
    with broken(turn) as (server, net), grpc.insecure_channel(server.target) as channel:
        calls = channel.stream_stream(
            "/backboned.v1.BackboneService/Calls",
            pb.CallsRequest.SerializeToString,
            pb.CallsResponse.FromString,
        )
        first = pb.CallsRequest(call=1, get_params={"instance": net.name})
        second = pb.CallsRequest(call=2, after=1, zero_grads={"instance": net.name})
        ended = {}
        for part in calls(iter([first, second]), timeout=60):
            if part.HasField("status"):
                ended[part.call] = reason_of(part.status)
    assert ended.pop(1) == "ERROR_REASON_DEVICE_LOST"
    # The server that has lost its device drains: the second call may find that so.
    (second,) = ended.values()
    assert second in {"ERROR_REASON_NOT_BEGUN", "ERROR_REASON_DRAINING"}


def test_a_deterministic_server_says_so(tmp_path, x):
    """Products of the fake device fail then as a GPU's do without a variable."""
    with serving(tmp_path, options=["--deterministic"]) as (server, _):
        assert server.info().numerics["deterministic"] == "on"
        params, losses, out = trained(server, x)
        assert np.array_equal(params, trained(server, x)[0])


def test_a_network_is_read_while_another_computes(tmp_path, x):
    """A training step takes 2 s, a copy 0.2 s."""
    with serving(tmp_path, kernel_us=100_000) as (server, _):
        net, other = made(server), made(server)
        with ThreadPoolExecutor() as pool:
            step = pool.submit(train_step, other, x)
            wait_until(lambda: server.info().session_usage.calls == 2)
            net.get_params()
            assert not step.done()
            step.result()


def test_a_network_is_read_by_one_copy_of_each_dtype(tmp_path):
    images, ones = np.ones((8, 3, 32, 32), np.float32), np.ones((8, 3), np.float32)

    def gradients(net):
        return net.backward({taped(net, images).tape_id: {"out": ones}})

    def copies_out(read, folder):
        folder.mkdir()
        with serving(folder) as (server, counts):
            net = server.create(
                architecture="resnet18", num_classes=3, num_filters=4, module=False
            )
            read(net)
        return counts["copies out"]

    reads = {
        "nothing": lambda net: None,
        "parameters": lambda net: net.get_params(),
        "parameters in double": lambda net: net.get_params(dtype="float64"),
        "buffers": lambda net: net.get_buffers(),  # Of float32 and int64.
        "digest": lambda net: net.info(digest=True),
        "gradients": gradients,
    }
    none, *counts = (
        copies_out(read, tmp_path / str(i)) for i, read in enumerate(reads.values())
    )
    # A forward brings its outputs, too.
    assert [count - none for count in counts] == [1, 1, 2, 2, 1 + 1]
