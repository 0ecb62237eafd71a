"""Checkpoints: a network that was saved goes on as if nothing had been."""

import copy

import backboned
import numpy as np
import pytest
import safetensors.numpy
import torch
from backboned import CrossEntropy, optim
from backboned.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    StaleVersion,
)
from backboned.types import ParameterGroup, Version
from conftest import THREADS
from hosted_pairs import assert_same, assert_same_networks, assert_same_optimizers
from kept_server import KeptServer
from torch.nn import functional as F

SMALL = {"architecture": "mnistmlp", "num_classes": 3, "mlp_hidden_size": 4}
RESNET = {"architecture": "resnet18", "num_classes": 10, "num_filters": 4}
DROPOUT = {
    **{"architecture": "wide-resnet", "num_classes": 10, "depth": 10},
    **{"widen_factor": 1, "dropout": 0.3},
}


@pytest.fixture
def kept(binary, tmp_path):
    with KeptServer(binary, tmp_path, threads=THREADS) as kept:
        yield kept.start()


@pytest.fixture
def server(kept):
    with kept.connect(reconnect_timeout=30) as server:
        yield server


def small(server, value=0.0, **options):
    """Make a tiny network for NumPy whose parameters are all of one value."""
    net = server.create(**SMALL, module=False, **options)
    fill(net, value)
    return net


def fill(net, value):
    net.set_params(np.full(net.layout.elements, value, np.float32))


def value_of(net):
    return float(net.get_params()[0])


def saved(server, **options):
    """Give the numbers of all checkpoints that there are, by name."""
    found = {}
    for checkpoint in server.checkpoints():
        found.setdefault(checkpoint.name, []).append(checkpoint.number)
    return found


def batches(shape, count=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        x = torch.rand(6, *shape, generator=generator)
        yield x, torch.randint(0, 3, (6,), generator=generator)


def train(net, optimizer, shape, seed):
    for x, y in batches(shape, seed=seed):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()


def sgd(net):
    return optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)


def adam(net):
    first, *rest = net.parameters()
    groups = [{"params": [first], "lr": 0.01, "amsgrad": True}, {"params": rest}]
    return optim.Adam(groups, lr=0.002, betas=(0.8, 0.99))


def adamw(net):
    return optim.AdamW(net.parameters(), lr=0.003)


def assert_same_instances(ours, theirs):
    """Compare all that a checkpoint has, to the bit."""
    digests = [net.info(digest=True).digest for net in (ours, theirs)]
    assert digests[0] == digests[1]
    assert ours.get_params().tobytes() == theirs.get_params().tobytes()
    buffers = ours.get_buffers(), theirs.get_buffers()
    assert buffers[0].keys() == buffers[1].keys()
    for name, array in buffers[0].items():
        assert array.tobytes() == buffers[1][name].tobytes(), name
    if ours.info().dtype in ("float32", "float64"):
        grads = [net.read_grads() for net in (ours, theirs)]
        assert grads[0].flat.tobytes() == grads[1].flat.tobytes()
        assert np.array_equal(grads[0].present, grads[1].present)
    if theirs.info().optimizer is None:
        assert ours.info().optimizer is None
        return
    states = ours.get_optimizer_state(), theirs.get_optimizer_state()
    assert states[0].optimizer == states[1].optimizer
    assert states[0].tensors.keys() == states[1].tensors.keys()
    for name, array in states[0].tensors.items():
        assert array.tobytes() == states[1].tensors[name].tobytes(), name


