"""Every RPC on each kind of device: the same smoke test for the CPU and a GPU."""

import subprocess

import backboned
import fake_gpu
import numpy as np
import pytest
import torch

NO_GPU = not torch.cuda.is_available()


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    return request.param


@pytest.fixture
def binary(binary, device):
    """The server, beside a fake device where there is no GPU."""
    if device == "cpu" or not NO_GPU:
        return binary
    if not fake_gpu.is_built():
        pytest.skip("no CUDA device here")
    return fake_gpu.FAKE


@pytest.fixture
def net(start, device):
    server = start(device=device)
    return server.create(
        architecture="resnet18", num_classes=3, num_filters=4, seed=0, module=False
    )


@pytest.fixture
def x():
    return np.random.default_rng(0).random((4, 3, 16, 16), np.float32)


def test_instance_lives_on_the_device(net, device):
    assert net.info(digest=True).device.startswith(device)


def test_forward_and_backward(net, x):
    kept = net.forward(x, training=True, tape=True, input_grad=True, returnt="both")
    ones = np.ones_like(kept.out)
    done = net.backward({kept.tape_id: {"out": ones}}, accumulate=True, input_grad=True)
    assert np.isfinite(done.input_grads[0]).all() and done.input_grads[0].any()
    assert np.array_equal(net.get_grads(), done.grads.flat)
    assert kept.version.buffers == 2
    second = net.forward(x, tape=True)
    assert net.release_tapes([second.tape_id]) == 1


def test_tensors_come_back_as_they_went(net):
    params = np.arange(net.get_params().size, dtype=np.float32)
    net.set_params(params)
    assert np.array_equal(net.get_params(), params)
    net.set_grads(params)
    assert np.array_equal(net.get_grads(), params)
    net.zero_grads()
    with pytest.raises(backboned.errors.FailedPrecondition):
        net.get_grads()
    buffers = {name: value + 1 for name, value in net.get_buffers().items()}
    net.set_buffers(buffers)
    for name, value in net.get_buffers().items():
        assert np.array_equal(value, buffers[name])


def test_extract_normalises_images(net, x):
    images = (x * 255).astype(np.uint8)
    as_floats = net.extract((images.astype(np.float32) / np.float32(255)), output="out")
    assert np.allclose(net.extract(images, output="out").data, as_floats.data)
    net.delete()


@pytest.mark.skipif(not NO_GPU, reason="this machine has a CUDA device")
def test_missing_gpu_is_one_sentence(binary, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "0")
    ended = subprocess.run(
        [binary, "--device", "cuda", "--listen", f"unix:{tmp_path}/s"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "CUDA" in ended.stderr and len(ended.stderr.splitlines()) == 1
