"""Periods: what a method that thinks in epochs keeps until the epoch (or every n-th step) ends."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.base.state import State, Stateful


def declare_period_mean(module: Stateful) -> None:
    """Declare the running sum and count behind `period_mean`."""
    module.declare("period_sum", reduce="sum")
    module.declare("period_count", reduce="sum")


def add_to_period(state: State, losses: Tensor) -> None:
    """Count one step's losses ``[T]`` in."""
    state.period_sum = state.period_sum + losses
    state.period_count = state.period_count + 1


def close_period_mean(state: State, otherwise: Tensor) -> Tensor:
    """Mean losses ``[T]`` of the period that ends, ``otherwise`` for tasks never seen in it; starts the next period."""
    seen = state.period_count > 0
    mean = torch.where(seen, state.period_sum / state.period_count.clamp(min=1), otherwise)
    state.period_sum = torch.zeros_like(mean)
    state.period_count = torch.zeros_like(mean)
    return mean