@pytest.mark.transports
@pytest.mark.parametrize("make", [sgd, adam, adamw])
@pytest.mark.parametrize(
    "network, shape",
    [("seq-mnist", (1, 28, 28)), (RESNET, (3, 16, 16)), (DROPOUT, (3, 16, 16))],
    ids=["seq-mnist", "resnet", "dropout"],
)
def test_a_hosted_training_goes_on_with_the_same_bits(
    kept, server, make, network, shape
):
    options = {"benchmark": network} if isinstance(network, str) else network
    net = server.create(**options, seed=0)
    optimizer = make(net)
    train(net, optimizer, shape, seed=1)
    there = net.save("middle")
    assert there.instance.digest == net.instance.info(digest=True).digest
    middle = net.instance.clone(with_grads=True, with_optimizer=True)
    assert_same_instances(server.load("middle", module=False), middle)
    torch.manual_seed(2)  # Dropout of a network of PyTorch draws by torch's generator.
    train(net, optimizer, shape, seed=2)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    moments = optimizer.state_dict()

    kept.restart(server)
    again = server.load("middle", name="again")
    assert again.instance.info(digest=True).digest == there.instance.digest
    resumed = optim.resume(again)
    assert type(resumed) is type(optimizer) and again.mode == "hosted"
    torch.manual_seed(2)
    train(again, resumed, shape, seed=2)
    for name, tensor in again.state_dict().items():
        assert_same(tensor, state[name])
    ours = resumed.state_dict()
    assert ours["state"].keys() == moments["state"].keys()
    for index, slots in moments["state"].items():
        for what, tensor in slots.items():
            if tensor is not None:
                assert_same(ours["state"][index][what], tensor)


