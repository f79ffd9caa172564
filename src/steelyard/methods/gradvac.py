"""GradVac: gradient vaccine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.options import one_of, within
from steelyard.base.state import State
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.pcgrad import random_orders
from steelyard.methods.solvers.unit_rows import UnitRows

Update = Literal["always", "below"]

_LIMIT = 1 - 1e-8
_NOTHING = 1e-12


class GradVac(GramianBalancer):
    """Each pair of gradients is brought to its usual cosine, where it falls below: PCGrad with targets of its own.

    For every ``i``, ``g_i' = g_i``; for all ``j ≠ i`` in random order, with ``φ = cos(g_i', g_j)``: where ``φ < ρ_ij``,
    ``g_i' ← g_i' + ‖g_i'‖ (ρ √(1-φ²) - φ √(1-ρ²)) / (‖g_j‖ √(1-ρ²)) g_j``, after which their cosine is ``ρ_ij``; then
    ``ρ_ij ← (1 - β) ρ_ij + β φ``. ``d = Σ_i g_i'``. Linear in the rows, so it runs on coefficients and the Gramian.

    Args:
        tasks: task names.
        beta: ``0 ≤ β < 1``, how fast the targets follow.
        update: ``"always"`` moves a target at every pair, as the paper describes it; ``"below"`` only where the cosine
            was below, as public code does (with ``beta=0.5``), so that targets never rise above zero.
        common: the options of `Balancer`; ``generator`` draws the orders.

    Targets start at 0 and stay within ``±(1 - 1e-8)``, since ``√(1-ρ²)`` divides. A zero gradient, and a ``g_i'`` that
    has shrunk to 1e-6 of ``g_i``, has no cosine to learn from.

    Cost: one backward pass through each task's head, and ``O(T³)`` operations; ``T²`` numbers of state.

    Source: Wang, Tsvetkov, Firat, Cao, "Gradient Vaccine: Investigating and Improving Multi-task Optimization in
    Massively Multilingual Models" (2021), arXiv 2010.05874. Certainty: the projection is as in public code; ``β =
    0.01`` and the update at every pair are the paper's as we remember it, not checked against its text. Deviation: one
    cosine of all that ``shared=`` names, as is public code's default; it also knows one per layer or per matrix.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = steelyard.GradVac(["a", "b"], beta=0.5, shared=[w])
        >>> for right in (1.0, 0.0):  # gradients (1, 0) and (right, 1)
        ...     a, b = torch.tensor([[1.0, 0.0], [right, 1.0]]) @ w
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # ρ = 0.5 cos 45° = 0.354: 1 + ρ / √(1 - ρ²)
        tensor([1.3780, 1.3780], dtype=torch.float64)
    """

    name = "gradvac"
    paper = "Wang, Tsvetkov, Firat, Cao (2021), arXiv 2010.05874"
    draws = True
    signed_weights = True

    def __init__(self, tasks: Sequence[str], *, beta: float = 0.01, update: Update = "always", **common: Any) -> None:
        super().__init__(tasks, **common)
        within("beta", beta, 0, 1)
        one_of("update", update, Update)
        self.beta, self.update = beta, update
        self.declare("target", ("T", "T"), reduce="mean")

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        size = len(rows.norms)
        everyone = torch.arange(size, device="cpu")
        orders = random_orders(size, self.generator)
        target = state.target.cpu().clone()
        rho = target[everyone, orders]  # a pair meets once in a step, so its target holds still
        paired = rows.moving & rows.moving[orders]
        slopes = rho / (1 - rho**2).sqrt()
        # Of the unit rows in g_i' / ‖g_i‖, row by row.
        coefficients = torch.eye(size, dtype=torch.float64, device="cpu")
        products = rows.cosines.clone()  # of g_i' / ‖g_i‖ and every u_j
        square = torch.ones_like(rows.norms)  # ‖g_i'‖² / ‖g_i‖²
        met = torch.zeros(2, *orders.shape, dtype=torch.float64, device="cpu")
        for number, others in enumerate(orders):
            product = products[everyone, others]
            met[0, number], met[1, number] = product, square
            # The paper's step times ‖g_j‖, with the length of g_i' multiplied in: positive where the cosine is below ρ.
            pull = (slopes[number] * (square - product**2).clamp(min=0).sqrt() - product).clamp(min=0) * paired[number]
            coefficients[everyone, others] += pull
            products.addcmul_(pull[:, None], rows.cosines[others])
            square = square + pull * (2 * product + pull)
        known = paired & (met[1] > _NOTHING)
        cosine = (met[0] / torch.where(known, met[1], 1.0).sqrt()).clamp(-1, 1)
        moved = ((1 - self.beta) * rho + self.beta * cosine).clamp(-_LIMIT, _LIMIT)
        target[everyone, orders] = torch.where(known if self.update == "always" else known & (cosine < rho), moved, rho)
        state.target = target.to(state.target.device)
        return rows.multipliers(rows.norms @ coefficients)
