"""Parameters, gradients and buffers of an instance, through NumPy."""

import threading

import backboned
import numpy as np
import pytest
from backboned.types import Version


@pytest.fixture
def resnet(server):
    return server.create(
        architecture="resnet18", num_classes=3, num_filters=2, seed=0, module=False
    )


def test_parameters_go_there_and_come_back(mlp):
    values = np.random.default_rng(0).random(mlp.layout.elements, np.float32)
    before = mlp.version
    version = mlp.set_params(values)
    assert (version.uid, version.params) == (before.uid, before.params + 1)
    assert np.array_equal(mlp.get_params(), values)


def test_nan_and_infinity_are_stored(mlp):
    values = np.zeros(mlp.layout.elements, np.float32)
    values[:3] = np.nan, np.inf, -np.inf
    mlp.set_params(values)
    assert mlp.get_params().tobytes() == values.tobytes()
    assert np.isnan(mlp.forward(np.ones((1, 1, 28, 28), np.float32)).out).all()


def test_globs_select_in_layout_order(mlp):
    everything = mlp.get_params()
    sizes = {p.name: (p.offset, p.offset + p.size) for p in mlp.layout.parameters}
    begin, end = sizes["classifier.weight"][0], sizes["classifier.bias"][1]
    assert np.array_equal(mlp.get_params("classifier.*"), everything[begin:end])
    assert np.array_equal(mlp.get_params(["*", "!classifier.*"]), everything[:begin])
    assert np.array_equal(mlp.get_params(["!classifier.*"]), everything[:begin])
    bias = np.arange(10, dtype=np.float32)
    mlp.set_params(bias, "classifier.bias")
    everything[-10:] = bias
    assert np.array_equal(mlp.get_params(), everything)


def test_range_may_cut_tensors(mlp):
    everything = mlp.get_params()
    span = range(78395, 78405)  # Across fc1.weight and fc1.bias.
    everything[78395:78405] = 7
    mlp.set_params(np.full(10, 7, np.float32), span)
    assert np.array_equal(mlp.get_params(), everything)
    assert np.array_equal(mlp.get_params(span), np.full(10, 7, np.float32))


def test_selection_of_nothing_is_refused(mlp):
    with pytest.raises(backboned.errors.InvalidArgument, match="convolution"):
        mlp.get_params("convolution*")
    with pytest.raises(backboned.errors.InvalidArgument):
        mlp.get_params(range(0, mlp.layout.elements + 1))
    with pytest.raises(backboned.errors.InvalidArgument, match="step"):
        mlp.get_params(range(0, 10, 2))


@pytest.mark.parametrize("size", [0, 1, 89609, 89611])
def test_wrong_size_names_both_and_changes_nothing(mlp, size):
    before = mlp.get_params()
    with pytest.raises(backboned.errors.InvalidArgument, match="89610") as caught:
        mlp.set_params(np.zeros(size, np.float32))
    assert str(size) in caught.value.message
    assert caught.value.reason == "SHAPE_MISMATCH"
    assert np.array_equal(mlp.get_params(), before)


def test_parameters_must_be_a_vector_of_floats(mlp):
    with pytest.raises(backboned.errors.InvalidArgument, match=r"\[2, 2\]"):
        mlp.set_params(np.zeros((2, 2), np.float32))
    with pytest.raises(backboned.errors.InvalidArgument, match="int64"):
        mlp.set_params(np.zeros(89610, np.int64))


def test_stale_version_changes_nothing(mlp):
    values = mlp.get_params()
    old = mlp.version
    mlp.set_params(values)
    with pytest.raises(backboned.errors.StaleVersion):
        mlp.set_params(values + 1, if_version=old)
    with pytest.raises(backboned.errors.StaleVersion):
        mlp.get_params(if_version=old)
    with pytest.raises(backboned.errors.StaleVersion):
        mlp.forward(np.zeros((1, 1, 28, 28), np.float32), if_version=old)
    assert np.array_equal(mlp.get_params(), values)
    mlp.set_params(values + 1, if_version=Version(params=mlp.version.params))


def test_compare_and_set_loses_no_update(server, mlp):
    mlp.set_params(np.zeros(mlp.layout.elements, np.float32))
    writers, rounds = 4, 10

    def write():
        mine = server.instance(mlp.name, module=False)
        for _ in range(rounds):
            while True:
                values = mine.get_params()
                try:
                    mine.set_params(values + 1, if_version=mine.version)
                    break
                except backboned.errors.StaleVersion:
                    continue

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (mlp.get_params() == writers * rounds).all()


