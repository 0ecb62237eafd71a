"""The link between the tensors of a module tree and an instance in the server."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Callable

import torch
from torch import nn

from backboned import calls
from backboned.calls import ForwardOptions
from backboned.errors import NOTHING_CHANGED, BackbonedError, StaleVersion
from backboned.instance import Instance
from backboned.nn.advice import Advised
from backboned.nn.lazy import as_plain
from backboned.nn.watch import Tensors, as_array
from backboned.transport import forks, session
from backboned.transport.channel import Channel
from backboned.transport.messages import Prepared, Recallable, fresh_id
from backboned.types import Array, Forward, Version

_log = logging.getLogger("backboned")
_NAMES = 4


class Tape:
    """A forward that the server keeps for its backward, until `token` dies."""

    def __init__(self, tape_id: str, token: Array, channel: Channel) -> None:
        self.tape_id = tape_id
        self._token = weakref.ref(token)
        self._channel = channel
        self._release = session.release_tape_with(token, channel, tape_id)

    @property
    def is_held(self) -> bool:
        """Say whether its backward may still come."""
        return self._release.alive

    def done(self) -> None:
        """Note that the server has used up the tape."""
        self._release.detach()

    def become(self, tape_id: str) -> None:
        """Stand for the tape of a forward that was run again."""
        self._release.detach()
        self.tape_id = tape_id
        token = self._token()
        if token is not None:
            self._release = session.release_tape_with(token, self._channel, tape_id)


def uses_buffers(options: ForwardOptions) -> bool:
    """Say whether a forward's numbers depend on the buffers: on running statistics."""
    return not options.get("training") or any(
        norm.training is False for norm in options.get("batch_norm", ())
    )


class LinkBase:
    """Connects the tensors of a module tree with an instance. Thread-safe.

    Forwards in evaluation mode may overlap. Random parts of a forward draw from
    PyTorch's generator, as they would here.

    - `version`: the state that the instance is expected to have. An unknown part is
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
    # Gives the parameters in flat order; brings the instance to the state here.
    parameters: Callable[[], list[Any]]
    settle: Callable[[], None]

    def __init__(
        self, instance: Instance, version: Version, hosted: bool = False
    ) -> None:
        self.instance = instance
        self.version = version
        self._lock = forks.rlock()
        self._advised = Advised(instance, hosted)

    def for_forward(self, _root: nn.Module) -> tuple[Any, list[Any]]:
        """Give a link for a forward, and the parameters that it has."""
        return self, self.parameters()

    def make_sure(self) -> None:
        """Take the answers to the steps that were not awaited."""

    def show_all(self) -> None:
        """Bring all values here."""

    def show_grads(self) -> None:
        """Bring all gradients here."""

    def hold(
        self, x: torch.Tensor, options: ForwardOptions, result: Forward, token: Array
    ) -> Tape:
        """Hold the tape of a forward of `x` until `token` dies."""
        return Tape(result.tape_id, token, self.instance.channel)

    @contextlib.contextmanager
    def _changing(self, *parts: str) -> Iterator[Version]:
        """Forget a version before a call that changes it, which notes the new one.

        So whatever ends the call, at whatever instant, nothing wrong is believed. If
        the server says that nothing changed, what was known is known again. Parts are
        ``"params"`` and ``"buffers"``. Yields what was known before.
        """
        known = self.version
        forgotten = self.version = known._replace(**dict.fromkeys(parts))
        try:
            yield known
        except BackbonedError as error:
            # Another one was learnt if the server was restarted meanwhile.
            if error.code in NOTHING_CHANGED and self.version == forgotten:
                again = {part: getattr(known, part) for part in parts}
                self.version = self.version._replace(**again)
            raise

    def _writing(
        self,
        part: str,
        tensors: Tensors,
        indices: Sequence[int],
        written: Callable[[], None],
    ) -> Iterator[Prepared[Version]]:
        """Push some parameters or buffers; `written` is called when they are there.

        Gives the call once it is prepared, and takes its answer when it is continued.
        """
        values = self._values(part, tensors, indices)
        with self._changing(part) as before:
            call = write(self.instance, part, values, self.timeout, before)
            yield call
            version = call.take()
            written()
            self._note(part, version)

    def _values(
        self, part: str, tensors: Tensors, indices: Sequence[int]
    ) -> dict[str, Array]:
        """Give some parameters or buffers that are pushed now, by name."""
        layout = self.instance.layout
        specs: Any = layout.parameters if part == "params" else layout.buffers
        with as_plain():
            values = {specs[i].name: as_array(tensors[i]) for i in indices}
        known = getattr(self.version, part)
        why = "it is not known what the server has" if known is None else "changed here"
        say("push", list(values), sum(v.nbytes for v in values.values()), why)
        return values

    def _note(self, part: str, version: Version) -> None:
        uid, params, buffers = self.version
        if part == "params":
            params = version.params
        else:
            buffers = version.buffers
        self.version = Version(uid, params, buffers)

    def _forward_beside_others(
        self,
        x: Array,
        options: ForwardOptions,
        recallable: Recallable | None = None,
    ) -> Forward:
        """Run a forward; again, with the lock, if another thread changed the network.

        `recallable` as in `calls.forward`. Raises StaleVersion if it was somebody else.
        """
        call = (self.timeout, recallable)
        try:
            return calls.forward(self.instance, x, options, *call)
        except StaleVersion:
            with self._lock:
                self.settle()
                if self.version == options["if_version"]:
                    raise
                again: ForwardOptions = {**options, "if_version": self.version}
                if options.get("request_id"):
                    again["request_id"] = fresh_id()
                return calls.forward(self.instance, x, again, *call)


def write(
    instance: Instance,
    part: str,
    values: dict[str, Array],
    timeout: float | None,
    find: Version,
    recallable: Recallable | None = None,
) -> Prepared[Version]:
    """Prepare to write ``"params"`` or ``"buffers"`` by name, of this version."""
    options: calls.WriteOptions = {"timeout": timeout}
    if recallable is not None:
        options["recallable"] = recallable
    if part == "params":
        every = len(values) == len(instance.layout.parameters)
        options["if_version"] = find._replace(buffers=None)
        selected = None if every else list(values)
        return calls.set_params(instance, [*values.values()], selected, **options)
    options["if_version"] = find._replace(params=None)
    return calls.set_buffers(instance, values, **options)


Write = Iterator[Prepared[Version]]
"""A push that gives its call, and takes the answer when it is continued."""


class Writes:
    """Pushes that were prepared. Not thread-safe."""

    def __init__(self) -> None:
        self._running: list[Write] = []
        self._calls: list[Prepared[Version]] = []

    def add(self, write: Write) -> None:
        """Prepare a push, which is made behind those before it."""
        self._calls.append(next(write))
        self._running.append(write)

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return bool(self._running)

    def behind(self, call: Prepared[Any]) -> None:
        """Send all, and a call which is made if they are; take the pushes' answers."""
        before: Prepared[Any] | None = None
        for each in (*self._calls, call):
            if not each.begin(before):
                break
            before = each
        self.take()

    def take(self) -> None:
        """Take the answers. Raises BackbonedError: the first one that failed."""
        for write in self._running:
            for _ in write:
                pass


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
