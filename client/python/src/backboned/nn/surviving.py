"""Calls of a mirrored network that go on when its server is there again."""

from __future__ import annotations

import itertools
import logging
import threading
from typing import Any, Callable, TypeVar

from backboned.backoff import Patience
from backboned.describe import ServerInfo
from backboned.errors import BackbonedError
from backboned.home import Home
from backboned.instance import Instance

_log = logging.getLogger("backboned")

T = TypeVar("T")


class Surviving:
    """The side of a `Link` that outlives its server. Thread-safe."""

    instance: Instance
    home: Home
    _lock: threading.RLock

    def _versions_here(self) -> tuple[set[Any], set[Any]]:
        """List the versions with the parameters, and the buffers, of the mirror."""
        raise NotImplementedError

    def _move_in(self, info: ServerInfo, versions: tuple[set[Any], set[Any]]) -> None:
        """Make the instance again in a server, and push the mirror."""
        raise NotImplementedError

    def surviving(self, call: Callable[[], T]) -> T:
        """Make a call; if the server went away, make it again when it is back.

        So it is if the server has forgotten an unnamed instance, since it did not hear
        of this process for the life of a session.

        Raises
        ------
        BackbonedError
            What the call raises otherwise, or if the server stays away.
        """
        patience = Patience(self.instance.channel.reconnect_timeout)
        while True:
            uid = self.instance.uid
            try:
                return call()
            except BackbonedError as error:
                self._revive(uid, error, patience)

    def _revive(self, uid: str, error: BackbonedError, patience: Patience) -> None:
        """Wait for the server; if the instance is not in it any more, move into it.

        Does nothing if another thread did so since the instance had this uid.
        """
        with self._lock:
            if self.instance.uid != uid:
                return
            before, versions = self.home.info, self._versions_here()
            forgotten = self._is_forgotten(error)
            for attempt in itertools.count():
                if forgotten and not attempt:
                    info = self.home.there()
                else:
                    info = self.home.await_again(error, patience)
                same = info.server_uid == before.server_uid
                if same and not attempt and not forgotten:
                    return
                try:
                    self._move_in(info, versions)
                    break
                except BackbonedError as another:
                    error = another
        _log.warning(
            "the server at %s %s; %s goes on from what this process has",
            self.instance.channel.target,
            "had forgotten the network: it heard nothing from this process for "
            f"{info.limits['session_ttl']:g} s"
            if same
            else f"was restarted{_differences(before, info)}",
            self.instance.address,
        )

    def _is_forgotten(self, error: BackbonedError) -> bool:
        """Whether the instance died with a session, and nobody deleted it."""
        mine = self.instance.ephemeral and self.instance.made_here
        gone = error.reason == "INSTANCE_NOT_FOUND"
        return gone and mine and not self.instance.deleted


def _differences(before: ServerInfo, now: ServerInfo) -> str:
    """Say what bits depend on and is otherwise than before."""
    pairs = {
        "threads": (before.threads, now.threads),
        "LibTorch": (before.torch_version, now.torch_version),
        "version": (before.version, now.version),
    }
    parts = [f"{name} {a} -> {b}" for name, (a, b) in pairs.items() if a != b]
    return f" with {', '.join(parts)}, so bits may differ" if parts else ""
