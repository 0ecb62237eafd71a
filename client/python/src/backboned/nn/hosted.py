"""Connects a module tree with an instance whose tensors are in the server."""

from __future__ import annotations

import functools
import itertools
import warnings
import weakref
from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any, Callable, TypeVar, Union

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from backboned import calls
from backboned.calls import BackwardOptions, Behind, ForwardOptions, moves_buffers
from backboned.errors import (
    NOTHING_CHANGED,
    BackbonedError,
    ServerRestarted,
    StaleVersion,
    verbs,
)
from backboned.instance import Instance
from backboned.nn.gradients import Gradients
from backboned.nn.journal import Change, Journal, Record
from backboned.nn.lazy import LazyParameter
from backboned.nn.link import (
    LinkBase,
    Tape,
    rng_state,
    say,
    set_rng_state,
    write,
)
from backboned.nn.mirrored import MirroredLink, ScratchLink
from backboned.nn.pending_calls import (
    PendingBackward,
    PendingCalls,
    SentCall,
    StepsInFlight,
)
from backboned.nn.refs import Weak, weakly
from backboned.nn.replay import Replay, tape_lost
from backboned.nn.values import Values
from backboned.nn.watch import as_tensor, slots_of
from backboned.server_identity import ServerIdentity
from backboned.steps import StepInFlight
from backboned.transport.channel import RESTARTED
from backboned.transport.messages import Prepared, Recall, fresh_id
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

T = TypeVar("T")