def test_retried_write_is_applied_once(mlp):
    first = mlp.set_params(np.zeros(mlp.layout.elements), request_id="once-1")
    mlp.set_params(np.ones(mlp.layout.elements))
    again = mlp.set_params(np.zeros(mlp.layout.elements), request_id="once-1")
    assert again == first
    assert (mlp.get_params() == 1).all()


def test_request_id_of_another_request_is_refused(mlp):
    mlp.set_params(np.zeros(mlp.layout.elements), request_id="once-2")
    with pytest.raises(backboned.errors.InvalidArgument) as caught:
        mlp.set_params(np.zeros(10), "classifier.bias", request_id="once-2")
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_gradients_accumulate_in_the_server(mlp):
    x = np.random.default_rng(0).random((4, 1, 28, 28), np.float32)
    mlp.zero_grads()
    with pytest.raises(backboned.errors.FailedPrecondition) as caught:
        mlp.get_grads()
    assert caught.value.reason == "NO_GRADIENTS"
    start = np.ones(mlp.layout.elements, np.float32)
    mlp.set_grads(start)
    tape = mlp.forward(x, tape=True)
    result = mlp.backward(
        {tape.tape_id: {"out": np.ones_like(tape.out)}}, accumulate=True
    )
    assert np.array_equal(mlp.get_grads(), start + result.grads.flat)
    assert np.array_equal(mlp.get_grads("classifier.bias"), mlp.get_grads()[-10:])


def test_absent_gradients_are_not_zero(mlp):
    x = np.ones((2, 1, 28, 28), np.float32)
    tape = mlp.forward(x, ["features"], tape=True)
    grads = mlp.backward(
        {tape.tape_id: {"features": np.ones_like(tape.features)}}
    ).grads
    assert grads.present == (True,) * 4 + (False,) * 2
    parts = grads.split(mlp.layout)
    assert [p is None for p in parts] == [False] * 4 + [True] * 2
    assert parts[0].shape == (100, 784)
    mlp.set_grads(grads.flat, present=grads.present)
    there = mlp.read_grads()
    assert there.present == grads.present and np.array_equal(there.flat, grads.flat)


def test_buffers_go_there_and_come_back(resnet):
    before = resnet.version
    buffers = resnet.get_buffers()
    assert list(buffers) == [b.name for b in resnet.layout.buffers]
    assert buffers["bn1.num_batches_tracked"].dtype == np.int64
    assert buffers["bn1.num_batches_tracked"].shape == ()
    new = {name: value + 1 for name, value in buffers.items()}
    version = resnet.set_buffers(new)
    assert (version.params, version.buffers) == (before.params, before.buffers + 1)
    for name, value in resnet.get_buffers().items():
        assert np.array_equal(value, new[name])
    resnet.set_buffers({"bn1.running_mean": np.zeros(2, np.float32)})
    assert (resnet.get_buffers("bn1.running_mean")["bn1.running_mean"] == 0).all()


def test_buffer_of_a_wrong_name_type_or_shape_is_refused(resnet):
    with pytest.raises(backboned.errors.InvalidArgument, match="bn9"):
        resnet.set_buffers({"bn9.running_mean": np.zeros(2, np.float32)})
    with pytest.raises(backboned.errors.InvalidArgument, match="running_mean"):
        resnet.set_buffers({"bn1.running_mean": np.zeros(3, np.float32)})
    with pytest.raises(backboned.errors.InvalidArgument, match="running_mean"):
        resnet.set_buffers({"bn1.running_mean": np.zeros(2, np.int64)})


def test_training_forward_moves_and_gives_the_buffers(resnet):
    x = np.random.default_rng(0).random((4, 3, 8, 8), np.float32)
    before = resnet.version
    result = resnet.forward(x, training=True, return_buffers=True)
    assert result.version.buffers == before.buffers + 1
    assert result.buffers["bn1.num_batches_tracked"] == 1
    for name, value in resnet.get_buffers().items():
        assert np.array_equal(value, result.buffers[name])


def test_large_parameters_survive_the_way(server):
    net = server.create(architecture="resnet18", num_classes=10, module=False)
    values = np.random.default_rng(0).random(net.layout.elements, np.float32)
    net.set_params(values)
    first = net.get_params()
    assert np.array_equal(first, values)
    # Memory is used again, and never while somebody looks at it.
    part = first[5:9]
    del first
    other = net.get_params()
    net.set_params(np.zeros_like(values))
    zeros = net.get_params()
    assert np.array_equal(part, values[5:9])
    assert np.array_equal(other, values) and not zeros.any()
