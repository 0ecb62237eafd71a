"""A backbone in the server that looks and trains like a local `torch.nn.Module`."""

from __future__ import annotations

import copy
from typing import Any, Callable, NoReturn, Union

import torch
from torch import nn

from backboned.dtypes import float_number
from backboned.instance import Instance, create_instance
from backboned.layout import Layout, argument_values
from backboned.nn.function import Call, run, run_with_graph
from backboned.nn.link import Link
from backboned.nn.tree import plant
from backboned.v1 import instance_service_pb2 as pb

Outputs = Union[
    torch.Tensor,
    tuple[torch.Tensor, torch.Tensor],
    tuple[torch.Tensor, list[torch.Tensor]],
]

_LINK = "_link"


class RemoteBackbone(nn.Module):
    """A backbone whose forward and backward run in the server.

    Its parameters and buffers are mirrored here under the names, and in the order, of
    the architecture, so that optimizers, `state_dict`, freezing, clipping and
    initialisation work as with any module. The mirror decides: what changed here is
    pushed before the next forward. A training forward brings the new BatchNorm
    statistics back.

    A change is noticed however PyTorch tracks it (a step, `load_state_dict`,
    ``p.data = t``, in-place functions). PyTorch does not track ``p.data.add_(t)``:
    that is found if it touches one of 16 elements of some tensor, which a dense update
    does; `strict` compares all of them, and `push` writes everything. A change by
    somebody else in the server is a `StaleVersion` in the next forward; `pull` takes
    it over.

    The mirror is on the CPU, of the instance's dtype; one of float16 or bfloat16 runs
    in evaluation only, without gradients. Bits equal those of the same network in local
    PyTorch if both sides use equally many threads (`Server.info().threads`).
    Gradients of gradients are not available. Errors of the server are raised as
    `BackbonedError` from forward and from backward.

    What is random (dropout) draws from PyTorch's CPU generator, so that
    `torch.manual_seed` means what it means for a local network.

    Made by `Server.create` and `Server.instance`.

    Parameters
    ----------
    instance : Instance
    """

    _link: Link

    def __init__(self, instance: Instance) -> None:
        super().__init__()
        self.return_prerelu = False
        plant(self, instance.layout, getattr(torch, instance.dtype))
        for name, value in instance.layout.attributes.items():
            if not hasattr(self, name):
                setattr(self, name, value)
        self._link = Link(instance, self)
        self.pull()

    @property
    def instance(self) -> Instance:
        """The instance in the server, for NumPy arrays; beside the mirror."""
        return self._link.instance

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.instance.name

    @property
    def layout(self) -> Layout:
        """Names, shapes and order of what is mirrored."""
        return self.instance.layout

    @property
    def strict(self) -> bool:
        """Compare every element before each forward; False until set."""
        return self._link.strict

    @strict.setter
    def strict(self, value: bool) -> None:
        self._link.strict = value

    @property
    def timeout(self) -> float | None:
        """Seconds for each call; None: the server object's."""
        return self._link.timeout

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        self._link.timeout = value

    def forward(self, x: torch.Tensor, returnt: str = "out") -> Outputs:
        """Run the network in the server.

        Parameters
        ----------
        x : Tensor, [N, C, H, W]
            Floating-point and already normalised, or uint8 images that the server
            normalises.
        returnt : {"out", "features", "both", "full"}
            The logits [N, K]; the features [N, D]; both; or the logits and a list of
            every stage's output.

        Returns
        -------
        Tensor, or (Tensor, Tensor) for ``both``, or (Tensor, list) for ``full``

        Raises
        ------
        BackbonedError
            If the server refuses or fails.
        TypeError, ValueError
            If `x`, or a tensor of the mirror, has not the type or shape it must have.
        """
        _check_input(x)
        parameters = self._link.parameters()
        call = Call(self._link, returnt, self.training, self.return_prerelu)
        if torch.is_grad_enabled() and (
            x.requires_grad or any(p.requires_grad for p in parameters)
        ):
            tensors = run_with_graph(call, x, parameters)
        else:
            tensors = run(call, x)
        if returnt == "both":
            return tensors[0], tensors[1]
        if returnt == "full":
            return tensors[0], list(tensors[1:])
        return tensors[0]

    def set_return_prerelu(self, enable: bool = True) -> None:
        """Let ``full`` list every stage as it is before its ReLU.

        Raises
        ------
        ValueError
            If the architecture's stages have none.
        """
        if enable and not self.layout.prerelu:
            raise ValueError(
                f"{self.instance.architecture} has no stages before a ReLU"
            )
        self.return_prerelu = enable

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Give the features, [N, D]."""
        features: torch.Tensor = self(x, returnt="features")
        return features

    def get_params(self) -> torch.Tensor:
        """Give all parameters as a vector [P], differentiable."""
        return torch.cat([p.reshape(-1) for p in self._link.parameters()])

    def set_params(self, values: torch.Tensor) -> None:
        """Give the parameters the values of a vector [P], which is copied."""
        with torch.no_grad():
            for parameter, part in self._cut(values, "parameters"):
                parameter.data = part

    def get_grads(self) -> torch.Tensor:
        """Give the gradients of all parameters as a vector [P].

        Raises
        ------
        RuntimeError
            If a parameter has none.
        """
        parameters = self._link.parameters()
        missing = [
            spec.name
            for spec, parameter in zip(self.layout.parameters, parameters)
            if parameter.grad is None
        ]
        if missing:
            raise RuntimeError(f"no gradient yet of {', '.join(missing)}")
        return torch.cat([p.grad.reshape(-1) for p in parameters])  # type: ignore

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
        values = values.detach().to("cpu", getattr(torch, self.instance.dtype))
        parts = torch.split(values, [p.numel() for p in parameters])
        return [
            (parameter, part.reshape(parameter.shape).clone())
            for parameter, part in zip(parameters, parts)
        ]

    def push(self) -> None:
        """Write the whole mirror into the instance, whatever is there."""
        self._link.push()

    def pull(self) -> None:
        """Take the instance's parameters and buffers into the mirror."""
        self._link.pull()

    def delete(self) -> None:
        """Delete the instance in the server; the mirror stays readable."""
        self.instance.delete()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> RemoteBackbone:
        """Refuse what would move the mirror to another device or type."""
        dtype = getattr(torch, self.instance.dtype)
        probe = fn(torch.zeros(1, dtype=dtype))
        if probe.device.type != "cpu" or probe.dtype != dtype:
            raise TypeError(
                f"a RemoteBackbone's mirror is {self.instance.dtype} on the CPU, not "
                f"{probe.dtype} on {probe.device}; the server computes on its own "
                "device"
            )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> RemoteBackbone:
        """Make an independent network: a new instance with equal tensors."""
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        instance = _create_like(self.instance, self.timeout)
        nn.Module.__init__(twin)
        for key, value in self.__dict__.items():
            if key != _LINK:
                twin.__dict__[key] = copy.deepcopy(value, memo)
        link = Link(instance, twin)
        link.timeout, link.strict = self.timeout, self.strict
        twin.__dict__[_LINK] = link
        return twin

    def __getstate__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError(
            "a RemoteBackbone stands for an instance in a server and cannot be "
            "pickled; save its state_dict()"
        )

    def __repr__(self) -> str:
        """Say the server, the name and what it was made from."""
        instance = self.instance
        made_from = instance.benchmark or instance.architecture
        return (
            f"{type(self).__name__}({instance.name!r} [{made_from}] "
            f"on {instance.channel.target})"
        )


def _check_input(x: Any) -> None:
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"the input is a tensor; got {type(x).__name__}")
    if x.device.type != "cpu":
        raise TypeError(f"the input is on {x.device}; give it from the CPU")
    if not x.dtype.is_floating_point and x.dtype != torch.uint8:
        raise TypeError(f"the input is floating-point or uint8; got {x.dtype}")


def _create_like(instance: Instance, timeout: float | None) -> Instance:
    """Make an unnamed instance of the same architecture and arguments.

    Its parameters are drawn, also where Mammoth loads weights: they are overwritten.
    """
    if instance.columns:
        raise TypeError(
            f"{instance.name!r} is a later column of a progressive network, which "
            "cannot be copied: the earlier columns may have changed since"
        )
    request = pb.CreateInstanceRequest(
        arguments=argument_values(instance.arguments),
        device=instance.device,
        seed=0,
        random_init=True,
        dtype=float_number(instance.dtype),
    )
    if instance.benchmark:
        request.benchmark = instance.benchmark
    else:
        request.architecture = instance.architecture
    if instance.normalization is not None:
        request.normalization.mean.extend(instance.normalization.mean)
        request.normalization.std.extend(instance.normalization.std)
    return create_instance(instance.channel, request, timeout)
