"""Whole training steps in one round trip."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Callable, Union

import numpy as np

from backboned import boundary
from backboned.channel import DATA
from backboned.control import delete_abandoned
from backboned.dtypes import Array, as_bytes, make_spec
from backboned.errors import InvalidArgument
from backboned.handle import Handle
from backboned.layout import Version, condition, read_version
from backboned.norms import BatchNorm
from backboned.optimizer import StepOptions, Stepped, read_step
from backboned.pipeline import Call, StepInFlight
from backboned.results import Timings, place_tensors, read_timings
from backboned.transfer import Recallable, Request, exchange, fresh_id
from backboned.v1 import backbone_service_pb2 as pb


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """A term ``cross_entropy(logits, labels, label_smoothing=label_smoothing)``.

    Attributes
    ----------
    labels : array_like, [rows]
        Integers.
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
        """Describe the term's own part; gives the array that follows.

        Raises
        ------
        InvalidArgument
            If the labels are no integers.
        """
        given = _array(self.labels)
        if given.dtype.kind not in "iu":
            raise InvalidArgument(
                f"labels are integers, the numbers of classes; got {given.dtype}"
            )
        labels = np.asarray(given, dtype=np.int64, order="C")
        term.cross_entropy.labels.CopyFrom(make_spec(labels))
        term.cross_entropy.class_mask.extend(bool(c) for c in self.class_mask)
        term.cross_entropy.label_smoothing = self.label_smoothing
        return labels


@dataclasses.dataclass(frozen=True)
class MeanSquaredError:
    """A term ``mse_loss(logits, target)``; `target` [rows, K] float32 or float64.

    `rows` and `weight` as in `CrossEntropy`.
    """

    target: Any
    rows: tuple[int, int] | None = None
    weight: float = 1.0

    def fill(self, term: pb.LossTerm) -> Array:
        """Describe the term's own part; gives the array that follows."""
        target = _array(self.target)
        term.mean_squared_error.target.CopyFrom(make_spec(target))
        return target


@dataclasses.dataclass(frozen=True)
class KlDivergence:
    """A term ``kl_div(log_softmax(logits / T), softmax(target / T), "batchmean")``.

    `target` [rows, K] float32 or float64 are logits, `temperature` is T; `rows` and
    `weight` as in `CrossEntropy`.
    """

    target: Any
    temperature: float = 1.0
    rows: tuple[int, int] | None = None
    weight: float = 1.0

    def fill(self, term: pb.LossTerm) -> Array:
        """Describe the term's own part; gives the array that follows."""
        target = _array(self.target)
        term.kl_divergence.target.CopyFrom(make_spec(target))
        term.kl_divergence.temperature = self.temperature
        return target


Term = Union[CrossEntropy, MeanSquaredError, KlDivergence]
Terms = Union[Term, Sequence[Term]]
"""A loss: the weighted sum of its terms."""
_TERMS = (CrossEntropy, MeanSquaredError, KlDivergence)


def as_terms(loss: Any) -> list[Term]:
    """List the terms of a loss that the server computes; one alone is a list of one.

    Raises
    ------
    InvalidArgument
        If a term is none.
    """
    alone = isinstance(loss, _TERMS) or not isinstance(loss, Iterable)
    terms = [loss] if alone else list(loss)
    for term in terms:
        if not isinstance(term, _TERMS):
            raise InvalidArgument(
                f"a term is {getattr(term, '__name__', repr(term))}; terms are "
                "backboned's CrossEntropy, MeanSquaredError and KlDivergence, which "
                "the server computes; of another loss call backward() and step()"
            )
    return terms


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


