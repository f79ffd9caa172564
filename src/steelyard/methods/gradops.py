"""GradOPS: task gradients that conflict are made orthogonal to all others."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.state import State
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.equiangular import RANK
from steelyard.methods.solvers.unit_rows import UnitRows

_NULL = 1e-10
"""The squared share of a unit row in what rounding leaves of a dependence that it has no part in."""


class GradOPS(GramianBalancer):
    """A task gradient in conflict with any other loses its projection on the span of all others.

    ``d = Σ_i g_i'`` with ``g_i' = g_i - P_i g_i``, ``P_i`` the projection on ``span{g_j : j ≠ i}``, where ``⟨g_i, g_j⟩
    < 0`` for some ``j``, and ``g_i' = g_i`` elsewhere. So no ``g_i'`` conflicts with any ``g_j``, nor does ``d``,
    whatever the order of the tasks. Weights may be negative.

    Args:
        tasks: task names.
        common: the options of `Balancer`.

    A gradient in conflict that is a combination of the others (opposite gradients, more tasks than dimensions) leaves
    nothing. A zero gradient conflicts with nothing and has weight 1. Cosines above -1.2e-7 are no conflict, and
    eigenvalues of the cosines below 1.2e-7 T are zero, as float32 knows them.

    Cost: one backward pass through each task's head; an eigendecomposition of ``[T, T]``.

    Source: Zhu, Zhao, Wu, Wang, Deng, Xu, Zheng, "Gradient Deconfliction via Orthogonal Projections onto Subspaces for
    Multi-task Learning" (2025), arXiv 2503.03438. Certainty: from the abstract and summaries; that gradients without a
    conflict stay whole is how we read them, and no code was found. Deviation: the exponent that trades tasks off, by
    how far the result progresses along each, is left out (``priorities=`` sets a preference).

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [-1.0, 1.0]]) @ w  # gradients (1, 0) and (-1, 1)
        >>> balancer = steelyard.GradOPS(["a", "b"], shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # (0.5, 0.5), at a right angle to b's, and (0, 1)
        tensor([0.5000, 1.5000])
    """

    name = "gradops"
    paper = "Zhu et al. (2025), arXiv 2503.03438"
    signed_weights = True

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        conflicts = (rows.cosines < -RANK).any(1)
        own = torch.eye(len(conflicts), dtype=torch.float64, device="cpu")
        if not bool(conflicts.any()):
            return rows.multipliers(rows.norms)
        coefficients = torch.where(conflicts[:, None], _orthogonal_to_others(rows.cosines), own)
        return rows.multipliers(rows.norms @ coefficients)


def _orthogonal_to_others(cosines: Tensor) -> Tensor:
    """``[T, T]``: row ``i`` has the coefficients of unit row ``i`` without its projection on the span of the others.

    A combination ``b`` with ``b_i = 1`` and ``C b = r e_i`` is orthogonal to all others: ``b = r C⁺ e_i``, if ``e_i``
    has no part in the null space of ``C``. If it has, the row is a combination of the others.
    """
    values, vectors = torch.linalg.eigh(cosines)
    kept = values > RANK * len(values)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    dependent = vectors[:, ~kept].square().sum(1) > _NULL
    residual = torch.where(dependent, 0.0, 1 / inverse.diagonal().clamp(min=torch.finfo(torch.float64).tiny))
    coefficients: Tensor = residual[:, None] * inverse
    return coefficients
