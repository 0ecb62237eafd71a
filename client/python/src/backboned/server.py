"""Finds a server that runs somewhere, or starts one here, and talks to it."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from backboned import calls, connection_file, contract, errors, types
from backboned.errors import (
    BackbonedError,
    FailedPrecondition,
    Unavailable,
    verb,
    verbs,
)
from backboned.instance import Instance, create_instance, load_instance
from backboned.transport import credentials, local, retries, traffic
from backboned.transport.channel import (
    DEFAULT_TIMEOUT_S,
    RECONNECT_TIMEOUT_S,
    Channel,
    check_seconds,
)
from backboned.transport.credentials import Pem, Token
from backboned.transport.messages import fresh_id
from backboned.transport.tensors import float_number
from backboned.types import Frozen, Normalization
from backboned.v1 import instance_service_pb2 as pb

if TYPE_CHECKING:
    from backboned.nn import RemoteBackbone

_CLOSE_TIMEOUT_S = 2.0
_CONNECT_TIMEOUT_S = 10.0
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^:/\s]+):\d{1,5}")


@verbs
class Server:
    """A connection to a server; made by `connect` and `local_server`.

    A context manager: at its end the connection is closed, and the server is stopped
    if it was started here. Thread-safe, and safe to use after a fork: a child process
    gets a connection of its own with its first call. `target` is ``unix:/path`` or
    ``host:port``.
    """

    def __init__(
        self, channel: Channel, own: local.ServerProcess | None = None
    ) -> None:
        self.channel = channel
        self.target = channel.target
        self.process = own

    def __repr__(self) -> str:
        """Say where the server is."""
        return f"Server({self.target!r})"

    def __enter__(self) -> Server:
        """Give the server itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End the connection, and the server if it was started here. Idempotent."""
        if self.process is None:
            calls.release_abandoned(self.channel, _CLOSE_TIMEOUT_S)
        self.channel.close()
        if self.process is not None:
            self.process.stop()

    def info(self, timeout: float | None = None) -> types.ServerInfo:
        """Ask for versions, devices and what waits for them, threads and limits.

        A server that does not answer is not waited for.
        """
        answer = self.channel.ask_server(timeout)
        return contract.read_server(answer, self.channel.transport)

    def benchmarks(self, timeout: float | None = None) -> list[types.Benchmark]:
        """List the benchmarks that the server knows, by name."""
        listed = self._listed("benchmarks", timeout)
        return [contract.read_benchmark(b) for b in listed]

    def architectures(self, timeout: float | None = None) -> list[types.Architecture]:
        """List the architectures that the server can build, by name."""
        listed = self._listed("architectures", timeout)
        return [contract.read_architecture(a) for a in listed]

    def instances(self, timeout: float | None = None) -> list[types.InstanceInfo]:
        """List the instances that the caller may use, by owner and name."""
        listed = self._listed("instances", timeout)
        return [contract.read_instance(i) for i in listed]

    def _listed(self, what: str, timeout: float | None) -> Iterator[Any]:
        return calls.listed(self.channel, what, timeout)

    @overload
    def create(
        self, benchmark: str | None = ..., *, module: Literal[False], **options: Any
    ) -> Instance: ...

    @overload
    def create(
        self,
        benchmark: str | None = None,
        *,
        architecture: str | None = None,
        name: str | None = None,
        seed: int | None = None,
        rng_state: Any = None,
        exist_ok: bool = False,
        device: str | None = None,
        normalization: Normalization | None = None,
        weights: str | None = None,
        load_by: str = "name",
        partial: bool = False,
        resize_position_embedding: bool = False,
        random_init: bool = False,
        read_only: bool = False,
        frozen: Frozen = (),
        feature_cache: int | str = 0,
        shared: bool = False,
        dtype: Any = None,
        precision: str | None = None,
        columns: Sequence[str | Instance | RemoteBackbone] = (),
        module: Literal[True] | None = None,
        timeout: float | None = None,
        **arguments: Any,
    ) -> RemoteBackbone: ...

    def create(
        self,
        benchmark: str | None = None,
        *,
        architecture: str | None = None,
        name: str | None = None,
        seed: int | None = None,
        rng_state: Any = None,
        exist_ok: bool = False,
        device: str | None = None,
        normalization: Normalization | None = None,
        weights: str | None = None,
        load_by: str = "name",
        partial: bool = False,
        resize_position_embedding: bool = False,
        random_init: bool = False,
        read_only: bool = False,
        frozen: Frozen = (),
        feature_cache: int | str = 0,
        shared: bool = False,
        dtype: Any = None,
        precision: str | None = None,
        columns: Sequence[str | Instance | RemoteBackbone] = (),
        module: bool | None = None,
        timeout: float | None = None,
        **arguments: Any,
    ) -> RemoteBackbone | Instance:
        """Make an instance of a benchmark, or of an architecture.

        Parameters
        ----------
        benchmark : str, optional
            E.g. ``"seq-mnist"``.
        architecture : str, optional
            E.g. ``"resnet18"``.
        name : str, optional
            ``[a-z0-9][a-z0-9_.-]{0,63}``. Without one the instance gets a random
            name and dies with this client, or with the last object that stands for it.
        seed : int, optional
            Of the initial parameters, as in `torch.manual_seed`.
        rng_state : bytes-like, optional
            In its place a generator's state, as `torch.get_rng_state()` gives it;
            afterwards the instance's `rng_state` holds the one after the drawing.
        exist_ok : bool
            If the name is taken by an equal instance, take that one.
        device : str, optional
            ``"cpu"``, ``"cuda:0"``, or ``"least"``: the GPU with most free memory. By
            default the server's.
        normalization : Normalization, optional
            Of uint8 images; by default the benchmark's.
        weights : str, optional
            A file of the server's ``--weights-dir``, without ``.safetensors``.
        load_by : {"name", "order"}
            How its tensors find their parameters: by key, or by flat order.
        partial : bool
            Load what there is of `weights`; the instance's `missing_keys` and
            `unexpected_keys` tell the rest.
        resize_position_embedding : bool
            Resize a position embedding of `weights` that is of another image size, as
            timm does.
        random_init : bool
            Go without `weights` although Mammoth uses the architecture pretrained.
        read_only, frozen, feature_cache, shared
            See `Instance.update`.
        dtype : str or dtype, optional
            Of parameters and floating-point buffers: float32, float64, or, in
            evaluation only, float16 or bfloat16. They are drawn in float32 and
            converted.
        precision : {"highest", "tf32", "bfloat16"}, optional
            Of products and convolutions on a GPU: float32, or TF32; by default TF32
            in convolutions only. With ``"bfloat16"``, on a CPU too, forwards and their
            backwards compute as in `torch.autocast(..., torch.bfloat16)`; parameters,
            gradients and outputs stay float32.
        columns : sequence of str, Instance or RemoteBackbone, optional
            Of a progressive network: its earlier columns, the oldest first, whose
            tensors the new column shares as they are now.
        module : bool, optional
            Give a `RemoteBackbone` (a `torch.nn.Module`), or an `Instance` (NumPy).
            By default the former if torch is installed.
        timeout : float, optional
            Seconds.
        **arguments
            Of the architecture, e.g. ``num_classes=10``.

        Raises
        ------
        NotFound
            No such benchmark, architecture or weights; the message lists the valid
            ones.
        InvalidArgument
            An argument is wrong, or the weights do not fit; the message lists the
            valid ones, or the keys.
        FailedPrecondition
            Mammoth uses the architecture pretrained, and there are neither `weights`
            nor `random_init`; or the weights file is corrupt.
        AlreadyExists
            The name is taken.
        """
        if (benchmark is None) == (architecture is None):
            raise TypeError("create() takes a benchmark or an architecture")
        sources: list[Any] = [getattr(column, "instance", column) for column in columns]
        request = pb.CreateInstanceRequest(
            name=name or "",
            benchmark=benchmark,
            architecture=architecture,
            arguments=contract.argument_values(arguments),
            seed=contract.checked_seed(seed),
            rng_state=b"" if rng_state is None else bytes(rng_state),
            exist_ok=exist_ok,
            device=device or "",
            normalization=contract.normalization_message(normalization),
            weights=contract.weights_message(
                weights, load_by, partial, resize_position_embedding
            ),
            random_init=random_init,
            settings=contract.settings_message(
                read_only, frozen, feature_cache, shared
            ),
            dtype=float_number(dtype),
            precision=contract.precision_number(precision),
            columns=[getattr(source, "address", source) for source in sources],
        )
        made = create_instance(self.channel, request, timeout)
        made.seed = seed
        if made.precision != precision:  # An older server does not read the field.
            raise FailedPrecondition(f"the server knows no precision {precision!r}")
        return _wrapped(made, module)

    @overload
    def instance(
        self, name: str, module: Literal[False], timeout: float | None = None
    ) -> Instance: ...

    @overload
    def instance(
        self,
        name: str,
        module: Literal[True] | None = None,
        timeout: float | None = None,
    ) -> RemoteBackbone: ...

    def instance(
        self, name: str, module: bool | None = None, timeout: float | None = None
    ) -> RemoteBackbone | Instance:
        """Give the instance of this name, or of ``owner/name``.

        Parameters and result are those of `create`. Raises NotFound if there is none.
        """
        request = pb.GetInstanceRequest(instance=name)
        answer = calls.ask(self.channel, request, timeout)
        return _wrapped(Instance(self.channel, answer.instance), module)

    @overload
    def clone(
        self,
        source: str,
        name: str | None = ...,
        *,
        module: Literal[False],
        **options: Any,
    ) -> Instance: ...

    @overload
    def clone(
        self,
        source: str,
        name: str | None = None,
        *,
        module: Literal[True] | None = None,
        **options: Any,
    ) -> RemoteBackbone: ...

    def clone(
        self,
        source: str,
        name: str | None = None,
        *,
        module: bool | None = None,
        **options: Any,
    ) -> RemoteBackbone | Instance:
        """Make an instance in the state of the instance of this name.

        Parameters and result are those of `Instance.clone` and `create`. Raises
        NotFound if there is none.
        """
        original = self.instance(source, False, options.get("timeout"))
        return _wrapped(original.clone(name, **options), module)

    @overload
    def load(
        self,
        checkpoint: str,
        name: str | None = ...,
        *,
        number: int = ...,
        device: str | None = ...,
        module: Literal[False],
        timeout: float | None = ...,
    ) -> Instance: ...

    @overload
    def load(
        self,
        checkpoint: str,
        name: str | None = None,
        *,
        number: int = 0,
        device: str | None = None,
        module: Literal[True] | None = None,
        timeout: float | None = None,
    ) -> RemoteBackbone: ...

    def load(
        self,
        checkpoint: str,
        name: str | None = None,
        *,
        number: int = 0,
        device: str | None = None,
        module: bool | None = None,
        timeout: float | None = None,
    ) -> RemoteBackbone | Instance:
        """Make an instance in the state that `Instance.save` saved.

        It has the optimizer, too, and its state: `backboned.optim.resume` goes on with
        that.

        Parameters
        ----------
        checkpoint : str
            Its name; admins may say ``owner/name``.
        name : str, optional
            As in `create`.
        number : int, optional
            Of one of several checkpoints of the name; 0: the newest.
        device, module
            As in `create`.

        Raises
        ------
        NotFound
            There is no such checkpoint; the message lists those that there are.
        FailedPrecondition
            The server keeps no state, or the checkpoint is damaged.
        AlreadyExists
            The name is taken.
        """
        request = pb.LoadCheckpointRequest(
            request_id=fresh_id(),
            checkpoint=checkpoint,
            number=number,
            name=name or "",
            device=device or "",
        )
        return _wrapped(load_instance(self.channel, request, timeout), module)

    def checkpoints(self, timeout: float | None = None) -> list[types.Checkpoint]:
        """List the caller's checkpoints, by name and number; of admins everybody's."""
        listed = self._listed("checkpoints", timeout)
        return [contract.read_checkpoint(c) for c in listed]

    def delete_checkpoint(
        self, name: str, number: int = 0, timeout: float | None = None
    ) -> None:
        """Delete the checkpoints of this name, or the one with this number.

        Raises NotFound if there is none.
        """
        request = pb.DeleteCheckpointRequest(
            request_id=fresh_id(), checkpoint=name, number=number
        )
        calls.ask(self.channel, request, timeout)

    def usage(
        self,
        by: str | Sequence[str] = "user",
        since: datetime.datetime | datetime.timedelta | None = None,
        until: datetime.datetime | datetime.timedelta | None = None,
        timeout: float | None = None,
    ) -> types.UsageReport:
        """Tell what the caller has used of the server; to admins what everybody has.

        Parameters
        ----------
        by : {"user", "instance", "label"} or sequence of them
            What a row is of; ``()``: one row of all.
        since, until : datetime or timedelta, optional
            Hours that begin then or later, and before; or so long ago. By default all
            that the server knows: a year, if it has a state folder, else since its
            start.
        """
        request = contract.usage_request(by, since, until)
        rows: list[types.UsageRow] = []
        while True:
            page = calls.ask(self.channel, request, timeout)
            rows += map(contract.read_usage, page.rows)
            request.page_token = page.next_page_token
            if not request.page_token:
                busy = contract.read_duration(page.device_busy)
                return types.UsageReport(tuple(rows), busy)

    def delete(self, name: str, timeout: float | None = None) -> None:
        """Delete the instance of this name and its tapes.

        Raises NotFound if there is none.
        """
        request = pb.DeleteInstanceRequest(request_id=fresh_id(), instance=name)
        calls.ask(self.channel, request, timeout)


def _wrapped(made: Instance, module: bool | None) -> Instance | RemoteBackbone:
    """Make a `RemoteBackbone` of an instance if that is wanted."""
    if module is False:
        return made
    try:
        import torch  # noqa: F401
    except ImportError:
        if module:
            raise ImportError(
                "module=True needs torch: pip install 'backboned[torch]'"
            ) from None
        return made
    from backboned.nn import RemoteBackbone, numerics

    network = RemoteBackbone(made)
    numerics.warn_once(made.channel, made.server_identity.info, made.device)
    return network


@verb
def connect(
    target: str | os.PathLike[str] | None = None,
    label: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_S,
    progress: bool = False,
    reconnect_timeout: float = RECONNECT_TIMEOUT_S,
    retry_timeout: float = retries.RETRY_TIMEOUT_S,
    on_wait: retries.OnWait = retries.show_waiting,
    *,
    ca: Pem | None = None,
    certificate: Pem | None = None,
    key: Pem | None = None,
    token: Token | None = None,
    wait: float | None = None,
) -> Server:
    """Connect to a running server.

    Parameters
    ----------
    target : str or path, optional
        ``unix:/path`` or ``host:port``; or a connection file: a path object, or a str
        that ends in ``.yaml`` or ``.yml``. Unless given, it is what the environment
        variable ``BACKBONED_SERVER`` has, else the connection file that
        ``BACKBONED_CONNECTION`` names, else ``backboned/connection.yaml`` in
        ``XDG_CONFIG_HOME`` (``~/.config``).
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
    ca : str, bytes or path, optional
        Certificates of those who may have signed the server's: a path, or PEM; else
        those that grpc trusts. With it, with a certificate, or with a token that goes
        to no Unix socket, the connection is one of TLS.
    certificate, key : str, bytes or path, optional
        What the client shows: a path, or PEM; both or neither.
    token : str, path or callable, optional
        Goes with each call as ``authorization: Bearer TOKEN``: the token itself, a path
        object of a file that has it, or what gives it. The latter two are asked anew
        for each connection, and for each call that is an RPC of its own.
    wait : float, optional
        Seconds to wait for a connection file that is not there yet.

    These go before the same keys of a connection file.

    Raises
    ------
    InvalidArgument
        If the target is of no such form, or the label, a number of seconds, the
        credentials or the connection file are none.
    Unavailable
        If nothing answers there, or the connection file is not there.
    Refused
        If the server wants other credentials, or the token cannot be read.
    """
    given: dict[str, Any] = {
        "ca": ca,
        "certificate": certificate,
        "key": key,
        "token": token,
    }
    target, shown = _resolve(target, given, wait)
    _check_target(target)
    if progress:
        traffic.require_tqdm()
    server = Server(
        Channel(
            target,
            timeout,
            label,
            progress,
            reconnect_timeout,
            retry_timeout,
            on_wait,
            credentials.read(**shown),
        )
    )
    seconds = min(timeout, _CONNECT_TIMEOUT_S)
    try:
        server.info(seconds)
    except errors.DeadlineExceeded:
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


@verb
def local_server(
    instances: Sequence[str] = (),
    threads: int | None = None,
    device: str | None = None,
    binary: str | Path | None = None,
    *,
    label: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_S,
    progress: bool = False,
    retry_timeout: float = retries.RETRY_TIMEOUT_S,
    on_wait: retries.OnWait = retries.show_waiting,
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
        The program; by default what ``BACKBONED_BIN`` names, or what is installed.
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
        traffic.require_tqdm()
    arguments = local.options(instances, threads, device, log_level)
    own = local.ServerProcess(
        local.find_binary(binary), [*arguments, *options], start_timeout
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


def _resolve(
    target: str | os.PathLike[str] | None, given: dict[str, Any], wait: float | None
) -> tuple[str, dict[str, Any]]:
    """Find the target, and what is shown there."""
    if wait is not None:
        check_seconds(wait, "wait")
    if target is None:
        target = connection_file.default_target()
    if not connection_file.is_path(target):
        if wait is not None:
            raise errors.InvalidArgument(
                f"wait is for a connection file; {target} is a target"
            )
        return str(target), given
    file = connection_file.read(Path(target), wait or 0.0)
    return file.target, {
        name: getattr(file, name) if value is None else value
        for name, value in given.items()
    }


def _check_target(target: str) -> None:
    path = target[5:] if target.startswith("unix:") else None
    if path is None and not _HOST_PORT.fullmatch(target):
        raise errors.InvalidArgument(
            f"no target {target!r}; it is unix:/path/of/socket or host:port"
        )
    if path is None:
        return
    file = re.sub("^//(?=/)", "", path)
    if not os.path.exists(file):
        raise Unavailable(f"there is no socket {path}; is the server running?")
    if not os.access(file, os.W_OK):
        raise errors.Refused(
            f"this account may not connect to {path}; who runs the server can let it, "
            "by principal-from=account,user=ACCOUNT behind the address in --listen"
        )
