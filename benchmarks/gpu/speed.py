"""Measures the server's speed on a GPU against torch's in process on the same card."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import backboned
import numpy as np
import torch
from backboned import CrossEntropy
from backboned.types import ParameterGroup
from common import (
    DRY,
    HERE,
    VIT,
    Results,
    VitHere,
    compared,
    evaluated,
    here,
    images,
    perceptron,
    perceptron_here,
    random,
    resnet,
    resnet_here,
    shared,
    start,
    vit,
)
from processes import Worker
from torch import nn
from torch.nn import functional as F

SGD = {"lr": 0.01, "momentum": 0.9}


def hosted(net: Any, x: np.ndarray) -> Callable[[], Any]:
    """Give a training step of a network in the server, from arrays to the loss."""
    net.configure_optimizer("sgd", [ParameterGroup(**SGD)])
    terms = [CrossEntropy(np.arange(len(x)) % 10)]
    return lambda: net.train_step(x, terms).loss


def in_process(module: nn.Module, x: np.ndarray) -> Callable[[], Any]:
    """Give the same of torch."""
    optimizer = torch.optim.SGD(module.train().parameters(), **SGD)
    labels = np.arange(len(x)) % 10

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(module(here(x)), here(labels))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def steps(results: Results) -> None:
    x = images(32)
    ours, theirs = hosted(resnet(shared()), x), in_process(resnet_here(), x)
    results.row("ResNet18, batch 32", **compared(Backboned=ours, torch=theirs))
    x = random.random((10, 1, 28, 28), np.float32)
    ours, theirs = hosted(perceptron(shared()), x), in_process(perceptron_here(), x)
    results.row("perceptron, batch 10", **compared(Backboned=ours, torch=theirs))


def trainings(results: Results) -> None:
    """Count the steps of several trainings at once, each with its connection."""
    seconds, x, alone = 0.3 if DRY else 3, images(32), 0.0
    for count in (1, 2) if DRY else (1, 8):
        servers = [backboned.connect(shared().target) for _ in range(count)]
        calls = [hosted(resnet(server), x) for server in servers]
        rate = at_once(calls, seconds)
        alone = alone or rate
        figures = {"steps/s": rate, "of one alone": rate / alone}
        results.row(f"{count} at once", trainings=count, **figures)
        for server in servers:
            server.close()


def at_once(calls: list[Callable[[], Any]], seconds: float) -> float:
    """Make calls, a thread for each; give how many of all ended in a second."""
    counts, ready = [0] * len(calls), threading.Barrier(len(calls))

    def repeat(index: int) -> None:
        calls[index]()
        ready.wait(60)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            calls[index]()
            counts[index] += 1

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def forwards(results: Results) -> None:
    """Evaluate images of bytes, from arrays to arrays."""
    net, module = resnet(shared()), resnet_here().eval()
    for count in (1, 128):
        x = random.integers(0, 256, (count, 3, 32, 32), np.uint8)

        def theirs(x: np.ndarray = x) -> np.ndarray:
            with torch.no_grad():
                return module(here(x).float() / 255).cpu().numpy()

        figures = compared(Backboned=lambda x=x: net.forward(x).out, torch=theirs)
        results.row(f"ResNet18, batch {count}", **figures)


def vit_forwards(results: Results) -> None:
    net = vit(shared())
    module = VitHere(net)
    x = images(10, VIT["img_size"])
    figures = compared(
        Backboned=lambda: net.forward(x).out, torch=lambda: evaluated(module, x)
    )
    results.row("ViT, batch 10", **figures)


def transfers(results: Results) -> None:
    """Read and write parameters of a network on the GPU, and of one on the CPU."""
    with start(device="cpu") as server:
        gpu, cpu = resnet(shared()), resnet(server)
        values = np.array(gpu.get_params())
        figures = compared(GPU=gpu.get_params, CPU=cpu.get_params)
        megabytes = values.nbytes / 1e6
        results.row("GetParams", MB=megabytes, **figures)
        figures = compared(
            GPU=lambda: gpu.set_params(values), CPU=lambda: cpu.set_params(values)
        )
        results.row("SetParams", MB=megabytes, **figures)


def merging(results: Results) -> None:
    """Count the single forwards of many clients, which may run together or not."""
    clients, seconds = (4, 1) if DRY else (64, 4)
    side = VIT["img_size"]
    net = vit(shared(), name="merging")
    load = Worker([HERE / "bin" / "bench-load"])
    try:
        for merge in (False, True):
            call = {"do": "forward", "shape": [1, 3, side, side], "allow_merge": merge}
            each = {"instance": "merging", "count": clients, "in_flight": 1}
            each["mix"] = [call]
            told = load.ask(
                do="load",
                target=shared().target,
                seconds=seconds,
                warmup_s=seconds / 4,
                clients=[each],
            )
            assert not told["errors"], told["errors"]
            figures = {"forwards/s": told["throughput"]}
            for percent in ("50", "99"):
                figures[f"p{percent} ms"] = told["percentiles_s"][percent] * 1e3
            how = "merged" if merge else "apart"
            results.row(f"ViT, {clients} clients, {how}", **figures)
    finally:
        load.close()
        net.delete()


def first_step(results: Results) -> None:
    """Time one more experiment's first step; torch's is a new process."""
    shared().info()
    begin = time.perf_counter()
    step = hosted(resnet(shared()), images(32))
    step()
    ours = time.perf_counter() - begin
    code = "import speed as s; s.in_process(s.resnet_here(), s.images(32))()"
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE)
    theirs = time.perf_counter() - begin
    figures = {
        "Backboned s": ours,
        "torch s": theirs,
        "torch / Backboned": theirs / ours,
    }
    results.row("ResNet18, batch 32", **figures)


ITEMS = {
    "training steps": steps,
    "trainings at once": trainings,
    "evaluation": forwards,
    "evaluation of a ViT": vit_forwards,
    "parameters": transfers,
    "many clients": merging,
    "the first step": first_step,
}
