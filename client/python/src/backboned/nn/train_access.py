"""Whole training steps of a hosted network, in one round trip each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from backboned.nn.function import check_input
from backboned.nn.parts import Parts
from backboned.pipeline import StepInFlight
from backboned.training import Terms, TrainStep

if TYPE_CHECKING:
    from backboned.optim import HostedOptimizer


class TrainAccess:
    """Trains a network with losses that the server computes."""

    training: bool
    _parts: Parts

    def train_step(
        self,
        x: torch.Tensor,
        terms: Terms,
        optimizer: HostedOptimizer,
        return_logits: bool = False,
    ) -> TrainStep:
        """Make a whole training step in one round trip.

        Equal to ``optimizer.zero_grad()``, a forward in training, the backward of the
        loss, ``optimizer.step()`` and ``optimizer.zero_grad()``, to the bit.

        Parameters
        ----------
        x : Tensor, [N, C, H, W]
            As for `forward`.
        terms : CrossEntropy, MeanSquaredError or KlDivergence, or a sequence of them
            Of this package; the loss is their weighted sum, added in this order.
        optimizer : HostedOptimizer
            Of `backboned.optim`; its clipping counts.
        return_logits : bool
            Give the logits too.

        Returns
        -------
        TrainStep

        Raises
        ------
        BackbonedError
            If the server refuses or fails.
        RuntimeError
            If the network is in evaluation mode.
        ValueError
            If the optimizer is not this network's.
        TypeError, NotImplementedError, RuntimeError
            As `forward`.
        """
        self._check_train_step(x, optimizer)
        return optimizer.train_step(x.cpu(), terms, return_logits)

    def train_step_async(
        self,
        x: torch.Tensor,
        terms: Terms,
        optimizer: HostedOptimizer,
        return_logits: bool = False,
    ) -> StepInFlight:
        """Send a training step, and do not wait for its answer.

        Several are in flight, up to ``instance.steps.depth``, and are made in the order
        of these calls: results and parameters are those of `train_step`, to the bit.
        Whatever uses the network next waits for all of them. `x` and the arrays of
        `terms` are copied. A step of a network that draws random numbers is waited for
        here.

        Parameters
        ----------
        x, terms, optimizer, return_logits
            As for `train_step`.

        Returns
        -------
        StepInFlight
            A future of the `TrainStep`. If one fails, those in flight behind it fail
            with `StepNotMade`. Its error is raised by its `result`, or else by the next
            use of the network.

        Raises
        ------
        BackbonedError
            Of a step that has failed, if nobody has seen its error yet. This one is
            not sent then.
        RuntimeError
            If the network is in evaluation mode.
        ValueError
            If the optimizer is not this network's.
        TypeError, NotImplementedError, RuntimeError
            As `forward`.
        """
        self._check_train_step(x, optimizer)
        return optimizer.train_step_async(x.cpu(), terms, return_logits)

    def _check_train_step(self, x: Any, optimizer: Any) -> None:
        check_input(x)
        self._parts.check()
        if getattr(optimizer, "network", None) is not self:
            raise ValueError(
                "train_step takes an optimizer of backboned.optim that was made for "
                "this network"
            )
        if not self.training:
            raise RuntimeError("train_step trains the network; call net.train() first")
