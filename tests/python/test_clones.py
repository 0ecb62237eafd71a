"""Clones, forks and settings of instances."""

import backboned
import numpy as np
import pytest
import torch
from reference_models import ReferenceResNet18, seeded


@pytest.fixture
def resnet(server):
    return server.create(
        architecture="resnet18", num_classes=3, num_filters=4, seed=0, module=False
    )


@pytest.fixture
def x():
    return np.random.default_rng(0).random((4, 3, 16, 16), np.float32)


def test_a_clone_is_equal_and_apart(resnet, x):
    resnet.forward(x, training=True)
    clone = resnet.clone()
    assert clone.ephemeral and clone.uid != resnet.uid
    assert (clone.version.params, clone.version.buffers) == (1, 1)
    assert np.array_equal(clone.forward(x).out, resnet.forward(x).out)
    assert clone.info(digest=True).digest == resnet.info(digest=True).digest
    info = clone.info()
    assert info.shared_bytes == info.memory_bytes > 0

    values = resnet.get_params()
    clone.set_params(values + 1)
    clone.forward(x, training=True)
    assert np.array_equal(resnet.get_params(), values)
    assert clone.info().shared_bytes == 0


def test_a_clone_draws_what_its_original_would(server):
    arguments = {"num_classes": 3, "depth": 10, "widen_factor": 1, "dropout": 0.5}
    net = server.create(architecture="wide-resnet", seed=1, module=False, **arguments)
    clone = net.clone()
    x = np.random.default_rng(0).random((4, 3, 8, 8), np.float32)
    for _ in range(2):
        first, second = (n.forward(x, training=True).out for n in (net, clone))
        assert np.array_equal(first, second)


def test_gradients_come_along_if_asked_for(resnet, x):
    tape = resnet.forward(x, tape=True)
    ones = np.ones_like(tape.out)
    resnet.backward({tape.tape_id: {"out": ones}}, accumulate=True)
    with pytest.raises(backboned.errors.FailedPrecondition):
        resnet.clone().get_grads()
    assert np.array_equal(resnet.clone(with_grads=True).get_grads(), resnet.get_grads())


def test_a_fork_is_the_trunk_under_a_seeded_head(resnet, x):
    fork = resnet.clone(num_classes=6, seed=9)
    model = seeded(lambda: ReferenceResNet18(6, 4), 9)
    own = resnet.get_params(["!classifier.*"])
    assert np.array_equal(fork.get_params(["!classifier.*"]), own)
    head = torch.cat([p.detach().flatten() for p in model.classifier.parameters()])
    assert np.array_equal(fork.get_params("classifier.*"), head.numpy())
    assert fork.layout.attributes["num_classes"] == 6
    assert fork.arguments["num_classes"] == 6
    result = fork.forward(x, ["out", "features"])
    assert np.array_equal(result.features, resnet.features(x))
    assert result.out.shape == (4, 6)
    info = fork.info()
    assert 0 < info.shared_bytes < info.memory_bytes


def test_a_server_clones_by_name(server, resnet):
    made = server.clone(resnet.name, "twin-of-resnet", read_only=True, module=False)
    assert made.name == "twin-of-resnet" and made.read_only
    assert server.clone(resnet.name, module=True).instance.architecture == "resnet18"
    with pytest.raises(backboned.errors.AlreadyExists):
        server.clone(resnet.name, "twin-of-resnet", module=False)
    with pytest.raises(backboned.errors.NotFound):
        server.clone("nobody", module=False)
    server.delete("twin-of-resnet")


def test_a_forgotten_clone_is_deleted(server, resnet):
    name = resnet.clone().name
    resnet.clone()
    assert name not in [info.name for info in server.instances()]


def test_nobody_writes_a_read_only_instance(resnet, x):
    values = resnet.get_params()
    info = resnet.update(read_only=True)
    assert info.read_only and resnet.read_only
    for write in (
        lambda: resnet.set_params(values),
        lambda: resnet.set_grads(values),
        lambda: resnet.zero_grads(),
        lambda: resnet.set_buffers(resnet.get_buffers()),
        lambda: resnet.forward(x, training=True),
    ):
        with pytest.raises(
            backboned.errors.FailedPrecondition, match="read-only"
        ) as caught:
            write()
        assert caught.value.reason == "READ_ONLY"
    tape = resnet.forward(x, tape=True)
    assert resnet.backward({tape.tape_id: {"out": np.ones_like(tape.out)}}).grads
    resnet.forward(x, training=True, buffers=resnet.get_buffers())
    assert not resnet.clone().read_only
    resnet.update(read_only=False)
    resnet.set_params(values)


def test_frozen_parameters_get_no_gradient(server, resnet, x):
    resnet.update(frozen=["*", "!classifier.*"])
    assert resnet.frozen == ("*", "!classifier.*")

    def presence(**options):
        tape = resnet.forward(x, tape=True, **options)
        ones = {tape.tape_id: {"out": np.ones_like(tape.out)}}
        return resnet.backward(ones).grads.present

    names = [p.name for p in resnet.layout.parameters]
    assert presence() == tuple(name.startswith("classifier") for name in names)
    assert presence(grad_params="conv1.*") == tuple(n == "conv1.weight" for n in names)
    assert all(presence(grad_params="*"))
    resnet.update(frozen=False)
    assert all(presence())
    assert server.create("seq-mnist", frozen=True, module=False).frozen == ("*",)


def test_settings_that_make_no_sense_are_refused(server, resnet):
    with pytest.raises(backboned.errors.InvalidArgument, match="names no setting"):
        resnet.update()
    with pytest.raises(backboned.errors.InvalidArgument, match="fc9"):
        resnet.update(frozen="fc9.*")
    with pytest.raises(backboned.errors.InvalidArgument, match="fc9"):
        server.create("seq-mnist", frozen="fc9.*", module=False)
    with pytest.raises(backboned.errors.InvalidArgument, match="num_classes is 0"):
        resnet.clone(num_classes=0)
    with pytest.raises(
        backboned.errors.InvalidArgument, match="with_grads or with_optimizer"
    ):
        resnet.clone(num_classes=4, with_grads=True)
