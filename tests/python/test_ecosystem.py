"""Tests what of PyTorch works around a network in the server, and what says no."""

import copy
import gc
import subprocess
import sys
import warnings
from pathlib import Path

import backboned
import pytest
import torch
import torch.nn.functional as F
from backboned import optim
from hosted_pairs import (
    MODES,
    assert_same_grads,
    assert_same_networks,
    batches,
    make_pair,
    make_pair_in_mode,
)
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel


@pytest.fixture
def alone():
    """A process group of this process alone."""
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_mirrored_network_is_trained_in_data_parallel(server, alone):
    pair = make_pair(server, "resnet")
    models = [DistributedDataParallel(net) for net in pair]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    for x, y in batches("resnet", 2):
        for model, optimizer in zip(models, optimizers):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert_same_networks(*pair)


def train_and_compare(rank, target):
    """Train a remote network and its equal here in data parallel, on data of its own.

    They end equal to the bit, and so do those of the other rank.
    """
    with backboned.connect(target) as server:
        pair = make_pair(server, "resnet")
        for net in pair:
            model = DistributedDataParallel(net)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            for x, y in batches("resnet", 2, seed=rank):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
        assert_same_networks(*pair)
        flat = torch.cat([p.detach().flatten() for p in pair[0].parameters()])
        both = [torch.empty_like(flat) for _ in range(2)]
        distributed.all_gather(both, flat)
        assert torch.equal(*both)


def one_of_two(rank, store, target):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    train_and_compare(rank, target)
    gc.collect()  # gloo's threads abort a process that ends while they hold tensors.
    distributed.destroy_process_group()


def test_two_processes_train_in_data_parallel(start, tmp_path):
    server = start()
    multiprocessing.start_processes(
        one_of_two, (str(tmp_path / "store"), server.target), 2, start_method="spawn"
    )


def test_a_hosted_network_is_refused_in_data_parallel(server, alone):
    net, _ = make_pair(server, "mlp")
    optim.SGD(net)
    model = DistributedDataParallel(net)
    ((x, _),) = batches("mlp", 1)
    with pytest.raises(RuntimeError, match="DistributedDataParallel averages gradie"):
        model(x)
    with torch.no_grad():
        model(x)
    net(x).sum().backward()


def test_a_frozen_network_may_stand_in_data_parallel(server, alone):
    trunk, local = make_pair_in_mode(server, "mlp", "frozen")
    ((x, y),) = batches("mlp", 1)
    heads = []
    for net in (trunk, local.requires_grad_(False)):
        torch.manual_seed(0)
        head = torch.nn.Linear(10, 10)
        model = DistributedDataParallel(torch.nn.Sequential(net, head))
        F.cross_entropy(model(x), y).backward()
        heads.append(head)
    assert_same_grads(*heads)


@pytest.fixture(params=["device", "dtype"])
def another_default(request):
    if request.param == "device":
        torch.set_default_device("meta")  # No value survives there.
    else:
        torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", ["mlp", "resnet"])
@pytest.mark.parametrize("hosted", [False, True])
def test_another_default_device_or_type(server, another_default, kind, hosted):
    net = make_pair(server, kind)[0] if kind == "mlp" else None
    with torch.device("cpu"):
        given = list(batches(kind, 2))
    if net is None:
        net = server.create(
            architecture="resnet18", seed=0, num_classes=10, num_filters=8
        )
    optimizer = optim.SGD(net, lr=0.1) if hosted else None
    x, y = given[0]
    x = x.float()
    F.cross_entropy(net(x), y).backward()
    if optimizer:
        optimizer.step()
    copy.deepcopy(net)(x)
    net.set_params(net.get_params())
    net.zero_grad(set_to_none=False)
    net.to("cpu")
    for value in (*net.state_dict().values(), net(x)):
        assert value.device.type == "cpu"
        assert value.dtype in (torch.float32, torch.int64)


@pytest.mark.parametrize("mode", MODES)
def test_a_shallow_copy_is_refused_in_its_own_words(server, mode):
    net, _ = make_pair_in_mode(server, "mlp", mode)
    with pytest.raises(TypeError, match=r"no shallow copy.*copy\.deepcopy\(net\)"):
        copy.copy(net)


def test_an_optimizer_of_torch_on_a_hosted_network_is_warned_of_once(server):
    net, local = make_pair(server, "mlp")
    optim.SGD(net)
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.1) for n in (net, local)]

    def step(x, y):
        for side, optimizer in zip((net, local), optimizers):
            optimizer.zero_grad()
            F.cross_entropy(side(x), y).backward()
            optimizer.step()

    (first, second) = batches("mlp", 2)
    with pytest.warns(UserWarning, match=r"SGD of torch\.optim steps the hosted netw"):
        step(*first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(*second)
    assert_same_networks(net, local)


def test_other_optimizers_are_not_warned_of(server):
    net, _ = make_pair(server, "mlp")
    mirrored, _ = make_pair(server, "mlp")
    optimizers = [optim.SGD(net), torch.optim.SGD(mirrored.parameters())]
    ((x, y),) = batches("mlp", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for side, optimizer in zip((net, mirrored), optimizers):
            F.cross_entropy(side(x), y).backward()
            optimizer.step()


@pytest.mark.parametrize("mode", MODES)
def test_a_state_dict_has_the_aliases_of_a_local_one(server, mode):
    net, _ = make_pair_in_mode(server, "mlp", mode)
    wrapper = torch.nn.ModuleDict({"net": net})
    state = wrapper.state_dict()
    assert list(state)[:4] == [
        "net.fc1.weight",
        "net.fc1.bias",
        "net.fc2.weight",
        "net.fc2.bias",
    ]
    assert state["net.net.0.2.weight"] is state["net.fc2.weight"]
    assert len(state) == 16
    plain = {name: torch.full_like(value, 2) for name, value in state.items()}
    plain["net._features.0.bias"] = torch.full((100,), 3.0)  # The last one counts.
    plain["net.net.0.0.bias"] = torch.full((100,), 4.0)
    assert not wrapper.load_state_dict(plain).unexpected_keys
    assert (net.fc1.bias == 4).all() and (net.fc1.weight == 2).all()
    only = {n: v for n, v in plain.items() if n.startswith(("net.fc", "net.class"))}
    wrapper.load_state_dict(only)


def test_inputs_on_another_device(binary):
    program = Path(__file__).parent / "other_device.py"
    done = subprocess.run(
        [sys.executable, program, binary], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "done\n", done.stderr
