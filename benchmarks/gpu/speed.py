"""Measures the server's speed on a GPU against torch's in process on the same card."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import backboned
import common as gpu
import numpy as np
import torch
from backboned import CrossEntropy
from backboned.types import ParameterGroup
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
        loss = F.cross_entropy(module(gpu.here(x)), gpu.here(labels))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def steps(results: gpu.Results) -> None:
    """Train in the server, launch by launch and as CUDA graphs, and in process."""
    gray = gpu.random.random((10, 1, 28, 28), np.float32)
    cases = {
        "ResNet18, batch 32": (gpu.resnet, gpu.resnet_here, gpu.images(32)),
        "perceptron, batch 10": (gpu.perceptron, gpu.perceptron_here, gray),
    }
    with gpu.start("--graph-bytes=4GiB") as recording:
        for case, (make, make_here, x) in cases.items():
            sides = {
                "Backboned": hosted(make(), x),
                "torch": in_process(make_here(), x),
            }
            sides["with graphs"] = hosted(make(recording), x)
            results.row(case, **gpu.compared(**sides))


def trainings(results: gpu.Results) -> None:
    """Count the steps of several trainings at once, each with its connection."""
    seconds, x, alone = 0.5 if gpu.DRY else 3, gpu.images(32), 0.0
    for count in (1, 2) if gpu.DRY else (1, 8):
        servers = [backboned.connect(gpu.shared().target) for _ in range(count)]
        calls = [hosted(gpu.resnet(server), x) for server in servers]
        rate = at_once(calls, seconds)
        alone = alone or rate
        results.row(f"ResNet18, {count}", **{"steps/s": rate, "by one": rate / alone})
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


def forwards(results: gpu.Results) -> None:
    """Evaluate, from arrays to arrays: images of bytes, and a transformer's."""
    net, module = gpu.resnet(), gpu.resnet_here().eval()
    large, twin = gpu.vit(), gpu.VitHere(gpu.vit())

    def theirs(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(gpu.here(x).float() / 255).cpu().numpy()

    def compare(case: str, x: np.ndarray, **sides: Callable[[Any], Any]) -> None:
        calls = {side: lambda call=call: call(x) for side, call in sides.items()}
        results.row(case, **gpu.compared(**calls))

    with gpu.start("--graph-bytes=4GiB") as recording:
        sides = {"Backboned": net.forward, "torch": theirs}
        sides["with graphs"] = gpu.resnet(recording).forward
        for count in (1, 128):
            x = gpu.random.integers(0, 256, (count, 3, 32, 32), np.uint8)
            compare(f"ResNet18, batch {count}", x, **sides)
    x = gpu.images(10, gpu.VIT["img_size"])
    here = {"torch": lambda x: gpu.evaluated(twin, x)}
    compare("ViT, batch 10", x, Backboned=large.forward, **here)


def transfers(results: gpu.Results) -> None:
    """Read and write parameters of a network on the GPU, and of one on the CPU.

    The GPU's memory is copied to and from ordinary memory of the host, and pinned one.
    """
    pins = gpu.start("--pinned-bytes=4GiB")
    with gpu.start(device="cpu") as server, pins as pinned:
        nets = {"GPU": gpu.resnet(), "CPU": gpu.resnet(server)}
        nets["GPU, pinned"] = gpu.resnet(pinned)
        values = nets["CPU"].get_params()
        read = {name: net.get_params for name, net in nets.items()}
        write = {n: lambda net=net: net.set_params(values) for n, net in nets.items()}
        for name, sides in {"GetParams": read, "SetParams": write}.items():
            results.row(name, MB=values.nbytes / 1e6, **gpu.compared(**sides))


def merging(results: gpu.Results) -> None:
    """Count the single forwards of many clients, which may run together or not."""
    clients, seconds = (4, 1) if gpu.DRY else (64, 4)
    net = gpu.vit(name="merging")
    call = {"do": "forward", "shape": [1, 3, *2 * [gpu.VIT["img_size"]]]}
    load = Worker([gpu.HERE / "bin" / "bench-load"])
    try:
        for merge in (False, True):
            each = {"instance": "merging", "count": clients, "in_flight": 1}
            each["mix"] = [{**call, "allow_merge": merge}]
            about = {"seconds": seconds, "warmup_s": seconds / 4, "clients": [each]}
            told = load.ask(do="load", target=gpu.shared().target, **about)
            assert not told["errors"], told["errors"]
            figures = {"forwards/s": told["throughput"]}
            for percent in ("50", "99"):
                figures[f"p{percent} ms"] = told["percentiles_s"][percent] * 1e3
            how = "merged" if merge else "apart"
            results.row(f"ViT, {clients} clients, {how}", **figures)
    finally:
        load.close()
        net.delete()


def first_step(results: gpu.Results) -> None:
    """Time one more experiment's first step; torch's is a new process."""
    gpu.shared()
    begin = time.perf_counter()
    hosted(gpu.resnet(), gpu.images(32))()
    ours = time.perf_counter() - begin
    code = "import speed, common as gpu;"
    code += "speed.in_process(gpu.resnet_here(), gpu.images(32))()"
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=gpu.HERE)
    theirs = time.perf_counter() - begin
    figures = {"Backboned s": ours, "torch s": theirs}
    figures["torch / Backboned"] = theirs / ours
    results.row("ResNet18, batch 32", **figures)


ITEMS = {
    "training steps": steps,
    "trainings at once": trainings,
    "evaluation": forwards,
    "parameters": transfers,
    "many clients": merging,
    "the first step": first_step,
}
