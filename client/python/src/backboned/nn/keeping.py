"""What the lazy tensors of a network ask its link for."""

from __future__ import annotations

import threading

import torch

from backboned import boundary
from backboned.instance import Instance
from backboned.nn.gradients import Gradients
from backboned.nn.loss import advised
from backboned.nn.outbox import Outbox
from backboned.nn.values import Values


@boundary.verbs
class Keeping:
    """The side of a `HostedLink` that lazy tensors see: their `Keeper`. Thread-safe."""

    instance: Instance
    _lock: threading.RLock
    _params: Values
    _buffers: Values
    _grads: Gradients
    _outbox: Outbox

    def show(self, tensors: list[torch.Tensor]) -> None:
        """Bring the values of these tensors, and with them what somebody views."""
        with self._lock:
            self._outbox.make_sure()
            both = (self._params, self._buffers)
            brought = False
            for values in both:
                found = [values.index(tensor) for tensor in tensors]
                brought |= values.show([i for i in found if i is not None])
            if brought:
                for values in both:
                    values.show_shared()
            with advised(self.instance):
                self._grads.show(tensors)

    def show_all(self) -> None:
        """Bring all values."""
        with self._lock:
            self._outbox.make_sure()
            for values in (self._params, self._buffers):
                values.show(range(len(values.names)))

    def overwritten(self, tensor: torch.Tensor) -> None:
        """Note that a tensor got new values as a whole."""
        with self._lock:
            for values in (self._params, self._buffers):
                index = values.index(tensor)
                if index is not None:
                    values.overwritten(index)
            self._grads.overwritten(tensor)

    def shared(self, tensor: torch.Tensor) -> None:
        """Note that somebody else may now refer to a tensor's memory."""
        with self._lock:
            for values in (self._params, self._buffers):
                index = values.index(tensor)
                if index is not None:
                    values.shared(index)

    def grad(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Give a parameter's gradient."""
        with self._lock, advised(self.instance):
            index = self._params.index(tensor)
            return None if index is None else self._grads.read(index, self)

    def set_grad(self, tensor: torch.Tensor, value: torch.Tensor | None) -> None:
        """Replace a parameter's gradient."""
        with self._lock, advised(self.instance):
            index = self._params.index(tensor)
            if index is None:
                raise RuntimeError("a buffer has no gradient")
            self._grads.write(index, value)

    def show_grads(self) -> None:
        """Bring all gradients."""
        with self._lock, advised(self.instance):
            self._grads.read_all()
