"""Makes the run card of a network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from backboned import runcard
from backboned.home import home_of
from backboned.runcard import Card

if TYPE_CHECKING:
    from backboned.nn.remote import RemoteBackbone


class CardAccess:
    """Describes the run of a network.

    Attributes
    ----------
    first_digest : str or None
        The SHA-256 of what it began with; None if that was not here.
    """

    first_digest: str | None

    def run_card(self) -> Card:
        """Describe the run so far: what it ran on, and what it gave, as JSON.

        Pushes what changed here. docs/run-cards.md lists the fields.

        Raises
        ------
        BackbonedError
            If the server refuses or fails.
        """
        return make(cast("RemoteBackbone", self))

    def save_run_card(self, path: Path | str) -> Path:
        """Write the run card to a file; give where it is.

        In a run of ``python -m backboned verify`` that is elsewhere.
        """
        return runcard.write(self.run_card(), path)


def make(network: RemoteBackbone) -> Card:
    """Describe a network's run so far; pushes what changed here."""
    info = network._link.info()
    instance = network.instance
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
        "traffic": dataclasses.asdict(traffic),
    }
