"""Forward, Backward, Extract and their refusals, through NumPy."""

import backboned
import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytestmark = pytest.mark.transports


@pytest.fixture
def x():
    return np.random.default_rng(0).random((4, 1, 28, 28), np.float32)


def test_outputs_come_in_the_order_asked_for(mlp, x):
    result = mlp.forward(x, ["features", "out"])
    assert list(result.outputs) == ["features", "out"]
    assert result.out.shape == (4, 10) and result.features.shape == (4, 100)
    assert np.array_equal(mlp.features(x), result.features)
    assert result.timings.total >= result.timings.compute > 0


@pytest.mark.parametrize("returnt", ["out", "features", "both", "full"])
def test_returnt_is_short_for_outputs(server, returnt):
    net = server.create(
        architecture="resnet18", num_classes=3, num_filters=2, module=False
    )
    x = np.zeros((2, 3, 16, 16), np.float32)
    names = {
        "out": ["out"],
        "features": ["features"],
        "both": ["out", "features"],
        "full": ["out", *(f"layers.{i}" for i in range(5))],
    }[returnt]
    assert list(net.forward(x, returnt=returnt).outputs) == names
    assert set(names) <= set(net.layout.outputs)


def test_unknown_output_lists_the_valid_ones(mlp, x):
    with pytest.raises(backboned.errors.InvalidArgument, match="features"):
        mlp.forward(x, ["logits"])
    with pytest.raises(backboned.errors.InvalidArgument, match="both"):
        mlp.forward(x, returnt="all")


def test_wrong_shape_names_both(mlp, server):
    with pytest.raises(backboned.errors.InvalidArgument, match="783") as caught:
        mlp.forward(np.zeros((1, 783), np.float32))
    assert caught.value.reason == "SHAPE_MISMATCH"
    resnet = server.create(
        architecture="resnet18", num_classes=3, num_filters=2, module=False
    )
    with pytest.raises(backboned.errors.InvalidArgument, match=r"1, 28, 28.*3"):
        resnet.forward(np.zeros((1, 1, 28, 28), np.float32))


def test_wrong_element_type_is_refused(mlp):
    with pytest.raises(backboned.errors.InvalidArgument) as caught:
        mlp.forward(np.zeros((1, 1, 28, 28), np.int64))
    assert caught.value.reason == "DTYPE_MISMATCH"
    with pytest.raises(backboned.errors.InvalidArgument, match="complex64"):
        mlp.forward(np.zeros((1, 1, 28, 28), np.complex64))


def test_empty_batch_is_what_it_is_in_pytorch(mlp, server):
    assert mlp.forward(np.zeros((0, 1, 28, 28), np.float32)).out.shape == (0, 10)
    resnet = server.create(
        architecture="resnet18", num_classes=3, num_filters=2, module=False
    )
    with pytest.raises(backboned.errors.InvalidArgument):
        resnet.forward(np.zeros((0, 3, 32, 32), np.float32))


def test_images_are_normalised_by_the_server(server):
    net = server.create("seq-cifar10", num_filters=2, seed=0, module=False)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (net.normalization.mean, net.normalization.std)
    )
    x = ((torch.from_numpy(images).float() / 255 - mean) / std).numpy()
    expected = net.forward(x).out
    assert np.array_equal(net.forward(images).out, expected)
    assert np.array_equal(net.extract(images, "out").data, expected)


def test_extract_gives_features_and_says_of_what(mlp, x):
    result = mlp.extract(x)
    assert np.array_equal(result.data, mlp.features(x))
    assert result.instance == f"local/{mlp.name}"
    assert result.version == mlp.version
    assert result.digest == mlp.info(digest=True).digest
    normalised = mlp.extract(x, l2_normalize=True).data
    expected = F.normalize(torch.from_numpy(result.data)).numpy()
    np.testing.assert_allclose(normalised, expected, rtol=1e-6)


def test_extract_refuses_what_does_not_fit_a_message(mlp):
    with pytest.raises(backboned.errors.InvalidArgument, match="forward"):
        mlp.extract(np.zeros((1000, 1, 28, 28), np.float32))


