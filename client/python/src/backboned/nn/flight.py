"""The training steps of a hosted network that are in flight."""

from __future__ import annotations

from concurrent.futures import wait
from typing import Callable

from backboned.errors import BackbonedError
from backboned.layout import Version
from backboned.nn.certainty import NOTHING_CHANGED
from backboned.pipeline import StepInFlight, raise_unseen


class Flight:
    """Takes note of training steps in the order in which they are made.

    A forked child has none of them in flight: those are its parent's. Not thread-safe.

    Parameters
    ----------
    made : callable
        Told the version that a step left.
    unsure : callable
        Told a step that may have been made, as its answer is lost; None: a parent's.
    """

    def __init__(
        self,
        made: Callable[[Version], None],
        unsure: Callable[[StepInFlight | None], None],
    ) -> None:
        self._made = made
        self._unsure = unsure
        self._steps: list[StepInFlight] = []

    @property
    def count(self) -> int:
        """How many steps there are of which no note was taken yet."""
        self._leave_to_parent()
        return len(self._steps)

    @property
    def failed(self) -> bool:
        """Whether one of them has failed."""
        self._leave_to_parent()
        return any(step.error for step in self._steps)

    def begin(self, step: StepInFlight) -> None:
        """Add a step that was sent after all others."""
        while self._steps and self._steps[0].done() and not self._steps[0].error:
            self._note(self._steps.pop(0))
        self._steps.append(step)

    def land(self) -> None:
        """Wait for all steps.

        Raises
        ------
        BackbonedError
            The first error among them, unless somebody has seen one.
        """
        self._leave_to_parent()
        wait(self._steps)
        ended = list(self._steps)
        while self._steps:
            self._note(self._steps[0])
            del self._steps[0]
        raise_unseen(ended)

    def _leave_to_parent(self) -> None:
        """Forget steps of another process, which end there."""
        if self._steps and self._steps[0].is_parents:
            self._steps.clear()
            self._unsure(None)

    def _note(self, step: StepInFlight) -> None:
        error = step.error
        if error is None:
            self._made(step.result().version)
        elif not (isinstance(error, BackbonedError) and error.code in NOTHING_CHANGED):
            self._unsure(step)
