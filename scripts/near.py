#!/usr/bin/env python3
"""Compares a server's numbers with those of a server of one's own: ``near.py TARGET``.

Both compute the results of ``bits.py``, of two samples. Servers on processors of two
kinds round differently.
"""

from __future__ import annotations

import sys
from typing import Any

import backboned
import numpy as np
from bits import NETWORKS, results

SAMPLES = 2
# The most that results may be apart, as a part of their largest number. In float32
# rounding decides whether a number near zero passes a ReLU: ResNet-18's gradients under
# AVX-512 and SSE4.1 are 0.03 apart.
CASES = {
    ("seq-mnist", "float32"): 1e-5,
    ("seq-cifar10", "float64"): 1e-4,
    ("seq-cifar10", "float32"): 0.5,
}


def main() -> int:
    """Print how far apart the results are, and return 1 if any are too far."""
    far = False
    with backboned.connect(sys.argv[1]) as tried, backboned.local_server() as own:
        for (benchmark, dtype), limit in CASES.items():
            got, expected = (
                results(
                    server.create(benchmark, seed=0, dtype=dtype, module=False),
                    (SAMPLES, *NETWORKS[benchmark][1:]),
                )
                for server in (tried, own)
            )
            for (what, a), (_, b) in zip(got, expected, strict=True):
                gap = distance(a, b)
                far |= not gap <= limit
                print(f"{benchmark} {dtype} {what}: {gap:.1e}", flush=True)
    return int(far)


def distance(a: Any, b: Any) -> float:
    """Give the largest difference, as a part of the largest number of `b`."""
    if np.size(b) == 0:
        return 0.0
    return float(np.abs(a - b).max() / np.abs(b).max())


if __name__ == "__main__":
    sys.exit(main())
