"""Connects a module tree with an instance whose tensors are in the server."""

from __future__ import annotations

import functools
import itertools
import warnings
import weakref
from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any, Callable, Union

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from backboned import calls
from backboned.calls import BackwardOptions, ForwardOptions, moves_buffers
from backboned.errors import (
    BackbonedError,
    NotFound,
    ServerRestarted,
    StaleVersion,
    verbs,
)
from backboned.instance import Instance
from backboned.nn.gradients import Gradients
from backboned.nn.lazy import LazyParameter
from backboned.nn.link import (
    LinkBase,
    Tape,
    Writes,
    rng_state,
    say,
    set_rng_state,
)
from backboned.nn.mirrored import MirroredLink, ScratchLink
from backboned.nn.pending_calls import (
    PendingBackward,
    PendingCalls,
    SentCall,
    StepsInFlight,
)
from backboned.nn.refs import Weak, weakly
from backboned.nn.values import Values
from backboned.nn.watch import as_tensor, slots_of
from backboned.server_identity import ServerIdentity
from backboned.steps import StepInFlight
from backboned.transport.messages import Recall, fresh_id
from backboned.types import (
    Array,
    Backward,
    Checkpoint,
    Forward,
    InstanceInfo,
    Optimizer,
    OptimizerState,
    StepOptions,
    TrainStep,
    Version,
)


