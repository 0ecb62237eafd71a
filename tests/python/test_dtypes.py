"""Element types: what an instance holds, what travels, and what is converted."""

import copy
import hashlib

import backboned
import numpy as np
import pytest
import torch
from backboned.transport.tensors import BFLOAT16, float_number, widened

NARROW = ["float16", "bfloat16"]
ALL = ["float32", "float64", *NARROW]


def create(server, dtype, **options):
    return server.create("seq-mnist", seed=0, dtype=dtype, module=False, **options)


def as_torch(array, dtype):
    return torch.from_numpy(np.ascontiguousarray(array)).to(getattr(torch, dtype))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random((4, 1, 28, 28), np.float32)


@pytest.mark.parametrize("dtype", ALL)
def test_an_instance_says_what_it_holds(server, dtype):
    net = create(server, dtype)
    assert net.dtype == net.info().dtype == dtype
    bytes_of_one = 2 if dtype in NARROW else int(dtype[-2:]) // 8
    assert net.info().memory_bytes == bytes_of_one * net.layout.elements


def test_names_of_numpy_and_torch_are_taken(server):
    assert create(server, np.float64).dtype == "float64"
    assert create(server, np.dtype("float16")).dtype == "float16"
    assert create(server, torch.bfloat16).dtype == "bfloat16"
    with pytest.raises(backboned.errors.InvalidArgument, match="no dtype 'int8'"):
        create(server, "int8")


def test_an_equal_name_of_another_dtype_is_no_equal_instance(server):
    create(server, "float64", name="wide")
    with pytest.raises(
        backboned.errors.AlreadyExists, match="but has dtype float64, not float32"
    ):
        create(server, None, name="wide", exist_ok=True)
    assert create(server, "float64", name="wide", exist_ok=True).name == "wide"
    server.delete("wide")


@pytest.mark.parametrize("dtype", ["float64", *NARROW])
def test_initial_values_are_converted_from_float32(server, dtype):
    drawn = as_torch(create(server, None).get_params(), dtype)
    stored = create(server, dtype).get_params()
    assert torch.equal(as_torch(stored, dtype), drawn)


def test_bfloat16_is_given_as_float32(server, x):
    net = create(server, "bfloat16")
    assert net.get_params().dtype == np.float32
    assert net.forward(x).out.dtype == np.float32
    assert net.extract(x, "out").data.dtype == np.float32
    assert np.array_equal(net.forward(x).out, net.extract(x, "out").data)


def test_every_gradient_is_given_as_float32(server, x):
    net = create(server, "float32")
    forward = net.forward(x, training=True, tape=True, input_grad=True)
    ones = {forward.tape_id: {"out": np.ones_like(forward.out)}}
    result = net.backward(
        ones,
        return_grads=True,
        input_grad=True,
        per_tape_grads=True,
        squared_grads=True,
        output_dtype="bfloat16",
    )
    flats = [g.flat for g in (result.grads, *result.tape_grads, result.squared_grads)]
    assert len(flats) == 3
    assert {g.dtype for g in [*flats, *result.input_grads]} == {np.dtype(np.float32)}
    assert np.array_equal(flats[0], flats[1])


def test_widening_is_exact():
    bits = np.arange(1 << 16, dtype=np.uint16)
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float()
    wide = widened(bits.view(BFLOAT16))
    assert wide.tobytes() == expected.numpy().tobytes()


@pytest.mark.parametrize("wire", ALL)
@pytest.mark.parametrize("stored", ALL)
def test_parameters_are_converted_on_the_wire(server, stored, wire):
    net = create(server, stored)
    kept = as_torch(net.get_params(), stored)
    read = net.get_params(dtype=wire)
    assert torch.equal(as_torch(read, wire), kept.to(getattr(torch, wire)))
    part = net.get_params(range(5, 1000), dtype=wire)
    assert np.array_equal(part, read[5:1000])


