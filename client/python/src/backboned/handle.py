"""What every call of an instance needs: where it is, its name, its layout."""

from __future__ import annotations

from collections.abc import Sequence

from backboned import garbage
from backboned.channel import Channel
from backboned.describe import read_instance
from backboned.dtypes import Array
from backboned.errors import MalformedAnswer
from backboned.layout import Layout, Version, read_layout, read_version
from backboned.results import Grads
from backboned.traffic import Meter
from backboned.v1 import instance_pb2


class Handle:
    """A named instance of a server, as an answer described it.

    Attributes
    ----------
    channel : Channel
        With a meter of its own.
    name, owner, uid : str
    architecture, benchmark : str
        `benchmark` is empty if it was made from an architecture.
    arguments : dict
        The architecture's arguments, defaults filled in.
    device : str
        E.g. ``"cpu"``.
    normalization : Normalization or None
        Of uint8 images; None: they are refused.
    ephemeral : bool
        It dies with the session that made it, since it was not named.
    layout : Layout
    version : Version
        The newest state that an answer spoke of.
    weights, weights_sha256 : str
        The weights file that it began with, and its SHA-256; empty: none.
    rng_state : bytes
        After the drawing of its parameters, if `Server.create` was given one.
    missing_keys, unexpected_keys : tuple of str
        What `Server.create` did not find in the weights file, and what it did not use
        of it (the first 1000 keys).
    """

    rng_state: bytes = b""
    missing_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()

    def __init__(self, channel: Channel, message: instance_pb2.Instance) -> None:
        info = read_instance(message)
        self.channel = channel.metered(Meter())
        self.name = info.name
        self.owner = info.owner
        self.uid: str = info.version.uid or ""
        self.architecture = info.architecture
        self.benchmark = info.benchmark
        self.arguments = info.arguments
        self.device = info.device
        self.normalization = info.normalization
        self.ephemeral = info.ephemeral
        self.weights = info.weights
        self.weights_sha256 = info.weights_sha256
        self.layout: Layout = read_layout(message.layout)
        self.version = info.version
        self.life = garbage.share_life(channel, self.uid)

    def __repr__(self) -> str:
        """Say the server, the name and what it was made from."""
        made_from = self.benchmark or self.architecture
        return (
            f"{type(self).__name__}({self.name!r} [{made_from}] "
            f"on {self.channel.target})"
        )

    @property
    def address(self) -> str:
        """Its name for calls: `owner/name`, which no other instance can shadow."""
        return f"{self.owner}/{self.name}"

    def saw(self, message: instance_pb2.Version) -> Version:
        """Take note of the version in an answer."""
        self.version = read_version(message)
        return self.version

    def grads(self, flat: Array, present: Sequence[bool]) -> Grads:
        """Check the presence of an answer's gradients against the layout.

        Raises
        ------
        MalformedAnswer
            If it does not fit.
        """
        sizes = [p.size for p in self.layout.parameters]
        if len(present) != len(sizes):
            raise MalformedAnswer(
                f"the answer has gradients of {len(present)} parameters, "
                f"expected {len(sizes)}"
            )
        expected = sum(size for size, there in zip(sizes, present) if there)
        if expected != flat.size:
            raise MalformedAnswer(
                f"the answer has {flat.size} elements of gradients, expected {expected}"
            )
        return Grads(flat, tuple(present))
