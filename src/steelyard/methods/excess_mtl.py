"""ExcessMTL: weights by excess risk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.float64 import double
from steelyard.base.observation import Seen
from steelyard.base.options import at_least
from steelyard.base.row_state import like_rows
from steelyard.base.state import ELEMENTS, TASKS, State


class ExcessMTL(Balancer):
    """Tasks weigh by how far they are from their own optimum, not by their loss, which noise alone can keep high.

    The excess risk is estimated by ``r_k = g_kᵀ diag(H_k + ε)^{-1/2} g_k`` with ``H_k ← H_k + g_k²`` over the steps;
    then ``w_k ← w_k exp(η r_k / r_k(0))``, rescaled to ``Σ w = T``, where ``r_k(0)`` is that of the task's first
    step with a gradient; until then (heads that start at zero) ``r_k`` counts as 0. In a batch without some tasks, the
    others share what they had together.

    Args:
        tasks: task names.
        eta: ``η ≥ 0``.
        epsilon: ``ε > 0``, in the unit of squared gradients (the authors' 1e-7).
        common: the options of `Balancer`.

    Cost: trunk only, one backward per task; ``T x P`` numbers for the rows and as many for ``H``.

    Source: He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi, Zhao, "Robust Multi-Task Learning with Excess Risks" (ICML 2024),
    arXiv 2402.02009, and the authors' code.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = steelyard.ExcessMTL(["a", "b"], eta=1, shared=[w])
        >>> for left in (1.0, 1e-9):  # the gradient of a vanishes: it is at its optimum
        ...     a, b = torch.tensor([[left, 0.0], [0.0, 1.0]]) @ w
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # 2 softmax(1 + 0, 1 + 1/√2)
        tensor([0.6605, 1.3395], dtype=torch.float64)
    """

    name = "excess-mtl"
    paper = "He et al. (2024), arXiv 2402.02009"
    reads = "rows"
    where = frozenset({"trunk"})
    revision = 2  # 1: a first risk of zero stood for ever; 2: an absent task lost weight by its absence

    def __init__(self, tasks: Sequence[str], *, eta: float = 0.01, epsilon: float = 1e-7, **common: Any) -> None:
        super().__init__(tasks, **common)
        at_least("eta", eta, 0)
        at_least("epsilon", epsilon, 0, strictly=True)
        self.eta, self.epsilon = eta, epsilon
        self.declare("squares", (TASKS, ELEMENTS), reduce="mean")
        self.declare("first_risk", default=float("nan"), reduce="mean")
        self.declare("log_weights", reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        assert seen.rows is not None
        squares = like_rows(state.squares, seen.rows, self.name) + seen.rows.square()
        state.squares = squares
        risk = double((seen.rows.square() / (squares + self.epsilon).sqrt()).sum(1))
        state.first_risk = torch.where(state.first_risk.isnan() & (risk > 0), risk, state.first_risk)
        relative = torch.where(state.first_risk > 0, risk / state.first_risk, torch.zeros_like(risk))
        held = state.log_weights.logsumexp(0)  # by those at hand together, which goes on to be theirs
        shares = (state.log_weights + self.eta * relative).log_softmax(0)
        state.log_weights = shares + held
        return len(risk) * shares.exp()
