"""Keeps a mirror and its instance equal: pushes what changed here, takes what moved."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import torch
from torch import nn

from backboned import compute, state
from backboned.dtypes import Array
from backboned.errors import BackbonedError, StaleVersion
from backboned.instance import Instance
from backboned.layout import Select, Version
from backboned.nn.mirror import Watch, as_array
from backboned.nn.slots import Slots
from backboned.results import Forward

# After these codes nothing has changed in the server.
_NOTHING_CHANGED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_PULL_ATTEMPTS = 5


class Link:
    """Connects the tensors of a module tree with an instance.

    The mirror decides: what is changed here is pushed before the next forward. What
    somebody else changes in the server is an error then, not a surprise. Thread-safe;
    forwards in evaluation mode may overlap.

    Parameters
    ----------
    instance : Instance
    root : torch.nn.Module
        The tree, which has the layout's names.
    names : sequence of str, optional
        The parameters that are mirrored, in flat order; the others stay in the server
        as they are. By default all.

    Attributes
    ----------
    names : list of str
    timeout : float or None
        Seconds for each call; None: the server object's.
    """

    def __init__(
        self,
        instance: Instance,
        root: nn.Module,
        names: Sequence[str] | None = None,
    ) -> None:
        layout = instance.layout
        mirrored = [p for p in layout.parameters if names is None or p.name in names]
        self.instance = instance
        self.names = [p.name for p in mirrored]
        self.timeout: float | None = None
        self._lock = threading.RLock()
        self._parameters = Slots(
            root,
            self.names,
            [p.shape for p in mirrored],
            [torch.float32] * len(mirrored),
            "_parameters",
        )
        self._buffers = Slots(
            root,
            [b.name for b in layout.buffers],
            [b.shape for b in layout.buffers],
            [torch.from_numpy(np.empty(0, b.dtype)).dtype for b in layout.buffers],
            "_buffers",
        )
        self._params_seen = Watch()
        self._buffers_seen = Watch()
        # What the mirror equals; None: not known, so it is pushed without a condition.
        self._version = Version(instance.uid)

    @property
    def strict(self) -> bool:
        """Whether every element is compared before each forward."""
        return self._params_seen.strict

    @strict.setter
    def strict(self, value: bool) -> None:
        with self._lock:
            for watch in (self._params_seen, self._buffers_seen):
                watch.strict = value
        self._look_again()

    def _look_again(self) -> None:
        """Remember the tensors that are in step by the present kind of witness."""
        with self._lock:
            for slots, watch in self._pairs():
                tensors = slots.tensors()
                changed = set(watch.changed(tensors))
                same = [i for i in range(len(tensors)) if i not in changed]
                watch.saw(watch.look(tensors, same))

    def _pairs(self) -> list[tuple[Slots, Watch]]:
        pairs = [(self._parameters, self._params_seen)]
        if self.instance.layout.buffers:
            pairs.append((self._buffers, self._buffers_seen))
        return pairs

    def parameters(self) -> list[nn.Parameter]:
        """Give the mirrored parameters in flat order."""
        return self._parameters.tensors()

    def buffers(self) -> list[torch.Tensor]:
        """Give the mirrored buffers in order."""
        return self._buffers.tensors() if self.instance.layout.buffers else []

    def pull(self) -> None:
        """Take the instance's parameters and buffers, of one version, into the mirror.

        Raises
        ------
        StaleVersion
            If somebody else keeps changing it.
        """
        with self._lock:
            for attempt in range(_PULL_ATTEMPTS):
                try:
                    flat, buffers, version = self._read()
                    break
                except StaleVersion:
                    if attempt == _PULL_ATTEMPTS - 1:
                        raise
            parameters = self.parameters()
            with torch.no_grad():
                sizes = [p.numel() for p in parameters]
                parts = torch.split(torch.from_numpy(flat), sizes)
                for parameter, part in zip(parameters, parts):
                    parameter.copy_(part.view_as(parameter))
            self._write_buffers(buffers)
            everything = range(len(parameters))
            self._params_seen.saw(self._params_seen.look(parameters, everything))
            if not self.instance.layout.buffers:
                version = version._replace(buffers=None)
            self._version = version

    def _read(self) -> tuple[Array, dict[str, Array], Version]:
        instance = self.instance
        uid = Version(instance.uid)
        select = self._select(self.names)
        flat, version = state.get_params(instance, select, uid, self.timeout)
        if not instance.layout.buffers:
            return flat, {}, version
        same_params = Version(version.uid, version.params)
        buffers, version = state.get_buffers(instance, None, same_params, self.timeout)
        return flat, buffers, version

    def push(self) -> None:
        """Write every parameter and buffer of the mirror into the instance.

        Overwrites what somebody else may have written.
        """
        with self._lock:
            self._forget_params()
            self._forget_buffers()
            self._push_changes()

    def _push_changes(self) -> None:
        parameters = self.parameters()
        changed = self._params_seen.changed(parameters)
        if changed:
            self._push_params(parameters, changed)
        buffers = self.buffers()
        changed = self._buffers_seen.changed(buffers)
        if changed:
            self._push_buffers(buffers, changed)

    def _push_params(self, tensors: list[nn.Parameter], changed: list[int]) -> None:
        names = [self.names[i] for i in changed]
        looks = self._params_seen.look(tensors, changed)
        with self._unless_certain(self._forget_params):
            version = state.set_params(
                self.instance,
                [as_array(tensors[i]) for i in changed],
                self._select(names),
                self._version._replace(buffers=None),
                uuid.uuid4().hex,
                self.timeout,
            )
        self._params_seen.saw(looks)
        self._version = self._version._replace(params=version.params)

    def _select(self, names: list[str]) -> Select:
        return None if len(names) == len(self.instance.layout.parameters) else names

    def _push_buffers(self, tensors: list[torch.Tensor], changed: list[int]) -> None:
        names = [self.instance.layout.buffers[i].name for i in changed]
        looks = self._buffers_seen.look(tensors, changed)
        with self._unless_certain(self._forget_buffers):
            version = state.set_buffers(
                self.instance,
                {name: as_array(tensors[i]) for name, i in zip(names, changed)},
                self._version._replace(params=None),
                uuid.uuid4().hex,
                self.timeout,
            )
        self._buffers_seen.saw(looks)
        self._version = self._version._replace(buffers=version.buffers)

    def forward(self, x: Array, options: dict[str, Any], empty: Any) -> Forward:
        """Push what changed, run a forward of that very state, take the new buffers.

        What is random draws from PyTorch's generator, as it would here.

        Parameters
        ----------
        x : ndarray
            C-contiguous.
        options : dict
            Of `compute.ForwardOptions`.
        empty : callable
            Makes the arrays of the outputs.
        """
        moves = bool(self.instance.layout.buffers) and (
            options["training"] or any(n.training for n in options["batch_norm"])
        )
        draws = options["training"] and self.instance.layout.stochastic
        if draws:
            options = {**options, "rng_state": _torch_rng_state()}
        with self._lock, self._advised():
            self._push_changes()
            version = self._version
            if moves:
                result = self._training_forward(x, options, empty)
        if not moves:
            full = compute.ForwardOptions(if_version=version, **options)
            with self._advised():
                result = compute.forward(self.instance, x, full, self.timeout, empty)
        if draws:
            _set_torch_rng_state(result.rng_state)
        return result

    def _training_forward(
        self, x: Array, options: dict[str, Any], empty: Any
    ) -> Forward:
        """Run a forward that moves the buffers on, in the server and here."""
        full = compute.ForwardOptions(
            if_version=self._version, return_buffers=True, **options
        )
        with self._unless_certain(self._forget_buffers):
            result = compute.forward(self.instance, x, full, self.timeout, empty)
            self._write_buffers(result.buffers)
        self._version = self._version._replace(buffers=result.version.buffers)
        return result

    def _write_buffers(self, values: dict[str, Array]) -> None:
        """Copy buffers of the instance into the mirror."""
        buffers = self.buffers()
        with torch.no_grad():
            for spec, buffer in zip(self.instance.layout.buffers, buffers):
                buffer.copy_(torch.from_numpy(values[spec.name]))
        everything = range(len(buffers))
        self._buffers_seen.saw(self._buffers_seen.look(buffers, everything))

    def _forget_params(self) -> None:
        self._params_seen.forget()
        self._version = self._version._replace(params=None)

    def _forget_buffers(self) -> None:
        self._buffers_seen.forget()
        self._version = self._version._replace(buffers=None)

    @contextlib.contextmanager
    def _unless_certain(self, forget: Any) -> Iterator[None]:
        """Call `forget` if a call fails such that it may have happened."""
        try:
            yield
        except BackbonedError as error:
            if error.code not in _NOTHING_CHANGED:
                forget()
            raise
        except BaseException:
            forget()
            raise

    @contextlib.contextmanager
    def _advised(self) -> Iterator[None]:
        """Add what to do to the error that somebody else changed the instance."""
        try:
            yield
        except StaleVersion as error:
            raise StaleVersion(
                f"somebody else changed {self.instance.name!r} in the server: "
                "net.pull() takes the server's state, net.push() puts this one's "
                f"[{error.message}]",
                error.code,
                error.reason,
            ) from error


def _torch_rng_state() -> bytes:
    """Give PyTorch's CPU generator's state."""
    state: bytes = torch.get_rng_state().numpy().tobytes()
    return state


def _set_torch_rng_state(state: bytes) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
