"""PyTorch's CPU generator, from which a network in the server draws."""

from __future__ import annotations

import torch


def state() -> bytes:
    """Give the generator's state."""
    held: bytes = torch.get_rng_state().numpy().tobytes()
    return held


def set_state(held: bytes) -> None:
    """Move the generator to a state."""
    torch.set_rng_state(torch.frombuffer(bytearray(held), dtype=torch.uint8))
