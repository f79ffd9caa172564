"""`Stage`: a map of the losses in front of a method."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from steelyard.base.periods import add_to_period, close_period_mean, declare_period_mean
from steelyard.base.ratios import reciprocal
from steelyard.base.state import State, Stateful
from steelyard.errors import OptionError


class Stage(Stateful):
    """A map ``L_k → f(L_k)`` in front of a method, with declared state of its own.

    Example:
        >>> class Halves(steelyard.Stage):
        ...     def transform(self, losses, state):
        ...         return losses / 2, torch.full_like(losses, 0.5)
        >>> balancer = steelyard.Chain(Halves(), steelyard.Equal(["a"]))
        >>> balancer({"a": torch.tensor(4.0, requires_grad=True)}).item()
        2.0
    """

    positive_losses: ClassVar[bool] = False
    """Whether the stage is defined for losses of at least zero only."""
    periodic: bool = False
    """Whether the stage waits for the end of an epoch."""

    def transform(self, losses: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """``f(L) [T]`` and ``f'(L) [T]`` for the losses ``[T]`` of the present tasks; rebinds ``state``."""
        raise NotImplementedError

    def period_ended(self, state: State) -> None:
        """An epoch has ended; ``state`` covers all tasks."""


class LogLosses(Stage):
    """Balance ``log(L_k + ε)`` in place of ``L_k``: gradients ``∇L_k / (L_k + ε)``, free of each loss's unit.

    Args:
        epsilon: ``ε ≥ 0``, in the unit of the losses.

    Example:
        >>> balancer = steelyard.Chain(steelyard.LogLosses(), steelyard.Equal(["a", "b"]))
        >>> _ = balancer({"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(4.0, requires_grad=True)})
        >>> balancer.last_weights.round(decimals=4)  # 1 / L
        tensor([0.5000, 0.2500], dtype=torch.float64)
    """

    positive_losses: ClassVar[bool] = True

    def __init__(self, epsilon: float = 1e-8) -> None:
        super().__init__()
        if not epsilon >= 0:
            raise OptionError(f"epsilon must be at least 0, got {epsilon}")
        self.epsilon = epsilon

    def transform(self, losses: Tensor, state: State) -> tuple[Tensor, Tensor]:
        shifted = losses + self.epsilon
        return shifted.log(), 1 / shifted


class EMAScale(Stage):
    """Divide each loss by the moving average of its magnitude: ``L_k / E_k``, ``E_k ← β E_k + (1 - β) |L_k|``.

    The average is bias-corrected (the first step divides by the first loss) and no gradient flows through it.

    Args:
        beta: ``0 ≤ β < 1``, per step.

    Example:
        >>> balancer = steelyard.Chain(steelyard.EMAScale(0.9), steelyard.Equal(["a", "b"]))
        >>> _ = balancer({"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(4.0, requires_grad=True)})
        >>> balancer.last_weights.round(decimals=4)  # in the first step the average is the loss
        tensor([0.5000, 0.2500], dtype=torch.float64)
    """

    def __init__(self, beta: float = 0.99) -> None:
        super().__init__()
        if not 0 <= beta < 1:
            raise OptionError(f"beta must lie in [0, 1), got {beta}")
        self.beta = beta
        self.declare("average", reduce="mean")
        self.declare("weight_sum", reduce="mean")

    def transform(self, losses: Tensor, state: State) -> tuple[Tensor, Tensor]:
        state.average = self.beta * state.average + (1 - self.beta) * losses.abs()
        state.weight_sum = self.beta * state.weight_sum + (1 - self.beta)
        factor = reciprocal(state.average / state.weight_sum)
        return losses * factor, factor


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
        mean = state.period_sum / state.period_count.clamp(min=1)
        if self.steps is not None:
            state.scale = torch.where(forming & (state.period_count >= self.steps), mean, state.scale)
        factor = reciprocal(torch.where(forming, mean, state.scale))
        return losses * factor, factor

    def period_ended(self, state: State) -> None:
        if self.steps is None:
            forming = state.scale == 0
            state.scale = torch.where(forming, close_period_mean(state, state.scale), state.scale)
