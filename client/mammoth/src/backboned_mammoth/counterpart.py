"""What computes for a network in the server."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from backboned.errors import InvalidArgument, NotFound
from backboned.instance import Instance
from backboned.nn.hosted import HostedLink
from backboned.nn.intact import Norms
from backboned.nn.lazy import as_plain
from backboned.nn.link import Link
from backboned.nn.mirrored import MirroredLink
from backboned.nn.refs import Weak
from backboned.nn.watch import torch_dtype
from backboned.types import BatchNorm

from backboned_mammoth.blueprint import Blueprint, Tensor
from backboned_mammoth.families import Family
from backboned_mammoth.run import Run


class UnsuitableError(Exception):
    """The server has no such network; says why."""


@dataclasses.dataclass(eq=False)
class Counterpart:
    """An instance that mirrors a network, made when it is first needed.

    Optimizers of `backboned.optim` take it for the network. `name` and `arguments` are
    the architecture's, `family` and `blueprint` the network's.
    """

    net = Weak()  # It has this.

    run: Run
    name: str
    arguments: dict[str, Any]
    family: Family
    blueprint: Blueprint
    _instance: Instance | None = dataclasses.field(default=None, init=False)
    _unsuitable: str = dataclasses.field(default="", init=False)
    _link: Link | None = dataclasses.field(default=None, init=False)
    _with_head: bool = dataclasses.field(default=True, init=False)
    _norms: Norms | None = dataclasses.field(default=None, init=False)
    _optimizer: Any = dataclasses.field(default=None, init=False)

    @property
    def hosted(self) -> HostedLink | None:
        """What connects a network that is hosted; None: it is mirrored."""
        return self._link if isinstance(self._link, HostedLink) else None

    def layout_parameters(self) -> list[Any]:
        """Give the parameters that the server knows, in flat order."""
        return [] if self._link is None else self._link.parameters()

    def known_parameters(self) -> list[Any]:
        """Give them, with the instance made if it was not.

        Raises UnsuitableError if the server has no such network as this one is now.
        """
        with as_plain():
            found = self.blueprint.compare(self.net)
        if found.difference:
            raise UnsuitableError(found.difference)
        return self.link(found.own_head).parameters()

    def link(self, with_head: bool) -> Link:
        """Give what connects the network's tensors with those in the server.

        Without its head, that stays here, and only the trunk is mirrored.

        Raises UnsuitableError if the server has no such network, or not these tensors.
        Raises BackbonedError if the server fails.
        """
        try:
            instance = self._find_instance()
            if self._link is None or self._with_head != with_head:
                self.mirror()
                if not with_head:
                    instance = instance.without(self.family.head)
                self._link = MirroredLink(instance, self.net)
                self._with_head = with_head
            self._link.parameters()
        except (AttributeError, TypeError, ValueError) as error:
            raise UnsuitableError(str(error)) from None
        return self._link

    def host(self, optimizer: Any) -> HostedLink:
        """Let the server have parameters, gradients and this optimizer."""
        self.run.hosted.add(self)
        with as_plain():
            own_head = self.blueprint.compare(self.net).own_head
        link = self.link(own_head)
        if isinstance(link, MirroredLink):
            link = self._link = HostedLink(link.instance, self.net, link)
        assert isinstance(link, HostedLink)
        link.optimizer = self._optimizer = optimizer
        return link

    def mirror(self) -> None:
        """Bring everything here, and work mirrored from now on."""
        hosted = self.hosted
        if hosted is not None:
            self._link = hosted.mirrored(self.net)
            self._optimizer = None

    def batch_norms(self) -> list[BatchNorm]:
        """Say how BatchNorm layers of the network run, where not as made."""
        if self._norms is None:
            instance = self._find_instance()
            self._norms = Norms(self.net, instance.layout, instance.architecture)
        return self._norms.overrides()

    def _find_instance(self) -> Instance:
        if self._unsuitable:
            raise UnsuitableError(self._unsuitable)
        if self._instance is None:
            try:
                self._instance = self._create()
            except UnsuitableError as error:
                self._unsuitable = str(error)
                raise
        return self._instance

    def _create(self) -> Instance:
        """Make the instance. What it draws is overwritten by what is here."""
        try:
            instance: Instance = self.run.server.create(
                architecture=self.name,
                seed=0,
                random_init=True,
                module=False,
                **self.arguments,
            )
        except (InvalidArgument, NotFound) as error:
            raise UnsuitableError(error.message) from None
        instance.channel = self.run.server.channel  # One meter for the whole run.
        self.run.counts["instances"] += 1
        layout = instance.layout
        params = [Tensor(p.name, p.shape, torch.float32) for p in layout.parameters]
        _compare(self.blueprint.parameters, params, "parameter")
        buffers = [
            Tensor(b.name, b.shape, torch_dtype(b.dtype)) for b in layout.buffers
        ]
        _compare(self.blueprint.buffers, buffers, "buffer")
        return instance


def _compare(here: list[Tensor], there: list[Tensor], what: str) -> None:
    """Raise UnsuitableError unless both networks have the same tensors."""
    if len(here) != len(there):
        raise UnsuitableError(f"it has {len(here)} {what}s, the server's {len(there)}")
    for mine, other in zip(here, there):
        if mine != other:
            raise UnsuitableError(
                f"it has the {what} {mine.name} {list(mine.shape)} where the server's "
                f"has {other.name} {list(other.shape)}"
            )
