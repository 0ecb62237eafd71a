"""Forwards of several threads at once, on one network."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any, Callable

from backboned import compute
from backboned.dtypes import Array
from backboned.errors import StaleVersion
from backboned.instance import Instance
from backboned.layout import Layout, Version
from backboned.results import Forward
from backboned.transfer import Recallable, fresh_id


class Overlapping:
    """The side of a link that runs forwards without its lock. Thread-safe."""

    instance: Instance
    timeout: float | None
    settle: Callable[[], None]
    _lock: threading.RLock
    _version: Version

    def _forward_beside_others(
        self,
        x: Array,
        options: compute.ForwardOptions,
        empty: Any,
        recallable: Recallable | None = None,
    ) -> Forward:
        """Run a forward; again, with the lock, if another thread changed the network.

        `recallable` as in `compute.forward`.

        Raises
        ------
        StaleVersion
            If it was somebody else.
        """
        try:
            return compute.forward(
                self.instance, x, options, self.timeout, empty, recallable
            )
        except StaleVersion:
            with self._lock:
                self.settle()
                if self._version == options.if_version:
                    raise
                again = dataclasses.replace(options, if_version=self._version)
                if options.request_id:
                    again = dataclasses.replace(again, request_id=fresh_id())
                return compute.forward(
                    self.instance, x, again, self.timeout, empty, recallable
                )


def moves_buffers(layout: Layout, options: dict[str, Any]) -> bool:
    """Whether a forward may move the buffers on."""
    modes = [layers.training for layers in options["batch_norm"]]
    return bool(layout.buffers) and (options["training"] or any(modes))
