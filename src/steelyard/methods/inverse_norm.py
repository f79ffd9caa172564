"""Inverse gradient norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import within
from steelyard.base.state import State


class InverseNorm(Balancer):
    """Every task's gradient weighs by the inverse of its average norm, so that none drowns another.

    ``w_k ∝ 1 / E_k`` with ``E_k ← β E_k + (1 - β) ‖g_k‖`` (bias-corrected) and ``Σ w_k = T``. A task whose gradient
    has been exactly zero so far has weight 1.

    Args:
        tasks: task names.
        beta: ``0 ≤ β < 1``, per step.
        common: the options of `Balancer`.

    Cost: one backward pass through each task's head to the features.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 3.0]]) @ w  # gradients (1, 0) and (0, 3)
        >>> balancer = steelyard.InverseNorm(["a", "b"], shared=[w])
        >>> _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights
        tensor([1.5000, 0.5000], dtype=torch.float64)
    """

    name = "inverse-norm"
    reads = "norms"
    rescaling = "proportion"

    def __init__(self, tasks: Sequence[str], *, beta: float = 0.9, **common: Any) -> None:
        super().__init__(tasks, **common)
        within("beta", beta, 0, 1)
        self.beta = beta
        self.declare("average", reduce="mean")
        self.declare("mass", reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        state.average = self.beta * state.average + (1 - self.beta) * seen.norms
        state.mass = self.beta * state.mass + (1 - self.beta)
        average = state.average / state.mass
        moving = average > 0
        # Relative to the largest, so that norms of 1e-300 and their inverses stay finite.
        inverse = torch.where(moving, average.max() / average, torch.zeros_like(average))
        share = inverse * (moving.sum() / inverse.sum())
        return torch.where(moving, share, torch.ones_like(share))