class _Answered(Exception):  # noqa: N818
    """A call got its answer while those before it were waited for."""


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
        self._journal = Journal(instance)
        # Forwards whose tapes nobody holds yet, by these.
        self._records: dict[str, Record] = {}
        self._in_flight = StepsInFlight(
            weakly(self._train_step_made), weakly(self._lost_step)
        )
        self._pending = PendingCalls(
            instance,
            weakly(self._stepped),
            weakly(self._lost_step),
            self._in_flight,
            self._journal,
            weakly(self._version_now),
            weakly(self._came_back),
        )
        self.timeout = mirror.timeout if mirror else None
        slots = slots_of(root, instance.layout, getattr(torch, instance.dtype))
        known = mirror.watches if mirror else {}
        fetch = weakly(self._get_params)
        self._params = Values(slots["params"], self, fetch, known.get("params"))
        self._grads = Gradients(
            instance,
            self._params,
            self._pending,
            weakly(self._read_sure),
            weakly(self._change_gradients),
        )
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

    # Restarts of the server.

    @property
    def replay_bytes(self) -> int:
        """The bytes of changes that are kept, to be made again; 0: none are."""
        return self._journal.room

    @replay_bytes.setter
    def replay_bytes(self, value: int) -> None:
        with self._lock:
            self._journal.room = value
            self._journal.shorten()

    def _version_now(self) -> Version:
        return self.version

    def _came_back(self, error: BackbonedError) -> bool:
        """Say whether a call failed by a restart after which all is as expected.

        Then all that the server lost was made again, and changes under way have their
        answers. The call that failed may be made again if it is no change.

        Raises ServerRestarted if it cannot be as expected.
        """
        if not self.instance.server_identity.was_restarted(error):
            return False
        return self._bring_back()

    def _bring_back(self) -> bool:
        """Let a server that was restarted have what is expected of it, if it can."""
        self._journal.expect(self.version)
        while True:
            identity = ServerIdentity(self.instance.channel)
            replay = Replay(self._journal, self.instance, identity, self.timeout)
            try:
                found = self.instance.info(timeout=self.timeout)
                if found.version.uid != self.instance.uid:
                    return False
                self.version = replay.run(found)
            except BackbonedError as error:
                if identity.was_restarted(error):
                    continue
                if error.reason == "INSTANCE_NOT_FOUND":
                    return False
                raise
            self.instance.server_identity = identity
            return True

    def _read(self, call: Callable[[], T]) -> T:
        """Make a call that changes nothing."""
        while True:
            try:
                return call()
            except BackbonedError as error:
                if not self._came_back(error):
                    raise

    def _read_sure(self, call: Callable[[], T]) -> T:
        """Make a call that names no version; again if it saw what was rolled back."""
        while True:
            result = self._read(call)
            if self.instance.version == self.version or not self._was_restarted():
                return result
            if not self._bring_back():
                return result

    def _was_restarted(self) -> bool:
        """Ask whether the server is another one than it was."""
        identity = self.instance.server_identity
        return identity.ask(self.timeout).server_uid != identity.info.server_uid

    def _make(
        self, change: Change, call: Callable[[], T], version: Version | None = None
    ) -> T:
        """Make a change, the first time by `call`; give its answer.

        `version` is the one that it is made in, unless that is what is known now.
        """
        journal = self._journal
        journal.add(change, version or self.version)
        try:
            journal.made(change, call())
        except _Answered:
            pass
        except BackbonedError as error:
            if change.failed is not None:
                raise
            self._take_back(change, error)
        except BaseException:
            journal.doubt()
            raise
        answer: T = change.result()
        return answer

    def _take_back(self, change: Change, error: BackbonedError) -> None:
        """Forget a change that failed, unless a restart of the server brought it."""
        try:
            if change.is_open:
                self._came_back(error)
        except BaseException:
            self._journal.doubt()
            raise
        if change.is_open and error.code in NOTHING_CHANGED:
            self._journal.drop(change)
            raise error
        if change.is_open:
            self._journal.doubt()
            raise error

    def _make_sure(self) -> None:
        """Let all that was sent come to its end, and find out what came of it."""
        self._pending.make_sure()
        if not self._journal.is_unsure:
            return
        if self._was_restarted():
            if not self._bring_back():
                raise ServerRestarted(
                    f"the server at {self.instance.channel.target} was restarted",
                    reason=RESTARTED,
                )
            return
        self.version = self.instance.info(timeout=self.timeout).version
        self._journal.settle(self.version)

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
            flat, version = self._read(
                lambda: calls.get_params(
                    self.instance,
                    None if len(names) == len(every) else names,
                    if_version=self.version._replace(buffers=None),
                    timeout=self.timeout,
                )
            )
        say("fetch", names, flat.nbytes, "read here after the server changed them")
        self._note("params", version)
        return torch.split(as_tensor(flat), [spec.size for spec in specs])

    def _get_buffers(self, indices: Sequence[int]) -> Sequence[torch.Tensor]:
        every = self.instance.layout.buffers
        names = [every[i].name for i in indices]
        with self._advised:
            values, version = self._read(
                lambda: calls.get_buffers(
                    self.instance,
                    None if len(names) == len(every) else names,
                    if_version=self.version._replace(params=None),
                    timeout=self.timeout,
                )
            )
        self._note("buffers", version)
        return [as_tensor(values[name]) for name in names]

    def settle(self) -> None:
        """Send the backwards that wait, and push what was written here."""
        with self._lock, self._advised:
            self._settle()

    def _settle(self) -> None:
        self._pending.make_sure()
        if self._journal.is_unsure:
            self._make_sure()
        self._pending.send_queue()
        self._push_changes()

    def _push_changes(self, adopt: bool = True) -> None:
        for part, values in self._both.items():
            if getattr(self.version, part) is None:
                values.doubt()
            changed = values.changed(adopt)
            if changed:
                self._push_some(part, changed)

    def _push_some(self, part: str, indices: Sequence[int]) -> None:
        """Push some parameters, or buffers."""
        values = self._values(part, self._both[part].known, indices)
        if self.replay_bytes:
            values = {name: array.copy() for name, array in values.items()}
        what = (self.instance, part, values, self.timeout)
        change = Change(
            lambda find: write(*what, find).take(),
            (1, 0) if part == "params" else (0, 1),
            size=sum(array.nbytes for array in values.values()),
            if_lost=lambda version: version,
        )
        known = self.version
        with self._changing(part) as before, self._pending.asking() as again:
            first = (*what, before, again)
            version = self._make(change, lambda: write(*first).take(), known)
            self._both[part].pushed(indices)
            self._note(part, version)

    def push(self) -> None:
        """Write what was written here, also over what somebody else wrote."""
        with self._lock, self._advised:
            self._make_sure()
            self.version = Version(self.instance.uid)
            self._journal.reset()
            self.settle()

    def pull(self) -> None:
        """Take whatever state the server has; what was written here is lost."""
        with self._lock, self._advised:
            self._make_sure()
            self.version = Version(self.instance.uid)
            self._journal.reset()
            for values in self._both.values():
                values.drop()

    def info(self) -> InstanceInfo:
        """Settle, and describe the instance, with its digest."""
        with self._lock, self._advised:
            self.settle()

            def ask() -> InstanceInfo:
                found = self.instance.info(digest=True, timeout=self.timeout)
                self.instance.version = found.version
                return found

            return self._read_sure(ask)

    def save(self, name: str, keep: int) -> Checkpoint:
        """Settle, and save parameters, buffers, gradients and optimizer."""
        with self._lock, self._advised:
            self.settle()
            asked = self.version
            try:
                return self._save(name, keep)
            except BackbonedError as error:
                if not self._came_back(error):
                    raise
            for checkpoint in self.instance.checkpoints(self.timeout):
                if (checkpoint.name, checkpoint.instance.version) == (name, asked):
                    return checkpoint  # It was made; its answer was lost.
            return self._save(name, keep)

    def _save(self, name: str, keep: int) -> Checkpoint:
        return self.instance.save(
            name, keep=keep, timeout=self.timeout, if_version=self.version
        )

    def copy_instance(self) -> Instance:
        """Make a clone, which costs nothing before one of the two is written."""
        with self._lock, self._advised:
            self.settle()
            return self._read(
                lambda: self.instance.clone(
                    timeout=self.timeout, if_version=self.version
                )
            )

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
            self._make_sure()
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
            keeps = self._journal.room > 0
            # One that may be lost is sent when it is known what it follows.
            steps = self._follows() if self._pending.sent and not keeps else 0
            behind: Behind | None = self._pending.behind if steps else None
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
            alone = moves or behind or (keeps and options.get("tape"))
            record = Record(x.copy() if keeps and alone else x, options, moves)
            if alone:
                asking = self._pending.asking(generator)
                parts = ["buffers"] if moves else []
                if moves:
                    self._buffers.moved()
                change = Change(
                    None,
                    (0, int(moves)),
                    size=x.nbytes,
                    forward=record,
                    is_chained=behind is not None,
                )
                behind = behind and self._unless_answered(change)
                before = self.version
                try:
                    with self._changing(*parts), asking as again:
                        call = (self.timeout, again, behind)
                        result = self._make(
                            change,
                            lambda: calls.forward(self.instance, x, options, *call),
                            before,
                        )
                        if moves:
                            self._note("buffers", result.version)
                except StaleVersion:
                    # A step that finds no gradients leaves no version.
                    if self.version.params == expected.params:
                        raise
                    return self.forward(x, given)
        if not alone:
            asking = self._pending.asking(generator, beside=True)
            with self._advised:
                try:
                    with asking as again:
                        result = self._forward_beside_others(x, options, again)
                except BackbonedError as error:
                    with self._lock:
                        if not self._came_back(error):
                            raise
                    return self.forward(x, given)
        if options.get("tape"):
            self._records[result.tape_id] = record
        if not (keeps and alone):
            record.x = None
        if draws:
            set_rng_state(result.rng_state)
        return result

    def _unless_answered(self, change: Change) -> Behind:
        """Send a call behind those before it, unless they brought its answer along."""

        def behind(call: Prepared[Any]) -> None:
            self._pending.behind(call)
            if not change.is_open:
                raise _Answered

        return behind

    def hold(
        self, x: torch.Tensor, options: ForwardOptions, result: Forward, token: Array
    ) -> Tape:
        """Hold the tape of a forward."""
        tape = super().hold(x, options, result, token)
        self._journal.hold(tape, self._records.pop(result.tape_id))
        return tape

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
            self._check_tape(item.tape)
            self._grads.hand_over()
            self._pending.add(item)

    def backward_now(self, item: PendingBackward) -> Array:
        """Run the backward of a tape; give its input's gradient."""
        with self._lock, self._advised:
            self._check_tape(item.tape)
            self._grads.hand_over()
            return self._pending.send_now(item)

    def _check_tape(self, tape: Tape) -> None:
        """Raise ServerRestarted if a restart of the server took the tape."""
        why = self._journal.record_of(tape).lost
        if why:
            raise tape_lost(why)

    def backward(
        self, tape: Tape, gradients: dict[str, Array], options: BackwardOptions
    ) -> Backward:
        """Run the backward of a tape whose gradients come here."""
        with self._lock, self._advised:
            self._pending.flush()  # The tape may wait already.
        while True:
            with self._lock:
                self._check_tape(tape)
            tapes = {tape.tape_id: gradients}
            call = (self.instance, tapes, options, self.timeout)
            with self._advised:
                try:
                    return calls.backward(*call).take()
                except BackbonedError as error:
                    with self._lock:
                        if not self._came_back(error):
                            raise

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
            self._make_sure()
            self._push_changes(adopt=False)  # The optimizer has looked at them.
            self._grads.settle()
            if not self._pending.has_gradients:
                return None
            self._params.moved()
            return self._pending.step(options, covers_all, number)

    def thaw(self) -> None:
        """Let the server step the parameters that are frozen there."""
        with self._lock, self._advised:
            self._make_sure()
            thaw = functools.partial(self.instance.update, frozen=False)
            self._change_whole(functools.partial(thaw, timeout=self.timeout))

    def optimizer_state(self) -> OptimizerState:
        """Get the instance's optimizer and what it remembers."""
        with self._lock, self._advised:
            self._make_sure()
            return self._read(
                lambda: self.instance.get_optimizer_state(
                    timeout=self.timeout,
                    if_version=self.version._replace(buffers=None),
                )
            )

    def set_optimizer(self, optimizer: Optimizer, tensors: dict[str, Array]) -> None:
        """Give the instance an optimizer with what it remembers; empty: nothing."""
        with self._lock, self._advised:
            self._make_sure()
            if tensors and self.replay_bytes:
                tensors = {name: array.copy() for name, array in tensors.items()}
            call: Callable[..., Any]
            if tensors:
                put = self.instance.set_optimizer_state
                call = functools.partial(put, optimizer, tensors)
            else:
                configure = self.instance.configure_optimizer
                call = functools.partial(configure, optimizer.kind, optimizer.groups)
            size = sum(array.nbytes for array in tensors.values())
            self._change_whole(functools.partial(call, timeout=self.timeout), size)

    def _change_whole(self, call: Callable[[], Any], size: int = 0) -> None:
        """Make a change that leaves the same, whatever there was before."""
        ignored: Any = None
        change = Change(lambda _: call(), size=size, if_lost=lambda _: ignored)
        self._make(change, call)

    def _change_gradients(
        self, call: Callable[[], Any], replaces: bool, size: int
    ) -> None:
        """Change gradients in the server: all of them, or some."""
        gradients = "replaces" if replaces else "adds"
        change = Change(
            lambda _: call(), gradients=gradients, size=size, if_lost=lambda _: None
        )
        self._make(change, call)

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

    def train_step(self, run: Callable[..., TrainStep], size: int) -> TrainStep:
        """Make a training step.

        `run` makes the call, given `if_version`, `rng_state` and `recallable`, with so
        many bytes.
        """
        draws = self.instance.layout.stochastic
        with self._lock, self._advised:
            self._settle()
            self._grads.keep_promises()
            generator = rng_state() if draws else b""
            self._all_moved()
            change = Change(
                lambda find: run(if_version=find, rng_state=generator),
                (1, int(bool(self.instance.layout.buffers))),
                gradients="replaces",
                size=size,
            )
            changing = self._changing("params", "buffers")
            with changing as known, self._pending.asking(generator) as again:
                given = {"rng_state": generator, "recallable": again}
                first = functools.partial(run, if_version=known, **given)
                result = self._make(change, first, known)
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
        self._journal.reset()
        if step is not None:
            self._journal.doubt()
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
            clone = self._read(
                lambda: self.instance.clone(
                    if_version=self.version, timeout=self.timeout
                )
            )
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