@verbs
class HostedLink(LinkBase):
    """Connects the tensors of a module tree with an instance: the server decides.

    Parameters, buffers and gradients stay there. It fetches what somebody looks at, and
    pushes what somebody wrote before the next use. A change in the server by somebody
    else is an error. It is the keeper of the lazy tensors.

    - `root`: the tree, planted with the instance's layout.
    - `mirror`: what connected them until now; its tensors are then here. Else all are
      away.
    """

    optimizer = Weak()

    def __init__(
        self, instance: Instance, root: nn.Module, mirror: MirroredLink | None = None
    ) -> None:
        if mirror is not None:
            mirror.settle()
        version = mirror.version if mirror else instance.version
        super().__init__(instance, version, hosted=True)
        _ = instance.server_identity  # Asked now, so that another one is noticed.
        _warn_of_local_steps()
        self.hosting = True
        self._in_flight = StepsInFlight(
            weakly(self._train_step_made), weakly(self._lost_step)
        )
        self._pending = PendingCalls(
            instance,
            weakly(self._stepped),
            weakly(self._lost_step),
            self._in_flight,
        )
        self.timeout = mirror.timeout if mirror else None
        slots = slots_of(root, instance.layout, getattr(torch, instance.dtype))
        known = mirror.watches if mirror else {}
        fetch = weakly(self._get_params)
        self._params = Values(slots["params"], self, fetch, known.get("params"))
        self._grads = Gradients(instance, self._params, self._pending)
        fetch = weakly(self._get_buffers)
        try:
            self._buffers = Values(slots["buffers"], self, fetch, known.get("buffers"))
        except TypeError:
            self._params.release()
            raise
        self._both = {"params": self._params, "buffers": self._buffers}

    @property
    def timeout(self) -> float | None:  # type: ignore[override]
        """Seconds for each call; None: the server object's."""
        return self._pending.timeout

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        self._pending.timeout = value

    # The state: read, written.

    def parameters(self) -> list[Any]:
        """Give the parameters in flat order."""
        with self._lock:
            return self._params.tensors()

    def _get_params(self, indices: Sequence[int]) -> Sequence[torch.Tensor]:
        every = self.instance.layout.parameters
        specs = [every[i] for i in indices]
        names = [spec.name for spec in specs]
        with self._advised:
            flat, version = calls.get_params(
                self.instance,
                None if len(names) == len(every) else names,
                if_version=self.version._replace(buffers=None),
                timeout=self.timeout,
            )
        say("fetch", names, flat.nbytes, "read here after the server changed them")
        self._note("params", version)
        return torch.split(as_tensor(flat), [spec.size for spec in specs])

    def _get_buffers(self, indices: Sequence[int]) -> Sequence[torch.Tensor]:
        every = self.instance.layout.buffers
        names = [every[i].name for i in indices]
        with self._advised:
            values, version = calls.get_buffers(
                self.instance,
                None if len(names) == len(every) else names,
                if_version=self.version._replace(params=None),
                timeout=self.timeout,
            )
        self._note("buffers", version)
        return [as_tensor(values[name]) for name in names]

    def settle(self) -> None:
        """Send the backwards that wait, and push what was written here."""
        with self._lock, self._advised:
            self._settle()

    def _settle(self) -> None:
        self._pending.flush()
        self._push_changes()

    def _push_changes(self, adopt: bool = True) -> None:
        for part, values in self._both.items():
            if getattr(self.version, part) is None:
                values.doubt()
            changed = values.changed(adopt)
            if changed:
                written = functools.partial(values.pushed, changed)
                with self._pending.asking() as again:
                    writes = Writes()
                    write = (part, values.known, changed, written, again)
                    writes.add(self._writing(*write))
                    writes.take()

    def push(self) -> None:
        """Write what was written here, also over what somebody else wrote."""
        with self._lock, self._advised:
            self._pending.make_sure()
            self.version = Version(self.instance.uid)
            self.settle()

    def pull(self) -> None:
        """Take whatever state the server has; what was written here is lost."""
        with self._lock, self._advised:
            self._pending.make_sure()
            self.version = Version(self.instance.uid)
            for values in self._both.values():
                values.drop()

    def info(self) -> InstanceInfo:
        """Settle, and describe the instance, with its digest."""
        with self._lock, self._advised:
            self.settle()
            return self.instance.info(digest=True, timeout=self.timeout)

    def save(self, name: str, keep: int) -> Checkpoint:
        """Settle, and save parameters, buffers, gradients and optimizer."""
        with self._lock, self._advised:
            self.settle()
            return self.instance.save(
                name, keep=keep, timeout=self.timeout, if_version=self.version
            )

    def copy_instance(self) -> Instance:
        """Make a clone, which costs nothing before one of the two is written."""
        self.settle()
        with self._advised:
            return self.instance.clone(timeout=self.timeout, if_version=self.version)

    # Requests of lazy tensors to their keeper.

    def show(self, tensors: list[torch.Tensor]) -> None:
        """Bring the values of these tensors, and with them what somebody views."""
        with self._lock, self._advised:
            self._pending.make_sure()
            both = self._both.values()
            if any([values.show(tensors) for values in both]):
                for values in both:
                    values.show_shared()
            self._grads.show(tensors)

    def show_all(self) -> None:
        """Bring all values here."""
        with self._lock, self._advised:
            self._pending.make_sure()
            for values in self._both.values():
                values.show_all()

    def overwritten(self, tensor: torch.Tensor) -> None:
        """Note that a tensor got new values as a whole."""
        with self._lock:
            for values in self._both.values():
                values.overwritten(tensor)
            self._grads.overwritten(tensor)

    def shared(self, tensor: torch.Tensor) -> None:
        """Note that somebody else may now refer to a tensor's memory."""
        with self._lock:
            for values in self._both.values():
                values.shared(tensor)

    def grad(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Give a parameter's gradient."""
        with self._lock, self._advised:
            index = self._params.index(tensor)
            return None if index is None else self._grads.read(index)

    def set_grad(self, tensor: torch.Tensor, value: torch.Tensor | None) -> None:
        """Replace a parameter's gradient."""
        with self._lock, self._advised:
            index = self._params.index(tensor)
            if index is None:
                raise RuntimeError("a buffer has no gradient")
            self._grads.write(index, value)

    def show_grads(self) -> None:
        """Bring all gradients here."""
        with self._lock, self._advised:
            self._grads.read_all()

    # Forwards and backwards.

    def forward(self, x: Array, options: ForwardOptions) -> Forward:
        """Send what waits and what was written, run a forward of that very state.

        It is sent behind a step that was not awaited, whose answer is taken then.
        """
        layout = self.instance.layout
        moves = moves_buffers(layout, options)
        draws = options["training"] and layout.stochastic
        given, options = options, {**options}
        with self._lock, self._advised:
            steps = self._follows() if self._pending.sent else 0
            behind = self._pending.behind if steps else None
            if not steps:
                self._settle()
            if draws:
                options["rng_state"] = rng_state()
            # For all that the server cannot know to change nothing.
            if options["training"] or moves or options.get("tape"):
                options["request_id"] = fresh_id()
            expected = self._left_by(steps) if steps else self.version
            options["if_version"] = expected
            generator = options.get("rng_state", b"")
            if moves or behind:
                asking = self._pending.asking(generator)
                parts = ["buffers"] if moves else []
                if moves:
                    self._buffers.moved()
                try:
                    with self._changing(*parts), asking as again:
                        call = (self.timeout, again, behind)
                        result = calls.forward(self.instance, x, options, *call)
                        if moves:
                            self._note("buffers", result.version)
                except StaleVersion:
                    # A step that finds no gradients leaves no version.
                    if self.version.params == expected.params:
                        raise
                    return self.forward(x, given)
                except ServerRestarted as error:
                    if not self._came_back(error, expected):
                        raise
                    return self.forward(x, given)
        if not moves and not behind:
            asking = self._pending.asking(generator, beside=True)
            with self._advised:
                try:
                    with asking as again:
                        result = self._forward_beside_others(x, options, again)
                except ServerRestarted as error:
                    with self._lock:
                        if not self._came_back(error, expected):
                            raise
                    return self.forward(x, given)
        if draws:
            set_rng_state(result.rng_state)
        return result

    def _came_back(self, error: BackbonedError, expected: Version) -> bool:
        """Say whether a restarted server has the instance in the version expected.

        Then the call that failed was not made, and may be made again.
        """
        if self._pending.sent or not self.instance.server_identity.was_restarted(error):
            return False
        try:
            found = self.instance.info(timeout=self.timeout).version
        except NotFound:
            return False
        if expected != found:
            return False
        self.instance.server_identity = ServerIdentity(self.instance.channel)
        self.version = expected
        return True

    def _follows(self) -> int:
        """Say how many steps a forward may follow that were not awaited."""
        steps = self._pending.leads()
        if not steps or self.version.params is None:
            return 0
        if any(values.changed() for values in self._both.values()):
            return 0
        return steps

    def _left_by(self, steps: int) -> Version:
        """Say what version there will be after steps that were sent."""
        uid, params, buffers = self.version
        return Version(uid, None if params is None else params + steps, buffers)

    def make_sure(self) -> None:
        """Take the answers to the steps that were not awaited."""
        with self._lock, self._advised:
            self._pending.take_sent()

    def queue(self, item: PendingBackward) -> None:
        """Let the backward of a tape wait for the step, or the next use."""
        with self._lock, self._advised:
            self._grads.hand_over()
            self._pending.add(item)

    def backward_now(self, item: PendingBackward) -> Array:
        """Run the backward of a tape; give its input's gradient."""
        with self._lock, self._advised:
            self._grads.hand_over()
            return self._pending.send_now(item)

    def backward(
        self, tape: Tape, gradients: dict[str, Array], options: BackwardOptions
    ) -> Backward:
        """Run the backward of a tape whose gradients come here."""
        with self._lock, self._advised:
            self._pending.flush()  # The tape may wait already.
        with self._advised:
            tapes = {tape.tape_id: gradients}
            call = (self.instance, tapes, options, self.timeout)
            return calls.backward(*call).take()

    def zero_grad(self, tensors: Sequence[torch.Tensor] | None = None) -> None:
        """Take the gradients of some parameters away, or of all."""
        with self._lock, self._advised:
            if self._in_flight.count and self._grads.none:
                return
            indices = None
            if tensors is not None:
                found = [self._params.index(tensor) for tensor in tensors]
                indices = [i for i in found if i is not None]
            self._grads.zero(indices)

    # The optimizer, and its steps.

    def step(
        self, options: StepOptions, covers_all: bool, number: int
    ) -> SentCall | None:
        """Push what was written here, and send a step, if there are gradients.

        Does not wait for it: whoever uses the network next gets its error.

        `covers_all` says whether the optimizer has every parameter that may have a
        gradient; `number` is the step's, for errors.
        """
        with self._lock, self._advised:
            self._pending.make_sure()
            self._push_changes(adopt=False)  # The optimizer has looked at them.
            self._grads.settle()
            if not self._pending.has_gradients:
                return None
            self._params.moved()
            return self._pending.step(options, covers_all, number)

    def thaw(self) -> None:
        """Let the server step the parameters that are frozen there."""
        with self._lock, self._advised:
            self._pending.make_sure()
            self.instance.update(frozen=False, timeout=self.timeout)

    def optimizer_state(self) -> OptimizerState:
        """Get the instance's optimizer and what it remembers."""
        with self._lock, self._advised:
            self._pending.make_sure()
            return self.instance.get_optimizer_state(timeout=self.timeout)

    def set_optimizer(self, optimizer: Optimizer, tensors: dict[str, Array]) -> None:
        """Give the instance an optimizer with what it remembers; empty: nothing."""
        with self._lock, self._advised:
            self._pending.make_sure()
            if tensors:
                put = self.instance.set_optimizer_state
                put(optimizer, tensors, timeout=self.timeout)
            else:
                configure = self.instance.configure_optimizer
                configure(optimizer.kind, optimizer.groups, timeout=self.timeout)

    def _stepped(self, version: Version) -> None:
        """Note that the server made one step; twice is once.

        Another number than the next one means that somebody else wrote too. It is not
        taken over, so that the next use says so.
        """
        known = self.version.params
        if known == version.params:
            return
        params = version.params if known is None else known + 1
        self.version = Version(self.version.uid, params, self.version.buffers)

    def train_step(self, run: Callable[..., TrainStep]) -> TrainStep:
        """Make a training step.

        `run` makes the call, given `if_version`, `rng_state` and `recallable`.
        """
        draws = self.instance.layout.stochastic
        with self._lock, self._advised:
            self._settle()
            self._grads.keep_promises()
            generator = rng_state() if draws else b""
            self._all_moved()
            changing = self._changing("params", "buffers")
            with changing as known, self._pending.asking(generator) as again:
                result = run(if_version=known, rng_state=generator, recallable=again)
                self._train_step_made(result.version)
            self._grads.zero()
        if draws:
            set_rng_state(result.rng_state)
        return result

    def train_step_async(self, send: Callable[..., StepInFlight]) -> StepInFlight:
        """Send a training step, and do not wait for it.

        The next use of the network waits. A step that draws random numbers is waited
        for here, since what comes next draws on. `send` sends it, given `if_version`,
        `rng_state`, `within` and `recallable`. Raises the BackbonedError of a step that
        has failed, if nobody has seen its error yet.
        """
        draws = self.instance.layout.stochastic
        with self._lock, self._advised:
            news = self._params.changed() or self._buffers.changed()
            waits = self._in_flight.failed or not self._in_flight.count
            if waits or news or not self._grads.none:
                self.settle()
                self._grads.zero()
            self._all_moved()
            step = self._send(send, rng_state() if draws else b"")
            if draws:
                wait([step])
        if draws and not step.error:
            set_rng_state(step.result().rng_state)
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
                within=self._advised,
                recallable=recalls.append,
            )
            step.recall = recalls[0]
            self._in_flight.begin(step)
        except BackbonedError:
            raise
        except BaseException:  # It may be on its way.
            self.version = Version(self.instance.uid)
            for recall in recalls:
                self._pending.lost(recall)
            raise
        return step

    def _expected(self) -> Version:
        """Say what a training step finds after all that are in flight."""
        params = self.version.params
        if params is None:  # The answer to an earlier step was lost.
            params = self.instance.info(timeout=self.timeout).version.params
            assert params is not None
            self.version = self.version._replace(params=params)
        count = self._in_flight.count
        return Version(self.instance.uid, params + count) if count else self.version

    def _train_step_made(self, version: Version) -> None:
        """Note that the server made a training step; it holds no gradients now."""
        self._pending.outdated = False
        known, made = self.version.params, version.params
        if known is None or (made is not None and made > known):
            self.version = version

    def _all_moved(self) -> None:
        """Note that a training step changes all that is in the server."""
        for values in self._both.values():
            values.moved()

    def _lost_step(self, step: StepInFlight | None) -> None:
        """Note that a training step in flight may have been made."""
        self.version = Version(self.instance.uid)
        if step is not None and step.recall is not None:
            self._pending.lost(step.recall)

    # Other links.

    def for_forward(self, root: nn.Module) -> tuple[Link, list[Any]]:
        """Give a link with a clone if other tensors are in the parameters' places."""
        with self._lock, self._advised:
            parameters = self._params.unless_lent()
            if parameters is not None:
                return self, parameters
            self._pending.flush()
            self._push_changes(adopt=False)
            clone = self.instance.clone(if_version=self.version, timeout=self.timeout)
            clone.server_identity = self.instance.server_identity
            clone.channel = self.instance.channel
            own = {part: values.known for part, values in self._both.items()}
            scratch = ScratchLink(clone, root, own)
        scratch.timeout = self.timeout
        return scratch, scratch.parameters()

    def mirrored(self, root: nn.Module) -> MirroredLink:
        """Bring everything here, as plain tensors; give what connects them then."""
        mirror = MirroredLink(self.instance, root)
        mirror.timeout = self.timeout
        mirror.resume(self._end())
        return mirror

    def _end(self) -> Version:
        with self._lock, self._advised:
            self.settle()
            self._grads.end()
            for values in self._both.values():
                values.end()
            self.hosting = False
            return self.version


Link = Union[HostedLink, MirroredLink]
"""Connects the tensors of a module tree with an instance: the one way, or the other."""


_warned: weakref.WeakSet[Any] = weakref.WeakSet()


@functools.cache
def _warn_of_local_steps() -> None:
    """Warn once of each optimizer of torch that steps what the server could step."""
    register_optimizer_step_pre_hook(warn_of_local_step)


def warn_of_local_step(optimizer: Any, _args: Any, _options: Any) -> None:
    """Warn if an optimizer of torch steps what the server could: a hook of its."""
    if optimizer in _warned:
        return
    parameters = itertools.chain(*(group["params"] for group in optimizer.param_groups))
    for link in {p.keeper for p in parameters if type(p) is LazyParameter}:
        if link.optimizer is not None and link.optimizer is not optimizer:
            _warned.add(optimizer)
            warnings.warn(
                f"{type(optimizer).__name__} of torch.optim steps the hosted network "
                f"{link.instance.name!r}, so that its gradients and parameters travel "
                "in each step; use an optimizer of backboned.optim, or call "
                "net.mirror()",
                stacklevel=4,
            )
            return
