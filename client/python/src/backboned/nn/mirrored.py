"""Keeps a mirror and its instance equal: pushes what changed here, takes what moved."""

from __future__ import annotations

import itertools
import logging
import weakref
from collections.abc import Sequence
from typing import Any, Callable, TypeVar

import torch
from torch import nn

from backboned import calls
from backboned.calls import BackwardOptions, ForwardOptions, moves_buffers
from backboned.errors import BackbonedError, ServerRestarted, StaleVersion, verbs
from backboned.instance import Instance
from backboned.nn import reconnect
from backboned.nn.advice import advised_if_stale
from backboned.nn.lazy import as_plain
from backboned.nn.link import Link, rng_state, set_rng_state
from backboned.nn.watch import (
    Watch,
    as_array,
    as_tensor,
    buffer_slots,
    empty,
    parameter_slots,
    version_of,
)
from backboned.transport import session
from backboned.transport.channel import Channel
from backboned.transport.retries import Patience, forget_frames, is_absence
from backboned.types import Array, Backward, Forward, InstanceInfo, ServerInfo, Version

_PULL_ATTEMPTS = 5

_log = logging.getLogger("backboned")

T = TypeVar("T")

_Versions = dict[str, "set[tuple[Any, Any]]"]
"""By part, the versions of instances, with uid, that have the same values."""


class TapedForward:
    """A forward of a mirrored network, and what it takes to run it again.

    Holds a reference to the input, as a local network's graph does. Not thread-safe.

    - `token`: the tape is released when it dies.

    - `version`: the one of the forward.
    - `uid`: of the instance that has the tape; empty: it may be lost.
    """

    def __init__(
        self,
        x: torch.Tensor,
        options: ForwardOptions,
        result: Forward,
        token: Array,
        channel: Channel,
    ) -> None:
        self.tape_id = result.tape_id
        self.version = result.version
        self.uid = result.version.uid
        self.options = options
        self._x: torch.Tensor | None = x.detach()
        self._x_version = version_of(x)
        self._channel = channel
        self._token = weakref.ref(token)
        self._release = session.release_tape_with(token, channel, result.tape_id)

    @property
    def uses_buffers(self) -> bool:
        """Whether its numbers depend on the buffers: on running statistics."""
        layers = self.options["batch_norm"]
        return not self.options["training"] or any(
            norm.training is False for norm in layers
        )

    def done(self) -> None:
        """Note that the server has used up the tape."""
        self._release.detach()
        self._x = None

    def lost(self, why: str) -> ServerRestarted:
        """Make the error that says why the forward cannot be run again."""
        return ServerRestarted(
            "the server, or the connection to it, was lost between this forward and "
            f"its backward, and the forward cannot be run again: {why}; begin the "
            "step anew"
        )

    def input(self) -> Array:
        """Give the input to run the forward with again.

        Raises ServerRestarted if it was written.
        """
        assert self._x is not None
        if version_of(self._x) != self._x_version:
            raise self.lost("the input was written since")
        return as_array(self._x)

    def renew(self, result: Forward) -> None:
        """Take the tape of a forward that was run again."""
        self._release.detach()
        self.tape_id, self.uid = result.tape_id, result.version.uid
        token = self._token()
        if token is not None:
            self._release = session.release_tape_with(
                token, self._channel, self.tape_id
            )


