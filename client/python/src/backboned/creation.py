"""Parts of the request that makes an instance."""

from __future__ import annotations

import operator
import re
from typing import Any

from backboned.errors import InvalidArgument
from backboned.v1 import instance_service_pb2 as pb

_WEIGHTS = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_LOAD_BY = {"name": pb.LOAD_BY_NAME, "order": pb.LOAD_BY_ORDER}


def checked_seed(seed: Any) -> int | None:
    """Give a seed as the contract has it; None stays None.

    Raises
    ------
    InvalidArgument
        If it is no integer of 64 bits.
    """
    if seed is None:
        return None
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise InvalidArgument(f"seed is {seed!r}; it is an integer from 0 to 2**64 - 1")
    return number


def weights_message(
    weights: str | None, load_by: str, partial: bool, resize: bool
) -> pb.Weights | None:
    """Make the contract's weights; None stays None.

    Raises
    ------
    InvalidArgument
        If `load_by` is unknown, there is nothing to load, or `weights` is no name.
    """
    if load_by not in _LOAD_BY:
        raise InvalidArgument(
            f"load_by is {load_by!r}; it is {' or '.join(map(repr, _LOAD_BY))}"
        )
    if weights is None:
        if partial or resize or load_by != "name":
            raise InvalidArgument(
                "load_by, partial and resize_position_embedding say how weights are "
                "loaded"
            )
        return None
    if not _WEIGHTS.fullmatch(weights):
        raise InvalidArgument(
            f"weights is {weights!r}; it is the name of a file of the server's "
            "--weights-dir, without folder and .safetensors: [a-z0-9][a-z0-9_.-]{0,63}"
        )
    return pb.Weights(
        name=weights,
        load_by=_LOAD_BY[load_by],
        partial=partial,
        resize_position_embedding=resize,
    )


def state_bytes(state: Any) -> bytes:
    """Give the bytes of a generator's state: a tensor's, or bytes; none of None."""
    if state is None:
        return b""
    return state.numpy().tobytes() if hasattr(state, "numpy") else bytes(state)
