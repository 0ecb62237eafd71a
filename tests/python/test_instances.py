"""Servers and instances: create, describe, list, delete; and typos."""

import gc

import backboned
import numpy as np
import pytest
import torch
from backboned.transport.channel import Channel


def test_server_says_what_it_is(server):
    info = server.info()
    assert info.version == backboned.__version__
    assert info.torch_version == "2.11.0"
    assert info.principal == "local"
    assert info.limits["max_chunk_bytes"] == 2 << 20
    assert info.limits["stall_timeout"] == 60
    assert info.threads == 2


def test_catalogue_has_mammoths_benchmarks(server):
    benchmarks = {b.name: b for b in server.benchmarks()}
    wanted = "seq-mnist perm-mnist rot-mnist seq-cifar10 seq-cifar100 seq-tinyimg"
    assert set(wanted.split()) <= set(benchmarks)
    mnist = benchmarks["seq-mnist"]
    assert (mnist.architecture, mnist.num_classes, mnist.num_tasks) == (
        "mnistmlp",
        10,
        5,
    )
    assert mnist.input_shape == (1, 28, 28)
    assert benchmarks["seq-cifar10"].normalization.mean


def test_architectures_say_their_arguments(server):
    architectures = {a.name: a for a in server.architectures()}
    resnet = {a.name: a for a in architectures["resnet18"].arguments}
    assert resnet["num_filters"].default == 64
    assert architectures["resnet18"].source


def test_create_by_benchmark_is_unnamed_and_told_apart(server):
    one, two = server.create("seq-mnist"), server.create("seq-mnist")
    assert one.name != two.name
    assert one.name.startswith("seq-mnist-")
    assert one.instance.ephemeral
    assert one.instance.benchmark == "seq-mnist"
    assert server.target in repr(one) and one.name in repr(one)
    assert "seq-mnist" in repr(one)


def test_create_by_architecture_takes_arguments_and_a_name(server):
    net = server.create(
        architecture="resnet18", num_classes=7, num_filters=4, name="by-architecture"
    )
    try:
        assert net.name == "by-architecture"
        assert net.num_classes == 7
        assert net.instance.arguments["num_filters"] == 4
        again = server.instance("by-architecture")
        assert again.instance.uid == net.instance.uid
        assert torch.equal(again.get_params(), net.get_params())
        assert "by-architecture" in [i.name for i in server.instances()]
    finally:
        net.delete()
    assert "by-architecture" not in [i.name for i in server.instances()]


def test_instance_of_another_owner_is_named_with_the_owner(server, net):
    again = server.instance(f"local/{net.name}")
    assert again.instance.uid == net.instance.uid


def test_unknown_benchmark_lists_the_valid_ones(server):
    with pytest.raises(backboned.errors.NotFound) as caught:
        server.create("seq-nmist")
    assert caught.value.reason == "BENCHMARK_NOT_FOUND"
    for word in ("seq-nmist", "seq-mnist", "seq-cifar10"):
        assert word in caught.value.message


def test_unknown_architecture_lists_the_valid_ones(server):
    with pytest.raises(backboned.errors.NotFound, match="resnet18") as caught:
        server.create(architecture="resnet19", num_classes=10)
    assert caught.value.reason == "ARCHITECTURE_NOT_FOUND"


def test_unknown_argument_lists_the_valid_ones(server):
    with pytest.raises(backboned.errors.InvalidArgument, match="num_filters") as caught:
        server.create(architecture="resnet18", num_classes=10, filters=3)
    assert "filters" in caught.value.message


@pytest.mark.parametrize("value", [0, -1, "ten", 2.5])
def test_argument_of_a_wrong_value_is_refused(server, value):
    with pytest.raises(backboned.errors.InvalidArgument, match="num_classes"):
        server.create(architecture="resnet18", num_classes=value)


@pytest.mark.parametrize("name", ["A", "a/b", "../x", "", " ", "a" * 65, "-a"])
def test_bad_names_are_refused(server, name):
    if not name:
        return  # Means unnamed.
    with pytest.raises(backboned.errors.InvalidArgument):
        server.create("seq-mnist", name=name)


def test_taken_name_is_refused_unless_it_may_exist(server):
    first = server.create("seq-mnist", name="taken", seed=1)
    try:
        with pytest.raises(backboned.errors.AlreadyExists, match="taken") as caught:
            server.create("seq-mnist", name="taken")
        assert caught.value.reason == "INSTANCE_EXISTS"
        same = server.create("seq-mnist", name="taken", exist_ok=True)
        assert same.instance.uid == first.instance.uid
        with pytest.raises(backboned.errors.AlreadyExists):
            server.create("seq-cifar10", name="taken", exist_ok=True)
    finally:
        server.delete("taken")


def test_unknown_device_is_refused(server):
    with pytest.raises(backboned.errors.InvalidArgument, match="cuda:7"):
        server.create("seq-mnist", device="cuda:7")


