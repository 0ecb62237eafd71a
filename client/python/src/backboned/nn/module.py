"""A backbone in the server that looks and trains like a local `torch.nn.Module`."""

from __future__ import annotations

import copy
import dataclasses
import weakref
from typing import Any, Callable, NoReturn, Union

import torch
from torch import nn

from backboned.calls import ForwardOptions
from backboned.contract import read_size
from backboned.errors import verbs
from backboned.instance import Instance
from backboned.losses import Terms
from backboned.nn.autograd import any_trains, check_input, run
from backboned.nn.hosted import HostedLink, Link
from backboned.nn.intact import Parts
from backboned.nn.lazy import LazyParameter, LazyTensor, as_plain
from backboned.nn.mirrored import MirroredLink
from backboned.nn.tree import plant
from backboned.steps import StepInFlight
from backboned.types import (
    BatchNorm,
    Checkpoint,
    Layout,
    Traffic,
    TrainStep,
    matching,
)

Outputs = Union[
    torch.Tensor,
    tuple[torch.Tensor, torch.Tensor],
    tuple[torch.Tensor, list[torch.Tensor]],
]

_networks: weakref.WeakSet[Any] = weakref.WeakSet()

# Torch 2.1 has none.
_is_compiling = getattr(torch.compiler, "is_compiling", bool)

# Attributes that a copy makes anew.
_OWN = {"_link", "_optimizer", "_parts", "_on_rollback"}

ROLLBACKS = ("raise", "replay")

REPLAY_BYTES = 1 << 30
"""The bytes of changes that are kept, unless `replay_bytes` is set."""


