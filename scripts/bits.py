#!/usr/bin/env python3
"""Prints digests of what a server computes: ``bits.py [TARGET]``.

A line for each result of a forward, a backward and three training steps of two
networks; servers that print the same lines compute the same bits. Without a target it
starts a server of its own.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

import backboned
import numpy as np

NETWORKS = {"seq-mnist": (64, 1, 28, 28), "seq-cifar10": (16, 3, 32, 32)}
OUTPUTS = ["out", "features"]
STEPS = 3


def main() -> int:
    """Print the lines of the server that the argument names, or of one's own."""
    targets = sys.argv[1:]
    with (
        backboned.connect(*targets) if targets else backboned.local_server(threads=2)
    ) as server:
        for benchmark, shape in NETWORKS.items():
            net = server.create(benchmark, seed=0, module=False)
            for what, array in results(net, shape):
                raw = np.ascontiguousarray(array).tobytes()
                print(benchmark, what, hashlib.sha256(raw).hexdigest())
    return 0


def results(
    net: backboned.Instance, shape: tuple[int, ...]
) -> Iterator[tuple[str, Any]]:
    """Give the names and values of what a network computes on a batch of `shape`."""
    draw = np.random.Generator(np.random.PCG64(0))
    x = draw.random(shape, dtype=np.float32)
    labels = draw.integers(10, size=shape[0])
    yield "initial parameters", net.get_params()
    forward = net.forward(
        x, OUTPUTS, training=True, tape=True, input_grad=True, return_buffers=True
    )
    for name, output in forward.outputs.items():
        yield f"forward: {name}", output
    buffers = [np.float64(buffer).ravel() for buffer in forward.buffers.values()]
    yield "forward: buffers", np.concatenate([[], *buffers])
    gradients = {
        name: draw.random(forward.outputs[name].shape, dtype=np.float32)
        for name in OUTPUTS
    }
    backward = net.backward({forward.tape_id: gradients}, input_grad=True)
    assert backward.grads is not None
    yield "backward: parameters", backward.grads.flat
    yield "backward: input", backward.input_grads[0]
    types = getattr(backboned, "types", backboned)  # Clients before 0.3 have none.
    net.configure_optimizer("sgd", [types.ParameterGroup(lr=0.1, momentum=0.9)])
    for step in range(STEPS):
        made = net.train_step(x, backboned.CrossEntropy(labels), return_logits=True)
        yield f"step {step}: loss", np.float64(made.loss)
        yield f"step {step}: logits", made.logits
    yield "steps: parameters", net.get_params()


if __name__ == "__main__":
    sys.exit(main())
