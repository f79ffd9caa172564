"""MoCo: multi-objective gradient correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Balance, Seen
from steelyard.base.options import at_least, within
from steelyard.base.row_state import like_rows
from steelyard.base.state import ELEMENTS, TASKS, State
from steelyard.gradients.row_products import gramian_of_rows
from steelyard.methods.solvers.simplex import kept_shares, shares_of_present


class MoCo(Balancer):
    """Momentum corrects the noise of the task gradients before the common descent direction is sought.

    With ``ĝ_k = |L_k| g_k / ‖g_k‖``: ``y_k ← y_k - β_n (y_k - ĝ_k)``, ``λ ← softmax(λ - γ_n (Y Yᵀ + ρ I) λ)``,
    ``d = Σ_k λ_k y_k``, with ``β_n = β / n^½`` and ``γ_n = γ / n^½`` in the task's ``n``-th step, ``y = 0`` and
    ``λ = 1/T`` at first.

    Args:
        tasks: task names.
        beta: ``0 < β ≤ 1``.
        gamma: ``γ ≥ 0``, the step of ``λ``.
        rho: ``ρ ≥ 0``.
        common: the options of `Balancer`.

    Cost: trunk only, one backward per task; ``T x P`` numbers for the rows and as many for ``y``.

    Source: Fernando, Shen, Liu, Chaudhury, Murugesan, Chen, "Mitigating Gradient Bias in Multi-objective Learning: A
    Provably Convergent Approach" (ICLR 2023), and the authors' code, as LibMTL has it from them: the defaults, the
    softmax and gradients at the length of their losses. Deviations: the paper and the authors' own repository project
    on the simplex; the latter has 2γ for γ, ``beta=0.1``, and takes the gradients as they are. LibMTL has ``L_k`` for
    ``|L_k|``, along which a negative loss would rise.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[2.0, 0.0], [0.0, 4.0]]) @ w  # losses 2 and 4, gradients as long
        >>> balancer = steelyard.MoCo(["a", "b"], beta=1, shared=[w])
        >>> _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # softmax(1/2 - 0.1 · 4/2, 1/2 - 0.1 · 16/2)
        tensor([0.6457, 0.3543], dtype=torch.float64)
    """

    name = "moco"
    paper = "Fernando et al. (ICLR 2023)"
    reads = "rows"
    where = frozenset({"trunk"})
    default_heads = "plain"
    revision = 2  # 1: shares of absent tasks; 2: the step climbed a negative loss

    def __init__(
        self, tasks: Sequence[str], *, beta: float = 0.5, gamma: float = 0.1, rho: float = 0.0, **common: Any
    ) -> None:
        super().__init__(tasks, **common)
        at_least("beta", beta, 0, strictly=True)
        within("beta", beta, 0, 1 + 1e-12)
        at_least("gamma", gamma, 0)
        at_least("rho", rho, 0)
        self.beta, self.gamma, self.rho = beta, gamma, rho
        self.declare("corrected", (TASKS, ELEMENTS), reduce="mean")
        self.declare("multipliers", default=1 / len(self.tasks), reduce="mean")
        self.declare("updates", reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Balance:
        assert seen.rows is not None
        rows = seen.rows
        state.updates = state.updates + 1
        norms = seen.norms
        # In two halves: a gradient of 1e-40 is in reach of float32, and what brings it to the size of its loss is not.
        half = torch.where(norms > 0, (seen.losses.abs() / norms).sqrt(), torch.zeros_like(norms))[:, None].to(rows)
        scaled = (rows * half).mul_(half)
        part = (self.beta / state.updates.sqrt())[:, None].to(rows)
        corrected = torch.lerp(like_rows(state.corrected, rows, self.name), scaled, part)
        state.corrected = corrected
        gramian = gramian_of_rows(corrected)
        held = shares_of_present(state.multipliers)
        slope = gramian @ held + self.rho * held
        multipliers = (held - self.gamma / state.updates.sqrt() * slope).softmax(0)
        state.multipliers = kept_shares(multipliers, state.multipliers, len(self.tasks))
        return Balance(multipliers, rows=corrected)
