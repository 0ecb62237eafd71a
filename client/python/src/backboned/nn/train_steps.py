"""Whole training steps of a network whose truth is in the server."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import wait
from contextlib import AbstractContextManager
from typing import Callable

from backboned.errors import BackbonedError
from backboned.instance import Instance
from backboned.layout import Version
from backboned.nn import randomness
from backboned.nn.gradients import Gradients
from backboned.nn.loss import advised
from backboned.nn.outbox import Outbox
from backboned.nn.values import Values
from backboned.pipeline import StepInFlight
from backboned.training import TrainStep
from backboned.transfer import Recall


class TrainSteps:
    """The side of a `HostedLink` that makes whole training steps. Thread-safe."""

    instance: Instance
    timeout: float | None
    settle: Callable[[], None]
    _lock: threading.RLock
    _params: Values
    _buffers: Values
    _grads: Gradients
    _outbox: Outbox
    _version: Version
    _changing: Callable[..., AbstractContextManager[Version]]

    def train_step(self, run: Callable[..., TrainStep]) -> TrainStep:
        """Make a training step.

        Parameters
        ----------
        run : callable
            Makes the call, given `if_version` and `rng_state`.
        """
        draws = self.instance.layout.stochastic
        with self._lock, advised(self.instance):
            self.settle()
            self._grads.keep_promises()
            generator = randomness.state() if draws else b""
            self._away()
            changing = self._changing("params", "buffers")
            with changing as known, self._outbox.asking_again(generator) as again:
                result = run(if_version=known, rng_state=generator, recallable=again)
                self._train_step_made(result.version)
            self._grads.zero()
        if draws:
            randomness.set_state(result.rng_state)
        return result

    def train_step_async(self, send: Callable[..., StepInFlight]) -> StepInFlight:
        """Send a training step, and do not wait for it.

        Whoever uses the network next waits. A step that draws random numbers is waited
        for here, since what comes next draws on.

        Parameters
        ----------
        send : callable
            Sends it, given `if_version`, `rng_state` and `within`.

        Raises
        ------
        BackbonedError
            Of a step that has failed, if nobody has seen its error yet.
        """
        draws = self.instance.layout.stochastic
        with self._lock, advised(self.instance):
            flight = self._outbox.flight
            if flight.failed or not flight.count or self._has_news():
                self.settle()
                self._grads.zero()
            self._away()
            step = self._send(send, randomness.state() if draws else b"")
            if draws:
                wait([step])
        if draws and not step.error:
            randomness.set_state(step.result().rng_state)
        return step

    def _send(
        self, send: Callable[..., StepInFlight], generator: bytes
    ) -> StepInFlight:
        """Send a training step, and take it among those in flight."""
        expected = self._expected()
        recalls: list[Recall] = []
        try:
            step = send(
                if_version=expected,
                rng_state=generator,
                within=functools.partial(advised, self.instance),
                recallable=recalls.append,
            )
            step.recall = recalls[0]
            self._outbox.flight.begin(step)
        except BackbonedError:
            raise
        except BaseException:  # It may be on its way.
            self._lost_count()
            for recall in recalls:
                self._outbox.lost(recall)
            raise
        return step

    def _has_news(self) -> bool:
        """Whether anything has to be sent before a training step."""
        written = self._params.changed() or self._buffers.changed()
        return bool(written) or not self._grads.none

    def _expected(self) -> Version:
        """Say what a training step finds after all that are in flight."""
        params = self._version.params
        if params is None:  # The answer to an earlier step was lost.
            params = self.instance.info(timeout=self.timeout).version.params
            assert params is not None
            self._version = self._version._replace(params=params)
        count = self._outbox.flight.count
        if not count:
            return self._version
        return Version(self.instance.uid, params + count)

    def _train_step_made(self, version: Version) -> None:
        """Note that the server made a training step; it holds no gradients now."""
        self._outbox.outdated = False
        known, made = self._version.params, version.params
        if known is None or (made is not None and made > known):
            self._version = version

    def _away(self) -> None:
        """Note that a training step changes all that is in the server."""
        self._params.moved()
        self._buffers.moved()

    def _lost_step(self, step: StepInFlight | None) -> None:
        """Note that a training step in flight may have been made."""
        self._lost_count()
        if step is not None and step.recall is not None:
            self._outbox.lost(step.recall)

    def _lost_count(self) -> None:
        """Note that it is unknown how many steps the server made."""
        self._version = Version(self.instance.uid)
