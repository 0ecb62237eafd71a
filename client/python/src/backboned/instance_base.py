"""Keeps what every call of an instance needs: where it is, its name, its layout."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import TypeVar

from backboned import contract
from backboned.feature_cache import KnownAnswers
from backboned.server_identity import ServerIdentity
from backboned.steps import Pipeline
from backboned.transport import session
from backboned.transport.channel import Channel
from backboned.transport.traffic import Meter
from backboned.types import InstanceInfo, Layout, Select, Version
from backboned.v1 import instance_pb2

B = TypeVar("B", bound="InstanceBase")


class InstanceBase:
    """A named instance of a server, as an answer described it.

    - `channel`: with a meter of its own.
    - `name`, `owner`, `architecture`, `arguments`, `benchmark`, `device`, `dtype`,
      `precision`, `normalization`, `ephemeral`, `columns`, `weights`,
      `weights_sha256`, and as they were when an answer last told them, `read_only`,
      `frozen`, `feature_cache_bytes`: see `types.InstanceInfo`.
    - `address`: its name for calls: `owner/name`, which no other instance can shadow.
    - `whole_layout`: the layout in the server, also of what `without` leaves out.
    - `version`: the newest state that an answer spoke of.
    - `made_of`, `rollback`, `gradient_changes`: version, and what `types.InstanceInfo`
      says of it, when this object was made.
    - `steps`: the training steps that are in flight.
    - `made_here`, `deleted`: whether this object's maker made the instance, and nobody
      else; whether its `delete` was called.
    - `seed`: the seed that `Server.create` was given.
    - `rng_state`: after the drawing of its parameters, if `Server.create` was given
      one.
    - `missing_keys`, `unexpected_keys`: what `Server.create` did not find in the
      weights file, and what it did not use of it (the first 1000 keys).
    """

    made_here = False
    deleted = False
    seed: int | None = None
    rng_state = b""
    missing_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()
    # The parameters that calls mean by "all"; None: all of them.
    scope: Select = None

    def __init__(self, channel: Channel, message: instance_pb2.Instance) -> None:
        info = contract.read_instance(message)
        self.channel = channel.metered(Meter())
        self.name, self.owner = info.name, info.owner
        self.address = f"{self.owner}/{self.name}"
        self.uid: str = info.version.uid or ""
        self.architecture, self.arguments = info.architecture, info.arguments
        self.benchmark = info.benchmark
        self.device, self.dtype = info.device, info.dtype
        self.precision = info.precision
        self.normalization = info.normalization
        self.ephemeral = info.ephemeral
        self.columns = info.columns
        self.weights, self.weights_sha256 = info.weights, info.weights_sha256
        self.read_only, self.frozen = info.read_only, info.frozen
        self.feature_cache_bytes = info.feature_cache_bytes
        self.known_answers = KnownAnswers(
            info.feature_cache_bytes > 0, info.feature_cache.entries > 0
        )
        self.layout: Layout = contract.read_layout(message.layout)
        self.whole_layout = self.layout
        self.version = self.made_of = info.version
        self.rollback, self.gradient_changes = info.rollback, info.gradient_changes
        self.steps = Pipeline()
        # Kept by all objects that speak for it; its end is the instance's.
        self.guard = session.share_guard(channel, self.uid)

    @functools.cached_property
    def server_identity(self) -> ServerIdentity:
        """The server that has it, asked when this is first read."""
        return ServerIdentity(self.channel)

    def stand_for(self, other: InstanceBase) -> None:
        """Stand for another instance of the same layout from now on."""
        self.name, self.owner, self.uid = other.name, other.owner, other.uid
        self.address = other.address
        self.version, self.guard = other.version, other.guard
        self.feature_cache_bytes = other.feature_cache_bytes
        self.known_answers = other.known_answers

    def __repr__(self) -> str:
        """Say the server, the name and what it was made from."""
        made_from = self.benchmark or self.architecture
        return (
            f"{type(self).__name__}({self.name!r} [{made_from}] "
            f"on {self.channel.target})"
        )

    def without(self: B, part: str) -> B:
        """Give the same instance, as if it had no parameters below a module `part`.

        Those stay in the server as they are. Only forwards that do without them have
        gradients of what is left.
        """
        kept = [p for p in self.layout.parameters if not p.name.startswith(part + ".")]
        view = copy.copy(self)
        view.scope = [f"!{part}.*"]
        view.layout = dataclasses.replace(
            self.layout, parameters=tuple(kept), elements=sum(p.size for p in kept)
        )
        return view

    def saw(self, message: instance_pb2.Version) -> Version:
        """Take note of the version in an answer."""
        self.version = contract.read_version(message)
        return self.version

    def described(self, message: instance_pb2.Instance) -> InstanceInfo:
        """Take note of the settings in an answer, and read it."""
        info = contract.read_instance(message)
        self.read_only, self.frozen = info.read_only, info.frozen
        if self.feature_cache_bytes != info.feature_cache_bytes:
            self.feature_cache_bytes = info.feature_cache_bytes
            self.known_answers.enabled = info.feature_cache_bytes > 0
        return info

    def begin_life(self) -> None:
        """Have an unnamed instance deleted after the last object that stands for it."""
        if self.ephemeral:
            self.guard = session.guard(self.channel, self.address, self.uid)
