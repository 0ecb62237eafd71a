"""One run of Mammoth: its settings, its server, and what it did there."""

from __future__ import annotations

import atexit
import collections
import os
import sys
import threading
import warnings
import weakref
from typing import Any

import torch
from backboned.errors import BackbonedError, FailedPrecondition, InvalidArgument
from backboned.instance import Instance
from backboned.nn import numerics
from backboned.server import Server, connect, local_server

SERVER = "BACKBONED_SERVER"
REQUIRE_REMOTE = "BACKBONED_REQUIRE_REMOTE"
MODE = "BACKBONED_MODE"
ON_ROLLBACK = "BACKBONED_ON_ROLLBACK"

MODES = ("mirrored", "hosted", "auto")
ROLLBACKS = ("raise", "replay")

_YES = {"1", "true", "yes", "on"}
_NO = {"", "0", "false", "no", "off"}
# A server of one's own has one client, which may compute for long on its own.
_EMBEDDED = ("--session-ttl=24h", "--tape-ttl=24h")


class RanHere(FailedPrecondition):
    """A forward ran here, although all of them must run in the server."""


class SeamError(FailedPrecondition):
    """The Mammoth that is here lacks what the drop-in takes hold of; says what."""


class Run:
    """The things that this process does with a server. Thread-safe.

    - `counts`: how many ``networks`` were put in the server's care, ``instances`` made
      and ``forwards`` run there, and how many ``forwards here``.
    - `hosted`: counterparts of networks whose parameters were given into the server's
      care.
    - `lasting`: named instances, which end with the run.
    """

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.hosted: weakref.WeakSet[Any] = weakref.WeakSet()
        self.lasting: list[Instance] = []
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._said: set[str] = set()
        self._pid = os.getpid()

    @property
    def server(self) -> Server:
        """The server that `BACKBONED_SERVER` names, else one of one's own.

        It is connected to, or started, when it is first asked for: the embedded one
        gets as many threads as torch has then.
        """
        with self._lock:
            if self._server is None:
                target, threads = os.environ.get(SERVER), torch.get_num_threads()
                self._server = (
                    connect(target)
                    if target
                    else local_server(threads=threads, options=_EMBEDDED)
                )
                self._pid = os.getpid()
                atexit.register(self.report)
                self._compare_numerics(self._server)
            return self._server

    def close(self) -> None:
        """End the connection, and the server if it is one's own. Idempotent."""
        with self._lock:
            server, self._server = self._server, None
        atexit.unregister(self.report)
        if server is not None:
            server.close()

    def _compare_numerics(self, server: Server) -> None:
        """Warn of what makes bits differ from those of a local run."""
        info = server.info()
        device = next((d.name for d in info.devices if d.default), "cpu")
        for difference in numerics.differences(info, device):
            self.warn(
                "results may differ in the last bits from those of a local run: "
                f"{difference}"
            )

    def warn(self, message: str) -> None:
        """Warn once."""
        if message not in self._said:
            self._said.add(message)
            warnings.warn(f"backboned: {message}", RuntimeWarning, stacklevel=3)

    def runs_here(self, who: str, why: str) -> None:
        """Warn once that something computes in this process.

        Raises RanHere if `BACKBONED_REQUIRE_REMOTE` is set, and InvalidArgument if it
        is neither yes nor no.
        """
        required = os.environ.get(REQUIRE_REMOTE, "").lower()
        if required not in _YES | _NO:
            raise InvalidArgument(f"{REQUIRE_REMOTE} is {required!r}; it is 1 or 0")
        if required in _YES:
            raise RanHere(f"{who} cannot run in the server: {why}")
        self.warn(f"{who} runs here and not in the server: {why}")

    def report(self) -> None:
        """Say in one line on standard error what the run did.

        First what is only in the server is brought here, for whoever looks later.
        """
        if os.getpid() != self._pid or self._server is None:
            return
        summary = self.summary()
        try:
            for counterpart in list(self.hosted):
                counterpart.mirror()
            while self.lasting:
                self.lasting.pop().delete()
        except BackbonedError as error:
            summary += f"; what was in the server is lost: {error}"
        print(summary, file=sys.stderr, flush=True)

    def summary(self) -> str:
        """Give that line."""
        server, counts = self.server, self.counts
        where = server.target if server.process is None else "a server of its own"
        mode = "hosted" if counts["hosted"] else "mirrored"
        line = f"backboned: {counts['forwards']} forwards in {where}, {mode}"
        here = counts["forwards here"]
        ran_here = f"; {here} forwards ran here" if here else ""
        return f"{line}: {server.channel.meter.read()}{ran_here}"


def mode() -> str:
    """Read how networks are to work: one of `MODES`.

    Raises InvalidArgument if it is none of them.
    """
    return _chosen(MODE, MODES, "auto")


def on_rollback() -> str:
    """Read what to do if a restart of the server loses steps: one of `ROLLBACKS`.

    Raises InvalidArgument if it is none of them.
    """
    return _chosen(ON_ROLLBACK, ROLLBACKS, "raise")


def _chosen(variable: str, words: tuple[str, ...], unless_set: str) -> str:
    value = os.environ.get(variable) or unless_set
    if value not in words:
        raise InvalidArgument(
            f"{variable} is {value!r}; it is one of {', '.join(words)}"
        )
    return value


RUN = Run()
"""This process's run."""
