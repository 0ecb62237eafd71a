"""Checks what docs/gpu.md promises, and compares numbers with torch's on the card."""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import common as gpu
import numpy as np
import torch
from backboned import CrossEntropy
from backboned.errors import ResourceExhausted
from backboned.types import ParameterGroup, StepOptions
from torch.nn import functional as F

LABELS = np.arange(32) % 10
TERMS = [CrossEntropy(LABELS)]
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3}
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, SGD),
    "adam": (torch.optim.Adam, {"lr": 1e-3}),
    "adamw": (torch.optim.AdamW, {"lr": 1e-3}),
}
# The distance that training may be from torch's: kernels of cuDNN add in any order, and
# TF32 of convolutions makes much of it.
CLOSE = 2e-2


def networks() -> Iterator[tuple[str, Any, Any, np.ndarray]]:
    """Give each network's name, itself, its equal here, and inputs."""
    gray = gpu.random.random((32, 1, 28, 28), np.float32)
    yield "perceptron", gpu.perceptron(), gpu.perceptron_here(), gray
    yield "ResNet18", gpu.resnet(), gpu.resnet_here(), gpu.images(32)
    net = gpu.vit()
    yield "ViT", net, gpu.VitHere(net), gpu.images(8, gpu.VIT["img_size"])


def evaluation(results: gpu.Results) -> None:
    for name, net, module, x in networks():
        out = net.forward(x).out
        again = all(np.array_equal(net.forward(x).out, out) for _ in range(5))
        results.row(f"{name}, again", again)
        for part in (x[:1], x):
            found = gpu.apart(net.forward(part).out, gpu.evaluated(module, part))
            case = f"{name}, batch {len(part)}, as in torch"
            results.row(case, found["equal"], **found)


def neighbours(results: gpu.Results) -> None:
    """Give the same bits beside others' forwards, which may merge, and trainings."""
    net, other, x = gpu.resnet(), gpu.resnet(), gpu.images(8)
    other.configure_optimizer("sgd", [ParameterGroup(lr=0.01)])
    terms, ended = [CrossEntropy(LABELS[:8])], threading.Event()

    def repeat(call: Any) -> None:
        while not ended.is_set():
            call()

    calls = [
        lambda: net.forward(x, allow_merge=True),
        lambda: other.train_step(x, terms),
    ]
    threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
    out = net.forward(x).out
    for thread in threads:
        thread.start()
    equal = all(np.array_equal(net.forward(x).out, out) for _ in range(100))
    ended.set()
    for thread in threads:
        thread.join()
    trained = other.version.params
    results.row("100 forwards", equal and trained > 10, trained=trained)


def training(results: gpu.Results) -> None:
    """Train as torch does, whose optimizers take all parameters at once, or each."""
    x = gpu.images(32)
    for kind, (make, options) in OPTIMIZERS.items():
        net = gpu.resnet()
        net.configure_optimizer(kind, [ParameterGroup(**options)])
        losses = [net.train_step(x, TERMS).loss for _ in range(5)]
        for foreach in (False, True):
            module, theirs = gpu.resnet_here().train(), []
            optimizer = make(module.parameters(), foreach=foreach, **options)
            for _ in losses:
                optimizer.zero_grad()
                loss = F.cross_entropy(module(gpu.here(x)), gpu.here(LABELS))
                loss.backward()
                optimizer.step()
                theirs.append(loss.item())
            found = gpu.apart(net.get_params(), gpu.flat(module))
            found["losses equal"] = losses == theirs
            results.row(f"{kind}, foreach={foreach}", found["apart"] <= CLOSE, **found)


def repeated(results: gpu.Results, case: str, *servers: tuple[str, ...]) -> None:
    """Train alike in servers with these options, by what gives the same bits."""
    x, trained, losses = gpu.images(32), [], []
    for options in servers:
        with gpu.start("--deterministic", *options) as server:
            net = gpu.resnet(server)
            net.configure_optimizer("sgd", [ParameterGroup(**SGD)])
            losses.append([net.train_step(x, TERMS).loss for _ in range(8)])
            trained.append(net.get_params())
    found = gpu.apart(*trained)
    results.row(case, found["equal"] and losses[0] == losses[1], **found)


def deterministic(results: gpu.Results) -> None:
    """Train twice, and with CUDA graphs and without."""
    repeated(results, "two trainings", (), ())
    repeated(results, "with graphs", (), ("--graph-bytes=4GiB",))


def three_calls(results: gpu.Results) -> None:
    """Compare a training step with forward, backward and step."""
    one, three, x = gpu.resnet(), gpu.resnet(), gpu.images(32)
    for net in (one, three):
        net.configure_optimizer("sgd", [ParameterGroup(**SGD)])
    for _ in range(3):
        one.train_step(x, TERMS)
        kept = three.forward(x, training=True, tape=True)
        out = gpu.here(kept.out).requires_grad_()
        F.cross_entropy(out, gpu.here(LABELS)).backward()
        tapes = {kept.tape_id: {"out": out.grad.cpu().numpy()}}
        three.backward(tapes, accumulate=True, zero_before=True, step=StepOptions())
    found = gpu.apart(one.get_params(), three.get_params())
    results.row("3 steps", found["apart"] <= CLOSE, **found)


def inputs(results: gpu.Results) -> None:
    """Take images as bytes, and run in every dtype, as torch does."""
    data = gpu.random.integers(0, 256, (32, 3, 32, 32), np.uint8)
    scaled = (gpu.here(data).float() / 255).cpu().numpy()
    theirs = gpu.evaluated(gpu.resnet_here(), scaled)
    found = gpu.apart(gpu.resnet().forward(data).out, theirs)
    results.row("uint8", found["equal"], **found)
    x = gpu.images(32)
    for dtype in ("float64", "float16", "bfloat16"):
        typed = gpu.here(x).to(getattr(torch, dtype))
        with torch.no_grad():
            theirs = gpu.resnet_here().to(typed.dtype).eval()(typed).double()
        found = gpu.apart(gpu.resnet(dtype=dtype).forward(x).out, theirs)
        results.row(dtype, found["equal"], **found)


