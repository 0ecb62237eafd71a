"""The changes that a hosted network asked its server for, in their order."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Sequence
from typing import Any, Callable

from backboned import calls
from backboned.calls import ForwardOptions
from backboned.errors import BackbonedError
from backboned.instance import Instance
from backboned.nn.link import Tape, uses_buffers
from backboned.transport.messages import fresh_id
from backboned.types import Array, Forward, InstanceInfo, Version

Counts = tuple[int, int]
"""Of the parameters, and of the buffers: versions, or how many changes there were."""

# The bytes of a change besides its tensors, roundly.
_OWN_BYTES = 1 << 10

# Of the room for changes, the part after which the server is asked what it has saved.
_PART = 4

_ages = itertools.count()

_OF_TAPES = ("tape", "input_grad", "grad_params", "no_param_grads")


class Record:
    """A forward that may have to be run again: for its tape, or for the buffers.

    - `x`: its input; None: it is not kept.
    - `moves`: whether it moves the buffers.
    - `before`: the changes that came before it.
    - `age`: higher than those of all forwards before it.
    - `tape_id`: of the tape that it had last.
    - `tape`: gives what stands for that tape; None: nothing does.
    - `lost`: why its tape is gone; empty: it is not.
    """

    before: Counts = (0, 0)
    tape_id = ""
    lost = ""

    def __init__(self, x: Array | None, options: ForwardOptions, moves: bool) -> None:
        self.x = x
        self.moves = moves
        self.age = next(_ages)
        self._options = options
        self.tape: Callable[[], Tape | None] = lambda: None

    @property
    def is_held(self) -> bool:
        """Say whether a backward may still come."""
        tape = self.tape()
        return tape is not None and tape.is_held

    def obstacle(self, now: Counts, has_buffers: bool) -> str:
        """Say why it cannot be run after so many changes; empty: it can."""
        if self.x is None:
            return 'its input was not kept, as net.on_rollback = "replay" does'
        if self.before[0] != now[0]:
            return "the parameters were changed since"
        if has_buffers and uses_buffers(self._options) and self.before[1] != now[1]:
            return "the BatchNorm statistics have moved on since"
        return ""

    def run(
        self,
        instance: Instance,
        find: Version,
        timeout: float | None,
        tape: bool = True,
        buffers: dict[str, Array] | None = None,
    ) -> Forward:
        """Run it again in this version.

        - `tape`: keep the tape, if it had one.
        - `buffers`: run with these, and leave the instance's.
        """
        assert self.x is not None
        left_out = () if tape else _OF_TAPES
        options: Any = {k: v for k, v in self._options.items() if k not in left_out}
        options.update(if_version=find, request_id=fresh_id())
        if buffers:
            options["buffers"] = buffers
        result = calls.forward(instance, self.x, options, timeout)
        self.tape_id = result.tape_id
        held = self.tape()
        if held is not None and result.tape_id:
            held.become(result.tape_id)
        return result


class Change:
    """Something that an instance was asked to change.

    - `make`: makes it in the version that it is given, and gives the answer; None: it
      is a `forward`.
    - `moves`: how far it moves the versions of parameters and buffers.
    - `gradients`: what it does to those in the server: nothing (empty), it ``"adds"``
      to them or ``"replaces"`` them all.
    - `size`: bytes that are kept for it.
    - `forward`: the forward that it is, if it is one.
    - `needs`: the forwards whose tapes it takes.
    - `uses_up`: whether these are gone then.
    - `is_chained`: whether it is not made if the one before it fails.
    - `if_lost`: gives the answer if it was made and its answer is lost. None: there is
      none.

    - `is_open`: whether it has neither answer nor error.
    - `before`: the changes that came before it; `after`: these, and it.
    - `numbers`: the versions in which servers have had the state that it leaves.
    """

    def __init__(
        self,
        make: Callable[[Version], Any] | None,
        moves: Counts = (0, 0),
        *,
        gradients: str = "",
        size: int = 0,
        forward: Record | None = None,
        needs: Sequence[Record] = (),
        uses_up: bool = True,
        is_chained: bool = False,
        if_lost: Callable[[Version], Any] | None = None,
    ) -> None:
        self.make = make or _not_so
        self.moves = moves
        self.gradients = gradients
        self.size = size + _OWN_BYTES
        self.forward = forward
        self.needs = needs
        self.uses_up = uses_up
        self.is_chained = is_chained
        self.if_lost = if_lost
        self.is_open = True
        self.before: Counts = (0, 0)
        self.after: Counts = moves
        self.numbers: list[Counts] = []
        self._answer: Any = None
        self._error: BackbonedError | None = None

    @property
    def failed(self) -> BackbonedError | None:
        """The error in place of an answer."""
        return self._error

    def answered(self, answer: Any) -> None:
        """Take the answer, if there is none yet."""
        if self.is_open:
            self.is_open, self._answer = False, answer

    def fail(self, error: BackbonedError) -> None:
        """Take the error in its place."""
        if self.is_open:
            self.is_open, self._error = False, error.with_traceback(None)

    def result(self) -> Any:
        """Give the answer. Raises BackbonedError: the one in its place."""
        if self._error is not None:
            raise self._error
        return self._answer


class Journal:
    """Changes of an instance in their order, since some state of it.

    It has those that are under way, and the newest of those that were made: as many as
    there is room for, and as the server has not saved. Each state has its place: the
    number of changes before it. Not thread-safe.

    - `room`: bytes for changes that were made; 0: none are kept.

    - `is_unsure`: whether nobody knows if the last change was made.
    """

    def __init__(self, instance: Instance) -> None:
        self.room = 0
        self.is_unsure = False
        self.changes: list[Change] = []
        self._instance = instance
        # Of the state before all changes its numbers, and how often the gradients had
        # changed since these did. None: not known.
        self._first: list[Counts] = []
        self._first_gradients: int | None = None
        self._before: Counts = (0, 0)
        self._size = 0
        self._checked = 0  # The size when the server was asked what it has saved.
        # By a reference that is taken out as the tape dies: each forward has one, and
        # a WeakKeyDictionary would run Python for it.
        self._tapes: dict[weakref.ref[Tape], Record] = {}

    @property
    def newest(self) -> Counts | None:
        """The version that there is when all changes are made; None: not known."""
        return next(iter(self.numbers_at(len(self.changes))[-1:]), None)

    @property
    def oldest(self) -> Counts | None:
        """The version from which on all changes are here; None: not known."""
        return next(iter(self._first[-1:]), None)

    def numbers_at(self, place: int) -> list[Counts]:
        """Give the numbers of a state, the newest last."""
        return self.changes[place - 1].numbers if place else self._first

    def moved_at(self, place: int) -> Counts:
        """Say how many changes there had been before a state."""
        return self.changes[place - 1].after if place else self._before

    def find(self, version: Version | None) -> int | None:
        """Give the first place of a version; None: it is not here."""
        number = None if version is None else number_of(version)
        for place in range(len(self.changes) + 1):
            if number is not None and number in self.numbers_at(place):
                return place
        return None

    def find_again(self, found: InstanceInfo) -> int | None:
        """Give the place of the state in which an instance came back."""
        place, rollback = self.find(found.version), found.rollback
        if place is None and rollback and found.version == rollback.raised:
            places = [self.find(version) for version in rollback.saved]
            place = next((place for place in places if place is not None), None)
        if place is None:
            return None
        before = 0 if place else self._first_gradients
        run = itertools.takewhile(lambda c: not any(c.moves), self.changes[place:])
        of_gradients = [i for i, c in enumerate(run, place + 1) if c.gradients]
        if before is None:  # Some of these may be in it, so they must not need others.
            first = self.changes[of_gradients[0] - 1] if of_gradients else None
            return None if first and first.gradients == "adds" else place
        count = found.gradient_changes - before
        if not 0 <= count <= len(of_gradients):
            return None
        return of_gradients[count - 1] if count else place

    def came_back(self, place: int, version: Version) -> None:
        """Note that a server has a state in another version from now on."""
        number = number_of(version)
        while number is not None:
            if number not in self.numbers_at(place):
                self.numbers_at(place).append(number)
            if not place or any(self.changes[place - 1].moves):
                return
            place -= 1

    # Changes that are asked for.

    def expect(self, version: Version) -> None:
        """Note the version of the instance, if nothing is under way.

        If no change led there, somebody else made one: those here are no use then.
        """
        if self.is_unsure:
            return
        for change in self.changes:  # Loops, since each step comes here.
            if change.is_open:
                return
        params, buffers = version.params, version.buffers
        known = self.changes[-1].numbers if self.changes else self._first
        for number in known if (params, buffers) != (None, None) else ():
            if params in (None, number[0]) and buffers in (None, number[1]):
                return
        self._begin(version)

    def _begin(self, version: Version) -> None:
        """Forget all changes; the instance is in this version, or in an unknown one."""
        number, rollback = number_of(version), self._instance.rollback
        self._before = self.moved_at(len(self.changes))
        self.changes, self._size, self._checked = [], 0, 0
        self._first = [] if number is None else [number]
        is_new = version == self._instance.made_of
        self._first_gradients = self._instance.gradient_changes if is_new else None
        if rollback is not None and version == rollback.raised:
            self._first[:0] = filter(None, map(number_of, rollback.saved))

    def add(self, change: Change, version: Version) -> None:
        """Note a change that is about to be asked for, in this version if known."""
        self.expect(version)
        moves, last = change.moves, self.changes[-1] if self.changes else None
        change.before = before = last.after if last else self._before
        change.after = before[0] + moves[0], before[1] + moves[1]
        if change.forward is not None:
            change.forward.before = before
        known = last.numbers if last else self._first
        if known:
            change.numbers = [(known[-1][0] + moves[0], known[-1][1] + moves[1])]
        self.changes.append(change)
        self._size += change.size

    def made(self, change: Change, answer: Any) -> None:
        """Note the answer to a change."""
        change.answered(answer)
        self.number(change, answer)
        self.shorten()

    def number(self, change: Change, answer: Any) -> Counts | None:
        """Note the version that a change left, if its answer tells it; give it."""
        if not isinstance(answer, Version):
            answer = getattr(answer, "version", None)
        number = number_of(answer) if isinstance(answer, Version) else None
        if number is not None:
            change.numbers[-1:] = [number]
        if number is not None and change in self.changes:
            for later in self.changes[self.changes.index(change) + 1 :]:
                number = moved(number, later.moves)
                later.numbers[-1:] = [number]
        return next(iter(change.numbers[-1:]), None)

    def drop(self, change: Change) -> None:
        """Forget a change that was not made, and those behind it."""
        if change in self.changes:
            self._cut(slice(self.changes.index(change), None))

    def remove(self, change: Change) -> None:
        """Forget a change that was not made."""
        if change in self.changes:
            at = self.changes.index(change)
            self._cut(slice(at, at + 1))

    def _cut(self, part: slice) -> None:
        for change in self.changes[part]:
            self._size -= change.size
        del self.changes[part]

    def doubt(self) -> None:
        """Note that nobody knows whether the last change was made."""
        self.is_unsure = True

    def reset(self) -> None:
        """Forget all changes; the version is not known."""
        self._begin(Version())

    def settle(self, found: Version) -> None:
        """Note the version of a server in which the work has come to its end."""
        place, self.is_unsure = self.find(found) or 0, False
        for change in self.changes[:place]:
            change.answered(None)
        self._cut(slice(place, None))
        self.expect(found)
        self.shorten()

    # Changes that are kept.

    def shorten(self) -> None:
        """Forget changes that were made: saved ones, and those without room."""
        if self.room and self._size - self._checked > self.room // _PART:
            with contextlib.suppress(BackbonedError):
                self._forget(self.find(self._instance.info().saved) or 0)
            self._checked = self._size
        while self.changes and not self.changes[0].is_open and self._size > self.room:
            self._forget(1)

    def _forget(self, count: int) -> None:
        """Forget the first changes."""
        for change in self.changes[:count]:
            self._before, self._first = change.after, change.numbers
            if any(change.moves):
                self._first_gradients = 0
            elif change.gradients and self._first_gradients is not None:
                self._first_gradients += 1
        self._cut(slice(count))

    # Tapes.

    def hold(self, tape: Tape, record: Record) -> None:
        """Note what stands for the tape of a forward."""
        record.tape_id = tape.tape_id
        record.tape = weakref.ref(tape, self._tapes.pop)
        self._tapes[record.tape] = record

    def record_of(self, tape: Tape) -> Record:
        """Give the forward of a tape."""
        record = self._tapes.get(weakref.ref(tape))
        if record is None:
            record = Record(None, {}, False)
            self.hold(tape, record)
        return record

    def held(self) -> list[Record]:
        """Give the forwards whose backwards may still come."""
        return [record for record in list(self._tapes.values()) if record.is_held]


def _not_so(_version: Version) -> None:
    raise AssertionError("a forward is run by its record")


def number_of(version: Version) -> Counts | None:
    """Give both numbers of a version; None if one of them is not known."""
    if version.params is None or version.buffers is None:
        return None
    return version.params, version.buffers


def moved(one: Counts, by: Counts) -> Counts:
    """Add two counts."""
    return one[0] + by[0], one[1] + by[1]
