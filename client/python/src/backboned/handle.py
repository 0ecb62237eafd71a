"""What every call of an instance needs: where it is, its name, its layout."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from backboned import garbage
from backboned.asking import Asking
from backboned.channel import Channel
from backboned.describe import read_instance
from backboned.dtypes import Array
from backboned.errors import MalformedAnswer
from backboned.layout import Layout, Select, Version, read_layout, read_version
from backboned.pipeline import Pipeline
from backboned.results import Grads
from backboned.traffic import Meter
from backboned.v1 import instance_pb2

if TYPE_CHECKING:
    from backboned.home import Home

H = TypeVar("H", bound="Handle")


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
    dtype : str
        Of its parameters, e.g. ``"float32"``.
    columns : tuple of str
        The earlier columns of a progressive network, as ``owner/name``.
    layout : Layout
    scope : Select
        The parameters that calls mean by "all"; None unless it is `without` some.
    version : Version
        The newest state that an answer spoke of.
    steps : Pipeline
        The training steps that are in flight.
    read_only : bool
    frozen : tuple of str
    feature_cache_bytes : int
        Its settings, as `Instance.update` takes them, when an answer last told them.
    asking : Asking
        What is known of its feature cache.
    weights, weights_sha256 : str
        The weights file that it began with, and its SHA-256; empty: none.
    home : Home or None
        The server, if a network in torch stands for the instance; see home.py.
    made_here : bool
        Whether this object's maker made the instance, and nobody else.
    deleted : bool
        Whether its `delete` was called.
    seed : int or None
        That `Server.create` was given.
    rng_state : bytes
        After the drawing of its parameters, if `Server.create` was given one.
    missing_keys, unexpected_keys : tuple of str
        What `Server.create` did not find in the weights file, and what it did not use
        of it (the first 1000 keys).
    """

    home: Home | None = None
    made_here: bool = False
    deleted: bool = False
    seed: int | None = None
    rng_state: bytes = b""
    missing_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()
    scope: Select = None
    _whole: Layout | None = None

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
        self.read_only = info.read_only
        self.frozen = info.frozen
        self.feature_cache_bytes = info.feature_cache_bytes
        self.asking = Asking(
            info.feature_cache_bytes > 0, info.feature_cache.entries > 0
        )
        self.weights = info.weights
        self.weights_sha256 = info.weights_sha256
        self.dtype = info.dtype
        self.columns = info.columns
        self.layout: Layout = read_layout(message.layout)
        self.version = info.version
        self.steps = Pipeline()
        self.life = garbage.share_life(channel, self.uid)

    def stand_for(self, other: Handle) -> None:
        """Stand for another instance of the same layout from now on."""
        self.name, self.owner, self.uid = other.name, other.owner, other.uid
        self.version, self.life = other.version, other.life
        self.feature_cache_bytes = other.feature_cache_bytes
        self.asking = other.asking

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

    @property
    def whole_layout(self) -> Layout:
        """The layout in the server, also of what `without` gave."""
        return self._whole or self.layout

    def without(self: H, part: str) -> H:
        """Give the same instance, as if it had no parameters below a module `part`.

        Those stay in the server as they are. Only forwards that do without them have
        gradients of what is left.
        """
        kept = [p for p in self.layout.parameters if not p.name.startswith(part + ".")]
        view = copy.copy(self)
        view._whole = self.layout
        view.scope = [f"!{part}.*"]
        view.layout = dataclasses.replace(
            self.layout, parameters=tuple(kept), elements=sum(p.size for p in kept)
        )
        return view

    def saw(self, message: instance_pb2.Version) -> Version:
        """Take note of the version in an answer."""
        self.version = read_version(message)
        return self.version

    def held(self, held: Sequence[bool]) -> tuple[bool, ...]:
        """Say of which parameters of the layout the instance holds gradients.

        Raises
        ------
        MalformedAnswer
            If an answer that says so does not fit.
        """
        whole = self.whole_layout.parameters
        if held and len(held) != len(whole):
            raise MalformedAnswer(
                f"the answer knows the gradients of {len(held)} parameters, "
                f"expected {len(whole)}"
            )
        mine = set(self.layout.parameters)
        return tuple(there for p, there in zip(whole, held) if p in mine)

    def grads(self, flat: Array, present: Sequence[bool]) -> Grads:
        """Check the presence of an answer's gradients against the layout.

        Raises
        ------
        MalformedAnswer
            If it does not fit.
        """
        whole = self.whole_layout.parameters
        sizes = [p.size for p in whole]
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
        mine = set(self.layout.parameters)
        stray = [p.name for p, there in zip(whole, present) if there and p not in mine]
        if stray:
            raise MalformedAnswer(f"the answer has a gradient of {stray[0]}")
        return Grads(
            flat, tuple(there for p, there in zip(whole, present) if p in mine)
        )