@verbs
class MirroredLink(Link):
    """Connects the tensors of a module tree with an instance: the tensors decide.

    What is changed here is pushed before the next forward. What somebody else changes
    in the server is an error then, not a surprise. If the server goes away, calls wait
    for it; if it was restarted, the instance is made again, and the mirror is pushed.

    - `root`: the tree, planted with the instance's layout.
    """

    is_mirror = True

    def __init__(self, instance: Instance, root: nn.Module) -> None:
        # The version is what the mirror equals.
        super().__init__(instance, Version(instance.uid))
        layout = instance.layout
        self._server = instance.server_identity
        dtype = getattr(torch, instance.dtype)
        self._slots = {"params": parameter_slots(root, layout, dtype)}
        if layout.buffers:
            self._slots["buffers"] = buffer_slots(root, layout)
        self._watches = {"params": Watch(), "buffers": Watch()}
        # Versions before restarts that have the values of now.
        self._same: _Versions = {"params": set(), "buffers": set()}

    def seen(self) -> tuple[Watch, Watch]:
        """Give what is known of the parameters and of the buffers."""
        return self._watches["params"], self._watches["buffers"]

    def resume(self, version: Version) -> None:
        """Begin with a mirror that equals this version of the instance."""
        for part, slots in self._slots.items():
            self._look_at_all(part, slots.tensors())
        buffers = version.buffers if self.instance.layout.buffers else None
        self._version = version._replace(buffers=buffers)

    def _look_at_all(self, part: str, tensors: list[Any]) -> None:
        """Note that the server has all tensors of a part as they are."""
        watch = self._watches[part]
        watch.saw(watch.look(tensors, range(len(tensors))))

    def parameters(self) -> list[nn.Parameter]:
        """Give the mirrored parameters in flat order."""
        return self._tensors("params")

    def _tensors(self, part: str) -> list[Any]:
        return self._slots[part].tensors() if part in self._slots else []

    def pull(self) -> None:
        """Take the instance's parameters and buffers, of one version, into the mirror.

        Raises StaleVersion if somebody else keeps changing it.
        """
        with self._lock:
            for attempt in range(_PULL_ATTEMPTS):
                try:
                    flat, buffers, version = self._read()
                    break
                except StaleVersion:
                    if attempt == _PULL_ATTEMPTS - 1:
                        raise
            parameters = self.parameters()
            with torch.no_grad():
                sizes = [p.numel() for p in parameters]
                parts = torch.split(as_tensor(flat), sizes)
                for parameter, part in zip(parameters, parts):
                    parameter.copy_(part.view_as(parameter))
            self._write_buffers(buffers)
            self._look_at_all("params", parameters)
            if not self.instance.layout.buffers:
                version = version._replace(buffers=None)
            self._version = version

    def _read(self) -> tuple[Array, dict[str, Array], Version]:
        instance = self.instance
        uid = Version(instance.uid)
        flat, version = calls.get_params(instance, if_version=uid, timeout=self.timeout)
        if not instance.layout.buffers:
            return flat, {}, version
        same_params = Version(version.uid, version.params)
        buffers, version = calls.get_buffers(
            instance, if_version=same_params, timeout=self.timeout
        )
        return flat, buffers, version

    def push(self) -> None:
        """Write every parameter and buffer of the mirror into the instance.

        Overwrites what somebody else may have written.
        """
        self._through_restarts(self._push_all)

    def _push_all(self) -> None:
        with self._lock:
            self._version = Version(self.instance.uid)
            self._push_changes()

    def settle(self) -> None:
        """Push what changed here."""
        self._through_restarts(self._settle)

    def _settle(self) -> None:
        with self._lock, advised_if_stale(self.instance):
            self._push_changes()

    def info(self) -> InstanceInfo:
        """Push what changed here, and describe the instance, with its digest."""
        self.settle()
        return self._through_restarts(
            lambda: self.instance.info(digest=True, timeout=self.timeout)
        )

    def mirrored(self, root: nn.Module) -> MirroredLink:
        """Give this one."""
        return self

    def copy_instance(self) -> Instance:
        """Make an instance like this one, for a copy that is fed when it is used."""
        return self._through_restarts(
            lambda: reconnect.make_like(self.instance, self.timeout)
        )

    def _push_changes(self) -> None:
        for part, slots in self._slots.items():
            watch = self._watches[part]
            if getattr(self._version, part) is None:
                watch.forget()
            tensors = slots.tensors()
            changed = watch.changed(tensors)
            if changed:
                self._push(part, tensors, changed)

    def _push(self, part: str, tensors: list[Any], changed: list[int]) -> None:
        watch = self._watches[part]
        looks = watch.look(tensors, changed)

        def written() -> None:
            watch.saw(looks)
            self._same[part] = set()

        self._write(part, changed, [as_array(tensors[i]) for i in changed], written)

    def forward(self, x: Array, options: ForwardOptions) -> Forward:
        """Push what changed, run a forward of that very state, take the new buffers."""
        return self._through_restarts(lambda: self._forward(x, options))

    def _forward(self, x: Array, options: ForwardOptions) -> Forward:
        moves = moves_buffers(self.instance.layout, options)
        draws = options["training"] and self.instance.layout.stochastic
        if draws:
            options["rng_state"] = rng_state()
        with self._lock, advised_if_stale(self.instance):
            self._push_changes()
            version = self._version
            if moves:
                result = self._training_forward(x, options)
        if not moves:
            with advised_if_stale(self.instance):
                options["if_version"] = version
                result = self._forward_beside_others(x, options)
        if draws:
            set_rng_state(result.rng_state)
        return result

    def _training_forward(self, x: Array, options: ForwardOptions) -> Forward:
        """Run a forward that moves the buffers on, in the server and here."""
        with self._changing("buffers") as known:
            options = {**options, "if_version": known, "return_buffers": True}
            result = calls.forward(self.instance, x, options, self.timeout, empty)
            self._write_buffers(result.buffers)
            self._same["buffers"] = set()
            self._note("buffers", result.version)
        return result

    def _write_buffers(self, values: dict[str, Array]) -> None:
        """Copy buffers of the instance into the mirror."""
        buffers = self._tensors("buffers")
        with torch.no_grad():
            for spec, buffer in zip(self.instance.layout.buffers, buffers):
                buffer.copy_(as_tensor(values[spec.name]))
        self._look_at_all("buffers", buffers)

    def hold(
        self, x: torch.Tensor, options: ForwardOptions, result: Forward, token: Array
    ) -> TapedForward:
        """Hold a tape, and what it takes to run its forward again."""
        return TapedForward(x, options, result, token, self.instance.channel)

    def backward(
        self, tape: TapedForward, gradients: dict[str, Array], options: BackwardOptions
    ) -> Backward:
        """Run the backward of a forward, which is run again if its tape is lost."""

        def call() -> Backward:
            if tape.uid != self.instance.uid:
                self._forward_again(tape)
            tapes = {tape.tape_id: gradients}
            try:
                return calls.backward(
                    self.instance, tapes, options, self.timeout, empty
                )
            except BackbonedError as error:
                if is_absence(error):
                    tape.uid = ""  # It may have been used up.
                raise

        return self._through_restarts(call)

    def _forward_again(self, tape: TapedForward) -> None:
        """Run a forward whose tape is lost again, of the same state."""
        with self._lock:
            options: ForwardOptions = {**tape.options}
            uid, at_params, at_buffers = tape.version
            if (uid, at_params) not in self._versions_there()["params"]:
                raise tape.lost("the parameters were changed since")
            if self.instance.layout.buffers:
                known = self._versions_here()["buffers"]
                if tape.uses_buffers and (uid, at_buffers) not in known:
                    raise tape.lost("the BatchNorm statistics have moved on since")
                names = [spec.name for spec in self.instance.layout.buffers]
                arrays = map(as_array, self._tensors("buffers"))
                options["buffers"] = dict(zip(names, arrays))
            options["if_version"] = self._version._replace(buffers=None)
            result = calls.forward(self.instance, tape.input(), options, self.timeout)
            tape.renew(result)

    def _through_restarts(self, call: Callable[[], T]) -> T:
        """Make a call; if the server went away, make it again when it is back.

        So it is if the server has forgotten an unnamed instance, since it did not hear
        of this process for the life of a session. Raises the call's BackbonedError
        otherwise, or if the server stays away.
        """
        patience = Patience(self.instance.channel.reconnect_timeout)
        while True:
            uid = self.instance.uid
            try:
                return call()
            except BackbonedError as error:
                forget_frames(error)
                self._revive(uid, error, patience)

    def _revive(self, uid: str, error: BackbonedError, patience: Patience) -> None:
        """Wait for the server; if the instance is not in it any more, move into it.

        Does nothing if another thread did so since the instance had this uid.
        """
        with self._lock:
            if self.instance.uid != uid:
                return
            before, versions = self._server.info, self._versions_here()
            forgotten = self._is_forgotten(error)
            for attempt in itertools.count():
                if forgotten and not attempt:
                    info = self._server.there()
                else:
                    info = self._server.await_again(error, patience)
                same = info.server_uid == before.server_uid
                if same and not attempt and not forgotten:
                    return
                try:
                    self._move_in(info, versions)
                    break
                except BackbonedError as another:
                    forget_frames(another)
                    error = another.with_traceback(None)  # Which has this frame.
        _log.warning(
            "the server at %s %s; %s goes on from what this process has",
            self.instance.channel.target,
            "had forgotten the network: it heard nothing from this process for "
            f"{info.limits['session_ttl']:g} s"
            if same
            else f"was restarted{reconnect.differences(before, info)}",
            self.instance.address,
        )

    def _is_forgotten(self, error: BackbonedError) -> bool:
        """Whether the instance died with a session, and nobody deleted it."""
        mine = self.instance.ephemeral and self.instance.made_here
        gone = error.reason == "INSTANCE_NOT_FOUND"
        return gone and mine and not self.instance.deleted

    def _move_in(self, info: ServerInfo, versions: _Versions) -> None:
        """Make the instance again in a server, and push the mirror."""
        there, equal = reconnect.find_or_make(self.instance, self._digest, self.timeout)
        read_only = self.instance.read_only
        self.instance.stand_for(there)
        self._server.info = info
        if equal:
            self.resume(there.version)
        else:
            self._version = Version(there.uid)
            self._push_changes()
            if read_only:
                self.instance.update(read_only=True, timeout=self.timeout)
        self._same = versions

    def _digest(self) -> str:
        """Give the SHA-256 of the mirror, as the server computes an instance's."""
        tensors = (*self.parameters(), *self._tensors("buffers"))
        return reconnect.digest(map(as_array, tensors))

    def _versions_there(self) -> _Versions:
        """List the versions with the values of the instance."""
        uid, same = self._version.uid, self._same
        known = {part: getattr(self._version, part) for part in same}
        return {
            part: set() if version is None else {(uid, version), *same[part]}
            for part, version in known.items()
        }

    def _versions_here(self) -> _Versions:
        """List the versions with the values of the mirror."""
        return {
            part: set() if self._watches[part].changed(self._tensors(part)) else there
            for part, there in self._versions_there().items()
        }


class ScratchLink(MirroredLink):
    """Connects other tensors than a hosted network has, for one forward, with a clone.

    `torch.func.functional_call` puts them there. Gradients come here, to whatever the
    tensors were made of. The clone is deleted when the graph is gone.

    - `instance`: the clone.
    - `root`: the network.
    - `own`: its own parameters and buffers, which the clone has already.
    """

    def __init__(
        self,
        instance: Instance,
        root: nn.Module,
        own: tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]],
    ) -> None:
        super().__init__(instance, root)
        self._version = instance.version
        with as_plain():
            for (part, slots), known in zip(self._slots.items(), own):
                tensors, watch = slots.tensors(), self._watches[part]
                same = [i for i, tensor in enumerate(tensors) if tensor is known[i]]
                watch.saw(watch.look(tensors, same, closely=()))

    def _through_restarts(self, call: Callable[[], T]) -> T:
        """Make a call; a lost server has lost the network too."""
        return call()

    def _push_changes(self) -> None:
        with as_plain():
            super()._push_changes()
