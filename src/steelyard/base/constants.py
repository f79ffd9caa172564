"""Small constants, made once per device: on CUDA, a number copied from the host makes the stream wait."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


@functools.lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
    """``values`` as a vector on a device; never written to."""
    return torch.tensor(values, dtype=dtype, device=device)


def vector(values: Sequence[float], device: torch.device) -> Tensor:
    """Numbers that differ from step to step as float64 on a device, without waiting for it."""
    return torch.tensor(values, dtype=torch.float64, device="cpu").to(device, non_blocking=True)