def test_an_instance_draws_on_with_its_own_generator(kept, server):
    x = np.random.default_rng(0).random((4, 3, 16, 16), np.float32)
    net = server.create(**DROPOUT, seed=0, module=False)
    net.forward(x, training=True)
    net.save("a")
    drawn = [net.forward(x, training=True).out for _ in range(2)]
    assert not np.array_equal(*drawn)
    kept.restart(server)
    loaded = server.load("a", module=False)
    assert [loaded.forward(x, training=True).out.tobytes() for _ in drawn] == [
        out.tobytes() for out in drawn
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_every_element_type_is_kept_to_the_bit(kept, server, dtype):
    net = server.create(**RESNET, dtype=dtype, seed=3, module=False, name="net")
    if dtype in ("float32", "float64"):
        groups = [
            ParameterGroup(["conv*"], lr=0.1, momentum=0.5),
            ParameterGroup(["layer*", "bn*", "classifier*"], lr=0.2),
        ]
        net.configure_optimizer("sgd", groups)
        for x, y in batches((3, 16, 16)):
            net.train_step(x.numpy(), [CrossEntropy(y.numpy())])
    made = net.save("net")
    kept_there = server.load("net", module=False)
    assert_same_instances(kept_there, net)
    before = [net.get_params(), net.get_buffers()]
    kept.restart(server)
    loaded = server.load("net", name="again", module=False)
    info = loaded.info(digest=True)
    assert (info.dtype, info.digest) == (dtype, made.instance.digest)
    assert loaded.get_params().tobytes() == before[0].tobytes()
    for name, array in loaded.get_buffers().items():
        assert array.tobytes() == before[1][name].tobytes()
    assert (info.version.params, info.version.uid == net.uid) == (1, False)


def test_a_mirrored_network_is_saved_as_it_is_here(kept, server):
    net = server.create(**RESNET, seed=0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    train(net, optimizer, (3, 16, 16), seed=1)
    net.save("mirrored")  # The last step was not pushed yet.
    here = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    kept.restart(server)
    loaded = server.load("mirrored")
    assert loaded.mode == "mirrored"
    for name, tensor in loaded.state_dict().items():
        assert_same(tensor, here[name])
    with pytest.raises(FailedPrecondition, match="optimizer"):
        optim.resume(loaded)
    second = torch.optim.SGD(loaded.parameters(), lr=0.1, momentum=0.9)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for n, o in ((net, optimizer), (loaded, second)):
        train(n, o, (3, 16, 16), seed=2)
    assert_same_networks(loaded, net)
    assert_same_optimizers(second, optimizer)


def test_a_later_column_comes_back_without_the_earlier_one(kept, server):
    pnn = {"architecture": "mnistmlp-pnn", "num_classes": 3, "input_size": 64}
    first = server.create(**pnn, seed=0, module=False, name="first")
    second = server.create(**pnn, seed=1, columns=["first"], module=False, name="two")
    x = np.random.default_rng(0).random((4, 64), np.float32)
    before, digest = second.forward(x).out, second.info(digest=True).digest
    second.save("column")
    first.set_params(np.zeros(first.layout.elements, np.float32))
    kept.restart(server)
    loaded = server.load("column", name="again", module=False)
    assert loaded.forward(x).out.tobytes() == before.tobytes()
    info = loaded.info(digest=True)
    assert (info.digest, info.columns) == (digest, ("local/first",))
    loaded.configure_optimizer("sgd", [ParameterGroup(lr=0.1)])
    loaded.train_step(x, [CrossEntropy(np.arange(4) % 3)])


def test_a_fork_and_its_trunk_share_files(kept, server):
    trunk = server.create("seq-mnist", seed=0, module=False)
    fork = trunk.clone(num_classes=4, seed=7)
    trunk.save("trunk")
    alone = len(kept.files("blobs"))
    fork.save("fork")
    assert 0 < len(kept.files("blobs")) - alone < alone
    x = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
    outputs = [net.forward(x).out for net in (trunk, fork)]
    server.delete_checkpoint("trunk")
    kept.restart(server)
    loaded = server.load("fork", module=False)
    assert loaded.forward(x).out.tobytes() == outputs[1].tobytes()
    with pytest.raises(NotFound, match='"trunk"'):
        server.load("trunk")


def test_a_benchmarks_instance_is_one_again(server):
    net = server.create("seq-cifar10", seed=0, module=False)
    net.save("cifar")
    info = server.load("cifar", module=False).info()
    assert info.benchmark == "seq-cifar10"
    assert info.normalization == net.info().normalization
    assert info.normalization is not None


def test_a_number_names_one_checkpoint_for_ever(kept, server):
    net = small(server)
    given = []
    for _ in range(3):
        given += [net.save("a").number, net.save("b").number]
        server.delete_checkpoint("b")
        kept.restart(server)
        server.delete_checkpoint("a")
        kept.restart(server)
        net = small(server)
    assert given == sorted(set(given))


def test_keep_leaves_the_newest(server):
    net = small(server)
    numbers = []
    for value in range(4):
        fill(net, value)
        numbers.append(net.save("a", keep=2).number)
    assert numbers == sorted(set(numbers))
    assert saved(server) == {"a": numbers[-2:]}
    assert [value_of(server.load("a", module=False))] == [3]
    assert value_of(server.load("a", number=numbers[2], module=False)) == 2
    with pytest.raises(NotFound, match=f'no checkpoint "a" has number {numbers[0]}'):
        server.load("a", number=numbers[0])
    server.delete_checkpoint("a", numbers[3])
    assert value_of(server.load("a", module=False)) == 2
    net.save("b")
    net.save("a")
    assert len(saved(server)["a"]) == 1
    server.delete_checkpoint("a")
    assert [*saved(server)] == ["b"]
    with pytest.raises(InvalidArgument, match="keep is 0"):
        net.save("a", keep=0)
    with pytest.raises(InvalidArgument, match="Capital"):
        net.save("Capital")


def test_an_instance_tells_what_was_saved_of_it(server):
    nets = [small(server, value) for value in range(2)]
    made = [net.save("a", keep=5) for net in (*nets, nets[0])]
    assert nets[0].checkpoints() == [made[0], made[2]]
    assert server.checkpoints() == made
    assert made[0].owner == "local" and made[0].bytes > 4 * nets[0].layout.elements
    assert made[0].server_version == backboned.__version__
    assert made[0].torch_version and made[0].create_time.tzinfo is not None


def test_many_checkpoints_are_listed_over_pages(server):
    net = small(server)
    for number in range(120):
        net.save(f"name-{number:03}")
    names = [f"name-{number:03}" for number in range(120)]
    assert [checkpoint.name for checkpoint in server.checkpoints()] == names


def test_a_wrong_name_is_answered_with_the_nearest(server):
    small(server).save("seq-mnist-epoch-1")
    with pytest.raises(NotFound, match="mean seq-mnist-epoch-1?") as error:
        server.load("seq-mnist-epoch-2")
    assert error.value.reason == "CHECKPOINT_NOT_FOUND"
    with pytest.raises(NotFound) as error:
        server.delete_checkpoint("nothing")
    assert error.value.reason == "CHECKPOINT_NOT_FOUND"


def test_a_condition_and_a_request_id_hold(server):
    net = small(server)
    old = net.info().version
    fill(net, 1)
    with pytest.raises(StaleVersion):
        net.save("a", if_version=old)
    with pytest.raises(StaleVersion):
        net.save("a", if_version=Version("0" * 32))
    assert saved(server) == {}
    first = net.save("a", keep=9, request_id="once", if_version=net.info().version)
    fill(net, 2)
    assert net.save("a", keep=9, request_id="once", if_version=first.instance.version)
    assert saved(server) == {"a": [first.number]}


def test_settings_are_taken_but_who_may_use_it(server):
    net = small(server, frozen=["fc1*"])
    net.update(read_only=True, shared=True, feature_cache="1MiB")
    net.save("a")
    info = server.load("a", module=False).info()
    assert info.frozen == ("fc1*",)
    assert (info.read_only, info.shared, info.feature_cache_bytes) == (False, False, 0)


def test_a_name_that_is_taken_is_refused(server):
    net = small(server, name="taken")
    net.save("a")
    with pytest.raises(backboned.errors.AlreadyExists, match="taken"):
        server.load("a", name="taken")
    with pytest.raises(InvalidArgument, match="cuda:77|device"):
        server.load("a", device="cuda:77")


def test_a_server_without_a_folder_says_so(start):
    server = start()
    net = small(server)
    for call in (
        lambda: net.save("a"),
        lambda: server.load("a"),
        lambda: server.delete_checkpoint("a"),
    ):
        with pytest.raises(FailedPrecondition, match="without --state-dir") as error:
            call()
        assert error.value.reason == "NO_STATE_FOLDER"
    assert server.checkpoints() == [] == net.checkpoints()


def test_what_is_named_has_a_limit(binary, tmp_path):
    options = ["--max-checkpoint-bytes=50000"]
    with KeptServer(binary, tmp_path, *options) as kept:
        with kept.start().connect() as server:
            assert server.info().limits["max_checkpoint_bytes"] == 50000
            net = small(server)
            size = net.save("a").bytes
            for name in ["b", "c", "d"][: 50000 // size - 1]:
                net.save(name)
            with pytest.raises(ResourceExhausted, match="max-checkpoint-byt") as error:
                net.save("more")
            assert error.value.reason == "LIMIT_REACHED"
            before = saved(server)
            kept.kill()
        kept.start()
        with kept.connect() as server:
            assert saved(server) == before
            net = small(server)
            with pytest.raises(ResourceExhausted):
                net.save("more")
            server.delete_checkpoint("a")
            net.save("more")


def test_the_files_are_the_state_dict_for_everybody(kept, server):
    net = server.create(**RESNET, seed=0)
    optimizer = sgd(net)
    train(net, optimizer, (3, 16, 16), seed=1)
    net.save("net")
    tensors = {}
    for path in kept.files("blobs"):
        tensors.update(safetensors.numpy.load_file(path))
    expected = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    plain = {name: array for name, array in tensors.items() if "/" not in name}
    assert plain.keys() == expected.keys()
    assert any(name.endswith("num_batches_tracked") for name in plain)
    for name, array in plain.items():
        assert array.dtype == expected[name].dtype, name
        assert array.shape == expected[name].shape, name
        assert array.tobytes() == expected[name].tobytes(), name
    assert {name.split("/")[0] for name in tensors.keys() - plain.keys()} == {
        *("generator", "grad", "optimizer")
    }