@verbs
class RemoteBackbone(nn.Module):
    """A backbone whose forward and backward run in the server.

    Its parameters and buffers have the names, and the order, of the architecture, so
    that optimizers, `state_dict`, freezing, clipping and initialisation work as with
    any module. It works in one of three ways:

    *mirrored*, as it begins: the tensors are here, and the mirror decides.
    Changes here are pushed before the next forward. A training forward brings the new
    BatchNorm statistics back, and a backward the gradients.

    *hosted*, once it was handed to an optimizer of `backboned.optim`: parameters,
    gradients and optimizer stay in the server. They are fetched when somebody reads
    them, and pushed before the next use when somebody writes them.

    *frozen*, after ``requires_grad_(False)``: as hosted, without gradients.

    A change is noticed before the next use, also one that PyTorch does not track
    (``p.data[7] = 0``): all elements that somebody may hold are compared. A change by
    somebody else in the server is a `StaleVersion` in the next forward; `pull` takes
    it over.

    Its inner modules are of PyTorch's classes, with their attributes, and compute
    nothing. A network that nobody refers to is freed at once.

    Tensors here are on the CPU, of the instance's dtype; a network of float16 or
    bfloat16 runs in evaluation only, without gradients. Bits equal those of the same
    network in local PyTorch if both sides use equally many threads
    (`Server.info().threads`). Asking for gradients of gradients is a RuntimeError.
    Errors of the server are raised as `BackbonedError` from forward and from backward.

    Random layers (dropout) draw from PyTorch's CPU generator, so that
    `torch.manual_seed` means what it means for a local network.

    Made by `Server.create` and `Server.instance`.

    Parameters
    ----------
    instance : Instance
    frozen : bool
        Begin frozen: nothing is fetched before somebody looks. So does a network that
        is read-only, or all of whose parameters are frozen in the server.
    """

    _link: Link
    _optimizer: Any = None
    _parts: Parts
    _on_rollback = "raise"
    _replay_bytes = REPLAY_BYTES

    def __init__(self, instance: Instance, frozen: bool = False) -> None:
        super().__init__()
        layout, architecture = instance.layout, instance.architecture
        self.return_prerelu = False
        plant(self, layout, architecture, getattr(torch, instance.dtype))
        # Further keys in the state dict, with the names of their parameters.
        self._aliases = _aliases(layout)
        for name, value in layout.attributes.items():
            if not hasattr(self, name):
                setattr(self, name, value)
        self._parts = Parts(self, layout, architecture)
        _networks.add(self)
        names = [parameter.name for parameter in layout.parameters]
        held = set(matching(instance.frozen, names))
        frozen = frozen or instance.read_only or len(held) == len(names)
        for name, parameter in self.named_parameters():
            if frozen or name in held:
                parameter.requires_grad_(False)
        if frozen:
            self._link = HostedLink(instance, self)
        else:
            self._link = MirroredLink(instance, self)
            self._link.pull()

    @property
    def mode(self) -> str:
        """The way it works: ``"mirrored"``, ``"hosted"`` or ``"frozen"``."""
        if self._link.is_mirror:
            return "mirrored"
        trains = any(p.requires_grad for p in self._link.parameters())
        return "hosted" if trains else "frozen"

    @property
    def traffic(self) -> Traffic:
        """The traffic for it so far; a difference says what did in between.

        Waits for a step that was not awaited, and raises its error.
        """
        return self.instance.channel.meter.read()

    @property
    def instance(self) -> Instance:
        """The instance in the server, for NumPy arrays; beside the mirror.

        Waits for a step that was not awaited, and raises its error.
        """
        self._link.make_sure()
        return self._link.instance

    @property
    def name(self) -> str:
        """The instance's name."""
        return self._link.instance.name

    @property
    def layout(self) -> Layout:
        """Names, shapes and order of the tensors."""
        return self._link.instance.layout

    @property
    def timeout(self) -> float | None:
        """Seconds for each call; None: the server object's."""
        return self._link.timeout

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        self._link.timeout = value

    @property
    def on_rollback(self) -> str:
        """The way of a hosted network to take a restart that lost its newest changes.

        ``"raise"``, unless it is set: the next use of the hosted network raises
        `ServerRestarted`. ``"replay"``: from now on the network keeps what it asks the
        server to change until that is saved there, at most `replay_bytes`. After a
        restart it makes what was lost again, each change once and in order, to the bit,
        and goes on. A mirrored network goes on in any case.

        Setting it raises ValueError if it is neither, or if the network has no name:
        it does not come back.
        """
        return self._on_rollback

    @on_rollback.setter
    def on_rollback(self, value: str) -> None:
        if value not in ROLLBACKS:
            raise ValueError(f"on_rollback is {value!r}; it is 'raise' or 'replay'")
        if value == "replay" and self._link.instance.ephemeral:
            raise ValueError(
                f"{self.name!r} has no name of its own, so a restarted server does not "
                'bring it back; make it with name="..."'
            )
        self._on_rollback = value
        self._let_replay()

    @property
    def replay_bytes(self) -> int:
        """The most bytes of changes that are kept, to be made again; 1 GiB unless set.

        It may be set to a number or like ``"256MiB"``. When more would be kept, the
        oldest go, and a restart that has lost them raises `ServerRestarted`.
        """
        return self._replay_bytes

    @replay_bytes.setter
    def replay_bytes(self, value: int | str) -> None:
        self._replay_bytes = read_size(value, "replay_bytes")
        self._let_replay()

    def _let_replay(self) -> None:
        if isinstance(self._link, HostedLink):
            replays = self._on_rollback == "replay"
            self._link.replay_bytes = self._replay_bytes if replays else 0

    def describe(self) -> dict[str, Any]:
        """Describe the run so far, e.g. for the log of an experiment.

        Pushes what changed here. Values are texts, numbers and dicts of them: what the
        network is made of, where it runs, how often it ran, what travelled, and the
        SHA-256 of its parameters and buffers.
        """
        info = self._link.info()
        instance, server = self._link.instance, self._link.instance.server_identity.info
        device = next(d for d in server.devices if d.name == instance.device)
        return {
            "mode": self.mode,
            "name": instance.name,
            "made_from": instance.benchmark or instance.architecture,
            "arguments": dict(instance.arguments),
            "seed": instance.seed,
            "weights_sha256": instance.weights_sha256,
            "digest": info.digest,
            "forwards": info.forwards,
            "backwards": info.backwards,
            "steps": info.steps,
            "server": {
                "version": server.version,
                "torch_version": server.torch_version,
                "device": device.name,
                "processor": device.description,
                "threads": device.threads,
            },
            "traffic": dataclasses.asdict(self.traffic),
        }

    def batch_norms(self) -> list[BatchNorm]:
        """Say how the BatchNorm layers differ from what a forward would assume."""
        return self._parts.overrides()

    def layout_parameters(self) -> list[Any]:
        """Give the parameters that the server knows, in flat order."""
        return self._link.parameters()

    def forward(self, x: torch.Tensor, returnt: str = "out") -> Outputs:
        """Run the network in the server.

        Parameters
        ----------
        x : Tensor, [N, C, H, W]
            Floating-point and already normalised, or uint8 images that the server
            normalises; on any device.
        returnt : {"out", "features", "both", "full"}
            The logits [N, K]; the features [N, D]; both; or the logits and a list of
            every stage's output.

        Returns
        -------
        Tensor, or (Tensor, Tensor) for ``both``, or (Tensor, list) for ``full``
            On the input's device; so is the input's gradient.

        Raises
        ------
        BackbonedError
            If the server refuses or fails.
        TypeError, ValueError
            If `x`, or a tensor of the mirror, has not the type or shape it must have.
        TypeError, NotImplementedError, RuntimeError
            If the server does not compute a part of the network as it is here: it was
            replaced, has hooks, or would drop out when the network does not.
        """
        if _is_compiling():  # What is computed in the server is no part of a graph.
            uncompiled: Any = torch.compiler.disable
            outputs: Outputs = uncompiled(self._forward)(x, returnt)
            return outputs
        return self._forward(x, returnt)

    def _forward(self, x: torch.Tensor, returnt: str) -> Outputs:
        check_input(x)
        link, parameters = self._link.for_forward(self)
        self._parts.check()
        trains = any_trains(parameters)
        if trains and link.hosting and link.optimizer is None:
            link = self.mirror()._link
        options: ForwardOptions = {
            "returnt": returnt,
            "training": self.training,
            "prerelu": self.return_prerelu,
            "batch_norm": tuple(self._parts.overrides()),
        }
        device = x.device
        x = x.to("cpu")
        graph = trains or (x.requires_grad and torch.is_grad_enabled())
        tensors = run(link, options, x, parameters if graph else None)
        if device.type != "cpu":
            tensors = tuple(tensor.to(device) for tensor in tensors)
        if returnt == "both":
            return tensors[0], tensors[1]
        if returnt == "full":
            return tensors[0], list(tensors[1:])
        return tensors[0]

    def set_return_prerelu(self, enable: bool = True) -> None:
        """Let ``full`` list every stage as it is before its ReLU.

        Raises ValueError if the architecture's stages have none.
        """
        if enable and not self.layout.prerelu:
            raise ValueError(
                f"{self._link.instance.architecture} has no stages before a ReLU"
            )
        self.return_prerelu = enable

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Give the features, [N, D]."""
        features: torch.Tensor = self(x, returnt="features")
        return features

    def train_step(
        self,
        x: torch.Tensor,
        terms: Terms,
        optimizer: Any,
        return_logits: bool = False,
    ) -> TrainStep:
        """Make a whole training step in one round trip.

        Equal to ``optimizer.zero_grad()``, a forward in training, the backward of the
        loss, ``optimizer.step()`` and ``optimizer.zero_grad()``, to the bit.

        Parameters
        ----------
        x : Tensor, [N, C, H, W]
            As for `forward`.
        terms : CrossEntropy, MeanSquaredError or KlDivergence, or a sequence of them
            Of this package; the loss is their weighted sum, added in this order.
        optimizer : HostedOptimizer
            Of `backboned.optim`; its clipping counts.
        return_logits : bool
            Give the logits too.

        Raises
        ------
        BackbonedError
            If the server refuses or fails.
        RuntimeError
            If the network is in evaluation mode.
        ValueError
            If the optimizer is not this network's.
        TypeError, NotImplementedError, RuntimeError
            As `forward`.
        """
        self._check_train_step(x, optimizer)
        made: TrainStep = optimizer.train_step(x.cpu(), terms, return_logits)
        return made

    def train_step_async(
        self,
        x: torch.Tensor,
        terms: Terms,
        optimizer: Any,
        return_logits: bool = False,
    ) -> StepInFlight:
        """Send a training step, and do not wait for its answer.

        Several are in flight, up to ``instance.steps.depth``, and are made in the order
        of these calls: results and parameters are those of `train_step`, to the bit.
        The next use of the network waits for all of them. `x` and the arrays of
        `terms` are copied. A step of a network that draws random numbers is waited for
        here. Parameters and errors are those of `train_step`.

        Returns
        -------
        StepInFlight
            A future of the `TrainStep`. If one fails, those in flight behind it fail
            with `StepNotMade`. Its error is raised by its `result`, or else by the next
            use of the network, which is not sent then.
        """
        self._check_train_step(x, optimizer)
        sent: StepInFlight = optimizer.train_step_async(x.cpu(), terms, return_logits)
        return sent

    def _check_train_step(self, x: Any, optimizer: Any) -> None:
        check_input(x)
        self._parts.check()
        if getattr(optimizer, "network", None) is not self:
            raise ValueError(
                "train_step takes an optimizer of backboned.optim that was made for "
                "this network"
            )
        if not self.training:
            raise RuntimeError("train_step trains the network; call net.train() first")

    def get_params(self) -> torch.Tensor:
        """Give all parameters as a vector [P], differentiable."""
        self._link.show_all()
        return torch.cat([p.reshape(-1) for p in self._link.parameters()])

    def set_params(self, values: torch.Tensor) -> None:
        """Give the parameters the values of a vector [P], which is copied."""
        with torch.no_grad():
            for parameter, part in self._cut(values, "parameters"):
                parameter.data = part

    def get_grads(self) -> torch.Tensor:
        """Give the gradients of all parameters as a vector [P].

        Raises RuntimeError if a parameter has none.
        """
        self._link.show_grads()
        parameters: list[Any] = self._link.parameters()
        pairs = zip(self.layout.parameters, parameters)
        missing = [spec.name for spec, p in pairs if p.grad is None]
        if missing:
            raise RuntimeError(f"no gradient yet of {', '.join(missing)}")
        return torch.cat([p.grad.reshape(-1) for p in parameters])

    def set_grads(self, values: torch.Tensor) -> None:
        """Give the parameters' gradients the values of a vector [P], copied."""
        for parameter, part in self._cut(values, "gradients"):
            parameter.grad = part

    def _cut(
        self, values: torch.Tensor, what: str
    ) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Cut a vector into copies in the parameters' shapes."""
        if values.shape != (self.layout.elements,):
            raise ValueError(
                f"{what} are a vector [{self.layout.elements}]; "
                f"got the shape {list(values.shape)}"
            )
        parameters = self._link.parameters()
        values = values.detach().to("cpu", getattr(torch, self._link.instance.dtype))
        parts = torch.split(values, [p.numel() for p in parameters])
        return [
            (parameter, part.reshape(parameter.shape).clone())
            for parameter, part in zip(parameters, parts)
        ]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Give the state dict of any module, fetched at once if it is not here."""
        self._link.show_all()
        state = super().state_dict(*args, **kwargs)
        prefix = args[1] if len(args) > 1 else kwargs.get("prefix", "")
        for alias, name in self._aliases:
            state[prefix + alias] = state[prefix + name]
        return state

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Take what a state dict has under an alias, which need not be there."""
        _, _, missing, *_ = args
        for alias, name in self._aliases:
            if prefix + alias in state_dict:
                if prefix + name not in state_dict:
                    missing.append(prefix + name)
                state_dict[prefix + name] = state_dict.pop(prefix + alias)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Take all gradients away, or make those that there are zero.

        The latter sends zeros in place of a hosted network's gradients.
        """
        if not set_to_none or not isinstance(self._link, HostedLink):
            super().zero_grad(set_to_none)
            return
        self._link.zero_grad()
        for parameter in self.parameters():
            if not isinstance(parameter, LazyParameter):
                parameter.grad = None

    def requires_grad_(self, requires_grad: bool = True) -> RemoteBackbone:
        """Freeze the network, or let it train again.

        A network that trains again is mirrored, unless it has an optimizer in the
        server.
        """
        super().requires_grad_(requires_grad)
        if not requires_grad:
            self._hosted()
        elif self._link.hosting and self._link.optimizer is None:
            self.mirror()
        return self

    def _hosted(self) -> HostedLink:
        """Let parameters and gradients be in the server from now on."""
        if isinstance(self._link, MirroredLink):
            self._link = HostedLink(self._link.instance, self, self._link)
            self._let_replay()
        assert isinstance(self._link, HostedLink)
        return self._link

    def host(self, optimizer: Any) -> HostedLink:
        """Let parameters, gradients and an optimizer be in the server.

        The optimizers of `backboned.optim` do so.
        """
        link = self._hosted()
        link.optimizer = self._optimizer = optimizer
        return link

    def mirror(self) -> RemoteBackbone:
        """Work mirrored from now on: everything is fetched.

        An optimizer of `backboned.optim` cannot step it any more.
        """
        if isinstance(self._link, HostedLink):
            self._link = self._link.mirrored(self)
        self._optimizer = None
        return self

    def push(self) -> None:
        """Write what is here into the instance, whatever is there."""
        self._link.push()

    def pull(self) -> None:
        """Take the instance's parameters and buffers; what is here is lost."""
        self._link.pull()

    def save(self, name: str, keep: int = 1) -> Checkpoint:
        """Save the network's state on the server's disk; see `Instance.save`.

        The optimizer goes along if it is one of `backboned.optim`.
        """
        return self._link.save(name, keep)

    def checkpoints(self) -> list[Checkpoint]:
        """List what was saved of it, the oldest first; see `Instance.checkpoints`."""
        return self._link.instance.checkpoints(self._link.timeout)

    def delete(self) -> None:
        """Delete the instance in the server; what is here stays readable."""
        self._link.instance.delete()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> RemoteBackbone:
        """Refuse what would move the mirror to another device or type."""
        dtype = getattr(torch, self._link.instance.dtype)
        probe = fn(torch.zeros(1, dtype=dtype, device="cpu"))
        if probe.device.type != "cpu" or probe.dtype != dtype:
            raise TypeError(
                f"a RemoteBackbone's mirror is {self._link.instance.dtype} on the CPU, "
                f"not {probe.dtype} on {probe.device}; the server computes on its own "
                "device, and takes inputs from any"
            )
        if self._link.is_mirror:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> RemoteBackbone:
        """Make an independent network, an instance of its own.

        Of a hosted or frozen network it is a clone in the server, which costs nothing
        before one of the two is written; of a mirrored one it is fed when it is used.
        """
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        nn.Module.__init__(twin)
        instance = self._link.copy_instance()
        keeper: Any = self._link
        for tensor in (*self.parameters(), *self.buffers()):
            if isinstance(tensor, LazyTensor) and tensor.keeper is keeper:
                memo[id(tensor)] = _empty_like(tensor)
        for key, value in self.__dict__.items():
            if key not in _OWN:
                twin.__dict__[key] = copy.deepcopy(value, memo)
        twin._parts = Parts(twin, instance.layout, instance.architecture)
        make: Any = HostedLink if self._link.hosting else MirroredLink
        twin._link = make(instance, twin)
        twin._link.timeout = self._link.timeout
        _networks.add(twin)
        return twin

    def __copy__(self) -> NoReturn:
        """Refuse a second module on the same tensors and the same instance."""
        raise TypeError(
            "a RemoteBackbone has no shallow copy, which would train the same instance "
            "behind its back; copy.deepcopy(net) makes an independent network"
        )

    def __getstate__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError(
            "a RemoteBackbone stands for an instance in a server and cannot be "
            "pickled; save its state_dict()"
        )

    def extra_repr(self) -> str:
        """Say the name, what it was made from, the server and the way of working."""
        instance = self._link.instance
        made_from = instance.benchmark or instance.architecture
        return (
            f"{instance.name!r} [{made_from}] on {instance.channel.target}, {self.mode}"
        )


