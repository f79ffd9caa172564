"""UPGrad: unconflicting projection of the gradients, one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.state import State
from steelyard.errors import LossError
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.dual_cone import dual_cone_projection
from steelyard.methods.solvers.unit_rows import UnitRows

MOST = 400  # T projections in T dimensions: O(T⁴)


class UPGrad(GramianBalancer):
    """Each task gradient is replaced by the nearest one that conflicts with none; then they are averaged.

    ``d = Σ_k u_k π(g_k)`` with ``u = p / T``, ``p`` the priorities (1 unless given), and ``π`` the projection on the
    dual cone of the rows ``{x: ⟨g_t, x⟩ ≥ 0 for all t}``: ``π(g_k) = Jᵀv``, ``v = argmin vᵀG v`` over ``v ≥ e_k``.
    Never in conflict: ``⟨g_t, d⟩ ≥ 0`` to 1e-10 of ``‖g_t‖ Σ_k w_k ‖g_k‖``, at any ratio of norms.

    Args:
        tasks: task names.
        common: the options of `Balancer`; ``priorities`` are the method's own preference.

    A zero gradient conflicts with nothing and has weight ``u_k``.

    Cost: one backward pass through each task's head; the solver is exact (5 ms at T = 40, some 50 ms at T = 100,
    seconds at T = 400).

    Errors: more than 400 tasks in a batch raise `LossError`: `DualProj` projects their mean once.

    Source: Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization" (2024), arXiv 2406.16232. Deviation:
    projections are solved on the cosines, with relative tolerances, where the authors' code regularises and thresholds
    in absolute terms.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [-1.0, 1.0]]) @ w  # gradients (1, 0) and (-1, 1)
        >>> balancer = steelyard.UPGrad(["a", "b"], shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # the mean of (0.5, 0.5) and (0, 1)
        tensor([0.2500, 0.7500])
    """

    name = "upgrad"
    paper = "Quinton & Rey (2024), arXiv 2406.16232"
    native_priorities = True

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        if len(rows.norms) > MOST:
            raise LossError(
                f"upgrad projects each task's gradient on its own, and for the {len(rows.norms):,} tasks of this batch "
                f"that takes minutes a step (at {MOST}, seconds): take dualproj, which projects their mean in one go"
            )
        preferences = self.preferences(seen) / len(rows.norms)
        projected = dual_cone_projection(rows.definite(), torch.eye(len(rows.norms), dtype=torch.float64, device="cpu"))
        return rows.multipliers((preferences * rows.norms) @ projected, of_zero=preferences)
