"""Parts of the request that makes an instance."""

from __future__ import annotations

from typing import Any

from backboned.errors import InvalidArgument
from backboned.v1 import instance_service_pb2 as pb

_LOAD_BY = {"name": pb.LOAD_BY_NAME, "order": pb.LOAD_BY_ORDER}


def weights_message(
    weights: str | None, load_by: str, partial: bool
) -> pb.Weights | None:
    """Make the contract's weights; None stays None.

    Raises
    ------
    InvalidArgument
        If `load_by` is unknown, or there is nothing to load.
    """
    if load_by not in _LOAD_BY:
        raise InvalidArgument(
            f"load_by is {load_by!r}; it is {' or '.join(map(repr, _LOAD_BY))}"
        )
    if weights is None:
        if partial or load_by != "name":
            raise InvalidArgument("load_by and partial say how weights are loaded")
        return None
    return pb.Weights(name=weights, load_by=_LOAD_BY[load_by], partial=partial)


def state_bytes(state: Any) -> bytes:
    """Give the bytes of a generator's state: a tensor's, or bytes; none of None."""
    if state is None:
        return b""
    return state.numpy().tobytes() if hasattr(state, "numpy") else bytes(state)
