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
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

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


_SOCKET = "server.sock"
_LOG = "server.log"
_LOG_LINES = 20
_GRACE_S = 10.0
_MAX_SOCKET_PATH = 100

# The only user of a server may use all of it, and be silent for long.
_ALONE = {
    "BACKBONED_SESSION_QUOTA": "1",
    "BACKBONED_SESSION_TTL": "24h",
    "BACKBONED_TAPE_TTL": "24h",
}

# Ends the server and removes its folder when the pipe on its standard input closes
# without a line, which happens when this Python dies, however it does. (A parent-death
# signal would need code between fork and exec, and would follow a thread, not the
# process.)
_WATCH = 'read -r _ || { kill -TERM "$1"; rm -rf -- "$2"; }'


class ServerProcess:
    """A running server.

    It has a session of its own, so that Ctrl-C in the trainer does not reach it
    before the trainer is done with it. It ends with `stop`, at the interpreter's
    exit, and when this process dies.

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
        self._log_path = self._folder / _LOG
        self._watcher: subprocess.Popen[bytes] | None = None
        command = [str(binary), "--listen", self.target, *arguments]
        try:
            with open(self._log_path, "wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    env={**_ALONE, **_environment()},
                )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise ServerStartError(f"cannot start {binary}: {error}") from error
        atexit.register(self.stop)
        try:
            self._watcher = _watch(self._process.pid, self._folder)
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
        self._dismiss_watcher()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _dismiss_watcher(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is None or watcher.stdin is None:
            return
        watcher.kill()
        watcher.wait()
        watcher.stdin.close()

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
        try:
            lines = self._log_path.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        words = "\n".join(lines[-_LOG_LINES:])
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
    folder = Path(tempfile.mkdtemp(prefix="backboned-"))
    if len(str(folder / _SOCKET)) > _MAX_SOCKET_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="backboned-", dir="/tmp"))
    return folder


def _watch(pid: int, folder: Path) -> subprocess.Popen[bytes]:
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, "backboned-watch", str(pid), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    pipe = watcher.stdin
    assert pipe is not None
    _pipes.add(pipe)
    return watcher


_pipes: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Close the child's ends: a DataLoader worker must not keep a server alive."""
    for pipe in list(_pipes):
        with contextlib.suppress(OSError):
            pipe.close()


if hasattr(os, "register_at_fork"):  # Not on Windows.
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
