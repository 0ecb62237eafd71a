"""Makes the run card of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from backboned import runcard
from backboned.home import home_of
from backboned.nn.link import Link
from backboned.runcard import Card

if TYPE_CHECKING:
    from backboned.nn.remote import RemoteBackbone


def make(network: RemoteBackbone) -> Card:
    """Describe a network's run so far; pushes what changed here."""
    network._link.settle()
    instance = network.instance
    info = instance.info(digest=True, timeout=network.timeout)
    traffic = network.traffic
    server = home_of(instance).info
    device = next(d for d in server.devices if d.name == instance.device)
    return {
        "card": runcard.VERSION,
        "command": runcard.command(),
        "server": {
            "version": server.version,
            "libtorch": server.torch_version,
            "device": device.name,
            "processor": device.description,
            "threads": device.threads,
            "uid": server.server_uid,
        },
        "client": runcard.client(torch.get_num_threads()),
        "network": {
            "name": instance.name,
            "mode": network.mode,
            "benchmark": instance.benchmark,
            "architecture": instance.architecture,
            "arguments": dict(instance.arguments),
            "weights": instance.weights,
            "weights_sha256": instance.weights_sha256,
            "seed": instance.seed,
        },
        "parameters": {"first": network.first_digest, "last": info.digest},
        # A network's forwards do not allow it.
        "merging": {"allowed": False, "merged_batches": 0},
        "counts": {
            "forwards": info.forwards,
            "backwards": info.backwards,
            "steps": info.steps,
        },
        "traffic": traffic._asdict(),
    }


def first_digest(link: object) -> str | None:
    """Give the digest of what a network begins with; None if it is not here."""
    return link.digest() if isinstance(link, Link) else None
