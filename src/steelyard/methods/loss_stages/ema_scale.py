"""Losses in units of the moving average of their magnitude."""

from __future__ import annotations

from torch import Tensor

from steelyard.base.ratios import reciprocal
from steelyard.base.stage import Stage
from steelyard.base.state import State
from steelyard.errors import OptionError


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
        factor = self._factor(state)
        return losses * factor, factor

    def again(self, losses: Tensor, state: State) -> Tensor:
        return losses * self._factor(state)

    def _factor(self, state: State) -> Tensor:
        return reciprocal(state.average / state.weight_sum)
