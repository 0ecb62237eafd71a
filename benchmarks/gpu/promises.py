"""Checks on a GPU what docs/gpu.md promises, and compares numbers with torch's there."""

import os
import threading
import time

import numpy as np
import torch
from backboned import CrossEntropy
from backboned.errors import ResourceExhausted
from backboned.types import ParameterGroup, StepOptions
from common import (
    CARD,
    DRY,
    FILTERS,
    VIT,
    Results,
    VitHere,
    apart,
    evaluated,
    flat,
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
from torch.nn import functional as F

LABELS = np.arange(32) % 10
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3}
# How far training may be from torch's: kernels of cuDNN add in any order, and TF32 of
# convolutions makes much of it.
CLOSE = 2e-2


def networks():
    """Give each network's name, itself, its equal here, and inputs."""
    server = shared()
    gray = random.random((32, 1, 28, 28), np.float32)
    yield "perceptron", perceptron(server), perceptron_here(), gray
    yield "ResNet18", resnet(server), resnet_here(), images(32)
    net = vit(server)
    yield "ViT", net, VitHere(net), images(8, VIT["img_size"])


def evaluation(results: Results) -> None:
    for name, net, module, x in networks():
        out = net.forward(x).out
        again = all(np.array_equal(net.forward(x).out, out) for _ in range(5))
        results.row(f"{name}, again", again)
        for rows in (1, len(x)):
            found = apart(net.forward(x[:rows]).out, evaluated(module, x[:rows]))
            results.row(f"{name}, batch {rows}, as in torch", found["equal"], **found)


