"""Backwards that wait for the step."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch

from backboned.dtypes import Array


class Waiting(NamedTuple):
    """The backward of one taped forward, as PyTorch asked for it.

    `token` keeps the tape alive, and `release` is the finalizer that would give it up.
    """

    task: int
    tape_id: str
    gradients: dict[str, Array]
    retain: bool
    token: torch.Tensor
    release: weakref.finalize[Any, Any]

    def done(self) -> None:
        """Note that the server has used the tape."""
        if not self.retain:
            self.release.detach()


Group = list[Waiting]


def grouped(queue: Group, nothing_before: bool) -> list[Group]:
    """Cut a queue into calls whose sums have the bits of PyTorch's.

    PyTorch adds up what one `backward()` gives, the newest forward first, and adds
    the sum to the gradients that are there. So each `backward()` is a call of its
    own, but for two single tapes with nothing before: the order of two does not
    matter.
    """
    groups: list[Group] = []
    for item in queue:
        if groups and groups[-1][0].task == item.task:
            groups[-1].append(item)
        else:
            groups.append([item])
    if nothing_before and [len(group) for group in groups] == [1, 1]:
        (first,), (second,) = groups
        if first.tape_id != second.tape_id and first.retain == second.retain:
            return [[first, second]]
    return groups
