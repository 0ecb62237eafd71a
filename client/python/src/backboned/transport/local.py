"""Finds the server's program, and runs it on a private Unix socket."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backboned.errors import ServerStartError

VARIABLE = "BACKBONED_BIN"
_NAME = "backboned"
_BUILDS = ("build/release", "build/dev")
_MARK = "proto/backboned/v1/backbone_service.proto"


def find_binary(binary: str | Path | None = None) -> Path:
    """Find the server's program.

    It is `binary`, else what the environment variable ``BACKBONED_BIN`` names, else
    the ``backboned`` that the package backboned-server put beside this Python, which
    computes with the same torch, else ``backboned`` on the PATH, else what is built in
    the checkout that this package lies in: ``build/release``, then ``build/dev``.

    Raises ServerStartError if there is none; says where it looked.
    """
    if binary is not None:
        return _demand(Path(binary), "binary")
    named = os.environ.get(VARIABLE)
    if named:
        return _demand(Path(named), VARIABLE)
    installed = Path(sysconfig.get_path("scripts")) / _NAME
    if _is_program(installed):
        return installed
    on_path = shutil.which(_NAME)
    if on_path:
        return Path(on_path)
    candidates = _in_checkout()
    for candidate in candidates:
        if _is_program(candidate):
            return candidate
    tried = "".join(f", {candidate}" for candidate in candidates)
    raise ServerStartError(
        f"the server's program is not found; looked at {VARIABLE} (not set), "
        f"{installed}, the PATH{tried}. Install it with scripts/install, build it "
        f"with scripts/build, or set {VARIABLE}"
    )


def _demand(path: Path, origin: str) -> Path:
    if not _is_program(path):
        raise ServerStartError(f"{origin} is {path}, which is not a program")
    return path


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _in_checkout() -> list[Path]:
    root = find_checkout()
    return [] if root is None else [root / build / _NAME for build in _BUILDS]


def find_checkout() -> Path | None:
    """Find the checkout that this package is in, if it is in one."""
    for folder in Path(__file__).resolve().parents:
        if (folder / _MARK).is_file():
            return folder
    return None


_PREFIX = "backboned-local-"
_SOCKET = "server.sock"
_ABANDONED_AFTER_S = 3600.0
_LOG_LINES = 20
_GRACE_S = 10.0
_MAX_SOCKET_PATH = 100

# The only user of a server may use all of it, and be silent for long.
_ALONE = {
    "BACKBONED_SESSION_QUOTA": "1",
    "BACKBONED_SESSION_TTL": "24h",
    "BACKBONED_TAPE_TTL": "24h",
}


class ServerProcess:
    """A running server.

    It has a session of its own, so that Ctrl-C in the trainer does not reach it
    before the trainer is done with it. It ends with `stop`, at the interpreter's
    exit, and when this process dies. Its log has no name among the files, and goes
    with the two processes.

    - `arguments`: options besides ``--listen``.
    - `start_timeout`: seconds until it must serve.

    - `target`: ``unix:`` and the socket's path.
    - `banner`: the line that it printed when it began to serve.

    Raises ServerStartError if it ends, or does not serve in time; with the last lines
    of its log.
    """

    def __init__(
        self, binary: Path, arguments: Sequence[str] = (), start_timeout: float = 60.0
    ) -> None:
        self._owner_pid = os.getpid()
        self._folder = _private_folder()
        self.target = f"unix:{self._folder / _SOCKET}"
        self._log = tempfile.TemporaryFile()
        own = ["--listen", self.target, "--die-with-parent"]
        try:
            self._process = subprocess.Popen(
                [str(binary), *own, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,
                env={**_ALONE, **_environment()},
            )
        except OSError as error:
            self._log.close()
            self._folder.rmdir()
            raise ServerStartError(f"cannot start {binary}: {error}") from error
        atexit.register(self.stop)
        try:
            self.banner = self._await_banner(time.monotonic() + start_timeout)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def explain(self) -> str:
        """Say how the server ended and its last words; empty while it runs."""
        if os.getpid() != self._owner_pid:
            return ""
        try:
            # A connection breaks a moment before its process is gone.
            status = self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            return ""
        return f"the server {_ending(status)}{self._last_words()}"

    def stop(self) -> None:
        """End the server: SIGTERM, then SIGKILL after ten seconds. Idempotent."""
        if os.getpid() != self._owner_pid:
            return
        atexit.unregister(self.stop)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _await_banner(self, deadline: float) -> str:
        """Read the line that says that the server serves."""
        assert self._process.stdout is not None
        stdout = self._process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([stdout], [], [], left)[0]
            if not ready:
                raise ServerStartError(
                    f"the server does not serve in time{self._last_words()}"
                )
            piece = os.read(stdout, 4096)
            if not piece:
                status = self._process.wait()
                raise ServerStartError(
                    f"the server {_ending(status)} at its start{self._last_words()}"
                )
            line += piece
        return line.decode(errors="replace").strip()

    def _last_words(self) -> str:
        if self._log.closed:
            return ""
        log = self._log.fileno()
        # The server writes where the file's position is, which stays as it is.
        text = os.pread(log, os.fstat(log).st_size, 0).decode(errors="replace")
        words = "\n".join(text.splitlines()[-_LOG_LINES:])
        return f":\n{words}" if words else ""


def _environment() -> dict[str, str]:
    """Give the environment of a server, which knows no connection files."""
    return {k: v for k, v in os.environ.items() if k != "BACKBONED_CONNECTION"}


def options(
    instances: Sequence[str], threads: int | None, device: str | None, log_level: str
) -> list[str]:
    """Spell a server's options."""
    values: dict[str, Any] = {
        "--threads": threads,
        "--device": device,
        "--log-level": log_level,
    }
    spelled = [f"{name}={value}" for name, value in values.items() if value is not None]
    return spelled + [f"--instance={instance}" for instance in instances]


def _private_folder() -> Path:
    """Make a folder that only this user may enter, with a path short enough."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    if len(str(folder / _SOCKET)) > _MAX_SOCKET_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))
    _remove_abandoned(folder.parent)
    return folder


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of servers that ended after the processes that began them.

    A server removes its socket, and cannot know that the folder was for it alone. A
    folder that was empty for an hour is no server's that starts.
    """
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # Others', and those that are not empty.
            if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
                folder.rmdir()


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
