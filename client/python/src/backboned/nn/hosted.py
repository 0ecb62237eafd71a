"""Connects a module tree with an instance that holds the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from backboned import boundary, compute, forks, state
from backboned.describe import InstanceInfo
from backboned.dtypes import Array
from backboned.home import home_of
from backboned.instance import Instance
from backboned.layout import Version
from backboned.nn import local_steps, randomness
from backboned.nn.certainty import Versioned
from backboned.nn.flight import Flight
from backboned.nn.gradients import Gradients
from backboned.nn.keeping import Keeping
from backboned.nn.lazy import raw
from backboned.nn.link import Link
from backboned.nn.loss import advised
from backboned.nn.mirror import as_array
from backboned.nn.moves import say_fetch, say_push
from backboned.nn.outbox import Outbox
from backboned.nn.overlapping import Overlapping, moves_buffers
from backboned.nn.queue import Waiting
from backboned.nn.scratch import Scratch
from backboned.nn.slots import buffer_slots, parameter_slots
from backboned.nn.train_steps import TrainSteps
from backboned.nn.values import Values
from backboned.nn.weak import Weak, weakly
from backboned.optimizer import Optimizer, OptimizerState, StepOptions, Stepped
from backboned.results import Backward, Forward
from backboned.transfer import fresh_id


@boundary.verbs
class HostedLink(Versioned, Keeping, Overlapping, TrainSteps):
    """Connects the tensors of a module tree with an instance: the server decides.

    Parameters, buffers and gradients stay there. What somebody looks at is fetched,
    and what somebody wrote is pushed before the next use. What somebody else changes
    in the server is an error. Thread-safe; forwards in evaluation mode may overlap.

    Parameters
    ----------
    instance : Instance
    root : torch.nn.Module
        The tree, planted with the instance's layout.
    mirror : Link, optional
        What connected them until now; its tensors are then here. Else all are away.

    Attributes
    ----------
    timeout : float or None
        Seconds for each call; None: the server object's.
    optimizer : object or None
        Who steps the parameters in the server; None: nobody. Not kept alive.
    hosting : bool
        Whether gradients stay in the server; False once the network went elsewhere.
    """

    optimizer = Weak()

    def __init__(
        self, instance: Instance, root: nn.Module, mirror: Link | None = None
    ) -> None:
        layout = instance.layout
        self.instance = instance
        home_of(instance)  # Asked now, so that another one is noticed.
        self.hosting = True
        local_steps.warn_of_them()
        self._lock = forks.rlock()
        names = [p.name for p in layout.parameters]
        self._params = Values(
            parameter_slots(root, layout, getattr(torch, instance.dtype)),
            names,
            weakly(self._get_params),
        )
        self._buffers = Values(
            buffer_slots(root, layout),
            [b.name for b in layout.buffers],
            weakly(self._get_buffers),
        )
        flight = Flight(weakly(self._train_step_made), weakly(self._lost_step))
        self._outbox = Outbox(instance, weakly(self._stepped), flight)
        self._grads = Gradients(instance, names, self._params.tensors, self._outbox)
        self._version = Version(instance.uid)
        if mirror is None:
            self._version = instance.version
            params_seen = buffers_seen = None
        else:
            mirror.settle()
            self._version = mirror.version
            params_seen, buffers_seen = mirror.seen()
        self.timeout = mirror.timeout if mirror else None
        self._params.begin(self, params_seen)
        try:
            self._buffers.begin(self, buffers_seen)
        except TypeError:
            self._params.release()
            raise

    @property
    def timeout(self) -> float | None:
        """Seconds for each call; None: the server object's."""
        return self._outbox.timeout

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        self._outbox.timeout = value

    def parameters(self) -> list[Any]:
        """Give the parameters in flat order."""
        with self._lock:
            return self._params.tensors()

    def _get_params(self, indices: Sequence[int]) -> list[Array]:
        specs = [self.instance.layout.parameters[i] for i in indices]
        everything = len(specs) == len(self.instance.layout.parameters)
        say_fetch([s.name for s in specs], 4 * sum(s.size for s in specs))
        expected = self._version._replace(buffers=None)
        with advised(self.instance):
            flat, version = state.get_params(
                self.instance,
                None if everything else [spec.name for spec in specs],
                expected,
                self.timeout,
            )
        self._version = self._version._replace(params=version.params)
        parts = []
        begin = 0
        for spec in specs:
            parts.append(flat[begin : begin + spec.size].reshape(spec.shape))
            begin += spec.size
        return parts

    def _get_buffers(self, indices: Sequence[int]) -> list[Array]:
        names = [self.instance.layout.buffers[i].name for i in indices]
        everything = len(names) == len(self.instance.layout.buffers)
        expected = self._version._replace(params=None)
        with advised(self.instance):
            values, version = state.get_buffers(
                self.instance, None if everything else names, expected, self.timeout
            )
        self._version = self._version._replace(buffers=version.buffers)
        return [values[name] for name in names]

    def settle(self) -> None:
        """Send the backwards that wait, and push what was written here."""
        with self._lock, advised(self.instance):
            self._outbox.flush()
            self._push_changes()

    def info(self) -> InstanceInfo:
        """Settle, and describe the instance, with its digest."""
        with self._lock, advised(self.instance):
            self.settle()
            return self.instance.info(digest=True, timeout=self.timeout)

    def _push_changes(self, adopt: bool = True) -> None:
        if self._version.params is None:
            self._params.doubt()
        if self._version.buffers is None:
            self._buffers.doubt()
        changed = self._params.changed(adopt)
        if changed:
            self._push_params(changed)
        changed = self._buffers.changed(adopt)
        if changed:
            self._push_buffers(changed)

    def _push_params(self, changed: list[int]) -> None:
        tensors = self._params.known
        everything = len(changed) == len(tensors)
        names = [self._params.names[i] for i in changed]
        values = arrays(tensors, changed)
        say_push(names, values, self._version.params)
        with self._changing("params") as known, self._outbox.asking_again() as again:
            version = state.set_params(
                self.instance,
                values,
                None if everything else names,
                known._replace(buffers=None),
                timeout=self.timeout,
                recallable=again,
            )
            self._params.pushed(changed)
            self._version = self._version._replace(params=version.params)

    def _push_buffers(self, changed: list[int]) -> None:
        values = arrays(self._buffers.known, changed)
        names = [self._buffers.names[i] for i in changed]
        say_push(names, values, self._version.buffers)
        with self._changing("buffers") as known, self._outbox.asking_again() as again:
            version = state.set_buffers(
                self.instance,
                dict(zip(names, values)),
                known._replace(params=None),
                timeout=self.timeout,
                recallable=again,
            )
            self._buffers.pushed(changed)
            self._version = self._version._replace(buffers=version.buffers)

    def push(self) -> None:
        """Write what was written here, also over what somebody else wrote."""
        with self._lock:
            self._outbox.make_sure()
            self._version = Version(self.instance.uid)
            self.settle()

    def pull(self) -> None:
        """Take whatever state the server has; what was written here is lost."""
        with self._lock:
            self._outbox.make_sure()
            self._version = Version(self.instance.uid)
            self._params.drop()
            self._buffers.drop()

    def forward(self, x: Array, options: dict[str, Any], empty: Any) -> Forward:
        """Send what waits and what was written, run a forward of that very state.

        What is random draws from PyTorch's generator, as it would here. Parameters as
        for `Link.forward`.
        """
        layout = self.instance.layout
        moves = moves_buffers(layout, options)
        draws = options["training"] and layout.stochastic
        with self._lock, advised(self.instance):
            self.settle()
            if draws:
                options = {**options, "rng_state": randomness.state()}
            # For all that the server cannot know to change nothing.
            if options["training"] or moves or options.get("tape"):
                options = {**options, "request_id": fresh_id()}
            full = compute.ForwardOptions(if_version=self._version, **options)
            if moves:
                result = self._moving_forward(x, full, empty)
        if not moves:
            asking = self._outbox.asking_if_lost(full.rng_state)
            with advised(self.instance), asking as again:
                result = self._forward_beside_others(x, full, empty, again)
        if draws:
            randomness.set_state(result.rng_state)
        return result

    def _moving_forward(
        self, x: Array, options: compute.ForwardOptions, empty: Any
    ) -> Forward:
        """Run a forward that moves the buffers on in the server."""
        self._buffers.moved()
        asking = self._outbox.asking_again(options.rng_state)
        with self._changing("buffers"), asking as again:
            result = compute.forward(
                self.instance, x, options, self.timeout, empty, again
            )
            version = result.version.buffers
            self._version = self._version._replace(buffers=version)
        return result

    def queue(self, item: Waiting) -> None:
        """Let the backward of a tape wait for the step, or the next use."""
        with self._lock, advised(self.instance):
            self._grads.add(item)

    def backward_now(self, item: Waiting, empty: Any) -> None:
        """Run the backward of a tape whose input gradient is wanted, into `empty`."""
        with self._lock, advised(self.instance):
            self._grads.add_now(item, empty)

    def backward(
        self,
        tape_id: str,
        gradients: dict[str, Array],
        options: compute.BackwardOptions,
        empty: Any,
    ) -> Backward:
        """Run the backward of a tape whose gradients come here."""
        with advised(self.instance):
            return compute.backward(
                self.instance, {tape_id: gradients}, options, self.timeout, empty
            )

    def settle_gradients(self) -> None:
        """Send the backwards that wait."""
        with self._lock:
            self._outbox.flush()

    def zero_grad(self, tensors: Sequence[torch.Tensor] | None = None) -> None:
        """Take the gradients of some parameters away, or of all."""
        with self._lock, advised(self.instance):
            if self._outbox.flight.count and self._grads.none:
                return
            indices = None
            if tensors is not None:
                found = [self._params.index(tensor) for tensor in tensors]
                indices = [i for i in found if i is not None]
            self._grads.zero(indices)

    def step(
        self, options: StepOptions, covers_all: bool
    ) -> tuple[bool, Stepped | None]:
        """Push what was written here, and make a step; see `Gradients.step`."""
        with self._lock, advised(self.instance):
            made = self._outbox.make_sure()
            self._push_changes()
            if made is not None:  # It was this step whose answer was lost.
                return True, made
            return self._grads.step(options, covers_all)

    def thaw(self) -> None:
        """Let the server step the parameters that are frozen there."""
        with self._lock, advised(self.instance):
            self.instance.update(frozen=False, timeout=self.timeout)

    def configure(self, optimizer: Optimizer) -> None:
        """Give the instance an optimizer without state."""
        with self._lock, advised(self.instance):
            self._outbox.make_sure()
            self.instance.configure_optimizer(
                optimizer.kind,
                optimizer.groups,
                request_id=fresh_id(),
                timeout=self.timeout,
            )

    def optimizer_state(self) -> OptimizerState:
        """Get the instance's optimizer and what it remembers."""
        with self._lock, advised(self.instance):
            self._outbox.make_sure()
            return self.instance.get_optimizer_state(timeout=self.timeout)

    def set_optimizer_state(
        self, optimizer: Optimizer, tensors: dict[str, Array]
    ) -> None:
        """Give the instance an optimizer with what it remembers."""
        with self._lock, advised(self.instance):
            self._outbox.make_sure()
            self.instance.set_optimizer_state(
                optimizer,
                tensors,
                request_id=fresh_id(),
                timeout=self.timeout,
            )

    def _stepped(self, version: Version) -> None:
        """Note that the server made one step; twice is once.

        Another number than the next one means that somebody else wrote too. It is not
        taken over, so that the next use says so.
        """
        known = self._version.params
        if known == version.params:
            return
        params = version.params if known is None else known + 1
        self._version = self._version._replace(params=params)
        self._params.moved()

    @property
    def version(self) -> Version:
        """What the server's state is expected to be."""
        return self._version

    def lent(self) -> bool:
        """Whether other tensors are in the parameters' places for a forward."""
        with self._lock:
            return self._params.lent()

    def scratch(self, root: nn.Module) -> Scratch:
        """Give what connects the tensors that are in `root` now with a clone."""
        with self._lock, advised(self.instance):
            self._outbox.flush()
            self._push_changes(adopt=False)
            clone = self.instance.clone(if_version=self._version, timeout=self.timeout)
            clone.home, clone.channel = self.instance.home, self.instance.channel
            scratch = Scratch(clone, root, (self._params.known, self._buffers.known))
        scratch.timeout = self.timeout
        return scratch

    def mirrored(self, root: nn.Module) -> Link:
        """Bring everything here, as plain tensors; give what connects them then."""
        mirror = Link(self.instance, root)
        mirror.timeout = self.timeout
        mirror.resume(self._end())
        return mirror

    def _end(self) -> Version:
        with self._lock, advised(self.instance):
            self.settle()
            self._grads.end()
            self._params.end()
            self._buffers.end()
            self.hosting = False
            return self._version


def arrays(tensors: Sequence[torch.Tensor], indices: Sequence[int]) -> list[Array]:
    """View some lazy tensors as arrays, with the memory that they have."""
    with raw():
        return [as_array(tensors[i]) for i in indices]
