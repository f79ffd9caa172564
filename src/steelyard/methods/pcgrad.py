"""PCGrad: projecting conflicting gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.options import one_of
from steelyard.base.state import State
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.unit_rows import UnitRows

Reduce = Literal["sum", "mean"]


class PCGrad(GramianBalancer):
    """Each task gradient loses what conflicts with the others: it is projected onto their normal planes, one by one.

    For every ``i``, ``g_i' = g_i``; for all ``j ≠ i`` in random order, where ``⟨g_i', g_j⟩ < 0``,
    ``g_i' ← g_i' - ⟨g_i', g_j⟩ / ‖g_j‖² g_j`` with the original ``g_j``. ``d = Σ_i g_i'``. The projections are
    linear in the rows, so they run on coefficients and the Gramian. A zero gradient conflicts with nothing and has
    weight 1.

    Args:
        tasks: task names.
        reduce: ``"sum"`` of the projected gradients, or their ``"mean"``.
        common: the options of `Balancer`; ``generator`` draws the orders.

    Cost: one backward pass through each task's head, and ``O(T³)`` operations.

    Source: Yu, Kumar, Gupta, Levine, Hausman, Finn, "Gradient Surgery for Multi-Task Learning" (2020), arXiv
    2001.06782. Deviation: every ``i`` has a random order of its own, as in the paper; the authors' code discards its
    shuffle, so that the order is fixed there, and projects ``g_i'`` on ``g_i`` too.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [-1.0, 1.0]]) @ w  # gradients (1, 0) and (-1, 1)
        >>> balancer = steelyard.PCGrad(["a", "b"], shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # projected, they are (0.5, 0.5) and (0, 1)
        tensor([0.5000, 1.5000])
    """

    name = "pcgrad"
    paper = "Yu et al. (2020), arXiv 2001.06782"
    draws = True

    def __init__(self, tasks: Sequence[str], *, reduce: Reduce = "sum", **common: Any) -> None:
        super().__init__(tasks, **common)
        one_of("reduce", reduce, Reduce)
        self.reduce = reduce

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        size = len(rows.norms)
        everyone = torch.arange(size, device="cpu")
        # Of the unit rows in g_i' / ‖g_i‖, row by row.
        coefficients = torch.eye(size, dtype=torch.float64, device="cpu")
        products = rows.cosines.clone()  # of g_i' / ‖g_i‖ and every u_j
        for others in random_orders(size, self.generator):
            conflict = products[everyone, others].clamp(max=0)
            coefficients[everyone, others] -= conflict
            products -= conflict[:, None] * rows.cosines[others]
        weights = rows.multipliers(rows.norms @ coefficients)
        return weights / size if self.reduce == "mean" else weights


def random_orders(size: int, generator: torch.Generator | None) -> Tensor:
    """``[T - 1, T]``: column ``i`` holds all ``j ≠ i`` in a random order."""
    draws = torch.rand(size, size, generator=generator, dtype=torch.float64, device="cpu")
    return draws.fill_diagonal_(2.0).argsort(dim=1)[:, : size - 1].T
