"""Logarithms of the losses."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from steelyard.base.stage import Stage
from steelyard.base.state import State
from steelyard.errors import OptionError


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