def test_large_batches_go_in_many_chunks(mlp):
    x = np.random.default_rng(0).random((1500, 1, 28, 28), np.float32)
    whole = mlp.forward(x, ["features", "out"])
    assert whole.out.shape == (1500, 10)
    np.testing.assert_allclose(
        whole.out[:7], mlp.forward(x[:7]).out, rtol=1e-4, atol=1e-6
    )


def test_backward_sums_tapes_and_gives_input_gradients(mlp, x):
    weights = np.random.default_rng(1).random((4, 10), np.float32)
    single = []
    for part in (x, x + 1):
        tape = mlp.forward(part, tape=True, input_grad=True)
        single.append(mlp.backward({tape.tape_id: {"out": weights}}, input_grad=True))
    tapes = [mlp.forward(p, tape=True, input_grad=True) for p in (x, x + 1)]
    both = mlp.backward({t.tape_id: {"out": weights} for t in tapes}, input_grad=True)
    first, second = (result.grads.flat for result in single)
    assert np.array_equal(both.grads.flat, second + first)
    for result, gradient in zip(single, both.input_grads):
        assert np.array_equal(result.input_grads[0], gradient)


def test_used_released_and_unknown_tapes_are_gone(mlp, x):
    ones = np.ones((4, 10), np.float32)
    used = mlp.forward(x, tape=True).tape_id
    mlp.backward({used: {"out": ones}})
    released = mlp.forward(x, tape=True).tape_id
    assert mlp.release_tapes([released, "never"]) == 1
    carried = mlp.forward(x, tape=True).tape_id
    mlp.forward(x, release_tapes=[carried])
    for tape in (used, released, carried, "never"):
        with pytest.raises(backboned.errors.FailedPrecondition) as caught:
            mlp.backward({tape: {"out": ones}})
        assert caught.value.reason == "TAPE_NOT_FOUND"


def test_retained_tape_survives(mlp, x):
    ones = np.ones((4, 10), np.float32)
    tape = mlp.forward(x, tape=True).tape_id
    first = mlp.backward({tape: {"out": ones}}, retain=True).grads.flat
    assert np.array_equal(mlp.backward({tape: {"out": ones}}).grads.flat, first)


def test_wrong_gradient_leaves_the_tape(mlp, x):
    tape = mlp.forward(x, tape=True).tape_id
    with pytest.raises(backboned.errors.InvalidArgument, match=r"4, 9.*4, 10"):
        mlp.backward({tape: {"out": np.ones((4, 9), np.float32)}})
    with pytest.raises(backboned.errors.InvalidArgument, match="features"):
        mlp.backward({tape: {"features": np.ones((4, 100), np.float32)}})
    mlp.backward({tape: {"out": np.ones((4, 10), np.float32)}})


def test_retried_forward_moves_buffers_once(server):
    net = server.create(
        architecture="resnet18", num_classes=3, num_filters=2, module=False
    )
    x = np.random.default_rng(0).random((4, 3, 8, 8), np.float32)
    first = net.forward(x, training=True, request_id="move-once")
    again = net.forward(x, training=True, request_id="move-once")
    assert again.version == first.version
    assert np.array_equal(again.out, first.out)
    assert net.get_buffers()["bn1.num_batches_tracked"] == 1


def test_tape_limit_is_refused_by_name(start, x):
    server = start(options=["--max-tapes=2"])
    mlp = server.create("seq-mnist", module=False)
    tapes = [mlp.forward(x, tape=True).tape_id for _ in range(2)]
    with pytest.raises(backboned.errors.ResourceExhausted) as caught:
        mlp.forward(x, tape=True)
    assert (caught.value.reason, caught.value.limit) == ("LIMIT_REACHED", "max-tapes")
    assert caught.value.limit_value == 2
    mlp.forward(x, tape=True, release_tapes=tapes)


def test_instance_limit_is_refused_by_name(start):
    server = start(options=["--max-instances=1"])
    server.create("seq-mnist", name="only", module=False)
    with pytest.raises(backboned.errors.ResourceExhausted) as caught:
        server.create("seq-mnist", module=False)
    assert caught.value.limit == "max-instances"
