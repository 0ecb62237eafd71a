"""Whole training steps in one round trip."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Union

import numpy as np

from backboned.channel import DATA
from backboned.dtypes import Array, as_bytes, make_spec
from backboned.handle import Handle
from backboned.layout import Version, condition
from backboned.norms import BatchNorm
from backboned.optimizer import StepOptions, Stepped, read_step
from backboned.results import Timings, place_tensors, read_timings
from backboned.transfer import Request, exchange
from backboned.v1 import backbone_service_pb2 as pb


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """A term ``cross_entropy(logits, labels, label_smoothing=label_smoothing)``.

    Attributes
    ----------
    labels : array_like, [rows]
        int64.
    class_mask : sequence of bool
        The classes that count, one value each; the logits of the others become
        ``-inf``. Empty: all count.
    label_smoothing : float
    rows : tuple of two int, optional
        First row of the batch, and one past the last; by default all.
    weight : float
        Of the term in the sum.
    """

    labels: Any
    class_mask: Sequence[bool] = ()
    label_smoothing: float = 0.0
    rows: tuple[int, int] | None = None
    weight: float = 1.0

    def fill(self, term: pb.LossTerm) -> Array:
        """Describe the term's own part; gives the array that follows."""
        labels = np.asarray(self.labels, dtype=np.int64, order="C")
        term.cross_entropy.labels.CopyFrom(make_spec(labels))
        term.cross_entropy.class_mask.extend(bool(c) for c in self.class_mask)
        term.cross_entropy.label_smoothing = self.label_smoothing
        return labels


@dataclasses.dataclass(frozen=True)
class MeanSquaredError:
    """A term ``mse_loss(logits, target)``; `target` [rows, K] float32.

    `rows` and `weight` as in `CrossEntropy`.
    """

    target: Any
    rows: tuple[int, int] | None = None
    weight: float = 1.0

    def fill(self, term: pb.LossTerm) -> Array:
        """Describe the term's own part; gives the array that follows."""
        target = np.asarray(self.target, order="C")
        term.mean_squared_error.target.CopyFrom(make_spec(target))
        return target


@dataclasses.dataclass(frozen=True)
class KlDivergence:
    """A term ``kl_div(log_softmax(logits / T), softmax(target / T), "batchmean")``.

    `target` [rows, K] float32 are logits, `temperature` is T; `rows` and `weight` as
    in `CrossEntropy`.
    """

    target: Any
    temperature: float = 1.0
    rows: tuple[int, int] | None = None
    weight: float = 1.0

    def fill(self, term: pb.LossTerm) -> Array:
        """Describe the term's own part; gives the array that follows."""
        target = np.asarray(self.target, order="C")
        term.kl_divergence.target.CopyFrom(make_spec(target))
        term.kl_divergence.temperature = self.temperature
        return target


Term = Union[CrossEntropy, MeanSquaredError, KlDivergence]


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """What a training step gave.

    Attributes
    ----------
    version : Version
        Afterwards.
    loss : float
        The weighted sum of the terms.
    losses : tuple of float
        Each term before its weight.
    step : Stepped
    logits : ndarray or None
        [N, K], if asked for.
    timings : Timings
    rng_state : bytes
        The generator's after the forward, if one was given.
    """

    version: Version
    loss: float
    losses: tuple[float, ...]
    step: Stepped
    logits: Array | None
    timings: Timings
    rng_state: bytes = b""


class TrainingVerbs(Handle):
    """`train_step`. `Instance` says what all calls share."""

    def train_step(
        self,
        x: Any,
        terms: Sequence[Term],
        step: StepOptions | None = None,
        *,
        rng_state: bytes = b"",
        batch_norm: Sequence[BatchNorm] = (),
        return_logits: bool = False,
        if_version: Version | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> TrainStep:
        """Run a forward in training, the loss, its backward and a step.

        Equal to `forward` with `training`, `backward` with `accumulate` and
        `zero_before`, and `step`. Afterwards the server holds no gradients.

        Parameters
        ----------
        x : array_like, [N, C, H, W]
            float32 already normalised, or uint8 images that the server normalises.
        terms : sequence of CrossEntropy, MeanSquaredError, KlDivergence
            The loss is their weighted sum, added in this order.
        step : StepOptions, optional
            How the step is made.
        rng_state : bytes
            As for `Instance.forward`.
        batch_norm : sequence of BatchNorm
            As for `Instance.forward`.
        return_logits : bool
            Give the logits.
        if_version, request_id, timeout
            See `Instance`.

        Raises
        ------
        FailedPrecondition
            If there is no optimizer.
        """
        array = np.asarray(x, order="C")
        header = pb.TrainStepHeader(
            instance=self.address,
            request_id=request_id,
            input=make_spec(array),
            step=(step or StepOptions()).message(),
            if_version=condition(if_version),
            rng_state=rng_state,
            batch_norm=[layers.message() for layers in batch_norm],
            return_logits=return_logits,
        )
        views = [as_bytes(array)]
        for term in terms:
            message = header.terms.add(weight=term.weight)
            if term.rows is not None:
                message.row_begin, message.row_end = term.rows
            views.append(as_bytes(term.fill(message)))
        return self._train(Request(header, views), timeout)

    def _train(self, request: Request, timeout: float | None) -> TrainStep:
        logits: list[Array] = []

        def place(result: pb.TrainStepResult) -> list[memoryview]:
            if not result.HasField("logits"):
                return []
            named, views = place_tensors([result.logits])
            logits.extend(named.values())
            return views

        result = exchange(
            self.channel,
            DATA + "TrainStep",
            request,
            pb.TrainStepResult.FromString,
            place,
            timeout,
        )
        version = self.saw(result.version)
        return TrainStep(
            version=version,
            loss=result.loss,
            losses=tuple(result.losses),
            step=read_step(version, result.step),
            logits=logits[0] if logits else None,
            timings=read_timings(result.timings),
            rng_state=result.rng_state,
        )
