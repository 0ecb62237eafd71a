"""Deep copies of a network: a clone in the server, or an instance that is fed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from backboned.nn import loss, norm
from backboned.nn.hosted import HostedLink
from backboned.nn.lazy import raw
from backboned.nn.link import Link
from backboned.nn.parts import Parts
from backboned.nn.rebuilding import make_like

if TYPE_CHECKING:
    from backboned.nn.remote import RemoteBackbone

_OWN = {"_link", "_optimizer", "_norms", "_parts", "first_digest"}
"""Attributes that a copy makes anew."""


def deepcopy(network: RemoteBackbone, memo: dict[int, Any]) -> RemoteBackbone:
    """Copy a network, and give the copy an instance of its own."""
    link = network._link
    twin = type(network).__new__(type(network))
    memo[id(network)] = twin
    nn.Module.__init__(twin)
    if isinstance(link, HostedLink):
        link.settle()
        with loss.advised(link.instance):
            instance = link.instance.clone(
                timeout=link.timeout, if_version=link.version
            )
        for tensor in _server_side(network):
            memo[id(tensor)] = _empty_like(tensor)
    else:
        instance = link.surviving(lambda: make_like(link.instance, link.timeout))
    for key, value in network.__dict__.items():
        if key not in _OWN:
            twin.__dict__[key] = copy.deepcopy(value, memo)
    twin._norms = norm.Norms(twin, instance.layout, instance.architecture)
    twin._parts = Parts(twin, instance.layout)
    twin._link = HostedLink(instance, twin) if link.hosting else Link(instance, twin)
    twin.first_digest = None
    twin._link.timeout = link.timeout
    return twin


def _server_side(network: RemoteBackbone) -> list[torch.Tensor]:
    """List the parameters and buffers that the server has."""
    layout = network.layout
    names = {parameter.name for parameter in layout.parameters}
    names.update(buffer.name for buffer in layout.buffers)
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return [tensor for name, tensor in tensors if name in names]


def _empty_like(tensor: torch.Tensor) -> torch.Tensor:
    """Make a plain tensor for values that are in the server."""
    with raw():
        empty = torch.empty_like(tensor, requires_grad=False)
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(empty.detach(), tensor.requires_grad)
        return empty.as_subclass(torch.Tensor)
