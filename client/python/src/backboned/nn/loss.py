"""What errors of a network say whose truth was in a server that is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from backboned.errors import BackbonedError, ServerRestarted, Unavailable
from backboned.home import home_of, is_absence
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
    except ServerRestarted:
        raise
    except BackbonedError as error:
        if home_of(instance).was_restarted(error):
            raise ServerRestarted(
                f"the server at {instance.channel.target} was restarted, and what it "
                f"had of {instance.name!r} is lost, {_RESUME} [{error.message}]"
            ) from error
        if is_absence(error) and _RESUME not in error.message:
            raise Unavailable(
                f"{error.message}; if it has ended, what it had of "
                f"{instance.name!r} is lost, {_RESUME}",
                error.code,
                error.reason,
            ) from error
        raise
