"""MoDo: multi-objective gradient with double sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import at_least
from steelyard.base.state import State
from steelyard.methods.solvers.simplex import kept_shares, project_on_simplex, shares_of_present


class MoDo(Balancer):
    """One projected step per iteration towards the common descent direction, on products of independent batches.

    ``w ← Π_Δ(w - γ (J₁ J₂ᵀ + ρ I) w)`` from ``w = 1/T``, with the rows of two probe batches; ``d = J₃ᵀ w`` on the
    batch at hand. Heads are left plain.

    Args:
        tasks: task names.
        gamma: ``γ ≥ 0``, in the unit of one over squared gradients.
        rho: ``ρ ≥ 0``, in the unit of squared gradients.
        common: the options of `Balancer`.

    Cost: trunk only; three backward passes per task: two for the probes, one for the batch at hand.

    Source: Chen, Fernando, Ying, Chen, "Three-Way Trade-Off in Multi-Objective Learning: Optimization,
    Generalization and Conflict-Avoidance" (2023), arXiv 2305.20057, and the authors' code. Deviations: that code has
    ``gamma=0.1`` (1e-3 in LibMTL), and knows a form of two batches, along whose sum it steps. Heads see the batch at
    hand; LibMTL gives them the mean of the three.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> def losses():  # gradients (1, 0) and (0, 3), in every batch
        ...     return dict(zip("ab", torch.tensor([[1.0, 0.0], [0.0, 3.0]]) @ w))
        >>> balancer = steelyard.MoDo(["a", "b"], gamma=0.1, rho=0, shared=[w])
        >>> _ = balancer(losses(), probes=[losses(), losses()])
        >>> balancer.last_weights  # (0.5 - 0.05, 0.5 - 0.45), projected on the simplex
        tensor([0.7000, 0.3000], dtype=torch.float64)
    """

    name = "modo"
    paper = "Chen, Fernando, Ying, Chen (2023), arXiv 2305.20057"
    reads = "cross_gramian"
    where = frozenset({"trunk"})
    uses_angles = True
    default_heads = "plain"
    revision = 1  # shares of the tasks at hand were kept beside those of the absent ones as if they were of all

    def __init__(self, tasks: Sequence[str], *, gamma: float = 1e-3, rho: float = 0.1, **common: Any) -> None:
        super().__init__(tasks, **common)
        at_least("gamma", gamma, 0)
        at_least("rho", rho, 0)
        self.gamma, self.rho = gamma, rho
        self.declare("shares", default=1 / len(self.tasks), reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        assert seen.cross_gramian is not None
        w = shares_of_present(state.shares)
        w = project_on_simplex(w - self.gamma * (seen.cross_gramian @ w + self.rho * w))
        state.shares = kept_shares(w, state.shares, len(self.tasks))
        return w
