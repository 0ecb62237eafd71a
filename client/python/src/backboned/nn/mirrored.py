"""Keeps a mirror and its instance equal: pushes what changed here, takes what moved."""

from __future__ import annotations

import hashlib
import itertools
import logging
from typing import Any, Callable, TypeVar

import torch
from torch import nn

from backboned import calls
from backboned.calls import BackwardOptions, ForwardOptions, moves_buffers
from backboned.errors import BackbonedError, ServerRestarted, StaleVersion, verbs
from backboned.instance import Instance
from backboned.nn import reconnect
from backboned.nn.lazy import as_plain
from backboned.nn.link import (
    LinkBase,
    Tape,
    Write,
    Writes,
    rng_state,
    set_rng_state,
    uses_buffers,
)
from backboned.nn.watch import (
    Watch,
    as_array,
    as_tensor,
    slots_of,
    version_of,
)
from backboned.transport.channel import Channel
from backboned.transport.retries import Patience, forget_frames, is_absence
from backboned.transport.tensors import as_bytes
from backboned.types import (
    Array,
    Backward,
    Checkpoint,
    Forward,
    InstanceInfo,
    ServerInfo,
    Version,
)

_PULL_ATTEMPTS = 5

_log = logging.getLogger("backboned")

T = TypeVar("T")

_Versions = dict[str, "set[tuple[Any, Any]]"]
"""By part, the versions of instances, with uid, that have the same values."""


