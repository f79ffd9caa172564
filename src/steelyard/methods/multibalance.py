"""MultiBalance: a common descent direction of gradients of average size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.options import within
from steelyard.base.state import State
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.min_norm import min_norm_point
from steelyard.methods.solvers.unit_rows import UnitRows


class MultiBalance(GramianBalancer):
    """The min-norm combination of the feature gradients, each divided by its moving average norm.

    ``E_k ← β E_k + (1 - β) ‖g_k‖`` (bias-corrected), ``α = argmin ‖Σ_k α_k g_k / E_k‖²`` over the simplex, and ``w_k =
    α_k Ē / E_k`` with ``Ē`` the mean of ``E``.

    Args:
        tasks: task names.
        beta: ``0 ≤ β < 1``, per step; 0 takes each step's own norms.
        common: the options of `Balancer`.

    A zero gradient is itself the point of smallest norm, as in `MGDA`.

    Cost: one backward pass through each task's head to the features.

    Source: He, Chen, Xu, et al., "MultiBalance: Multi-Objective Gradient Balancing in Industrial-Scale Multi-Task
    Recommendation System" (2024), arXiv 2411.11871. Certainty: reconstructed from its abstract and a third party's
    description (gradients with respect to the shared features, moving averages of their magnitudes, MGDA's problem);
    where the magnitudes enter, and ``β``, are our choice.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 4.0]]) @ w  # gradients (1, 0) and (0, 4)
        >>> balancer = steelyard.MultiBalance(["a", "b"], shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # α = 1/2 each, on unit gradients; the mean norm is 2.5
        tensor([1.2500, 1.2500])
    """

    name = "multibalance"
    paper = "He et al. (2024), arXiv 2411.11871"

    def __init__(self, tasks: Sequence[str], *, beta: float = 0.9, **common: Any) -> None:
        super().__init__(tasks, **common)
        within("beta", beta, 0, 1)
        self.beta = beta
        self.rescaling = "proportion"
        self.declare("average", reduce="mean")
        self.declare("mass", reduce="mean")

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        state.average = self.beta * state.average + (1 - self.beta) * seen.norms
        state.mass = self.beta * state.mass + (1 - self.beta)
        size = (state.average / state.mass).cpu()
        inverse = torch.where(size > 0, 1 / size, torch.zeros_like(size))
        relative = rows.norms * inverse
        alpha = min_norm_point(rows.cosines * relative[:, None] * relative)
        return torch.where(size > 0, alpha * inverse * size.mean(), alpha)