@pytest.mark.parametrize("wire", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("stored", ALL)
def test_written_parameters_are_converted_to_the_store(server, stored, wire):
    net = create(server, stored)
    # Of float32, since PyTorch rounds float64 to the narrow types in two steps.
    values = np.random.default_rng(1).random(net.layout.elements, np.float32)
    values = values.astype(wire)
    net.set_params(values)
    expected = as_torch(values, stored)
    assert torch.equal(as_torch(net.get_params(), stored), expected)
    net.set_params(values[:10] + 1, range(100, 110))
    expected[100:110] = as_torch(values[:10] + 1, stored)
    assert torch.equal(as_torch(net.get_params(), stored), expected)


def test_ties_go_to_the_even_neighbour(server):
    net = create(server, "bfloat16")
    unit = 2.0**-7  # Between neighbours just above 1.
    values = np.array([1 + unit / 2, 1 + 3 * unit / 2], np.float32)
    net.set_params(values, range(2))
    assert net.get_params(range(2)).tolist() == [1, 1 + 2 * unit]


@pytest.mark.parametrize("wire", ALL)
def test_outputs_are_converted_on_the_wire(server, x, wire):
    net = create(server, "float32")
    out = torch.from_numpy(net.forward(x).out)
    converted = net.forward(x, output_dtype=wire).out
    assert torch.equal(as_torch(converted, wire), out.to(getattr(torch, wire)))


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_inputs_are_converted_to_the_networks_dtype(server, x, dtype):
    net = create(server, "float32")
    given = x.astype(dtype)
    converted = given.astype(np.float32)
    assert np.array_equal(net.forward(given).out, net.forward(converted).out)


@pytest.mark.parametrize("dtype", ["float64", *NARROW])
def test_images_are_normalised_in_float32_first(server, dtype):
    images = np.random.default_rng(2).integers(0, 256, (4, 3, 32, 32), np.uint8)
    net = server.create("seq-cifar10", seed=0, dtype=dtype, num_filters=4, module=False)
    mean, std = (
        np.array(values, np.float32).reshape(3, 1, 1) for values in net.normalization
    )
    scaled = torch.from_numpy(images).float().div(255).numpy()
    normalised = (scaled - mean) / std
    assert np.array_equal(net.forward(images).out, net.forward(normalised).out)


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_networks_run_in_evaluation_only(server, x, dtype):
    net = create(server, dtype)
    grads = np.zeros(net.layout.elements, np.float32)
    for refused in (
        lambda: net.forward(x, training=True),
        lambda: net.forward(x, tape=True),
        lambda: net.set_grads(grads),
    ):
        with pytest.raises(
            backboned.errors.FailedPrecondition,
            match=f"has dtype {dtype}, which allows evaluation only",
        ) as caught:
            refused()
        assert caught.value.reason == "READ_ONLY"


def test_gradients_are_converted_on_the_wire(server, x):
    net = create(server, "float64")
    ones = np.ones((4, 10))
    tape = net.forward(x, tape=True).tape_id
    whole = net.backward({tape: {"out": ones}}, retain=True, accumulate=True)
    assert whole.grads.flat.dtype == np.float64
    narrow = net.backward(
        {tape: {"out": ones.astype(np.float16)}}, retain=True, output_dtype="float32"
    )
    assert narrow.grads.flat.dtype == np.float32
    assert np.array_equal(narrow.grads.flat, whole.grads.flat.astype(np.float32))
    assert np.array_equal(net.get_grads(), whole.grads.flat)
    assert np.array_equal(net.get_grads(dtype="float32"), narrow.grads.flat)
    net.set_grads(narrow.grads.flat)
    assert np.array_equal(net.get_grads(), narrow.grads.flat.astype(np.float64))


def test_the_digest_is_of_the_stored_bytes(server):
    net = create(server, "float64")
    digest = hashlib.sha256(net.get_params().tobytes()).hexdigest()
    assert net.info(digest=True).digest == digest


def test_buffers_are_of_the_networks_dtype(server):
    net = server.create(
        architecture="resnet18", num_classes=3, num_filters=4, seed=0, dtype="float64"
    )
    assert net.bn1.running_mean.dtype == torch.float64
    assert net.bn1.num_batches_tracked.dtype == torch.int64
    buffers = net.instance.get_buffers("bn1.*")
    assert buffers["bn1.running_var"].dtype == np.float64
    net.instance.set_buffers({"bn1.running_var": np.full(4, 0.1)})
    found = net.instance.get_buffers("bn1.running_var")
    assert np.array_equal(found["bn1.running_var"], np.full(4, 0.1))
    narrow = np.full(4, 0.2, np.float32)
    net.instance.set_buffers({"bn1.running_var": narrow})
    found = net.instance.get_buffers("bn1.running_var")
    assert np.array_equal(found["bn1.running_var"], narrow.astype(np.float64))
    with pytest.raises(backboned.errors.InvalidArgument, match="int64 .4., expected"):
        net.instance.set_buffers({"bn1.running_var": np.ones(4, np.int64)})


@pytest.mark.parametrize("dtype", NARROW)
def test_a_narrow_module_mirrors_and_pushes(server, x, dtype):
    net = server.create("seq-mnist", seed=0, dtype=dtype).eval()
    kind = getattr(torch, dtype)
    assert all(p.dtype == kind and not p.requires_grad for p in net.parameters())
    with torch.no_grad():
        net.classifier.bias.add_(1)
    out = net(torch.from_numpy(x))
    assert out.dtype == kind
    pushed = net.instance.get_params("classifier.bias")
    assert torch.equal(as_torch(pushed, dtype), net.classifier.bias)


def test_a_float64_module_trains_as_a_local_one(server, x):
    net = server.create("seq-mnist", seed=0, dtype="float64")
    local = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(784, 100),
        torch.nn.ReLU(),
        torch.nn.Linear(100, 100),
        torch.nn.ReLU(),
        torch.nn.Linear(100, 10),
    ).double()
    with torch.no_grad():
        for mine, other in zip(local.parameters(), net.parameters()):
            mine.copy_(other)
    batch = torch.from_numpy(x).double()
    for network in (net, local):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            network(batch).square().mean().backward()
            optimizer.step()
    for mine, other in zip(net.parameters(), local.parameters()):
        assert torch.equal(mine, other)
    assert net.double() is net
    with pytest.raises(TypeError, match="is float64 on the CPU, not torch.float32"):
        net.float()


def test_a_copy_has_the_same_dtype(server, x):
    net = server.create("seq-mnist", seed=3, dtype="float64")
    twin = copy.deepcopy(net)
    batch = torch.from_numpy(x)
    assert torch.equal(twin(batch), net(batch))
    assert twin.instance.dtype == "float64"


def test_unspecified_is_as_stored():
    assert float_number(None) == 0


def test_a_modules_input_of_another_type_is_converted(server, x):
    net = server.create("seq-mnist", seed=0)
    narrow = torch.from_numpy(x).requires_grad_()
    wide = torch.from_numpy(x).double().requires_grad_()
    for batch in (narrow, wide):
        net(batch).square().sum().backward()
    assert wide.grad.dtype == torch.float64
    assert torch.equal(wide.grad, narrow.grad.double())