class TapedForward(Tape):
    """A forward of a mirrored network, and what it takes to run it again.

    Holds a reference to the input, as a local network's graph does. Not thread-safe.

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
        super().__init__(result.tape_id, token, channel)
        self.version = result.version
        self.uid = result.version.uid
        self.options = options
        self._x: torch.Tensor | None = x.detach()
        self._x_version = version_of(x)

    @property
    def uses_buffers(self) -> bool:
        """Say whether its numbers depend on the buffers: on running statistics."""
        return uses_buffers(self.options)

    def done(self) -> None:
        """Note that the server has used up the tape."""
        super().done()
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
        self.uid = result.version.uid
        self.become(result.tape_id)


@verbs
class MirroredLink(LinkBase):
    """Connects the tensors of a module tree with an instance: the tensors decide.

    It pushes changes here before the next forward. A change in the server by somebody
    else is an error then, not a surprise. If the server goes away, calls wait
    for it; if it was restarted, the instance is made again, and the mirror is pushed.

    - `root`: the tree, planted with the instance's layout.

    - `watches`: know the tensors ``"params"`` and ``"buffers"``.
    """

    is_mirror = True

    def __init__(self, instance: Instance, root: nn.Module) -> None:
        # The version is what the mirror equals.
        super().__init__(instance, Version(instance.uid))
        self._server = instance.server_identity
        dtype = getattr(torch, instance.dtype)
        self._slots = slots_of(root, instance.layout, dtype)
        self.watches = {part: Watch() for part in self._slots}
        # Versions before restarts that have the values of now.
        self._same: _Versions = {"params": set(), "buffers": set()}

    def resume(self, version: Version) -> None:
        """Begin with a mirror that equals this version of the instance."""
        for part in self._slots:
            self._look_at_all(part)
        self.version = version

    def _look_at_all(self, part: str) -> None:
        """Note that the server has all tensors of a part as they are."""
        watch, tensors = self.watches[part], self._slots[part].tensors()
        watch.saw(watch.look(tensors, range(len(tensors))))

    def parameters(self) -> list[nn.Parameter]:
        """Give the mirrored parameters in flat order."""
        return self._slots["params"].tensors()

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
            self._look_at_all("params")
            self.version = version

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
            self.version = Version(self.instance.uid)
            self._push_changes()

    def settle(self) -> None:
        """Push what changed here."""
        self._through_restarts(self._settle)

    def _settle(self) -> None:
        with self._lock, self._advised:
            self._push_changes()

    def info(self) -> InstanceInfo:
        """Push what changed here, and describe the instance, with its digest."""
        self.settle()
        return self._through_restarts(self.instance.info, True, self.timeout)

    def save(self, name: str, keep: int) -> Checkpoint:
        """Push what changed here, and save parameters and buffers."""
        return self._through_restarts(self._save, name, keep)

    def _save(self, name: str, keep: int) -> Checkpoint:
        with self._lock, self._advised:
            self._push_changes()
            return self.instance.save(
                name, keep=keep, timeout=self.timeout, if_version=self.version
            )

    def copy_instance(self) -> Instance:
        """Make an instance like this one, for a copy that is fed when it is used."""
        make = reconnect.make_like
        return self._through_restarts(make, self.instance, self.timeout)

    def _push_changes(self) -> None:
        self._changes().take()

    def _changes(self) -> Writes:
        """Prepare to push what changed here."""
        writes = Writes()
        for part, slots in self._slots.items():
            watch, tensors = self.watches[part], slots.tensors()
            if getattr(self.version, part) is None:
                watch.forget()
            changed = watch.changed(tensors)
            if changed:
                writes.add(self._push(part, tensors, changed))
        return writes

    def _push(self, part: str, tensors: list[Any], changed: list[int]) -> Write:
        looks = self.watches[part].look(tensors, changed)

        def written() -> None:
            self.watches[part].saw(looks)
            self._same[part] = set()

        return self._writing(part, tensors, changed, written)

    def forward(self, x: Array, options: ForwardOptions) -> Forward:
        """Push what changed, run a forward of that very state, take the new buffers.

        The forward is sent behind the pushes, before their answers came.
        """
        return self._through_restarts(self._forward, x, options)

    def _forward(self, x: Array, options: ForwardOptions) -> Forward:
        moves = moves_buffers(self.instance.layout, options)
        draws = options["training"] and self.instance.layout.stochastic
        if draws:
            options["rng_state"] = rng_state()
        with self._lock, self._advised:
            known = self.version
            writes = self._changes()
            left = self._left_by(writes, known)
            if left is None:
                writes.take()
                writes, left = Writes(), self.version
            options["if_version"] = left
            call = (self.timeout, None, writes.behind if writes else None)
            if moves:
                with self._changing("buffers"):
                    full: ForwardOptions = {**options, "return_buffers": True}
                    result = calls.forward(self.instance, x, full, *call)
                    self._write_buffers(result.buffers)
                    self._same["buffers"] = set()
                    self._note("buffers", result.version)
            elif writes:
                result = calls.forward(self.instance, x, options, *call)
        if not moves and not writes:
            with self._advised:
                result = self._forward_beside_others(x, options)
        if draws:
            set_rng_state(result.rng_state)
        return result

    def _left_by(self, writes: Writes, known: Version) -> Version | None:
        """Say what version the pushes leave of a known one; None: nobody knows."""
        left = self.version
        for part in self._slots if writes else ():
            if getattr(left, part) is None:  # It is pushed.
                before = getattr(known, part)
                if before is None:
                    return None
                left = left._replace(**{part: before + 1})
        return left

    def _write_buffers(self, values: dict[str, Array]) -> None:
        """Copy buffers of the instance into the mirror."""
        buffers = self._slots["buffers"].tensors()
        with torch.no_grad():
            for spec, buffer in zip(self.instance.layout.buffers, buffers):
                buffer.copy_(as_tensor(values[spec.name]))
        self._look_at_all("buffers")

    def hold(
        self, x: torch.Tensor, options: ForwardOptions, result: Forward, token: Array
    ) -> TapedForward:
        """Hold a tape, and what it takes to run its forward again."""
        return TapedForward(x, options, result, token, self.instance.channel)

    def backward(
        self, tape: TapedForward, gradients: dict[str, Array], options: BackwardOptions
    ) -> Backward:
        """Run the backward of a forward, which is run again if its tape is lost."""
        return self._through_restarts(self._backward, tape, gradients, options)

    def _backward(
        self, tape: TapedForward, gradients: dict[str, Array], options: BackwardOptions
    ) -> Backward:
        if tape.uid != self.instance.uid:
            self._forward_again(tape)
        tapes = {tape.tape_id: gradients}
        try:
            call = (self.instance, tapes, options, self.timeout)
            return calls.backward(*call).take()
        except BackbonedError as error:
            if is_absence(error):
                tape.uid = ""  # It may have been used up.
            raise

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
                arrays = map(as_array, self._slots["buffers"].tensors())
                options["buffers"] = dict(zip(names, arrays))
            options["if_version"] = self.version._replace(buffers=None)
            result = calls.forward(self.instance, tape.input(), options, self.timeout)
            tape.renew(result)

    def _through_restarts(self, call: Callable[..., T], *given: Any) -> T:
        """Make a call; if the server went away, make it again when it is back.

        So it is if the server has forgotten an unnamed instance, since it did not hear
        of this process for the life of a session. Raises the call's BackbonedError
        otherwise, or if the server stays away.
        """
        patience: Patience | None = None
        while True:
            uid = self.instance.uid
            try:
                return call(*given)
            except BackbonedError as error:
                forget_frames(error)
                seconds = self.instance.channel.reconnect_timeout
                patience = patience or Patience(seconds)
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
        """Say whether the instance died with a session, and nobody deleted it."""
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
            self.version = Version(there.uid)
            self._push_changes()
            if read_only:
                self.instance.update(read_only=True, timeout=self.timeout)
        self._same = versions

    def _digest(self) -> str:
        """Give the SHA-256 of the mirror, as the server computes an instance's."""
        sha256 = hashlib.sha256()
        for tensor in (*self.parameters(), *self._slots["buffers"].tensors()):
            sha256.update(as_bytes(as_array(tensor)))
        return sha256.hexdigest()

    def _versions_there(self) -> _Versions:
        """List the versions with the values of the instance."""
        uid, same = self.version.uid, self._same
        known = {part: getattr(self.version, part) for part in same}
        return {
            part: set() if version is None else {(uid, version), *same[part]}
            for part, version in known.items()
        }

    def _versions_here(self) -> _Versions:
        """List the versions with the values of the mirror."""
        versions = self._versions_there()
        for part, slots in self._slots.items():
            if self.watches[part].changed(slots.tensors()):
                versions[part] = set()
        return versions


class ScratchLink(MirroredLink):
    """Connects other tensors than a hosted network has, for one forward, with a clone.

    `torch.func.functional_call` puts them there. Gradients come here, to whatever the
    tensors were made of. The clone is deleted when the graph is gone.

    - `instance`: the clone.
    - `root`: the network.
    - `own`: its own tensors by part, which the clone has already.
    """

    def __init__(
        self,
        instance: Instance,
        root: nn.Module,
        own: dict[str, dict[int, torch.Tensor]],
    ) -> None:
        super().__init__(instance, root)
        self.version = instance.version
        with as_plain():
            for part, watch in self.watches.items():
                tensors, known = self._slots[part].tensors(), own[part]
                same = [i for i, tensor in enumerate(tensors) if tensor is known.get(i)]
                watch.saw(watch.look(tensors, same, closely=()))

    def _through_restarts(self, call: Callable[..., T], *given: Any) -> T:
        """Make a call; a lost server has lost the network too."""
        return call(*given)

    def _push_changes(self) -> None:
        with as_plain():
            super()._push_changes()
