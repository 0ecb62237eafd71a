"""The server in which a network lives: whether it is there, and still the same."""

from __future__ import annotations

from backboned.contract import read_server
from backboned.errors import BackbonedError
from backboned.transport.channel import RESTARTED, Channel
from backboned.transport.retries import Patience, forget_frames, is_absence
from backboned.transport.traffic import Meter
from backboned.types import ServerInfo

_ANSWER_S = 5.0

# Reasons of calls that find another server, in which the instance, its optimizer or a
# tape is not, or not as it was.
_STRANGE = {
    *("INSTANCE_NOT_FOUND", "STALE_VERSION", "TAPE_NOT_FOUND", "NO_OPTIMIZER"),
    RESTARTED,
}


class ServerIdentity:
    """The server that has an instance, as it was when it was last asked.

    Thread-safe.

    - `channel`: to that server. Its calls are not counted as the network's traffic.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel.metered(Meter())
        self.info = self.there()

    def ask(self, timeout: float | None = None) -> ServerInfo:
        """Ask what the server is now; `info` stays."""
        return read_server(self._channel.ask_server(timeout))

    def there(self) -> ServerInfo:
        """Ask what the server is, and wait for it if it does not answer."""
        try:
            return self.ask()
        except BackbonedError as error:
            forget_frames(error)
            absent = error.with_traceback(None)  # Which has this frame.
        return self.await_again(absent, Patience(self._channel.reconnect_timeout))

    def was_restarted(self, error: BackbonedError) -> bool:
        """Say whether a call failed since the server is not the one that it was."""
        if error.reason not in _STRANGE:
            return False
        try:
            return self._uid_now() != self.info.server_uid
        except BackbonedError:
            return False

    def _uid_now(self) -> str:
        """Ask a server that has just answered, perhaps on another connection."""
        try:
            return self.ask(_ANSWER_S).server_uid
        except BackbonedError as error:
            if not is_absence(error):
                raise
            forget_frames(error)
            absent = error.with_traceback(None)
        return self._channel.await_server(absent, Patience(_ANSWER_S)).server_uid

    def await_again(self, error: BackbonedError, patience: Patience) -> ServerInfo:
        """Wait until the server is there, after a call that failed for its absence.

        Raises BackbonedError: `error` if it says something else, or if the server stays
        away.
        """
        if error.was_waited_for:
            raise error
        if is_absence(error):
            return read_server(self._channel.await_server(error, patience))
        if self.was_restarted(error):
            return self.there()
        raise error
