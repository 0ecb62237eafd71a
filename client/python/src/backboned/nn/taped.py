"""A forward whose tape the server keeps, and what it takes to run it again."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from backboned import garbage
from backboned.channel import Channel
from backboned.dtypes import Array
from backboned.errors import ServerRestarted
from backboned.layout import Version
from backboned.nn.mirror import as_array, version_of
from backboned.results import Forward


class Taped:
    """A forward of a mirrored network, until its backward.

    Holds a reference to the input, as a local network's graph does. Not thread-safe.

    Parameters
    ----------
    x : Tensor
        The input.
    options : dict
        Of `compute.ForwardOptions`.
    result : Forward
    token : ndarray
        The tape is released when it dies.
    channel : Channel

    Attributes
    ----------
    tape_id : str
    version : Version
        That the forward ran at.
    uid : str
        Of the instance that has the tape; empty: it may be lost.
    """

    def __init__(
        self,
        x: torch.Tensor,
        options: dict[str, Any],
        result: Forward,
        token: Array,
        channel: Channel,
    ) -> None:
        self.tape_id = result.tape_id
        self.version: Version = result.version
        self.uid = result.version.uid
        self._x: torch.Tensor | None = x.detach()
        self._x_version = version_of(x)
        self._options = options
        self._channel = channel
        self._token = weakref.ref(token)
        self._release = garbage.release_tape_with(token, channel, result.tape_id)

    @property
    def uses_buffers(self) -> bool:
        """Whether its numbers depend on the buffers: on running statistics."""
        layers = self._options["batch_norm"]
        return not self._options["training"] or any(
            norm.training is False for norm in layers
        )

    def done(self) -> None:
        """Note that the server has used up the tape."""
        self._release.detach()
        self._x = None

    def lose(self) -> None:
        """Note that it is unknown whether the server still has the tape."""
        self.uid = ""

    def lost(self, why: str) -> ServerRestarted:
        """Make the error that says why the forward cannot be run again."""
        return ServerRestarted(
            "the server, or the connection to it, was lost between this forward and "
            f"its backward, and the forward cannot be run again: {why}; begin the "
            "step anew"
        )

    def options_again(self) -> dict[str, Any]:
        """Give the options to run the forward with again."""
        return dict(self._options)

    def input(self) -> Array:
        """Give the input to run the forward with again.

        Raises
        ------
        ServerRestarted
            If it was written.
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
            self._release = garbage.release_tape_with(
                token, self._channel, self.tape_id
            )
