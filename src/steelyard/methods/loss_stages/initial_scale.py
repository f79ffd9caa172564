"""Losses in units of their start."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.base.periods import add_to_period, close_period_mean, declare_period_mean
from steelyard.base.ratios import reciprocal
from steelyard.base.stage import Stage
from steelyard.base.state import State
from steelyard.errors import OptionError


class InitialScale(Stage):
    """Divide each loss by its mean over the first ``steps`` steps (``None``: the first epoch): ``L_k / mean |L_k|``.

    While the mean is being formed, losses are divided by the mean so far. A task that first appears later starts its
    own count.

    Args:
        steps: number of steps behind the mean; ``None`` waits for `Balancer.end_epoch`.

    Example:
        >>> balancer = steelyard.Chain(steelyard.InitialScale(steps=1), steelyard.Equal(["a"]))
        >>> for value in (4.0, 1.0):
        ...     print(balancer({"a": torch.tensor(value, requires_grad=True)}).item())
        1.0
        0.25
    """

    def __init__(self, steps: int | None = None) -> None:
        super().__init__()
        if steps is not None and steps < 1:
            raise OptionError(f"steps must be at least 1, got {steps}")
        self.steps = steps
        self.periodic = steps is None
        declare_period_mean(self)
        self.declare("scale", reduce="mean")

    def transform(self, losses: Tensor, state: State) -> tuple[Tensor, Tensor]:
        forming = state.scale == 0
        before = state.period_sum, state.period_count
        add_to_period(state, losses.abs())
        state.period_sum = torch.where(forming, state.period_sum, before[0])
        state.period_count = torch.where(forming, state.period_count, before[1])
        if self.steps is not None:
            full = forming & (state.period_count >= self.steps)
            state.scale = torch.where(full, self._mean(state), state.scale)
        factor = self._factor(state)
        return losses * factor, factor

    def again(self, losses: Tensor, state: State) -> Tensor:
        return losses * self._factor(state)

    def _factor(self, state: State) -> Tensor:
        return reciprocal(torch.where(state.scale == 0, self._mean(state), state.scale))

    def _mean(self, state: State) -> Tensor:
        return state.period_sum / state.period_count.clamp(min=1)

    def period_ended(self, state: State) -> None:
        if self.steps is None:
            forming = state.scale == 0
            state.scale = torch.where(forming, close_period_mean(state, state.scale), state.scale)
