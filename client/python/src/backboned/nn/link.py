"""Keeps a mirror and its instance equal: pushes what changed here, takes what moved."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from backboned import boundary, compute, forks, state
from backboned.backoff import is_absence
from backboned.describe import InstanceInfo, ServerInfo
from backboned.dtypes import Array
from backboned.errors import BackbonedError, StaleVersion
from backboned.home import home_of
from backboned.instance import Instance
from backboned.layout import Version
from backboned.nn import randomness
from backboned.nn.certainty import Versioned, advised_if_stale
from backboned.nn.mirror import Watch, as_array, as_tensor
from backboned.nn.moves import say_push
from backboned.nn.overlapping import Overlapping, moves_buffers
from backboned.nn.rebuilding import digest, find_or_make
from backboned.nn.slots import Slots, buffer_slots, parameter_slots
from backboned.nn.surviving import Surviving
from backboned.nn.taped import Taped
from backboned.results import Backward, Forward

_PULL_ATTEMPTS = 5


@boundary.verbs
class Link(Versioned, Surviving, Overlapping):
    """Connects the tensors of a module tree with an instance.

    The mirror decides: what is changed here is pushed before the next forward. What
    somebody else changes in the server is an error then, not a surprise. If the server
    goes away, calls wait for it; if it was restarted, the instance is made again, and
    the mirror is pushed. Thread-safe; forwards in evaluation mode may overlap.

    Parameters
    ----------
    instance : Instance
    root : torch.nn.Module
        The tree, planted with the instance's layout.

    Attributes
    ----------
    timeout : float or None
        Seconds for each call; None: the server object's.
    home : Home
        The instance's server.
    hosting, optimizer
        As of a `HostedLink`: never, and nobody.
    """

    hosting = False
    optimizer: Any = None

    def __init__(self, instance: Instance, root: nn.Module) -> None:
        layout = instance.layout
        self.instance = instance
        self.home = home_of(instance)
        # Versions before restarts with the parameters, and with the buffers, of now.
        self._same_params: set[Any] = set()
        self._same_buffers: set[Any] = set()
        self.timeout: float | None = None
        self._lock = forks.rlock()
        self._parameters = parameter_slots(root, layout, getattr(torch, instance.dtype))
        self._buffers = buffer_slots(root, layout)
        self._params_seen = Watch()
        self._buffers_seen = Watch()
        # What the mirror equals; None: not known, so it is pushed without a condition.
        self._version = Version(instance.uid)

    def _pairs(self) -> list[tuple[Slots, Watch]]:
        pairs = [(self._parameters, self._params_seen)]
        if self.instance.layout.buffers:
            pairs.append((self._buffers, self._buffers_seen))
        return pairs

    @property
    def version(self) -> Version:
        """What the mirror equals; None stands for what is not known."""
        return self._version

    def seen(self) -> tuple[Watch, Watch]:
        """Give what is known of the parameters and of the buffers."""
        return self._params_seen, self._buffers_seen

    def resume(self, version: Version) -> None:
        """Begin with a mirror that equals this version of the instance."""
        self._saw_all(version)

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
                parts = torch.split(as_tensor(flat), sizes)
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
        flat, version = state.get_params(instance, None, uid, self.timeout)
        if not instance.layout.buffers:
            return flat, {}, version
        same_params = Version(version.uid, version.params)
        buffers, version = state.get_buffers(instance, None, same_params, self.timeout)
        return flat, buffers, version

    def push(self) -> None:
        """Write every parameter and buffer of the mirror into the instance.

        Overwrites what somebody else may have written.
        """
        self.surviving(self._push_all)

    def _push_all(self) -> None:
        with self._lock:
            self._version = Version(self.instance.uid)
            self._push_changes()

    def show_all(self) -> None:
        """Do nothing: all values are here."""

    def show_grads(self) -> None:
        """Do nothing: all gradients are here."""

    def settle(self) -> None:
        """Push what changed here."""
        self.surviving(self._settle)

    def _settle(self) -> None:
        with self._lock, advised_if_stale(self.instance):
            self._push_changes()

    def info(self) -> InstanceInfo:
        """Push what changed here, and describe the instance, with its digest."""
        self.settle()
        return self.surviving(
            lambda: self.instance.info(digest=True, timeout=self.timeout)
        )

    def _push_changes(self) -> None:
        if self._version.params is None:
            self._params_seen.forget()
        if self._version.buffers is None:
            self._buffers_seen.forget()
        parameters = self.parameters()
        changed = self._params_seen.changed(parameters)
        if changed:
            self._push_params(parameters, changed)
        buffers = self.buffers()
        changed = self._buffers_seen.changed(buffers)
        if changed:
            self._push_buffers(buffers, changed)

    def _push_params(self, tensors: list[nn.Parameter], changed: list[int]) -> None:
        everything = len(changed) == len(tensors)
        names = [self.instance.layout.parameters[i].name for i in changed]
        looks = self._params_seen.look(tensors, changed)
        arrays = [as_array(tensors[i]) for i in changed]
        say_push(names, arrays, self._version.params)
        with self._changing("params") as known:
            version = state.set_params(
                self.instance,
                arrays,
                None if everything else names,
                known._replace(buffers=None),
                timeout=self.timeout,
            )
            self._params_seen.saw(looks)
            self._same_params = set()
            self._version = self._version._replace(params=version.params)

    def _push_buffers(self, tensors: list[torch.Tensor], changed: list[int]) -> None:
        names = [self.instance.layout.buffers[i].name for i in changed]
        looks = self._buffers_seen.look(tensors, changed)
        arrays = [as_array(tensors[i]) for i in changed]
        say_push(names, arrays, self._version.buffers)
        with self._changing("buffers") as known:
            version = state.set_buffers(
                self.instance,
                dict(zip(names, arrays)),
                known._replace(params=None),
                timeout=self.timeout,
            )
            self._buffers_seen.saw(looks)
            self._same_buffers = set()
            self._version = self._version._replace(buffers=version.buffers)

    def forward(self, x: Array, options: dict[str, Any], empty: Any) -> Forward:
        """Push what changed, run a forward of that very state, take the new buffers.

        What is random draws from PyTorch's generator, as it would here.

        Parameters
        ----------
        x : ndarray
            C-contiguous.
        options : dict
            Of `compute.ForwardOptions`. The generator's state that the forward draws
            from is put there.
        empty : callable
            Makes the arrays of the outputs; more than once if the server went away.
        """
        return self.surviving(lambda: self._forward(x, options, empty))

    def _forward(self, x: Array, options: dict[str, Any], empty: Any) -> Forward:
        moves = moves_buffers(self.instance.layout, options)
        draws = options["training"] and self.instance.layout.stochastic
        if draws:
            options["rng_state"] = randomness.state()
        with self._lock, advised_if_stale(self.instance):
            self._push_changes()
            version = self._version
            if moves:
                result = self._training_forward(x, options, empty)
        if not moves:
            full = compute.ForwardOptions(if_version=version, **options)
            with advised_if_stale(self.instance):
                result = self._forward_beside_others(x, full, empty)
        if draws:
            randomness.set_state(result.rng_state)
        return result

    def _training_forward(
        self, x: Array, options: dict[str, Any], empty: Any
    ) -> Forward:
        """Run a forward that moves the buffers on, in the server and here."""
        with self._changing("buffers") as known:
            full = compute.ForwardOptions(
                if_version=known, return_buffers=True, **options
            )
            result = compute.forward(self.instance, x, full, self.timeout, empty)
            self._write_buffers(result.buffers)
            self._same_buffers = set()
            self._version = self._version._replace(buffers=result.version.buffers)
        return result

    def _write_buffers(self, values: dict[str, Array]) -> None:
        """Copy buffers of the instance into the mirror."""
        buffers = self.buffers()
        with torch.no_grad():
            for spec, buffer in zip(self.instance.layout.buffers, buffers):
                buffer.copy_(as_tensor(values[spec.name]))
        everything = range(len(buffers))
        self._buffers_seen.saw(self._buffers_seen.look(buffers, everything))

    def _move_in(self, info: ServerInfo, versions: tuple[set[Any], set[Any]]) -> None:
        """Make the instance again in a server, and push the mirror."""
        there, equal = find_or_make(self.instance, self.digest, self.timeout)
        read_only = self.instance.read_only
        self.instance.stand_for(there)
        self.home.info = info
        if equal:
            self._saw_all(there.version)
        else:
            self._version = Version(there.uid)
            self._push_changes()
            if read_only:
                self.instance.update(read_only=True, timeout=self.timeout)
        self._same_params, self._same_buffers = versions

    def digest(self) -> str:
        """Give the SHA-256 of the mirror, as the server computes an instance's."""
        return digest(as_array(t) for t in (*self.parameters(), *self.buffers()))

    def _saw_all(self, version: Version) -> None:
        """Note that this version of the instance is what the mirror holds."""
        for slots, watch in self._pairs():
            tensors = slots.tensors()
            watch.saw(watch.look(tensors, range(len(tensors))))
        buffers = version.buffers if self.instance.layout.buffers else None
        self._version = version._replace(buffers=buffers)

    def _versions_there(self) -> tuple[set[Any], set[Any]]:
        """List the versions with the parameters, and the buffers, of the instance."""
        uid, params, buffers = self._version
        return (
            set() if params is None else {(uid, params), *self._same_params},
            set() if buffers is None else {(uid, buffers), *self._same_buffers},
        )

    def _versions_here(self) -> tuple[set[Any], set[Any]]:
        """List the versions with the parameters, and the buffers, of the mirror."""
        params, buffers = self._versions_there()
        return (
            set() if self._params_seen.changed(self.parameters()) else params,
            set() if self._buffers_seen.changed(self.buffers()) else buffers,
        )

    def backward(
        self,
        taped: Taped,
        gradients: dict[str, Array],
        options: compute.BackwardOptions,
        empty: Any,
    ) -> Backward:
        """Run the backward of a forward, which is run again if its tape is lost.

        Parameters
        ----------
        taped : Taped
        gradients : dict of str to ndarray
            Of the forward's outputs.
        options : compute.BackwardOptions
        empty : callable
            Makes the arrays of the answer; more than once if the server went away.
        """

        def call() -> Backward:
            if taped.uid != self.instance.uid:
                self._forward_again(taped)
            try:
                tapes = {taped.tape_id: gradients}
                return compute.backward(
                    self.instance, tapes, options, self.timeout, empty
                )
            except BackbonedError as error:
                if is_absence(error):
                    taped.lose()  # It may have been used up.
                raise

        return self.surviving(call)

    def _forward_again(self, taped: Taped) -> None:
        """Run a forward whose tape is lost again, of the same state."""
        with self._lock:
            options = taped.options_again()
            uid, at_params, at_buffers = taped.version
            if (uid, at_params) not in self._versions_there()[0]:
                raise taped.lost("the parameters were changed since")
            if self.instance.layout.buffers:
                known = self._versions_here()[1]
                if taped.uses_buffers and (uid, at_buffers) not in known:
                    raise taped.lost("the BatchNorm statistics have moved on since")
                names = [spec.name for spec in self.instance.layout.buffers]
                options["buffers"] = dict(zip(names, map(as_array, self.buffers())))
            version = self._version._replace(buffers=None)
            full = compute.ForwardOptions(if_version=version, **options)
            result = compute.forward(self.instance, taped.input(), full, self.timeout)
            taped.renew(result)
