"""A server to talk to."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable

from backboned import boundary, process
from backboned.channel import (
    CONTROL,
    Channel,
)
from backboned.control import Frozen, settings
from backboned.creation import checked_seed, state_bytes, weights_message
from backboned.describe import (
    Architecture,
    Benchmark,
    InstanceInfo,
    Normalization,
    ServerInfo,
    read_architecture,
    read_benchmark,
    read_instance,
    read_server,
)
from backboned.dtypes import float_number
from backboned.instance import Instance, create_instance, release_abandoned
from backboned.layout import argument_values
from backboned.transfer import M, decoded, fresh_id
from backboned.v1 import instance_service_pb2 as pb

if TYPE_CHECKING:
    from backboned.nn import RemoteBackbone

_CLOSE_TIMEOUT_S = 2.0


@boundary.verbs
class Server:
    """A connection to a server; made by `connect` and `local_server`.

    A context manager: at its end the connection is closed, and the server is stopped
    if it was started here. Thread-safe, and safe to use after a fork: a child process
    gets a connection of its own with its first call.

    Attributes
    ----------
    target : str
        ``unix:/path`` or ``host:port``.
    """

    def __init__(
        self, channel: Channel, own: process.ServerProcess | None = None
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End the connection, and the server if it was started here. Idempotent."""
        if self.process is None:
            release_abandoned(self.channel, _CLOSE_TIMEOUT_S)
        self.channel.close()
        if self.process is not None:
            self.process.stop()

    def info(self, timeout: float | None = None) -> ServerInfo:
        """Ask for versions, devices and what waits for them, threads and limits.

        A server that does not answer is not waited for.
        """
        return read_server(self.channel.ask_server(timeout))

    def benchmarks(self) -> list[Benchmark]:
        """List the benchmarks that the server knows, by name."""
        pages = self._pages(
            "ListBenchmarks", pb.ListBenchmarksRequest, pb.ListBenchmarksResponse
        )
        return [read_benchmark(b) for page in pages for b in page.benchmarks]

    def architectures(self) -> list[Architecture]:
        """List the architectures that the server can build, by name."""
        pages = self._pages(
            "ListArchitectures",
            pb.ListArchitecturesRequest,
            pb.ListArchitecturesResponse,
        )
        return [read_architecture(a) for page in pages for a in page.architectures]

    def instances(self) -> list[InstanceInfo]:
        """List the instances that the caller may use, by owner and name."""
        pages = self._pages(
            "ListInstances", pb.ListInstancesRequest, pb.ListInstancesResponse
        )
        return [read_instance(i) for page in pages for i in page.instances]

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
        dtype: Any = None,
        columns: Sequence[Any] = (),
        module: bool | None = None,
        timeout: float | None = None,
        **arguments: Any,
    ) -> Any:
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
            ``"cpu"``, ``"cuda:0"``; by default the server's.
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
        read_only, frozen, feature_cache
            See `Instance.update`.
        dtype : str or dtype, optional
            Of parameters and floating-point buffers: float32, float64, or, in
            evaluation only, float16 or bfloat16. They are drawn in float32 and
            converted.
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

        Returns
        -------
        RemoteBackbone or Instance

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
        loading = weights_message(weights, load_by, partial, resize_position_embedding)
        request = pb.CreateInstanceRequest(
            name=name or "",
            benchmark=benchmark,
            architecture=architecture,
            arguments=argument_values(arguments),
            seed=checked_seed(seed),
            rng_state=state_bytes(rng_state),
            exist_ok=exist_ok,
            device=device or "",
            weights=loading,
            random_init=random_init,
            settings=settings(read_only, frozen, feature_cache),
            dtype=float_number(dtype),
            columns=[_address(column) for column in columns],
        )
        if normalization is not None:
            request.normalization.mean.extend(normalization.mean)
            request.normalization.std.extend(normalization.std)
        made = create_instance(self.channel, request, timeout)
        made.seed = seed
        return _wrapped(made, module)

    def instance(
        self, name: str, module: bool | None = None, timeout: float | None = None
    ) -> Any:
        """Give the instance of this name, or of ``owner/name``.

        Parameters and result are those of `create`.

        Raises
        ------
        NotFound
            There is none.
        """
        request = pb.GetInstanceRequest(instance=name)
        answer = self._call("GetInstance", request, pb.GetInstanceResponse, timeout)
        return _wrapped(Instance(self.channel, answer.instance), module)

    def clone(
        self,
        source: str,
        name: str | None = None,
        *,
        module: bool | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Make an instance in the state of the instance of this name.

        Parameters and result are those of `Instance.clone` and `create`.

        Raises
        ------
        NotFound
            There is none.
        """
        original = self.instance(source, module=False, timeout=timeout)
        return _wrapped(original.clone(name, timeout=timeout, **options), module)

    def delete(self, name: str, timeout: float | None = None) -> None:
        """Delete the instance of this name and its tapes.

        Raises
        ------
        NotFound
            There is none.
        """
        request = pb.DeleteInstanceRequest(request_id=fresh_id(), instance=name)
        self._call("DeleteInstance", request, pb.DeleteInstanceResponse, timeout)

    def _pages(
        self, method: str, request: Callable[..., Any], answer: type[M]
    ) -> list[Any]:
        pages: list[Any] = []
        token = ""
        while not pages or token:
            page: Any = self._call(method, request(page_token=token), answer)
            pages.append(page)
            token = page.next_page_token
        return pages

    def _call(
        self,
        method: str,
        request: Any,
        answer: type[M],
        timeout: float | None = None,
    ) -> M:
        raw = self.channel.unary(CONTROL + method, request.SerializeToString(), timeout)
        return decoded(answer.FromString, raw)


def _address(column: Any) -> str:
    """Give the name of an instance, of an `Instance`, or of a `RemoteBackbone`."""
    if isinstance(column, str):
        return column
    address: str = getattr(column, "instance", column).address
    return address


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
    from backboned import numerics
    from backboned.home import home_of
    from backboned.nn import RemoteBackbone

    network = RemoteBackbone(made)
    numerics.warn_once(made.channel, home_of(made).info, made.device)
    return network
