"""The calls of an instance's optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backboned import boundary
from backboned.channel import DATA
from backboned.dtypes import Array, as_bytes, make_spec
from backboned.handle import Handle
from backboned.layout import Version, condition
from backboned.optimizer import (
    Optimizer,
    OptimizerState,
    ParameterGroup,
    StepOptions,
    Stepped,
    read_optimizer,
    read_step,
)
from backboned.results import place_tensors
from backboned.transfer import Query, Request, decoded, exchange, fresh_id, send
from backboned.v1 import backbone_service_pb2 as pb


@boundary.verbs
class OptimizerVerbs(Handle):
    """The calls of an instance's optimizer. `Instance` says what all calls share."""

    def configure_optimizer(
        self,
        kind: str,
        groups: Sequence[ParameterGroup] = (ParameterGroup(),),
        *,
        if_version: Version | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Optimizer:
        """Give the instance an optimizer, without state, in place of its own.

        Parameters
        ----------
        kind : {"sgd", "adam", "adamw"}
        groups : sequence of ParameterGroup
            No parameter may be in two; one in none is never stepped.
        if_version, request_id, timeout
            See `Instance`.

        Returns
        -------
        Optimizer
            With the defaults filled in.
        """
        request = pb.ConfigureOptimizerRequest(
            instance=self.address,
            request_id=request_id or fresh_id(),
            optimizer=Optimizer(kind, tuple(groups)).message(),
            if_version=condition(if_version),
        )
        raw = self.channel.unary(
            DATA + "ConfigureOptimizer", request.SerializeToString(), timeout
        )
        answer = decoded(pb.ConfigureOptimizerResponse.FromString, raw)
        self.saw(answer.version)
        return read_optimizer(answer.optimizer)

    def step(
        self,
        options: StepOptions | None = None,
        *,
        if_version: Version | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Stepped:
        """Step the optimizer with the gradients that the server holds.

        A parameter without a gradient stays as it is.

        Raises
        ------
        FailedPrecondition
            If there is no optimizer, or no parameter of a group has a gradient.
        """
        request = pb.StepRequest(
            instance=self.address,
            request_id=request_id or fresh_id(),
            options=(options or StepOptions()).message(),
            if_version=condition(if_version),
        )
        raw = self.channel.unary(DATA + "Step", request.SerializeToString(), timeout)
        answer = decoded(pb.StepResponse.FromString, raw)
        return read_step(self.saw(answer.version), answer.result)

    def get_optimizer_state(
        self, *, if_version: Version | None = None, timeout: float | None = None
    ) -> OptimizerState:
        """Read the optimizer and what it remembers, of one version.

        Raises
        ------
        FailedPrecondition
            If there is no optimizer.
        """
        request = pb.GetOptimizerStateRequest(
            instance=self.address, if_version=condition(if_version)
        )
        found: list[dict[str, Array]] = []

        def place(result: pb.GetOptimizerStateResult) -> list[memoryview]:
            named, views = place_tensors(result.tensors)
            found.append(named)
            return views

        result = exchange(
            self.channel,
            DATA + "GetOptimizerState",
            Query(request),
            pb.GetOptimizerStateResult.FromString,
            place,
            timeout,
        )
        optimizer = read_optimizer(result.optimizer)
        return OptimizerState(optimizer, found[0], self.saw(result.version))

    def set_optimizer_state(
        self,
        optimizer: Optimizer,
        tensors: Mapping[str, Any],
        *,
        if_version: Version | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Version:
        """Replace the optimizer and all that it remembers.

        Parameters
        ----------
        optimizer : Optimizer
        tensors : dict of str to array_like
            As `get_optimizer_state` gives them: for each parameter all, or none.
        if_version, request_id, timeout
            See `Instance`.
        """
        arrays = {name: np.asarray(t, order="C") for name, t in tensors.items()}
        header = pb.SetOptimizerStateHeader(
            instance=self.address,
            request_id=request_id or fresh_id(),
            if_version=condition(if_version),
            optimizer=optimizer.message(),
            tensors=[make_spec(array, name) for name, array in arrays.items()],
        )
        answer = send(
            self.channel,
            DATA + "SetOptimizerState",
            Request(header, [as_bytes(array) for array in arrays.values()]),
            pb.SetOptimizerStateResponse.FromString,
            timeout,
        )
        return self.saw(answer.version)
