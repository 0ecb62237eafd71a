"""What errors of a network say whose truth was in a server that is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from backboned.backoff import is_absence
from backboned.errors import (
    BackbonedError,
    NotFound,
    ServerRestarted,
    Unavailable,
)
from backboned.home import home_of
from backboned.instance import Instance
from backboned.nn import certainty

_RESUME = (
    "parameters, BatchNorm statistics, gradients and the optimizer's state: make the "
    "network again and resume from a checkpoint (net.load_state_dict, "
    "opt.load_state_dict)"
)


@contextlib.contextmanager
def advised(instance: Instance) -> Iterator[None]:
    """Add what to do to the error that the instance changed, or is gone."""
    try:
        with certainty.advised_if_stale(instance):
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
    if home_of(instance).was_restarted(error):
        return ServerRestarted(
            f"the server at {instance.channel.target} was restarted, and what it "
            f"had of {instance.name!r} is lost, {_RESUME} [{error.message}]"
        )
    if error.reason == "INSTANCE_NOT_FOUND" and instance.ephemeral:
        return NotFound(
            f"{error.message}; an unnamed one ends when its server hears nothing from "
            f"its client for {_session_ttl(instance):g} s, and is lost then, {_RESUME}",
            error.code,
            error.reason,
        )
    if not is_absence(error):
        return None
    return _absence(instance, error)


def _absence(instance: Instance, error: BackbonedError) -> BackbonedError:
    """Say what is lost if the server is: only what is certain."""
    lost = f"what it had of {instance.name!r} is lost, {_RESUME}"
    if instance.channel.explain():
        message = f"{error.message}; {lost}"
    else:
        message = (
            f"{error.message}; while it runs {instance.name!r} lives in it: call again "
            f"when it can be reached, and go on. Only if it has ended {lost}"
        )
    better = Unavailable(message, error.code, error.reason)
    better.was_waited_for = error.was_waited_for
    return better


def _session_ttl(instance: Instance) -> float:
    seconds: float = home_of(instance).info.limits["session_ttl"]
    return seconds
