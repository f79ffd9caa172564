"""Where the small mathematics of a call runs, in which precision, and in which its result comes back."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.distributed.ranks import Ranks
from steelyard.balancing.state_dict import Persistent
from steelyard.base.float64 import double
from steelyard.base.lookahead import Losses, Recompute
from steelyard.errors import StateError


def full_precision(device: str) -> AbstractContextManager[Any]:
    """The look and its products keep their precision when the call stands inside an autocast region."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


class UnderAutocast:
    """``again`` in the precision in which the call's own losses were computed, wherever it is called from.

    Without autocast's cache of converted parameters: ``again`` is called with others, and after they have moved.
    """

    def __init__(self, again: Recompute, device: str) -> None:
        self._again, self._device, self._dtype = again, device, torch.get_autocast_dtype(device)

    def __call__(self, *args: Any, **kwargs: Any) -> Losses:
        with torch.autocast(self._device, dtype=self._dtype, cache_enabled=False):
            return self._again(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of its own, and not there yet: a copy is being made
            raise AttributeError(name)
        return getattr(self._again, name)


def as_called(again: Recompute | None, device: str) -> Recompute | None:
    """``again``, to be called later, as it would be now."""
    return again if again is None or not torch.is_autocast_enabled(device) else UnderAutocast(again, device)


def without_losses(balancer: Persistent, ranks: Ranks | None) -> torch.device:
    """Where the losses were so far; before the first, where the ranks that have some must have them."""
    return balancer._now.caches.device or (torch.device("cpu") if ranks is None else ranks.device)


def follow(balancer: Persistent, device: torch.device) -> None:
    """Keep the state where the losses are."""
    caches = balancer._now.caches
    if caches.device != device:
        if any(buffer.is_meta for buffer in balancer.buffers()) and device.type != "meta":
            raise StateError(
                f"the state of {balancer.name} lies on the meta device and has no values: call "
                f"balancer.to_empty(device={str(device)!r}), then balancer.reset() or load_state_dict(...)"
            )
        balancer.to(device)
        caches.device = device


def stacked(losses: list[Tensor], device: torch.device) -> Tensor:
    """``[T]`` float64."""
    if not losses:
        return torch.zeros(0, dtype=torch.float64, device=device)
    dtypes = {loss.dtype for loss in losses}
    if len(dtypes) > 1:
        common = functools.reduce(torch.promote_types, dtypes)
        losses = [loss.to(common) for loss in losses]
    return double(torch.stack(losses)).to(device)


def as_result(value: Tensor, losses: list[Tensor]) -> Tensor:
    """The value in the losses' precision, float32 at least."""
    dtypes = {loss.dtype for loss in losses}
    dtype = torch.float32 if dtypes == {torch.float32} else functools.reduce(torch.promote_types, dtypes, torch.float32)
    return value.to(device=losses[0].device, dtype=dtype)