def test_deleted_instance_is_not_found(server, net):
    net.delete()
    with pytest.raises(backboned.errors.NotFound, match=net.name) as caught:
        net(torch.zeros(1, 1, 28, 28))
    assert caught.value.reason == "INSTANCE_NOT_FOUND"
    with pytest.raises(backboned.errors.NotFound):
        server.instance(net.name)
    with pytest.raises(backboned.errors.NotFound):
        server.delete(net.name)


def test_namesake_made_later_is_another_instance(server):
    old = server.create("seq-mnist", name="namesake", module=False)
    server.delete("namesake")
    new = server.create("seq-mnist", name="namesake", module=False)
    try:
        with pytest.raises(backboned.errors.Aborted):
            old.delete()
        with pytest.raises(backboned.errors.StaleVersion):
            old.set_params(
                np.zeros(old.layout.elements),
                if_version=backboned.types.Version(old.uid),
            )
        assert new.info().version.uid == new.uid
    finally:
        new.delete()


def test_unnamed_instance_goes_when_nobody_refers_to_it(server):
    net = server.create("seq-mnist")
    other = server.instance(net.name)
    name = net.name
    del net
    gc.collect()
    server.create("seq-mnist")
    assert name in [i.name for i in server.instances()]  # `other` stands for it.
    del other
    gc.collect()
    server.create("seq-mnist")
    assert name not in [i.name for i in server.instances()]


def test_unnamed_instance_whose_deletion_failed_goes_later(server, monkeypatch):
    nets = [server.create("seq-mnist", module=False) for _ in range(3)]
    names = {net.name for net in nets}
    true, failed = Channel.unary, []

    def unary(self, path, *arguments):
        if path.endswith("DeleteInstance") and not failed:
            failed.append(path)
            raise backboned.errors.DeadlineExceeded("too slow")
        return true(self, path, *arguments)

    monkeypatch.setattr(Channel, "unary", unary)
    del nets
    gc.collect()
    server.create("seq-mnist", module=False)
    assert failed
    server.create("seq-mnist", module=False)
    assert not names & {i.name for i in server.instances()}


def test_info_counts_and_digests(mlp):
    mlp.forward(np.zeros((2, 1, 28, 28), np.float32))
    info = mlp.info(digest=True)
    assert info.forwards == 1 and info.memory_bytes >= 89610 * 4
    import hashlib

    assert info.digest == hashlib.sha256(mlp.get_params().tobytes()).hexdigest()


def test_generator_state_goes_in_and_comes_out(server):
    from reference_models import ReferenceMlp

    with torch.random.fork_rng():
        torch.manual_seed(5)
        torch.rand(3)
        before = torch.get_rng_state()
        local = ReferenceMlp()
        after = torch.get_rng_state()
    net = server.create("seq-mnist", rng_state=before)
    for ours, theirs in zip(net.parameters(), local.parameters()):
        assert torch.equal(ours, theirs)
    assert net.instance.rng_state == after.numpy().tobytes()


def test_creation_needs_exactly_one_source(server):
    with pytest.raises(TypeError, match="benchmark or an architecture"):
        server.create()
    with pytest.raises(TypeError, match="benchmark or an architecture"):
        server.create("seq-mnist", architecture="mnistmlp")


def test_retried_creation_makes_one_instance(server):
    from backboned.instance import create_instance
    from backboned.v1 import instance_service_pb2 as pb

    request = pb.CreateInstanceRequest(benchmark="seq-mnist", request_id="make-once")
    first = create_instance(server.channel, request)
    second = create_instance(server.channel, request)
    assert first.uid == second.uid


def test_connect_finds_the_same_server(server):
    with backboned.connect(server.target, label="second") as second:
        assert second.info().server_uid == server.info().server_uid
        with pytest.raises(backboned.errors.NotFound):
            second.instance("nobody")
    with pytest.raises(backboned.errors.Unavailable, match="closed"):
        second.info()


def test_closing_a_connection_releases_what_was_abandoned(server):
    second = backboned.connect(server.target)
    net = second.create("seq-mnist")
    named = server.create("seq-mnist", name="outlives", module=False)
    tape = second.instance("outlives")
    tape(torch.zeros(1, 1, 28, 28))
    assert named.info().tape_count == 1
    name = net.name
    del net
    gc.collect()
    second.close()
    assert name not in [i.name for i in server.instances()]
    assert named.info().tape_count == 0
    named.delete()


@pytest.mark.parametrize(
    "target", ["localhost", "http://localhost:1", "", "unix", ":1"]
)
def test_connect_says_what_a_target_is(target):
    with pytest.raises(backboned.errors.InvalidArgument, match="host:port"):
        backboned.connect(target)


def test_connect_fails_at_once_if_nothing_listens(tmp_path):
    with pytest.raises(backboned.errors.Unavailable, match="no socket"):
        backboned.connect(f"unix:{tmp_path}/none.sock")
    with pytest.raises(
        backboned.errors.Unavailable, match="127.0.0.1:1 does not answer"
    ):
        backboned.connect("127.0.0.1:1")


def test_connect_notices_another_kind_of_server():
    from fake_server import scripted_server

    with scripted_server() as (_, channel):
        with pytest.raises(backboned.errors.Unavailable, match="no Backboned server"):
            backboned.connect(channel.target)
