"""What computes for a network in the server."""

from __future__ import annotations

from typing import Any

import torch
from backboned.errors import InvalidArgument, NotFound
from backboned.instance import Instance
from backboned.nn.hosted import HostedLink, Link
from backboned.nn.intact import Norms
from backboned.nn.lazy import as_plain
from backboned.nn.mirrored import MirroredLink
from backboned.nn.watch import torch_dtype
from backboned.types import BatchNorm, Layout
from torch import nn

from backboned_mammoth.blueprint import Blueprint, Tensor
from backboned_mammoth.families import Family
from backboned_mammoth.run import Run


class UnsuitableError(Exception):
    """The server has no such network; says why."""


class Counterpart:
    """An instance that mirrors a network, made when it is first needed.

    Parameters
    ----------
    run : Run
    name : str
        The architecture's.
    arguments : dict
        Of the architecture.
    family : Family
    blueprint : Blueprint
        Of the network.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        arguments: dict[str, Any],
        family: Family,
        blueprint: Blueprint,
    ) -> None:
        self.run = run
        self.name = name
        self.arguments = arguments
        self.family = family
        self.blueprint = blueprint
        self._instance: Instance | None = None
        self._unsuitable = ""
        self._link: Link | None = None
        self._with_head = True
        self._norms: Norms | None = None
        self._optimizer: Any = None

    def twin(self) -> Counterpart:
        """Make one for a copy of the network."""
        return Counterpart(
            self.run, self.name, self.arguments, self.family, self.blueprint
        )

    @property
    def hosted(self) -> HostedLink | None:
        """What connects a network that is hosted; None: it is mirrored."""
        return self._link if isinstance(self._link, HostedLink) else None

    def layout_parameters(self) -> list[Any]:
        """Give the parameters that the server knows, in flat order."""
        return [] if self._link is None else self._link.parameters()

    def known_parameters(self, net: nn.Module) -> list[Any]:
        """Give them, with the instance made if it was not.

        Raises
        ------
        UnsuitableError
            If the server has no such network as this one is now.
        """
        with as_plain():
            found = self.blueprint.compare(net)
        if found.difference:
            raise UnsuitableError(found.difference)
        link = self.link(net, found.own_head)
        try:
            return link.parameters()
        except (AttributeError, TypeError, ValueError) as error:
            raise UnsuitableError(str(error)) from None

    def link(self, net: nn.Module, with_head: bool) -> Link:
        """Give what connects the network's tensors with those in the server.

        Without its head, that stays here, and only the trunk is mirrored.

        Raises
        ------
        UnsuitableError
            If the server has no such network.
        BackbonedError
            If the server fails.
        """
        instance = self._find_instance()
        if self._link is None or self._with_head != with_head:
            self.mirror(net)
            if not with_head:
                instance = instance.without(self.family.head)
            self._link = MirroredLink(instance, net)
            self._with_head = with_head
        return self._link

    def host(self, net: nn.Module, optimizer: Any) -> HostedLink:
        """Let the server have parameters, gradients and this optimizer."""
        with as_plain():
            own_head = self.blueprint.compare(net).own_head
        link = self.link(net, own_head)
        if isinstance(link, MirroredLink):
            link = self._link = HostedLink(link.instance, net, link)
        assert isinstance(link, HostedLink)
        link.optimizer = self._optimizer = optimizer
        return link

    def mirror(self, net: nn.Module) -> None:
        """Bring everything here, and work mirrored from now on."""
        hosted = self.hosted
        if hosted is not None:
            self._link = hosted.mirrored(net)
            self._optimizer = None

    def batch_norms(self, net: nn.Module) -> list[BatchNorm]:
        """Say how BatchNorm layers of the network run, where not as made."""
        if self._norms is None:
            instance = self._find_instance()
            self._norms = Norms(net, instance.layout, instance.architecture)
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
        _compare(self.blueprint.parameters, _parameters_of(layout), "parameter")
        _compare(self.blueprint.buffers, _buffers_of(layout), "buffer")
        return instance


def _parameters_of(layout: Layout) -> list[Tensor]:
    return [Tensor(p.name, p.shape, torch.float32) for p in layout.parameters]


def _buffers_of(layout: Layout) -> list[Tensor]:
    return [Tensor(b.name, b.shape, torch_dtype(b.dtype)) for b in layout.buffers]


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
