"""Makes what computes for a network in the server."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import torch
from backboned.errors import InvalidArgument, NotFound
from backboned.instance import Instance
from backboned.nn.hosted import HostedLink, Link
from backboned.nn.intact import Parts
from backboned.nn.mirrored import MirroredLink
from backboned.nn.module import REPLAY_BYTES
from backboned.nn.refs import Weak
from backboned.nn.watch import torch_dtype
from backboned.transport.messages import fresh_id
from backboned.types import BatchNorm

from backboned_mammoth.blueprint import Blueprint, Tensor, UnsuitableError
from backboned_mammoth.families import Family
from backboned_mammoth.run import Run


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
    # Its instance gets a name, with which it comes back after a restart.
    lasting: bool = dataclasses.field(default=False, init=False)
    _instance: Instance | None = dataclasses.field(default=None, init=False)
    _unsuitable: str = dataclasses.field(default="", init=False)
    _link: Link | None = dataclasses.field(default=None, init=False)
    _with_head: bool = dataclasses.field(default=True, init=False)
    _parts: Parts | None = dataclasses.field(default=None, init=False)
    _optimizer: Any = dataclasses.field(default=None, init=False)

    @property
    def hosted(self) -> HostedLink | None:
        """The link of a network that is hosted; None: it is mirrored."""
        return self._link if isinstance(self._link, HostedLink) else None

    def layout_parameters(self) -> list[Any]:
        """Give the parameters that the server knows, in flat order."""
        return [] if self._link is None else self._link.parameters()

    def known_parameters(self) -> list[Any]:
        """Give them, with the instance made if it was not.

        Raises UnsuitableError if the server has no such network as this one is now.
        """
        _, own_head = self.blueprint.find(self.net)
        return self.link(own_head).parameters()

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
        link = self._link
        if isinstance(link, MirroredLink):
            link = self._link = HostedLink(link.instance, self.net, link)
        assert isinstance(link, HostedLink)  # Its parameters led here.
        link.optimizer = self._optimizer = optimizer
        if self.lasting and not link.instance.ephemeral:
            link.replay_bytes = REPLAY_BYTES
        elif self.lasting:
            self.run.warn(
                f"steps of {self.name} that a restart of the server loses cannot be "
                "replayed: it was used before it got an optimizer"
            )
        return link

    def mirror(self) -> None:
        """Bring everything here, and work mirrored from now on."""
        hosted = self.hosted
        if hosted is not None:
            self._link = hosted.mirrored(self.net)
            self._optimizer = None

    def batch_norms(self) -> list[BatchNorm]:
        """Say how BatchNorm layers of the network run, where not as made."""
        if self._parts is None:
            instance = self._find_instance()
            self._parts = Parts(self.net, instance.layout, instance.architecture)
        return self._parts.overrides()

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
        """Make the instance. The values here overwrite what it draws."""
        try:
            instance: Instance = self.run.server.create(
                architecture=self.name,
                name=f"mammoth-{fresh_id()}" if self.lasting else None,
                seed=0,
                random_init=True,
                module=False,
                **self.arguments,
            )
        except (InvalidArgument, NotFound) as error:
            raise UnsuitableError(error.message) from None
        instance.channel = self.run.server.channel  # One meter for the whole run.
        self.run.counts["instances"] += 1
        if self.lasting:
            self.run.lasting.append(instance)
        layout = instance.layout
        there = [Tensor(p.name, p.shape, torch.float32) for p in layout.parameters]
        there += [Tensor(b.name, b.shape, torch_dtype(b.dtype)) for b in layout.buffers]
        for mine, other in itertools.zip_longest(self.blueprint.tensors, there):
            if mine != other:
                raise UnsuitableError(
                    f"it has {_shown(mine)} where the server's has {_shown(other)}"
                )
        return instance


def _shown(tensor: Tensor | None) -> str:
    return f"{tensor.name} {list(tensor.shape)}" if tensor else "no tensor"