@boundary.verbs
class TrainingVerbs(Handle):
    """`train_step`. `Instance` says what all calls share."""

    def train_step(
        self,
        x: Any,
        terms: Terms,
        step: StepOptions | None = None,
        *,
        rng_state: bytes = b"",
        batch_norm: Sequence[BatchNorm] = (),
        return_logits: bool = False,
        if_version: Version | None = None,
        request_id: str = "",
        timeout: float | None = None,
        recallable: Recallable | None = None,
    ) -> TrainStep:
        """Run a forward in training, the loss, its backward and a step.

        Equal to `forward` with `training`, `backward` with `accumulate` and
        `zero_before`, and `step`. Afterwards the server holds no gradients.

        Parameters
        ----------
        x : array_like, [N, C, H, W]
            float32 already normalised, or uint8 images that the server normalises.
        terms : CrossEntropy, MeanSquaredError or KlDivergence, or a sequence of them
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
        recallable : callable, optional
            Is told, before the call, how to ask for its answer if it is lost.

        Raises
        ------
        FailedPrecondition
            If there is no optimizer.
        InvalidArgument
            If a term is none.
        """
        header = self._header(step, rng_state, batch_norm, return_logits, request_id)
        header.MergeFrom(pb.TrainStepHeader(if_version=condition(if_version)))
        request = Request(header, _describe(header, x, terms))
        if recallable is not None:
            recallable(functools.partial(self._recall, request))
        result = self._train(request, timeout)
        self._made(result)
        return result

    def train_step_async(
        self,
        x: Any,
        terms: Terms,
        step: StepOptions | None = None,
        *,
        rng_state: bytes = b"",
        batch_norm: Sequence[BatchNorm] = (),
        return_logits: bool = False,
        if_version: Version | None = None,
        request_id: str = "",
        timeout: float | None = None,
        within: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
        recallable: Recallable | None = None,
    ) -> StepInFlight:
        """Send a training step, and do not wait for its answer.

        The steps are made in the order of these calls, each of the state that the one
        before it left: results and parameters are those of `train_step`. Up to
        ``steps.depth`` are in flight; a further call waits for the oldest of them.
        `x` and the arrays of `terms` are copied.

        Other calls do not wait for the steps: ask for the last one's result first.

        Parameters
        ----------
        x, terms, step, rng_state, batch_norm, return_logits, request_id
            As for `train_step`.
        if_version : Version, optional
            What it must find if no step is in flight; by default the newest version
            of the parameters that this object saw.
        timeout : float, optional
            Seconds, from when it is sent.
        within : callable, optional
            Gives a context in which the call is made, in a thread of its own.
        recallable : callable, optional
            As for `train_step`.

        Returns
        -------
        StepInFlight
            A future of the `TrainStep`. After a step that failed, those in flight
            behind it fail with `StepNotMade`.

        Raises
        ------
        BackbonedError
            Of a step that has failed, if nobody has seen its error yet. This one is
            not sent then.
        """
        header = self._header(step, rng_state, batch_norm, return_logits, request_id)
        views = [memoryview(bytes(view)) for view in _describe(header, x, terms)]

        def prepare(find: Version, sent: Callable[[], None]) -> Call:
            header.MergeFrom(pb.TrainStepHeader(if_version=condition(find)))
            request = Request(header, views, sent)
            if recallable is not None:
                recallable(functools.partial(self._recall, request))

            def call() -> TrainStep:
                with within():
                    return self._train(request, timeout)

            return call

        def first() -> Version:
            return if_version or Version(self.uid, self.version.params)

        return self.steps.submit(first, prepare, self._made)

    def _header(
        self,
        step: StepOptions | None,
        rng_state: bytes,
        batch_norm: Sequence[BatchNorm],
        return_logits: bool,
        request_id: str,
    ) -> pb.TrainStepHeader:
        return pb.TrainStepHeader(
            instance=self.address,
            request_id=request_id or fresh_id(),
            step=(step or StepOptions()).message(),
            rng_state=rng_state,
            batch_norm=[layers.message() for layers in batch_norm],
            return_logits=return_logits,
        )

    def _made(self, result: TrainStep) -> None:
        self.version = result.version

    def _recall(self, request: Request, timeout: float | None) -> bytes:
        """Ask for the answer to a step that was lost: a `Recall`."""
        return self._train(request.bare(), timeout).rng_state

    def _train(self, request: Request, timeout: float | None) -> TrainStep:
        logits: list[Array] = []

        def place(result: pb.TrainStepResult) -> list[memoryview]:
            if not result.HasField("logits"):
                return []
            named, views = place_tensors([result.logits])
            logits.extend(named.values())
            return views

        delete_abandoned(self.channel)
        result = exchange(
            self.channel,
            DATA + "TrainStep",
            request,
            pb.TrainStepResult.FromString,
            place,
            timeout,
        )
        version = read_version(result.version)
        return TrainStep(
            version=version,
            loss=result.loss,
            losses=tuple(result.losses),
            step=read_step(version, result.step),
            logits=logits[0] if logits else None,
            timings=read_timings(result.timings),
            rng_state=result.rng_state,
        )


def _array(values: Any) -> Array:
    """Make a C-contiguous array of numbers, or of a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.cpu().detach()
    return np.asarray(values, order="C")


def _describe(header: pb.TrainStepHeader, x: Any, terms: Terms) -> list[memoryview]:
    """Describe the input and the terms; give the bytes that follow.

    Raises
    ------
    InvalidArgument
        If a term is none.
    """
    array = _array(x)
    header.input.CopyFrom(make_spec(array))
    views = [as_bytes(array)]
    for term in as_terms(terms):
        message = header.terms.add(weight=term.weight)
        if term.rows is not None:
            message.row_begin, message.row_end = term.rows
        views.append(as_bytes(term.fill(message)))
    return views
