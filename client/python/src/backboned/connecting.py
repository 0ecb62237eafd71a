"""Finds a server that runs somewhere, or starts one here."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from backboned import boundary, process
from backboned.backoff import RETRY_TIMEOUT_S, OnWait, show_waiting
from backboned.binary import find_binary
from backboned.channel import DEFAULT_TIMEOUT_S, RECONNECT_TIMEOUT_S, Channel
from backboned.errors import (
    BackbonedError,
    DeadlineExceeded,
    InvalidArgument,
    Unavailable,
)
from backboned.progress import require_tqdm
from backboned.server import Server

_CONNECT_TIMEOUT_S = 10.0
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^:/\s]+):\d{1,5}")


@boundary.verb
def connect(
    target: str,
    label: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_S,
    progress: bool = False,
    reconnect_timeout: float = RECONNECT_TIMEOUT_S,
    retry_timeout: float = RETRY_TIMEOUT_S,
    on_wait: OnWait = show_waiting,
) -> Server:
    """Connect to a running server.

    Parameters
    ----------
    target : str
        ``unix:/path`` or ``host:port``.
    label : str, optional
        Name of the run, 1 to 64 characters of ``[A-Za-z0-9_.-]``: all that bear it
        have one share of the device together, and it stands in the server's log.
        Without one each process has a share.
    timeout : float
        Seconds that a call may take unless it says otherwise.
    progress : bool
        Show a bar for transfers over one second; needs tqdm.
    reconnect_timeout : float
        Seconds that a call waits for the server if it does not answer, five minutes
        unless given; then it goes on as if nothing had been. 0: do not wait. More than
        nine minutes are for mirrored networks and reads: a change may be repeated as
        long as the server remembers its id.
    retry_timeout : float
        Seconds in which a call is made again that the server is too busy to begin: 12
        hours unless given. If the call has a `timeout` of its own, that bounds it too.
        0: `ResourceExhausted` at once.
    on_wait : callable or None
        Is told, before each pause, what such a call waits for: a `Waiting`, with its
        place and the seconds until it is made again. Unless given, a line on standard
        error says so now and then if that is a terminal; None: nothing is said.
        `backboned.print_waiting` prints each pause.

    Raises
    ------
    InvalidArgument
        If the target is of neither form, or the label or a number of seconds is none.
    Unavailable
        If nothing answers there.
    """
    _check_target(target)
    if progress:
        require_tqdm()
    server = Server(
        Channel(
            target, timeout, label, progress, reconnect_timeout, retry_timeout, on_wait
        )
    )
    seconds = min(timeout, _CONNECT_TIMEOUT_S)
    try:
        server.info(seconds)
    except DeadlineExceeded:
        server.close()
        raise Unavailable(f"nothing answers at {target} in {seconds:g} s") from None
    except BackbonedError as error:
        server.close()
        if error.code.name == "UNIMPLEMENTED":
            raise Unavailable(
                f"what listens at {target} is no Backboned server"
            ) from None
        raise
    return server


@boundary.verb
def local_server(
    instances: Sequence[str] = (),
    threads: int | None = None,
    device: str | None = None,
    binary: str | Path | None = None,
    *,
    label: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_S,
    progress: bool = False,
    retry_timeout: float = RETRY_TIMEOUT_S,
    on_wait: OnWait = show_waiting,
    log_level: str = "warn",
    options: Sequence[str] = (),
    start_timeout: float = 60.0,
) -> Server:
    """Start a server of one's own on a private Unix socket.

    It ends with the `with` block, with `Server.close`, with this process, and when
    neither the `Server` nor a network of it is referred to any more. It keeps unnamed
    instances and tapes for 24 hours without a call.

    Parameters
    ----------
    instances : sequence of str
        Hosted from the start: ``"BENCHMARK"`` or ``"BENCHMARK=NAME"``; ``"@WEIGHTS"``
        behind it loads weights.
    threads : int, optional
        Of the CPU; equal bits need as many in `torch.set_num_threads`.
    device : str, optional
        ``"cpu"`` or ``"cuda:0"``.
    binary : path, optional
        The program; by default see `backboned.binary.find_binary`.
    label, timeout, progress, retry_timeout, on_wait
        See `connect`.
    log_level : str
        Of the server's log, whose end is shown if it fails.
    options : sequence of str
        More of the program's options.
    start_timeout : float
        Seconds until it must serve.

    Raises
    ------
    ServerStartError
        If it is not found or does not come up; with the last lines of its log.
    """
    if progress:
        require_tqdm()
    arguments = process.options(instances, threads, device, log_level)
    own = process.ServerProcess(
        find_binary(binary), [*arguments, *options], start_timeout
    )
    channel = Channel(
        own.target,
        timeout,
        label,
        progress,
        retry_timeout=retry_timeout,
        on_wait=on_wait,
    )
    channel.explain = own.explain
    channel.when_dropped(own.stop)
    return Server(channel, own)


def _check_target(target: str) -> None:
    path = target[5:] if target.startswith("unix:") else None
    if path is None and not _HOST_PORT.fullmatch(target):
        raise InvalidArgument(
            f"no target {target!r}; it is unix:/path/of/socket or host:port"
        )
    if path is not None and not os.path.exists(re.sub("^//(?=/)", "", path)):
        raise Unavailable(f"there is no socket {path}; is the server running?")
