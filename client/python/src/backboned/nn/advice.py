"""Says in the errors of a network what a user can do about them."""

from __future__ import annotations

from typing import Any

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
_AGAIN = (
    "make the network again and resume from a checkpoint (net.load_state_dict, "
    "opt.load_state_dict)"
)
_RESUME = (
    "parameters, BatchNorm statistics, gradients and the optimizer's state: " + _AGAIN
)


class Advised:
    """A context that adds to errors what to do; it may be entered again.

    To the error that somebody else changed the instance; for networks whose parameters
    are in the server (`hosted`) also to the one that it is gone with its state.
    """

    def __init__(self, instance: Instance, hosted: bool) -> None:
        self._instance = instance
        self._hosted = hosted

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        """Raise a better error in an error's place."""
        if not isinstance(error, BackbonedError):
            return
        better, instance = error, self._instance
        if isinstance(error, StaleVersion) and _IF_STALE not in error.message:
            better = StaleVersion(
                f"somebody else changed {instance.name!r} in the server: "
                f"{_IF_STALE} [{error.message}]",
                error.code,
                error.reason,
            )
        if self._hosted:
            better = _advice(instance, better) or better
        if better is not error:
            raise better from error


def _as_saved(instance: Instance) -> str:
    """Say how to go on with an instance that came back; empty: it did not."""
    try:
        found = instance.info()
    except BackbonedError:
        return ""
    if found.version.uid != instance.uid:
        return ""
    return (
        f"{instance.name!r} came back as it was saved last, at version "
        f"{found.version.params} of its parameters, without tapes: "
        f"{from_there(instance)}"
    )


def from_there(instance: Instance) -> str:
    """Say how to go on with an instance that came back."""
    return (
        f"net = server.instance({instance.address!r}) and "
        f"backboned.optim.resume(net) go on from there, or {_AGAIN}"
    )


def _advice(instance: Instance, error: BackbonedError) -> BackbonedError | None:
    """Make the error that says what to do; None: this one does."""
    if _AGAIN in error.message:
        return None
    lost = f"what it had of {instance.name!r} is lost, {_RESUME}"
    if instance.server_identity.was_restarted(error):
        saved = _as_saved(instance)
        return ServerRestarted(
            f"the server at {instance.channel.target} was restarted, and "
            f"{saved or lost} [{error.message}]"
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
