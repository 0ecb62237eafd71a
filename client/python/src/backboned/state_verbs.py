"""The calls that read and write an instance's parameters, gradients and buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backboned import boundary, state
from backboned.dtypes import Array, all_widened, flat_float, widened
from backboned.handle import Handle
from backboned.layout import Select, Version
from backboned.results import Grads


@boundary.verbs
class StateVerbs(Handle):
    """The calls of an instance's state. `Instance` says what all calls share."""

    def get_params(
        self,
        select: Select = None,
        *,
        if_version: Version | None = None,
        dtype: Any = None,
        timeout: float | None = None,
    ) -> Array:
        """Read parameters of one version, [P]; `version` says which.

        `dtype` is what they are converted to on the wire, rounding to nearest, ties to
        even; by default they come as stored. bfloat16 is given as float32, which holds
        the same numbers.
        """
        flat, _ = state.get_params(self, select, if_version, timeout, dtype)
        return widened(flat)

    def set_params(
        self,
        values: Any,
        select: Select = None,
        *,
        if_version: Version | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Version:
        """Replace parameters by a flat vector [P]: all selected, or none.

        It is floating-point, and converted to the instance's dtype. Gives the new
        version.
        """
        parts = [flat_float(values, "parameters", self.dtype)]
        return state.set_params(self, parts, select, if_version, request_id, timeout)

    def get_grads(
        self,
        select: Select = None,
        *,
        dtype: Any = None,
        timeout: float | None = None,
    ) -> Array:
        """Read gradients that the server accumulated, [P]; `dtype` as in `get_params`.

        Raises
        ------
        FailedPrecondition
            If a selected parameter has none.
        """
        grads = state.get_grads(self, select, timeout=timeout, dtype=dtype)
        return widened(grads.flat)

    def read_grads(
        self, select: Select = None, *, timeout: float | None = None
    ) -> Grads:
        """Read gradients that the server accumulated, and which there are."""
        return state.get_grads(self, select, allow_absent=True, timeout=timeout)

    def set_grads(
        self,
        values: Any,
        select: Select = None,
        *,
        present: Sequence[bool] = (),
        if_version: Version | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Version:
        """Replace gradients in the server by a flat floating-point vector.

        `present` says for each selected parameter whether it gets one, and is in
        `values`; empty: each does.
        """
        flat = flat_float(values, "gradients", self.dtype)
        return state.set_grads(
            self, flat, present, select, if_version, request_id, timeout
        )

    def zero_grads(
        self,
        select: Select = None,
        *,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Version:
        """Take gradients away: there are none afterwards, which is not zero."""
        return state.zero_grads(self, select, request_id, timeout)

    def get_buffers(
        self,
        select: Select = None,
        *,
        if_version: Version | None = None,
        timeout: float | None = None,
    ) -> dict[str, Array]:
        """Read buffers (BatchNorm statistics) of one version, by name."""
        return all_widened(state.get_buffers(self, select, if_version, timeout)[0])

    def set_buffers(
        self,
        values: Mapping[str, Any],
        *,
        if_version: Version | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Version:
        """Replace the named buffers: all of them, or none. Gives the new version."""
        return state.set_buffers(self, values, if_version, request_id, timeout)
