"""What an instance is asked for besides its numbers: description, clones, settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar, Union

from google.protobuf.field_mask_pb2 import FieldMask

from backboned import boundary, garbage
from backboned.channel import CONTROL, Channel
from backboned.creation import checked_seed
from backboned.describe import InstanceInfo, read_instance
from backboned.errors import Aborted, BackbonedError, InvalidArgument, NotFound
from backboned.handle import Handle
from backboned.layout import Version, condition
from backboned.traffic import Meter
from backboned.transfer import decoded, fresh_id
from backboned.v1 import instance_pb2
from backboned.v1 import instance_service_pb2 as pb

Frozen = Union[bool, str, Sequence[str]]
"""Which parameters are not trained: a glob or globs over names, or all or none."""

C = TypeVar("C", bound="Control")

_SIZE = re.compile(r"(-?\d+) ?(KiB|MiB|GiB|)")
_SHIFTS = {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}


@boundary.verbs
class Control(Handle):
    """The part of `Instance` that moves no tensors."""

    def info(self, digest: bool = False, timeout: float | None = None) -> InstanceInfo:
        """Ask the server what it knows of the instance.

        Parameters
        ----------
        digest : bool
            Compute the SHA-256 of parameters and buffers too.
        timeout : float, optional
            Seconds.
        """
        request = pb.GetInstanceRequest(instance=self.address, digest=digest)
        raw = self.channel.unary(
            CONTROL + "GetInstance", request.SerializeToString(), timeout
        )
        answer = decoded(pb.GetInstanceResponse.FromString, raw)
        return self._described(answer.instance)

    def delete(self, timeout: float | None = None) -> None:
        """Delete the instance and its tapes; a namesake made later is spared."""
        request = pb.DeleteInstanceRequest(
            request_id=fresh_id(),
            instance=self.address,
            if_version=condition(Version(self.uid)),
        )
        self.deleted = True
        self.channel.unary(
            CONTROL + "DeleteInstance", request.SerializeToString(), timeout
        )

    def clone(
        self: C,
        name: str | None = None,
        *,
        read_only: bool = False,
        frozen: Frozen | None = None,
        feature_cache: int | str = 0,
        with_grads: bool = False,
        with_optimizer: bool = False,
        num_classes: int | None = None,
        seed: int | None = None,
        if_version: Version | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> C:
        """Make an instance in this one's state.

        The two share their tensors until one of them is written.

        Parameters
        ----------
        name : str, optional
            Without one the clone gets a random name, and dies with this client, or
            with the last object that stands for it.
        read_only : bool
            Let nobody write the clone.
        frozen : Frozen, optional
            Its parameters that are not trained; by default this one's.
        feature_cache : int or str
            Bytes of its feature cache, as in `update`; by default it has none.
        with_grads, with_optimizer : bool
            Take the gradients, the optimizer and its state along.
        num_classes : int, optional
            Give it a fresh classifier of so many classes, on the same trunk.
        seed : int, optional
            Of that classifier: the clone's is the one that the architecture with
            `num_classes` and this seed begins with.
        if_version : Version, optional
            The state that must be found.
        request_id, timeout
            See the class.

        Raises
        ------
        AlreadyExists
            The name is taken.
        """
        delete_abandoned(self.channel)
        request = pb.CloneInstanceRequest(
            request_id=request_id or fresh_id(),
            instance=self.address,
            name=name or "",
            if_version=condition(if_version),
            with_grads=with_grads,
            with_optimizer=with_optimizer,
            num_classes=num_classes,
            seed=checked_seed(seed),
        )
        if read_only or frozen is not None or feature_cache:
            kept = self.frozen if frozen is None else frozen
            request.settings.CopyFrom(settings(read_only, kept, feature_cache))
        raw = self.channel.unary(
            CONTROL + "CloneInstance", request.SerializeToString(), timeout
        )
        answer = decoded(pb.CloneInstanceResponse.FromString, raw)
        made = type(self)(self.channel, answer.instance)
        made.made_here = True
        made.begin_life()
        return made

    def update(
        self,
        *,
        read_only: bool | None = None,
        frozen: Frozen | None = None,
        feature_cache: int | str | None = None,
        if_version: Version | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> InstanceInfo:
        """Change settings, those that are given; say what the instance is then.

        Parameters
        ----------
        read_only : bool, optional
            Let nobody write it: parameters, gradients, buffers, optimizer. Forwards
            are refused if they would move its buffers or its generator.
        frozen : Frozen, optional
            The parameters that get no gradient unless a forward's `grad_params` says
            otherwise, and that no step of the server's optimizer changes.
        feature_cache : int or str, optional
            Bytes that the answers of forwards in evaluation may take that are kept
            for equal inputs, e.g. ``"256MiB"``; 0: none are kept.
        if_version : Version, optional
            The state that must be found.
        request_id, timeout
            See the class.
        """
        given = {
            "read_only": read_only,
            "frozen": frozen,
            "feature_cache_bytes": feature_cache,
        }
        request = pb.UpdateInstanceRequest(
            request_id=request_id or fresh_id(),
            instance=self.address,
            settings=settings(
                bool(read_only), () if frozen is None else frozen, feature_cache or 0
            ),
            update_mask=FieldMask(
                paths=[path for path, value in given.items() if value is not None]
            ),
            if_version=condition(if_version),
        )
        raw = self.channel.unary(
            CONTROL + "UpdateInstance", request.SerializeToString(), timeout
        )
        answer = decoded(pb.UpdateInstanceResponse.FromString, raw)
        return self._described(answer.instance)

    def begin_life(self) -> None:
        """Have an unnamed instance deleted after the last object that stands for it."""
        if self.ephemeral:
            self.life = garbage.begin_life(self.channel, self.address, self.uid)

    def _described(self, message: instance_pb2.Instance) -> InstanceInfo:
        info = read_instance(message)
        self.read_only = info.read_only
        self.frozen = info.frozen
        if self.feature_cache_bytes != info.feature_cache_bytes:
            self.feature_cache_bytes = info.feature_cache_bytes
            self.asking.enabled = info.feature_cache_bytes > 0
        return info


def settings(
    read_only: bool, frozen: Frozen, feature_cache: int | str = 0
) -> instance_pb2.InstanceSettings:
    """Make the contract's settings.

    Raises
    ------
    InvalidArgument
        If `feature_cache` is no size.
    """
    if isinstance(frozen, bool):
        frozen = ["*"] if frozen else []
    globs = [frozen] if isinstance(frozen, str) else frozen
    return instance_pb2.InstanceSettings(
        read_only=read_only,
        frozen=globs,
        feature_cache_bytes=byte_count(feature_cache, "feature_cache"),
    )


def byte_count(size: int | str, what: str) -> int:
    """Give the bytes of a size: a number, or e.g. ``"256MiB"``.

    Raises
    ------
    InvalidArgument
        If it is none.
    """
    match = _SIZE.fullmatch(str(size))
    if match is None:
        raise InvalidArgument(
            f"{what} is {size!r}; it is a number of bytes, or like '512KiB', '256MiB', "
            "'1GiB'"
        )
    return int(match[1]) << _SHIFTS[match[2]]


def delete_abandoned(channel: Channel, timeout: float | None = None) -> None:
    """Delete the unnamed instances that nobody refers to any more.

    What is left when a deletion fails is for the next time.
    """
    if not channel.connection.abandoned_instances:
        return
    channel = channel.metered(Meter())  # Nobody's own traffic.
    left = garbage.take_instances(channel)
    try:
        while left:
            _delete_abandoned(channel, *left[0], timeout)
            left.pop(0)
    except BackbonedError:
        left.append(left.pop(0))  # Next time the others come before it.
    finally:
        garbage.put_back_instances(channel, left)


def _delete_abandoned(
    channel: Channel, address: str, uid: str, timeout: float | None
) -> None:
    request = pb.DeleteInstanceRequest(
        instance=address, if_version=condition(Version(uid))
    )
    try:
        channel.unary(CONTROL + "DeleteInstance", request.SerializeToString(), timeout)
    except (NotFound, Aborted):
        pass  # Somebody else deleted it.
