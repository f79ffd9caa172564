"""The ranks that share one global batch, and the collectives between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from steelyard.base.process_group import GroupHandle


def _never() -> bool:
    return False


is_initialised: Callable[[], bool] = dist.is_initialized if dist.is_available() else _never
"""Whether a process group exists in this process."""


class Ranks:
    """A process group of two or more ranks."""

    def __init__(self, group: Any) -> None:
        self.group, self.size = group, int(group.size())

    @property
    def device(self) -> torch.device:
        """Where a rank that has no loss makes its part of a sum: as the others do, who have theirs on an accelerator
        if the group has a backend for it alone."""
        backends = dict(pair.split(":") for pair in dist.get_backend_config(self.group).split(","))
        for_cpu = backends.pop("cpu", None)
        for kind, backend in backends.items():
            if for_cpu is None or (backend != for_cpu and torch.get_device_module(kind).is_available()):
                return torch.device(kind)
        return torch.device("cpu")

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place; the same bits on all."""
        dist.all_reduce(tensor, group=self.group)
        return tensor

    def gather(self, item: Any) -> list[tuple[int, Any]]:
        """Every rank's (number in the world, item); slow, for a first meeting and for errors."""
        items: list[Any] = [None] * self.size
        dist.all_gather_object(items, (dist.get_rank(), item), group=self.group)
        return items

    def first(self, item: Any) -> Any:
        """The first rank's item."""
        items = [item]
        dist.broadcast_object_list(items, src=dist.get_global_rank(self.group, 0), group=self.group)
        return items[0]

    def first_tensor(self, tensor: Tensor) -> Tensor:
        """The first rank's tensor, in place."""
        dist.broadcast(tensor, src=dist.get_global_rank(self.group, 0), group=self.group)
        return tensor


def ranks_of(sync: str, handle: GroupHandle | None) -> Ranks | None:
    """The ranks to balance with; ``None`` where there is but one, or ``sync="off"``."""
    if sync == "off" or not is_initialised():
        return None
    group: Any = dist.group.WORLD if handle is None else handle.group
    return Ranks(group) if group.size() > 1 else None


def summed_over(ranks: Ranks) -> Callable[[Tensor], Tensor]:
    """A sum over the ranks that leaves its argument alone."""
    return lambda tensor: ranks.sum(tensor.clone(memory_format=torch.contiguous_format))
