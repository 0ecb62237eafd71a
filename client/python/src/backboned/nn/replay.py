"""Brings an instance that came back after a restart to where its network expects it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from backboned import calls
from backboned.errors import NOTHING_CHANGED, BackbonedError, ServerRestarted
from backboned.instance import Instance
from backboned.nn.advice import from_there
from backboned.nn.journal import Change, Counts, Journal, Record, moved, number_of
from backboned.server_identity import ServerIdentity
from backboned.transport import session
from backboned.types import Forward, InstanceInfo, Version

_log = logging.getLogger("backboned")

# The bits of a version that count within one life of a server.
_LIFE = 32


def tape_lost(why: str) -> ServerRestarted:
    """Make the error of a backward whose tape is gone."""
    return ServerRestarted(
        "the server was restarted between this forward and its backward, which took "
        f"the tape along, and the forward cannot be run again: {why}; the parameters "
        "are as they were, so begin the step anew",
        reason="TAPE_NOT_FOUND",
    )


class Replay:
    """Makes the changes of a journal again that a restarted server has lost.

    - `identity`: the server as it is now.
    - `timeout`: seconds for each call.
    """

    def __init__(
        self,
        journal: Journal,
        instance: Instance,
        identity: ServerIdentity,
        timeout: float | None,
    ) -> None:
        self._journal = journal
        self._instance = instance
        self._identity = identity
        self._timeout = timeout

    def run(self, found: InstanceInfo) -> Version:
        """Make again what is lost; give the version that there is then.

        A change under way gets its answer, or an error. `found` is the instance as it
        came back.

        Raises ServerRestarted if it is too much, or cannot be made again. Raises
        BackbonedError if the server fails; then begin anew.
        """
        journal = self._journal
        place = journal.find_again(found)
        if place is None:
            raise self._refusal(found)
        awaited = {c.forward for c in journal.changes if c.is_open and c.forward}
        last = journal.changes[-1] if journal.is_unsure and journal.changes else None
        if last is not None and last.is_open and place < len(journal.changes):
            journal.drop(last)  # Whoever asked for it got an error.
        journal.is_unsure = False
        journal.came_back(place, found.version)
        made, lost = journal.changes[:place], journal.changes[place:]
        wanted = self._wanted(lost)
        early = [record for record in wanted if not _has(lost, record)]
        early.sort(key=lambda record: record.age)  # A backward sums in this order.
        answers = self._run_early(early, journal.moved_at(place), found.version)
        for change in made:
            _close(change, answers, found.version)
        self._fail_without_tapes(found, lost)
        version = self._repeat(lost, wanted, found.version)
        self._release(wanted, lost, awaited)
        self._say(lost)
        journal.shorten()
        return version

    def _wanted(self, lost: Sequence[Change]) -> list[Record]:
        """List the forwards that must be run again with their tapes."""
        needed = [record for change in lost for record in change.needs]
        under_way = [
            change.forward
            for change in self._journal.changes
            if change.forward is not None and change.is_open
        ]
        return list(dict.fromkeys([*needed, *under_way, *self._journal.held()]))

    def _run_early(
        self, records: Sequence[Record], now: Counts, version: Version
    ) -> dict[Record, Forward]:
        """Run forwards again that came before the state that there is.

        One that cannot be run there is noted as lost.
        """
        answers, buffers = {}, None
        has_buffers = bool(self._instance.layout.buffers)
        for record in records:
            record.lost = record.obstacle(now, has_buffers)
            if record.lost:
                continue
            if record.moves and buffers is None:
                buffers, _ = calls.get_buffers(
                    self._instance, if_version=version, timeout=self._timeout
                )
            answers[record] = record.run(
                self._instance,
                version,
                self._timeout,
                buffers=buffers if record.moves else None,
            )
        return answers

    def _fail_without_tapes(self, found: InstanceInfo, lost: Sequence[Change]) -> None:
        """Let changes under way fail whose tapes are lost."""
        for change in lost:
            why = next((record.lost for record in change.needs if record.lost), "")
            if why and not all(each.is_open for each in lost):
                raise self._refusal(found, f"a forward cannot be run again: {why}")
            if why:
                change.fail(tape_lost(why))

    def _repeat(
        self, lost: Sequence[Change], wanted: Sequence[Record], version: Version
    ) -> Version:
        """Make changes again, each in the version that the one before it left."""
        failed: BackbonedError | None = None
        for change in lost:
            if failed is not None and change.is_chained:
                # A step that finds no gradients is no step.
                if change.forward is None or failed.reason != "NO_GRADIENTS":
                    change.fail(failed)
            if change.failed is not None:
                failed = change.failed
                self._journal.remove(change)
                continue
            record = change.forward
            is_wanted = record is not None and record in wanted
            if record is not None and not is_wanted and not record.moves:
                continue
            number = number_of(version)
            if number is not None:
                change.numbers.append(moved(number, change.moves))
            try:
                if record is None:
                    answer = change.make(version)
                else:
                    call = (self._instance, version, self._timeout)
                    answer = record.run(*call, tape=is_wanted)
            except BackbonedError as error:
                change.numbers.pop()
                refused = change.is_open and error.code in NOTHING_CHANGED
                if not refused or self._identity.was_restarted(error):
                    raise
                change.fail(error)
                failed = error
                self._journal.remove(change)
                continue
            number = self._journal.number(change, answer)
            change.answered(answer)
            assert number is not None
            version = Version(version.uid, *number)
        return version

    def _release(
        self, wanted: Sequence[Record], lost: Sequence[Change], awaited: set[Record]
    ) -> None:
        """Give up tapes that are neither held, nor about to be, nor used up."""
        used = {r for change in lost if change.uses_up for r in change.needs}
        left = [
            record.tape_id
            for record in wanted
            if record.tape_id and not record.lost
            if not record.is_held and record not in used and record not in awaited
        ]
        session.put_back_tapes(self._instance.channel, left)

    def _say(self, lost: Sequence[Change]) -> None:
        if lost:
            _log.warning(
                "the server at %s was restarted; %s goes on, after %d changes were "
                "made again, %d of them of its parameters",
                *(self._instance.channel.target, self._instance.address, len(lost)),
                sum(change.moves[0] for change in lost),
            )

    def _refusal(self, found: InstanceInfo, why: str = "") -> ServerRestarted:
        """Make the error that says what is lost, and what to do."""
        instance, journal, rollback = self._instance, self._journal, found.rollback
        now, newest, oldest = found.version.params or 0, journal.newest, journal.oldest
        saved = now
        if rollback is not None and found.version == rollback.raised:
            before = [version.params or 0 for version in rollback.saved]
            mine = [p for p in before if newest and p >> _LIFE == newest[0] >> _LIFE]
            saved = [*before, *mine][-1]
        text = (
            f"the server at {instance.channel.target} was restarted, and "
            f"{instance.name!r} came back as it was saved last, at version {now} of "
            "its parameters"
        )
        if saved != now:
            text += f", which was {saved} before"
        if newest is not None:
            text += f"; this network had {newest[0]}"
            if newest[0] > saved and newest[0] >> _LIFE == saved >> _LIFE:
                text += f", so {newest[0] - saved} steps or writes are lost"
        if why:
            text += f". They cannot be made again: {why}"
        elif journal.room and oldest is not None:
            text += (
                f". They cannot be made again: this process has those since {oldest[0]}"
                ", for which net.replay_bytes makes room; raise it, or let the server "
                "save more often (--save-interval, --save-versions)"
            )
        elif not journal.room:
            text += '; with net.on_rollback = "replay" what is lost would be made again'
        return ServerRestarted(f"{text}. To go on, {from_there(instance)}")


def _has(changes: Sequence[Change], record: Record) -> bool:
    return any(change.forward is record for change in changes)


def _close(change: Change, answers: dict[Record, Forward], version: Version) -> None:
    """Give a change that was made, and whose answer is lost, an answer or an error."""
    if change.forward is not None and change.forward in answers:
        change.answered(answers[change.forward])
    elif change.if_lost is not None:
        change.answered(change.if_lost(version))
    else:
        change.fail(
            ServerRestarted(
                "the server was restarted. It had done this, but what it answered is "
                "lost; the network is as it is after this call, so go on with the next"
            )
        )