def _empty_like(tensor: torch.Tensor) -> torch.Tensor:
    """Make a plain tensor for values that are in the server."""
    with as_plain():
        empty = torch.empty_like(tensor, requires_grad=False)
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(empty.detach(), tensor.requires_grad)
        return empty.as_subclass(torch.Tensor)


def _aliases(layout: Layout) -> list[tuple[str, str]]:
    """List the aliases of a layout, and of what, in the order of a module tree.

    A module that is known under two names has its buffers under both, too.
    """
    pairs = [(alias, p.name) for p in layout.parameters for alias in p.aliases]
    modules = {}
    for alias, name in pairs:
        (twin, _, key), (module, _, own_key) = (
            alias.rpartition("."),
            name.rpartition("."),
        )
        if key == own_key:
            modules[twin] = module
    for twin, module in modules.items():
        for buffer in layout.buffers:
            above, _, key = buffer.name.rpartition(".")
            if above == module:
                pairs.append((f"{twin}.{key}", buffer.name))
    roots = list(dict.fromkeys(alias.split(".")[0] for alias, _ in pairs))
    return sorted(pairs, key=lambda pair: roots.index(pair[0].split(".")[0]))


def announce(network: Any) -> None:
    """Let optimizers of `backboned.optim` find a network by its parameters.

    It has `layout_parameters`, `host` and `batch_norms` as a `RemoteBackbone` has.
    """
    _networks.add(network)


def network_of(parameter: torch.Tensor) -> Any:
    """Give the network that has a parameter; None if there is none."""
    for network in list(_networks):
        try:
            parameters = network.layout_parameters()
        except (AttributeError, TypeError, ValueError):
            continue  # A network that is not whole has to be repaired first.
        if any(parameter is mine for mine in parameters):
            return network
    return None
