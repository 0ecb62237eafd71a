"""Trains a network somewhere, as one experiment of several; answers commands.

Usage: experiment.py SPEC

SPEC is a JSON object: `peer`, `target`, `network`, `filters`, `shape`, `seed`, `index`,
`threads`, `device`. Makes the network and a first step, says so, and then answers each
line of standard input:

    {"do": "train", "seconds": S, "steps": N}     at least so long, and so many
    {"do": "count"}                               the networks that the server holds

Each way of training loads only what it needs: some need no torch.
"""

import itertools
import json
import pickle
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable

import numpy as np

Batch = tuple[np.ndarray, np.ndarray]
Step = Callable[[np.ndarray, np.ndarray], float]
Ways = tuple[Step, Callable[[], int]]
BATCHES = 8


def torch_process(spec: dict[str, Any]) -> Ways:
    import torch
    from model import Training

    torch.set_num_threads(spec["threads"])
    return Training(spec).step, lambda: 1


def plain(spec: dict[str, Any]) -> Ways:
    import grpc

    channel = grpc.insecure_channel(spec["target"])
    do = channel.unary_unary("/Plain/Do", pickle.dumps, pickle.loads)
    key = do(("begin", spec))
    return lambda x, y: do(("step", key, x, y)), lambda: do(("count",))


def torch_rpc(spec: dict[str, Any]) -> Ways:
    import rpc_server
    import torch
    from torch.distributed.rpc import rpc_sync

    torch.set_num_threads(1)
    rpc_server.join(f"client{spec['index']}", spec["index"] + 1, spec["target"])

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        return rpc_sync(rpc_server.SERVER, function, arguments)

    key = call(rpc_server.begin, spec)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        return call(rpc_server.step, key, torch.from_numpy(x), torch.from_numpy(y))

    return step, lambda: call(rpc_server.count)


def _created(spec: dict[str, Any], module: bool) -> tuple[Any, Any]:
    """Connect to Backboned and make the network there."""
    import backboned

    server = backboned.connect(spec["target"])
    what: dict[str, Any] = {"benchmark": "seq-mnist"}
    if spec["network"] == "resnet":
        what = {"architecture": "resnet18", "num_filters": spec["filters"]}
        what["num_classes"] = 10
    return server, server.create(**what, seed=spec["seed"], module=module)


def train_step(spec: dict[str, Any]) -> Ways:
    from backboned import CrossEntropy
    from backboned.types import ParameterGroup

    server, net = _created(spec, module=False)
    net.configure_optimizer("sgd", [ParameterGroup(lr=0.01, momentum=0.9)])

    def step(x: np.ndarray, y: np.ndarray) -> float:
        return net.train_step(x, [CrossEntropy(y)]).loss

    return step, lambda: len(server.instances())


def hosted(spec: dict[str, Any]) -> Ways:
    import torch
    from backboned import optim
    from torch.nn import functional as F

    torch.set_num_threads(1)
    server, net = _created(spec, module=True)
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, lambda: len(server.instances())


WAYS = {
    "torch": torch_process,
    "mps": torch_process,
    "plain": plain,
    "rpc": torch_rpc,
    "train_step": train_step,
    "hosted": hosted,
}


def main() -> None:
    spec = json.loads(sys.argv[1])
    batches = endless_batches(spec["seed"], spec["shape"])
    step, count = WAYS[spec["peer"]](spec)
    print(json.dumps({"losses": [step(*next(batches))]}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if command["do"] == "count":
                answer["count"] = count()
            else:
                answer = train(step, batches, command["seconds"], command["steps"])
        except Exception as error:  # Its text is the answer.
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def endless_batches(seed: int, shape: list[int]) -> Iterator[Batch]:
    """Give images and labels of noise, over and over."""
    random = np.random.default_rng(seed)
    return itertools.cycle(
        (random.random(shape, dtype=np.float32), random.integers(0, 10, shape[0]))
        for _ in range(BATCHES)
    )


def train(
    step: Step, batches: Iterator[Batch], seconds: float, steps: int
) -> dict[str, Any]:
    """Train for so long, and so many steps."""
    latencies, losses = [], []
    begin = last = time.perf_counter()
    while last - begin < seconds or len(losses) < steps:
        losses.append(step(*next(batches)))
        now = time.perf_counter()
        latencies.append(now - last)
        last = now
    return {"latency_s": latencies, "losses": losses, "wall_s": last - begin}


if __name__ == "__main__":
    main()