def neighbours(results: Results) -> None:
    """Give the same bits beside others' forwards, which may merge, and trainings."""
    net, x = resnet(shared()), images(8)
    out, ended, calls = net.forward(x).out, threading.Event(), [0, 0]
    other = resnet(shared())
    other.configure_optimizer("sgd", [ParameterGroup(lr=0.01)])

    def disturb(index: int) -> None:
        while not ended.is_set():
            if index:
                other.train_step(images(8), [CrossEntropy(LABELS[:8])])
            else:
                net.forward(x, allow_merge=True)
            calls[index] += 1

    threads = [threading.Thread(target=disturb, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    equal = all(np.array_equal(net.forward(x).out, out) for _ in range(100))
    ended.set()
    for thread in threads:
        thread.join()
    merged, trained = calls
    results.row("100 forwards", equal and all(calls), merging=merged, training=trained)


def training(results: Results) -> None:
    """Train as torch does, whose optimizers take all parameters at once, or each."""
    kinds = {
        "sgd": (torch.optim.SGD, SGD),
        "adam": (torch.optim.Adam, {"lr": 1e-3}),
        "adamw": (torch.optim.AdamW, {"lr": 1e-3}),
    }
    x = images(32)
    for kind, (make, options) in kinds.items():
        net = resnet(shared())
        net.configure_optimizer(kind, [ParameterGroup(**options)])
        losses = [net.train_step(x, [CrossEntropy(LABELS)]).loss for _ in range(5)]
        params = net.get_params()
        for foreach in (False, True):
            module = resnet_here().train()
            optimizer = make(module.parameters(), foreach=foreach, **options)
            theirs = []
            for _ in range(5):
                optimizer.zero_grad()
                loss = F.cross_entropy(module(here(x)), here(LABELS))
                loss.backward()
                optimizer.step()
                theirs.append(loss.item())
            found = apart(params, flat(module))
            holds = found["apart"] <= CLOSE
            found["losses equal"] = losses == theirs
            results.row(f"{kind}, foreach={foreach}", holds, **found)


def three_calls(results: Results) -> None:
    """Compare a training step with forward, backward and step."""
    one, three = resnet(shared()), resnet(shared())
    x, labels = images(32), torch.from_numpy(LABELS)
    for net in (one, three):
        net.configure_optimizer("sgd", [ParameterGroup(**SGD)])
    for _ in range(3):
        one.train_step(x, [CrossEntropy(LABELS)])
        kept = three.forward(x, training=True, tape=True)
        out = here(kept.out).requires_grad_()
        F.cross_entropy(out, labels.to(CARD)).backward()
        gradients = {kept.tape_id: {"out": out.grad.cpu().numpy()}}
        three.backward(gradients, accumulate=True, zero_before=True, step=StepOptions())
    found = apart(one.get_params(), three.get_params())
    results.row("3 steps", found["apart"] <= CLOSE, **found)


def inputs(results: Results) -> None:
    """Take images as bytes, and run in every dtype, as torch does."""
    server, module = shared(), resnet_here()
    data = random.integers(0, 256, (32, 3, 32, 32), np.uint8)
    scaled = (here(data).float() / 255).cpu().numpy()
    found = apart(resnet(server).forward(data).out, evaluated(module, scaled))
    results.row("uint8", found["equal"], **found)
    x = images(32)
    for dtype in ("float64", "float16", "bfloat16"):
        typed = here(x).to(getattr(torch, dtype))
        with torch.no_grad():
            theirs = resnet_here().to(typed.dtype).eval()(typed).double().cpu()
        found = apart(resnet(server, dtype=dtype).forward(x).out, theirs)
        results.row(dtype, found["equal"], **found)


def clones(results: Results) -> None:
    """Make clones that share their tensors."""
    server = shared()
    net = resnet(server)
    net.forward(images(1))
    before = server.info()
    made = [net.clone() for _ in range(20)]
    after = server.info()
    taken = after.devices[0].allocated_bytes - before.devices[0].allocated_bytes
    results.row("20 clones", taken == 0, bytes=taken)
    made[0].set_params(net.get_params() + np.float32(1))
    usage = server.info().session_usage.device_memory_bytes
    counted = usage - after.session_usage.device_memory_bytes
    size = net.layout.elements * 4
    results.row("one is written", counted >= size, bytes=counted, parameters=size)


def limit(results: Results) -> None:
    """Refuse states over --max-device-memory-bytes, until there is room again."""
    size = 8 << 20 if DRY else 256 << 20
    with start(f"--max-device-memory-bytes={size}") as server:
        net = resnet(server)
        held, refused = [], None
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
        clone = net.clone()
        clone.set_params(net.get_params())
        results.row("after they went", len(clone.get_params()) > 0)


def full(results: Results) -> None:
    """Find the card full: refuse the call, and answer the next one rightly."""
    os.environ["FAKE_CUDA_BYTES"] = str(64 << 20)  # Of the fake device alone.
    with start("--max-device-memory-bytes=512GiB") as server:
        del os.environ["FAKE_CUDA_BYTES"]
        net = resnet(server)
        net.configure_optimizer("sgd", [ParameterGroup(**SGD)])
        x, before, reasons = images(4), net.get_params(), []
        tape = net.forward(x, training=True, tape=True)
        out = net.forward(x).out
        rows = 5000
        many, labels = np.zeros((rows, 3, 32, 32), np.float32), np.zeros(rows, int)
        # What is free but little goes to this process.
        free = 0 if DRY else max(0, torch.cuda.mem_get_info()[0] - (1 << 30))
        taken = torch.empty(free, dtype=torch.uint8, device=CARD)
        calls = {
            "forward": lambda: net.forward(many),
            "tape": lambda: net.forward(many, training=True, tape=True),
            "train_step": lambda: net.train_step(many, [CrossEntropy(labels)]),
        }
        for name, call in calls.items():
            try:
                call()
                reasons.append("none")
            except ResourceExhausted as error:
                reasons.append(error.reason)
            now = net.forward(x).out
            right = reasons[-1] == "OUT_OF_MEMORY" and np.array_equal(now, out)
            results.row(name, right, reason=reasons[-1])
        del taken
        torch.cuda.empty_cache()
        unchanged = np.array_equal(net.get_params(), before)
        ones = {tape.tape_id: {"out": np.ones_like(tape.out)}}
        there = np.isfinite(net.backward(ones).grads.flat).all()
        results.row("afterwards", bool(unchanged and there))


def demotion(results: Results) -> None:
    """Demote tapes over their limit, and compute their gradients all the same."""
    x = images(32)
    size = resnet(shared()).forward(x, training=True, tape=True).tape_bytes
    with start(f"--max-tape-bytes={4 * size}") as server:
        one, many = resnet(server), resnet(server)
        tapes = [net.forward(x, training=True, tape=True) for net in (one, many)]
        ones = {"out": np.ones_like(tapes[0].out)}
        expected = one.backward({tapes[0].tape_id: ones}).grads.flat
        for _ in range(12):
            many.forward(x, training=True, tape=True)
        held, demoted = many.info().tape_bytes, many.info().demoted_tapes
        results.row("over the limit", demoted > 0, demoted=demoted, bytes=held)
        found = apart(many.backward({tapes[1].tape_id: ones}).grads.flat, expected)
        results.row("its gradient", found["apart"] <= CLOSE, **found)


def time_of_work(results: Results) -> None:
    """Tell the device's time, which is a part of a call's."""
    net, x = resnet(shared()), images(512)
    net.forward(x)
    begin = time.perf_counter()
    compute = net.forward(x).timings.compute
    wall = time.perf_counter() - begin
    results.row(
        "forward, batch 512", 0 < compute < wall, compute_s=compute, wall_s=wall
    )


def memory(results: Results) -> None:
    """Tell the memory of the card."""
    device = shared().info().devices[0]
    holds = 0 < device.allocated_bytes <= device.pooled_bytes
    figures = {"allocated": device.allocated_bytes, "pooled": device.pooled_bytes}
    results.row(device.description, holds, filters=FILTERS, **figures)


ITEMS = {
    "evaluation": evaluation,
    "neighbours": neighbours,
    "training": training,
    "train_step and its calls": three_calls,
    "inputs": inputs,
    "clones": clones,
    "memory limit": limit,
    "a full card": full,
    "tapes over the limit": demotion,
    "time of work": time_of_work,
    "memory": memory,
}
