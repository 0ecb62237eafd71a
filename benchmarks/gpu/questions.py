"""Asks a GPU what decides how the server is to use it, mostly of torch alone."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from backboned import CrossEntropy
from backboned.types import ParameterGroup
from common import (
    CARD,
    DRY,
    VIT,
    Results,
    VitHere,
    apart,
    compared,
    flat,
    here,
    images,
    resnet,
    resnet_here,
    shared,
    start,
    vit,
)
from torch import nn
from torch.nn import functional as F


def training(module: nn.Module, x: np.ndarray) -> Callable[[], Any]:
    """Give a training step of what is on the card already."""
    optimizer = torch.optim.SGD(module.train().parameters(), lr=0.01, momentum=0.9)
    inside, labels = here(x), here(np.arange(len(x)) % 10)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(inside).float(), labels).backward()
        optimizer.step()

    return step


def graph(results: Results) -> None:
    """Compare a training step launched kernel by kernel with a CUDA graph of it."""
    step = training(resnet_here(), images(32))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        step()
    results.row("ResNet18, batch 32", **compared(graph=captured.replay, eager=step))


def precision(results: Results) -> None:
    """Compare LibTorch's default, TF32 in convolutions, with more and with less."""
    server = shared()
    made = {
        "ResNet18, batch 32": lambda: (resnet_here(), images(32)),
        "ViT, batch 10": lambda: (VitHere(vit(server)), images(10, VIT["img_size"])),
    }
    for name, make in made.items():
        steps = {}
        for how in ("default", "float32", "TF32", "bfloat16"):
            steps[how] = within(how, training(*make()))
        results.row(name, **compared(**steps))


def within(how: str, step: Callable[[], Any]) -> Callable[[], Any]:
    """Run a step with other precision of products and convolutions."""

    def run() -> None:
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = how in ("TF32", "bfloat16")
        cudnn.allow_tf32 = how != "float32"
        try:
            with torch.autocast(CARD.type, torch.bfloat16, enabled=how == "bfloat16"):
                step()
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before

    return run


def foreach(results: Results) -> None:
    """Compare optimizers that step all parameters at once with one by one."""
    kinds = {
        "SGD": lambda p, how: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=how),
        "Adam": lambda p, how: torch.optim.Adam(p, lr=1e-3, foreach=how),
    }
    for name, make in kinds.items():
        nets = [resnet_here() for _ in range(2)]
        steppers = [make(net.parameters(), bool(i)) for i, net in enumerate(nets)]
        for parameters in zip(*(net.parameters() for net in nets)):
            for parameter in parameters:
                parameter.grad = parameters[0].detach() * 0.1
        for _ in range(5):
            for stepper in steppers:
                stepper.step()
        found = apart(flat(nets[1]), flat(nets[0]))
        single, together = (stepper.step for stepper in steppers)
        results.row(name, **found, **compared(foreach=together, single=single))


def copies(results: Results) -> None:
    """Compare copies of 45 MB from and to pinned memory with those of ordinary."""
    there = torch.randn((1 if DRY else 45) * 250_000, device=CARD)
    plain = torch.empty(there.shape)
    pinned = torch.empty(there.shape).pin_memory()
    figures = compared(
        pinned=lambda: pinned.copy_(there), ordinary=lambda: plain.copy_(there)
    )
    results.row("to the host", MB=there.nbytes / 1e6, **figures)
    figures = compared(
        pinned=lambda: there.copy_(pinned), ordinary=lambda: there.copy_(plain)
    )
    results.row("to the card", MB=there.nbytes / 1e6, **figures)


def segments(results: Results) -> None:
    """Compare what a server keeps after batches of many sizes, with both allocators."""
    for setting in ("", "expandable_segments:True"):
        os.environ["PYTORCH_ALLOC_CONF"] = setting
        try:
            with start() as server:
                figures = kept(resnet(server), server)
        finally:
            del os.environ["PYTORCH_ALLOC_CONF"]
        results.row(setting or "default", **figures)


def kept(net: Any, server: Any) -> dict[str, Any]:
    net.configure_optimizer("sgd", [ParameterGroup(lr=0.001)])
    sizes = np.random.default_rng(1).integers(1, 20 if DRY else 1000, 40)
    for size in map(int, sizes):
        net.train_step(images(size), [CrossEntropy(np.zeros(size, int))])
    device = server.info().devices[0]
    return {
        "MB of tensors": device.allocated_bytes / 1e6,
        "kept": device.pooled_bytes / 1e6,
    }


ITEMS = {
    "CUDA graph": graph,
    "precision": precision,
    "optimizers": foreach,
    "copies": copies,
    "expandable segments": segments,
}
