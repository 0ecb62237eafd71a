"""The link between the tensors of a module tree and an instance in the server."""

from __future__ import annotations

import abc
import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Protocol

import torch
from torch import nn

from backboned import calls
from backboned.calls import BackwardOptions, ForwardOptions
from backboned.errors import NOTHING_CHANGED, BackbonedError, StaleVersion
from backboned.instance import Instance
from backboned.transport import forks
from backboned.transport.messages import Recallable, fresh_id
from backboned.transport.tensors import Empty
from backboned.types import Array, Backward, Forward, InstanceInfo, Version

_log = logging.getLogger("backboned")
_NAMES = 4


class Tape(Protocol):
    """A forward that the server keeps for its backward."""

    def done(self) -> None:
        """Note that the server has used up the tape."""


class Link(abc.ABC):
    """Connects the tensors of a module tree with an instance. Thread-safe.

    Forwards in evaluation mode may overlap.

    - `version`: the state that the instance is expected to have. What is not known is
      None: then the next use writes, or takes, without a condition.

    - `is_mirror`: whether the tensors here decide, and not those of the server.
    - `hosting`: whether gradients stay in the server; False once the network went
      elsewhere.
    - `optimizer`: the one that steps the parameters in the server; None: nobody. Not
      kept alive.
    - `timeout`: seconds for each call; None: the server object's.
    """

    is_mirror = False
    hosting = False
    optimizer: Any = None
    timeout: float | None = None

    def __init__(self, instance: Instance, version: Version) -> None:
        self.instance = instance
        self._version = version
        self._lock = forks.rlock()

    @property
    def version(self) -> Version:
        """The state that the instance is expected to have."""
        return self._version

    @abc.abstractmethod
    def parameters(self) -> list[Any]:
        """Give the parameters in flat order."""

    @abc.abstractmethod
    def push(self) -> None:
        """Write what is here into the instance, whatever somebody else wrote."""

    @abc.abstractmethod
    def pull(self) -> None:
        """Take whatever state the server has; what was written here is lost."""

    @abc.abstractmethod
    def settle(self) -> None:
        """Bring the instance to the state that was reached here."""

    @abc.abstractmethod
    def info(self) -> InstanceInfo:
        """Settle, and describe the instance, with its digest."""

    def show_all(self) -> None:  # noqa: B027
        """Bring all values here."""

    def show_grads(self) -> None:  # noqa: B027
        """Bring all gradients here."""

    def zero_grad(self) -> None:  # noqa: B027
        """Take the gradients away that are in the server."""

    @abc.abstractmethod
    def mirrored(self, root: nn.Module) -> Link:
        """Give a link with the same instance, for tensors that are all here."""

    @abc.abstractmethod
    def copy_instance(self) -> Instance:
        """Make an instance for a copy of the network."""

    def for_forward(self, root: nn.Module) -> Link:
        """Give the link for a forward of the tensors that are in `root` now."""
        return self

    @abc.abstractmethod
    def forward(self, x: Array, options: ForwardOptions, empty: Empty) -> Forward:
        """Settle, and run a forward of that very state.

        What is random draws from PyTorch's generator, as it would here; the state that
        it draws from is put into `options`. `x` is C-contiguous. `empty` makes the
        arrays of the outputs, more than once if the server went away.
        """

    @abc.abstractmethod
    def hold(
        self, x: torch.Tensor, options: ForwardOptions, result: Forward, token: Array
    ) -> Tape:
        """Hold the tape of a forward of `x` until `token` dies."""

    @abc.abstractmethod
    def backward(
        self,
        tape: Any,
        gradients: dict[str, Array],
        options: BackwardOptions,
        empty: Empty,
    ) -> Backward:
        """Run the backward of a tape, whose gradients come here.

        `gradients` are those of the outputs. `empty` as for `forward`.
        """

    @contextlib.contextmanager
    def _changing(self, *parts: str) -> Iterator[Version]:
        """Forget a version before a call that changes it, which notes the new one.

        So whatever ends the call, at whatever instant, nothing wrong is believed. If
        the server says that nothing changed, what was known is known again. Parts are
        ``"params"`` and ``"buffers"``. Yields what was known before.
        """
        known = self._version
        self._version = known._replace(**dict.fromkeys(parts))
        try:
            yield known
        except BackbonedError as error:
            if error.code in NOTHING_CHANGED:
                self._version = known
            raise

    def _write(
        self,
        part: str,
        indices: Sequence[int],
        arrays: list[Array],
        written: Callable[[], None],
        recallable: Recallable | None = None,
    ) -> None:
        """Push some parameters or buffers; `written` is called when they are there."""
        layout = self.instance.layout
        specs: Any = layout.parameters if part == "params" else layout.buffers
        names = [specs[i].name for i in indices]
        known = getattr(self._version, part)
        why = "it is not known what the server has" if known is None else "changed here"
        say("push", names, sum(array.nbytes for array in arrays), why)
        options: calls.WriteOptions = {"timeout": self.timeout}
        if recallable is not None:
            options["recallable"] = recallable
        with self._changing(part) as before:
            if part == "params":
                selected = None if len(names) == len(specs) else names
                options["if_version"] = before._replace(buffers=None)
                version = calls.set_params(self.instance, arrays, selected, **options)
            else:
                values = dict(zip(names, arrays))
                options["if_version"] = before._replace(params=None)
                version = self.instance.set_buffers(values, **options)
            written()
            self._note(part, version)

    def _note(self, part: str, version: Version) -> None:
        self._version = self._version._replace(**{part: getattr(version, part)})

    def _forward_beside_others(
        self,
        x: Array,
        options: ForwardOptions,
        empty: Empty,
        recallable: Recallable | None = None,
    ) -> Forward:
        """Run a forward; again, with the lock, if another thread changed the network.

        `recallable` as in `calls.forward`. Raises StaleVersion if it was somebody else.
        """
        call = (self.timeout, empty, recallable)
        try:
            return calls.forward(self.instance, x, options, *call)
        except StaleVersion:
            with self._lock:
                self.settle()
                if self._version == options["if_version"]:
                    raise
                again: ForwardOptions = {**options, "if_version": self._version}
                if options.get("request_id"):
                    again["request_id"] = fresh_id()
                return calls.forward(self.instance, x, again, *call)


def say(what: str, names: Sequence[str], size: int, why: str) -> None:
    """Log at DEBUG which tensors, of so many bytes, travel, and why."""
    if not _log.isEnabledFor(logging.DEBUG):
        return
    shown = ", ".join(names[:_NAMES]) + (", ..." if len(names) > _NAMES else "")
    _log.debug("%s %d tensors, %d bytes: %s (%s)", what, len(names), size, why, shown)


def rng_state() -> bytes:
    """Give the state of PyTorch's CPU generator, from which networks draw."""
    held: bytes = torch.get_rng_state().numpy().tobytes()
    return held


def set_rng_state(held: bytes) -> None:
    """Move PyTorch's CPU generator to a state."""
    torch.set_rng_state(torch.frombuffer(bytearray(held), dtype=torch.uint8))
