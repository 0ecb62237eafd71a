"""Losses that the server computes, as terms of a training step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Union

import numpy as np

from backboned.errors import InvalidArgument
from backboned.transport.tensors import make_spec
from backboned.types import Array
from backboned.v1 import backbone_service_pb2 as pb


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """A term ``cross_entropy(logits, labels, label_smoothing=label_smoothing)``.

    - `labels`: integers.
    - `class_mask`: the classes that count, one value each; the logits of the others
      become ``-inf``. Empty: all count.
    - `rows`: first row of the batch, and one past the last; by default all.
    - `weight`: of the term in the sum.
    """

    labels: Any
    class_mask: Sequence[bool] = ()
    label_smoothing: float = 0.0
    rows: tuple[int, int] | None = None
    weight: float = 1.0

    def fill(self, term: pb.LossTerm) -> Array:
        """Describe the term's own part; give the array that follows.

        Raises InvalidArgument if the labels are no integers.
        """
        given = as_array(self.labels)
        if given.dtype.kind not in "iu":
            raise InvalidArgument(
                f"labels are integers, the numbers of classes; got {given.dtype}"
            )
        labels = np.asarray(given, dtype=np.int64, order="C")
        term.cross_entropy.labels.CopyFrom(make_spec(labels))
        term.cross_entropy.class_mask.extend(map(bool, self.class_mask))
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
        """Describe the term's own part; give the array that follows."""
        target = as_array(self.target)
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
        """Describe the term's own part; give the array that follows."""
        target = as_array(self.target)
        term.kl_divergence.target.CopyFrom(make_spec(target))
        term.kl_divergence.temperature = self.temperature
        return target


Term = Union[CrossEntropy, MeanSquaredError, KlDivergence]
Terms = Union[Term, Sequence[Term]]
"""A loss: the weighted sum of its terms."""
_TERMS = (CrossEntropy, MeanSquaredError, KlDivergence)


def as_terms(loss: Any) -> list[Term]:
    """List the terms of a loss that the server computes; one alone is a list of one.

    Raises InvalidArgument if a term is none.
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


def copied(loss: Any) -> tuple[list[Term], int]:
    """Give the terms of a loss with arrays of their own, and the bytes of these.

    Raises InvalidArgument if a term is none.
    """
    made, size = [], 0
    for term in as_terms(loss):
        name = "labels" if isinstance(term, CrossEntropy) else "target"
        array = np.array(as_array(getattr(term, name)))
        mine: Any = {name: array}
        made.append(dataclasses.replace(term, **mine))
        size += array.nbytes
    return made, size


def as_array(values: Any) -> Array:
    """Make a C-contiguous array of numbers, or of a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.cpu().detach()
    return np.asarray(values, order="C")
