"""CAGrad: conflict-averse gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.options import at_least
from steelyard.base.state import State
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.conflict_averse import conflict_averse_point
from steelyard.methods.solvers.unit_rows import UnitRows


class CAGrad(GramianBalancer):
    """The task that gains least gains as much as possible, within a ball around the mean gradient.

    ``d = argmax min_k ⟨g_k, d⟩`` over ``‖d - g_0‖ ≤ c ‖g_0‖``, ``g_0`` the mean; the paper's dual form is ``d = g_0 + c
    ‖g_0‖ g_w / ‖g_w‖`` with ``w = argmin g_wᵀg_0 + c ‖g_0‖ ‖g_w‖`` over the simplex. The result is divided by ``1 +
    c²``.

    Args:
        tasks: task names.
        c: radius of the ball, relative to ``‖g_0‖``: 0 is the mean gradient; the paper's values are 0.2 to 0.5. From 1
            on, the direction need not descend on the mean.
        rescale: whether to divide by ``1 + c²``.
        common: the options of `Balancer`.

    Where no direction improves all tasks (a convex combination of the gradients vanishes; a zero gradient is one),
    the ball's directions that hurt none are equally good, and the one nearest to ``g_0`` is taken, where the formula
    divides zero by zero.

    Cost: one backward pass through each task's head; the solver is exact (1 ms at T = 3, some ms at T = 40).

    Source: Liu, Liu, Jin, Stone, Liu, "Conflict-Averse Gradient Descent for Multi-task Learning" (2021), arXiv
    2110.14048, and the authors' code. Deviations: an exact solver where that code calls SLSQP or 20 gradient steps,
    whose absolute tolerances let the step collapse to the mean gradient at small norms; it multiplies ``d`` by T, "to
    match the sum", which matters to SGD and is not ``scale="sum"``, for these weights do not sum to 1.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[6.0, 0.0], [0.0, 8.0]]) @ w  # gradients (6, 0) and (0, 8)
        >>> balancer = steelyard.CAGrad(["a", "b"], c=0.1, rescale=False, shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # the mean (3, 4), and all that c ‖g_0‖ = 0.5 can do for the first
        tensor([3.5000, 4.0000])
    """

    name = "cagrad"
    paper = "Liu, Liu, Jin, Stone, Liu (2021), arXiv 2110.14048"

    def __init__(self, tasks: Sequence[str], *, c: float = 0.5, rescale: bool = True, **common: Any) -> None:
        super().__init__(tasks, **common)
        at_least("c", c, 0)
        self.c, self.rescale = c, rescale

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        if not bool(rows.moving.any()):
            return rows.multipliers(rows.norms, of_zero=1 / len(rows.norms))
        weights = rows.multipliers(conflict_averse_point(rows, self.c), of_zero=1 / len(rows.norms))
        return weights / (1 + self.c**2) if self.rescale else weights
