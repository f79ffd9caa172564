"""ConicGrad: the task that gains least gains most, within a cone about the mean gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.options import within
from steelyard.base.state import State
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.conic import conic_point
from steelyard.methods.solvers.unit_rows import UnitRows


class ConicGrad(GramianBalancer):
    """The direction by which the least improved task gains most, within a cone about the mean gradient.

    ``d ∝ argmax_x min_k ⟨g_k, x⟩`` over ``‖x‖ ≤ 1``, ``⟨g_0, x⟩ ≥ c ‖g_0‖``, with ``g_0`` the mean gradient, rescaled
    to ``‖d‖ = ‖g_0‖``. So ``d`` is as long as the mean gradient, and at an angle of at most ``arccos c`` to it.

    Args:
        tasks: task names.
        c: ``0 ≤ c < 1``, the least cosine of ``d`` and the mean gradient: 0 is MGDA's direction, nearly 1 the mean.
        common: the options of `Balancer`.

    Where no direction of the cone improves all tasks, the cone's best is taken. Where a convex combination of the
    gradients vanishes (a zero gradient is one), so does MGDA's direction; then several directions may be best, and the
    limit of the best as the mean's part in them falls is taken. Where the mean gradient is zero, ``d`` is too.

    Cost: one backward pass through each task's head; the solver is exact (a few ms), up to combinations that are 3e-5
    of their parts, which count as zero.

    Source: Hassanpour, Janjua, Zhang, Lavasani, Zhang, Zhou, Gao, "Fantastic Multi-Task Gradient Updates and How to
    Find Them In a Cone" (2025), arXiv 2502.00217. Certainty: the problem is reconstructed from the abstract and
    summaries; no code was found. Deviations: it is solved exactly, where the paper has a closed form for given task
    weights; that directions are compared at one length, and the default of ``c``, are ours.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[6.0, 0.0], [0.0, 8.0]]) @ w  # gradients (6, 0) and (0, 8), their mean (3, 4)
        >>> balancer = steelyard.ConicGrad(["a", "b"], shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # as long as the mean; both gain 24
        tensor([4., 3.])
    """

    name = "conicgrad"
    paper = "Hassanpour et al. (2025), arXiv 2502.00217"
    revision = 1  # a zero gradient had a weight without bound, which scale="sum" made that of all

    def __init__(self, tasks: Sequence[str], *, c: float = 0.5, **common: Any) -> None:
        super().__init__(tasks, **common)
        within("c", c, 0, 1)
        self.c = c

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        return conic_point(rows, self.c)