def clones(results: gpu.Results) -> None:
    """Make clones that share their tensors."""
    net = gpu.resnet()
    net.forward(gpu.images(1))
    before = gpu.shared().info()
    made = [net.clone() for _ in range(20)]
    after = gpu.shared().info()
    taken = after.devices[0].allocated_bytes - before.devices[0].allocated_bytes
    results.row("20 clones", taken == 0, bytes=taken)
    made[0].set_params(net.get_params() + np.float32(1))
    usage = gpu.shared().info().session_usage.device_memory_bytes
    counted = usage - after.session_usage.device_memory_bytes
    size = net.layout.elements * 4
    results.row("one is written", counted >= size, bytes=counted, parameters=size)


def limit(results: gpu.Results) -> None:
    """Refuse states over --max-device-memory-bytes, until there is room again."""
    size = 8 << 20 if gpu.DRY else 256 << 20
    with gpu.start(f"--max-device-memory-bytes={size}") as server:
        net, held, refused = gpu.resnet(server), [], None
        try:
            for _ in range(100):
                held.append(net.clone())
                held[-1].set_params(net.get_params())
        except ResourceExhausted as error:
            refused = error.limit
        usage = server.info().session_usage.device_memory_bytes
        right = refused == "max-device-memory-bytes" and usage <= size
        results.row("writing clones", right, limit=size, held=usage, clones=len(held))
        for clone in held:
            clone.delete()
        net.clone().set_params(net.get_params())
        results.row("after they went", True)


def full(results: gpu.Results) -> None:
    """Find the card full: refuse the call, and answer the next one rightly."""
    os.environ["FAKE_CUDA_BYTES"] = str(64 << 20)  # Of the fake device alone.
    with gpu.start("--max-device-memory-bytes=512GiB") as server:
        del os.environ["FAKE_CUDA_BYTES"]
        net = gpu.resnet(server)
        net.configure_optimizer("sgd", [ParameterGroup(**SGD)])
        x, before = gpu.images(4), net.get_params()
        tape = net.forward(x, training=True, tape=True)
        out = net.forward(x).out
        many = np.zeros((5000, 3, 32, 32), np.float32)
        terms = [CrossEntropy(np.zeros(len(many), int))]
        # All that is free but little goes to this process.
        free = 0 if gpu.DRY else max(0, torch.cuda.mem_get_info()[0] - (1 << 30))
        taken = torch.empty(free, dtype=torch.uint8, device=gpu.CARD)
        calls = {
            "forward": lambda: net.forward(many),
            "tape": lambda: net.forward(many, training=True, tape=True),
            "train_step": lambda: net.train_step(many, terms),
        }
        for name, call in calls.items():
            reason = "none"
            try:
                call()
            except ResourceExhausted as error:
                reason = error.reason
            equal = np.array_equal(net.forward(x).out, out)
            right = reason == "OUT_OF_MEMORY" and equal
            results.row(name, right, reason=reason, **{"next is equal": equal})
        del taken
        torch.cuda.empty_cache()
        grads = net.backward({tape.tape_id: {"out": np.ones_like(tape.out)}}).grads
        right = np.isfinite(grads.flat).all() and np.array_equal(
            net.get_params(), before
        )
        results.row("afterwards", bool(right))


def demotion(results: gpu.Results) -> None:
    """Demote tapes over their limit, and compute their gradients all the same."""
    x = gpu.images(32)
    size = gpu.resnet().forward(x, training=True, tape=True).tape_bytes
    with gpu.start(f"--max-tape-bytes={4 * size}") as server:
        one, many = gpu.resnet(server), gpu.resnet(server)
        tapes = [net.forward(x, training=True, tape=True) for net in (one, many)]
        ones = {"out": np.ones_like(tapes[0].out)}
        expected = one.backward({tapes[0].tape_id: ones}).grads.flat
        for _ in range(12):
            many.forward(x, training=True, tape=True)
        held, demoted = many.info().tape_bytes, many.info().demoted_tapes
        results.row("over the limit", demoted > 0, demoted=demoted, bytes=held)
        grads = many.backward({tapes[1].tape_id: ones}).grads.flat
        found = gpu.apart(grads, expected)
        results.row("its gradient", found["apart"] <= CLOSE, **found)


def accounts(results: gpu.Results) -> None:
    """Tell the device's time, which is a part of a call's, and its memory."""
    net, x = gpu.resnet(), gpu.images(512)
    net.forward(x)
    begin = time.perf_counter()
    compute = net.forward(x).timings.compute * 1e3
    whole = (time.perf_counter() - begin) * 1e3
    figures = {"compute ms": compute, "call ms": whole}
    results.row("forward, batch 512", 0 < compute < whole, **figures)
    device = gpu.shared().info().devices[0]
    tensors, kept = device.allocated_bytes, device.pooled_bytes
    results.row("memory", tensors > 0 and kept >= 0, bytes=tensors, kept=kept)


ITEMS = {
    "evaluation": evaluation,
    "neighbours": neighbours,
    "training": training,
    "deterministic training": deterministic,
    "train_step and its calls": three_calls,
    "inputs": inputs,
    "clones": clones,
    "memory limit": limit,
    "a full card": full,
    "tapes over the limit": demotion,
    "time and memory": accounts,
}
