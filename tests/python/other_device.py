"""Trains a network with inputs on another device, whose memory is NumPy's.

A program of its own: PyTorch has one such device in a process, for good.
"""

import sys

import backboned
import numpy as np
import torch
from reference_models import ReferenceMlp, seeded
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("npy")


class There(torch.Tensor):
    """A tensor on that device."""

    @staticmethod
    def __new__(cls, array):
        dtype = torch.from_numpy(array).dtype
        tensor = torch._C._acc.create_empty_tensor(array.shape, dtype)
        tensor.__class__ = There
        return tensor

    def __init__(self, array):
        self.array = array


def _copy_from(source, target, non_blocking=False):
    if source.device.type == "npy":
        target.copy_(torch.from_numpy(source.array))
    else:
        np.copyto(target.array, source.detach().numpy())
    return target


def _empty_strided(size, stride, dtype=None, **options):
    like = torch.empty(size, dtype=dtype, device="cpu")
    return There(np.empty(size, like.numpy().dtype))


library = torch.library.Library("aten", "IMPL")
library.impl("_copy_from", _copy_from, "PrivateUse1")
library.impl("empty_strided", _empty_strided, "PrivateUse1")
library.impl(
    "empty.memory_format",
    lambda size, **options: _empty_strided(size, None, options.get("dtype")),
    "PrivateUse1",
)


def main():
    torch.set_num_threads(1)
    x = torch.rand(4, 1, 28, 28)
    target = torch.arange(4)
    with backboned.local_server(binary=sys.argv[1], threads=1) as server:
        net, local = server.create("seq-mnist", seed=0), seeded(ReferenceMlp, 0)
        images = x.clone().requires_grad_()
        leaf = x.clone().requires_grad_()
        there = leaf.to("npy")
        devices = []
        there.register_hook(lambda grad: devices.append(grad.device.type))
        out = net(there)
        assert out.device.type == "npy" and net.fc1.weight.device.type == "cpu"
        logits = local(images)
        assert torch.equal(out.cpu(), logits)
        torch.nn.functional.cross_entropy(logits, target).backward()
        torch.nn.functional.cross_entropy(out.cpu(), target).backward()
        assert devices == ["npy"] and torch.equal(leaf.grad, images.grad)
        for ours, theirs in zip(net.parameters(), local.parameters()):
            assert torch.equal(ours.grad, theirs.grad)
        with torch.no_grad():
            both = net(there, returnt="both")
        assert [tensor.device.type for tensor in both] == ["npy", "npy"]
        stages = net(x.to("npy"), returnt="full")[1]
        assert {tensor.device.type for tensor in stages} == {"npy"}
        optimizer = backboned.optim.SGD(net, lr=0.1)
        terms = [backboned.CrossEntropy(target.to("npy"))]
        step = net.train_step(x.to("npy"), terms, optimizer)
        loss = torch.nn.functional.cross_entropy(local(x), target)
        assert step.loss == loss.item()
    print("done")


if __name__ == "__main__":
    main()
