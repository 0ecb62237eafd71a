"""Says in the errors of a network what a user can do about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from backboned.errors import (
    BackbonedError,
    NotFound,
    ServerRestarted,
    StaleVersion,
    Unavailable,
)
from backboned.instance import Instance
from backboned.transport.retries import is_absence

_IF_STALE = "net.pull() takes the server's state, net.push() puts this one's"
_RESUME = (
    "parameters, BatchNorm statistics, gradients and the optimizer's state: make the "
    "network again and resume from a checkpoint (net.load_state_dict, "
    "opt.load_state_dict)"
)


@contextlib.contextmanager
def advised_if_stale(instance: Instance) -> Iterator[None]:
    """Add what to do to the error that somebody else changed the instance."""
    try:
        yield
    except StaleVersion as error:
        if _IF_STALE in error.message:
            raise
        raise StaleVersion(
            f"somebody else changed {instance.name!r} in the server: "
            f"{_IF_STALE} [{error.message}]",
            error.code,
            error.reason,
        ) from error


@contextlib.contextmanager
def advised(instance: Instance) -> Iterator[None]:
    """Add what to do to the error that the instance changed, or is gone with its state.

    For networks whose parameters are in the server.
    """
    try:
        with advised_if_stale(instance):
            yield
    except BackbonedError as error:
        better = _advice(instance, error)
        if better is None:
            raise
        raise better from error


def _advice(instance: Instance, error: BackbonedError) -> BackbonedError | None:
    """Make the error that says what to do; None: this one does."""
    if _RESUME in error.message:
        return None
    lost = f"what it had of {instance.name!r} is lost, {_RESUME}"
    if instance.server_identity.was_restarted(error):
        return ServerRestarted(
            f"the server at {instance.channel.target} was restarted, and {lost} "
            f"[{error.message}]"
        )
    if error.reason == "INSTANCE_NOT_FOUND" and instance.ephemeral:
        seconds = instance.server_identity.info.limits["session_ttl"]
        return NotFound(
            f"{error.message}; an unnamed one ends when its server hears nothing from "
            f"its client for {seconds:g} s, and is lost then, {_RESUME}",
            error.code,
            error.reason,
        )
    if not is_absence(error):
        return None
    message = f"{error.message}; {lost}"
    if not instance.channel.explain():  # Only what is certain.
        message = (
            f"{error.message}; while it runs {instance.name!r} lives in it: call again "
            f"when it can be reached, and go on. Only if it has ended {lost}"
        )
    better = Unavailable(message, error.code, error.reason)
    better.was_waited_for = error.was_waited_for
    return better
