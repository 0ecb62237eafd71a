"""Lets a mirrored network go on when its server is there again."""

from __future__ import annotations

from typing import Callable

from backboned import contract
from backboned.calls import ask
from backboned.errors import NotFound, ServerRestarted
from backboned.instance import Instance, create_instance
from backboned.transport.tensors import float_number
from backboned.types import Frozen, ServerInfo
from backboned.v1 import instance_pb2
from backboned.v1 import instance_service_pb2 as pb


def make_like(
    instance: Instance,
    timeout: float | None,
    name: str = "",
    frozen: Frozen = (),
    feature_cache: int = 0,
) -> Instance:
    """Make an instance of the same architecture and arguments, unnamed by default.

    Its parameters are drawn, also where Mammoth loads weights: they are overwritten.
    """
    if instance.columns:
        raise TypeError(
            f"{instance.name!r} is a later column of a progressive network, which "
            "cannot be copied: the earlier columns may have changed since"
        )
    request = pb.CreateInstanceRequest(
        name=name,
        arguments=contract.argument_values(instance.arguments),
        device=instance.device,
        normalization=contract.normalization_message(instance.normalization),
        seed=0,
        random_init=True,
        settings=contract.settings_message(False, frozen, feature_cache),
        dtype=float_number(instance.dtype),
        precision=contract.precision_number(instance.precision),
    )
    if instance.benchmark:
        request.benchmark = instance.benchmark
    else:
        request.architecture = instance.architecture
    return create_instance(instance.channel, request, timeout)


def find_or_make(
    instance: Instance, mirror_digest: Callable[[], str], timeout: float | None
) -> tuple[Instance, bool]:
    """Find what may stand for an instance in a server that was restarted, or make it.

    An instance under its name counts only if it holds what the mirror holds. One that
    somebody else made is not made again: it would have other content than its maker
    expects. `instance` is as it was; `mirror_digest` gives the digest of the mirror.

    Returns the instance, and whether it holds what the mirror holds. Raises
    ServerRestarted if nothing may stand for it.
    """
    found = _find(instance, timeout)
    if found is None:
        if not instance.made_here:
            raise ServerRestarted(
                f"the server was restarted, and {instance.address!r}, which somebody "
                "else made, is not there; make it again, and give it "
                "net.state_dict()"
            )
        if instance.columns:
            raise ServerRestarted(
                f"{instance.address!r}, a later column of a progressive network, is "
                "not in the server any more, and is not made again, since its earlier "
                "columns are gone; make all again, and give each its state_dict()"
            )
        name = "" if instance.ephemeral else instance.name
        made = make_like(
            instance, timeout, name, instance.frozen, instance.feature_cache_bytes
        )
        if made.layout != instance.whole_layout:
            made.delete()
            raise ServerRestarted(
                "the server was restarted in another version, which builds "
                f"{instance.architecture} otherwise"
            )
        return made, False
    if found.version.uid == instance.uid:
        return Instance(instance.channel, found), False
    there = Instance(instance.channel, found)
    if there.layout != instance.whole_layout or found.digest != mirror_digest():
        raise ServerRestarted(
            f"the server was restarted, and {instance.address!r} in it is not the one "
            "that this network mirrored; take it with server.instance(...), and give "
            "it net.state_dict() if this content is to go on"
        )
    return there, True


def _find(instance: Instance, timeout: float | None) -> instance_pb2.Instance | None:
    request = pb.GetInstanceRequest(instance=instance.address, digest=True)
    try:
        found: instance_pb2.Instance = ask(instance.channel, request, timeout).instance
        return found
    except NotFound:
        return None


def differences(before: ServerInfo, now: ServerInfo) -> str:
    """Say what bits depend on and is otherwise than before."""
    pairs = {
        "threads": (before.threads, now.threads),
        "LibTorch": (before.torch_version, now.torch_version),
        "version": (before.version, now.version),
    }
    parts = [f"{name} {a} -> {b}" for name, (a, b) in pairs.items() if a != b]
    return f" with {', '.join(parts)}, so bits may differ" if parts else ""
