"""FairGrad: alpha-fair gains for all tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from steelyard.base.method import Product
from steelyard.base.observation import Along, Seen
from steelyard.base.options import at_least
from steelyard.base.state import State
from steelyard.methods.amortised import Solver, amortised_rate
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.nash_mtl import bargain, bargained, learn_to_bargain
from steelyard.methods.solvers.unit_rows import UnitRows


class FairGrad(GramianBalancer):
    """Gains are shared as in a network that is α-fair: from the largest sum to the best worst case.

    ``w > 0`` with ``G w = p w^{-1/α}``, ``p`` the priorities (1 unless given); it maximises the α-fair utility
    ``Σ_k p_k^α ⟨g_k, d⟩^{1-α} / (1 - α)`` over ``‖d‖ = const``.

    Args:
        tasks: task names.
        alpha: ``α > 0``: towards 0 the sum of gains, 1 proportional fairness (`NashMTL`), towards infinity max-min
            fairness.
        solver, product, rate: as in `MGDA` and `NashMTL`.
        common: the options of `Balancer`.

    A zero gradient takes no part and has weight 1; a task of priority 0 has weight 0. Where a positive combination of
    the gradients vanishes: as in `NashMTL`. With ``α`` below 0.5 and norm ratios beyond 1e3 the equations are
    ill-conditioned in themselves.

    Cost: one backward pass through each task's head; the solver is exact (1 ms at T = 40).

    Source: Ban & Ji, "Fair Resource Allocation in Multi-Task Learning" (2024), arXiv 2402.15638, and the authors' code.
    Deviations: damped Newton steps to rounding error, where that code calls a general least-squares solver with its
    absolute tolerances; it multiplies ``d`` by T and clips it to length 1, which is left to the loop. Heads are plain
    as there, but for the amortised solver, which is not from there: plain ones would cost a pass through each head.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 8.0]]) @ w  # gradients (1, 0) and (0, 8)
        >>> balancer = steelyard.FairGrad(["a", "b"], alpha=2.0, shared=[w])
        >>> _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # 64 w = 1 / √w
        tensor([1.0000, 0.0625], dtype=torch.float64)
    """

    name = "fairgrad"
    paper = "Ban & Ji (2024), arXiv 2402.15638"
    default_heads = "plain"
    revision = 1  # heads were weighted by default
    native_priorities = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        alpha: float = 1.0,
        solver: Solver = "exact",
        product: Product | None = None,
        rate: float | None = None,
        **common: Any,
    ) -> None:
        if solver == "amortised":
            common.setdefault("heads", "weighted")
        super().__init__(tasks, **common)
        at_least("alpha", alpha, 0, strictly=True)
        self.alpha = alpha
        self.rescaling = "contribution" if alpha == 1 else "none"
        self.amortised_rate = amortised_rate(self, solver, product, rate, default=1.0)

    @property
    def constant_length(self) -> float | None:
        """With ``alpha=1`` that of Nash-MTL, ``w' G w = Σ p_k``."""
        return math.sqrt(sum(self.priorities.values())) if self.alpha == 1 else None

    def weigh(self, seen: Seen, state: State) -> Tensor:
        return super().weigh(seen, state) if self.amortised_rate is None else bargained(self, seen, state)

    def look_along(self, along: Along, state: State) -> None:
        if self.amortised_rate is not None:
            learn_to_bargain(self, along, state, self.alpha, self.amortised_rate)

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        return bargain(rows, self.preferences(seen), self.alpha)
