"""Asks a GPU what decides how the server is to use it, mostly of torch alone."""

import os
from collections.abc import Callable
from typing import Any

import common as gpu
import numpy as np
import torch
from backboned import CrossEntropy
from backboned.types import ParameterGroup
from torch import nn
from torch.nn import functional as F


def training(module: nn.Module, x: np.ndarray) -> Callable[[], Any]:
    """Give a training step of what is on the card already."""
    optimizer = torch.optim.SGD(module.train().parameters(), lr=0.01, momentum=0.9)
    inside, labels = gpu.here(x), gpu.here(np.arange(len(x)) % 10)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(inside).float(), labels).backward()
        optimizer.step()

    return step


def graph(results: gpu.Results) -> None:
    """Compare a training step launched kernel by kernel with a CUDA graph of it."""
    step = training(gpu.resnet_here(), gpu.images(32))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        step()
    eager = training(gpu.resnet_here(), gpu.images(32))
    figures = gpu.compared(graph=captured.replay, eager=eager)
    results.row("ResNet18, batch 32", **figures)


def precision(results: gpu.Results) -> None:
    """Compare LibTorch's default, TF32 in convolutions, with more and with less."""
    makers = {
        "ResNet18, batch 32": lambda: training(gpu.resnet_here(), gpu.images(32)),
        "ViT, batch 10": lambda: training(
            gpu.VitHere(gpu.vit()), gpu.images(10, gpu.VIT["img_size"])
        ),
    }
    for name, make in makers.items():
        modes = ("default", "float32", "TF32", "bfloat16")
        steps = {mode: within(mode, make()) for mode in modes}
        results.row(name, **gpu.compared(**steps))


def within(mode: str, step: Callable[[], Any]) -> Callable[[], Any]:
    """Run a step with other precision of products and convolutions."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def run() -> None:
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = mode in ("TF32", "bfloat16")
        cudnn.allow_tf32 = mode != "float32"
        half = mode == "bfloat16"
        try:
            with torch.autocast(gpu.CARD.type, torch.bfloat16, enabled=half):
                step()
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before

    return run


def foreach(results: gpu.Results) -> None:
    """Compare optimizers that step all parameters at once with one by one."""
    kinds = {
        "SGD": lambda p, how: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=how),
        "Adam": lambda p, how: torch.optim.Adam(p, lr=1e-3, foreach=how),
    }
    for name, make in kinds.items():
        nets = [gpu.resnet_here() for _ in range(2)]
        steppers = [make(net.parameters(), bool(i)) for i, net in enumerate(nets)]
        for first, second in zip(*(net.parameters() for net in nets)):
            first.grad = second.grad = first.detach() * 0.1
        for _ in range(5):
            for stepper in steppers:
                stepper.step()
        found = gpu.apart(gpu.flat(nets[1]), gpu.flat(nets[0]))
        single, together = (stepper.step for stepper in steppers)
        results.row(name, **found, **gpu.compared(foreach=together, single=single))


def copies(results: gpu.Results) -> None:
    """Compare copies of 45 MB from and to pinned memory with those of ordinary."""
    there = torch.randn((1 if gpu.DRY else 45) * 250_000, device=gpu.CARD)
    hosts = {"pinned": torch.empty(there.shape).pin_memory()}
    hosts["ordinary"] = torch.empty(there.shape)
    down = {name: lambda host=host: host.copy_(there) for name, host in hosts.items()}
    up = {name: lambda host=host: there.copy_(host) for name, host in hosts.items()}
    for name, sides in {"to the host": down, "to the card": up}.items():
        results.row(name, MB=there.nbytes / 1e6, **gpu.compared(**sides))


def segments(results: gpu.Results) -> None:
    """Compare what servers keep after batches of many sizes, with both allocators."""
    for setting in ("expandable_segments:False", "expandable_segments:True"):
        os.environ["PYTORCH_ALLOC_CONF"] = setting
        with gpu.start() as server:
            del os.environ["PYTORCH_ALLOC_CONF"]
            net = gpu.resnet(server)
            net.configure_optimizer("sgd", [ParameterGroup(lr=0.001)])
            sizes = np.random.default_rng(1).integers(1, 20 if gpu.DRY else 1000, 40)
            for size in map(int, sizes):
                net.train_step(gpu.images(size), [CrossEntropy(np.zeros(size, int))])
            device = server.info().devices[0]
        tensors, kept = device.allocated_bytes / 1e6, device.pooled_bytes / 1e6
        results.row(setting, **{"MB of tensors": tensors, "MB kept": kept})


ITEMS = {
    "precision": precision,
    "optimizers": foreach,
    "copies": copies,
    "expandable segments": segments,
    "CUDA graph": graph,  # Last: CUDA may be of no use to this process afterwards.
}
