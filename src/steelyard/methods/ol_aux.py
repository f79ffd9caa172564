"""OL-AUX: online learning of auxiliary weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.options import at_least, one_of
from steelyard.base.state import State
from steelyard.errors import OptionError
from steelyard.methods.bases import AuxiliaryBalancer, cosines_with

Similarity = Literal["inner", "cosine"]


class OLAux(AuxiliaryBalancer):
    """Auxiliary weights descend the main loss some steps ahead: they grow while gradients agree with the main one's.

    ``w_main = 1``; for the others, every ``steps`` steps, ``w_k ← w_k + β α Σ ⟨g_main, g_k⟩`` over those steps, where
    ``α`` is the network's learning rate: the derivative of the main loss after them. Weights start at 1 and may become
    negative.

    Args:
        tasks: task names.
        main: the main task; must be given.
        beta: ``β > 0``, the step size of the weights.
        steps: number of steps between updates.
        similarity: ``"inner"``, or ``"cosine"`` for ``cos(g_main, g_k)`` in place of the product, which is free of
            scale.
        common: the options of `Balancer`; ``learning_rate`` is ``α``, by default the attached optimizer's, else 1e-3.

    In a batch without the main task the weights hold still. A gradient that is not finite is not learnt from.

    Cost: one backward pass through each task's head to the features.

    Source: Lin, Baweja, Kantor, Held, "Adaptive Auxiliary Task Weighting for Reinforcement Learning" (NeurIPS 2019).
    Certainty: from three public codes of others, not from the paper; no code of its authors was found. The three agree
    on the update and on 5 steps; weights start at 1 in two of them, at ``1/(T - 1)`` in one. Two balance log losses,
    which makes the products free of the losses' units: write ``log+ol-aux`` for that. One takes the cosine.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = steelyard.OLAux(["a", "b"], main="a", steps=1, learning_rate=0.1, shared=[w])
        >>> for _ in range(2):
        ...     a, b = torch.tensor([[1.0, 0.0], [-3.0, 1.0]]) @ w  # ⟨g_a, g_b⟩ = -3
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # 1 - 0.1 · 3
        tensor([1.0000, 0.7000], dtype=torch.float64)
    """

    name = "ol-aux"
    paper = "Lin, Baweja, Kantor, Held (NeurIPS 2019)"
    reads = "gramian"
    uses_angles = True
    signed_weights = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        main: str | None = None,
        beta: float = 1.0,
        steps: int = 5,
        similarity: Similarity = "inner",
        **common: Any,
    ) -> None:
        super().__init__(tasks, main=main, **common)
        at_least("beta", beta, 0, strictly=True)
        one_of("similarity", similarity, Similarity)
        if not isinstance(steps, int) or steps < 1:
            raise OptionError(f"steps must be a whole number of at least 1, got {steps!r}")
        self.beta, self.window, self.similarity = beta, steps, similarity
        self.declare("auxiliary_weight", default=1.0, reduce="mean")
        self.declare("agreement", reduce="mean")
        self.declare("observed", shape=())

    def weigh(self, seen: Seen, state: State) -> Tensor:
        assert seen.gramian is not None
        weights = state.auxiliary_weight
        if self.main in seen.tasks:
            self._observe_agreement(seen, state)
        finite = seen.gramian.isfinite().all()
        return torch.where(finite, weights, torch.full_like(weights, float("nan")))

    def _observe_agreement(self, seen: Seen, state: State) -> None:
        assert seen.gramian is not None
        main = seen.tasks.index(self.main)
        agreement = cosines_with(main, seen) if self.similarity == "cosine" else seen.gramian[main]
        if not bool(seen.gramian.isfinite().all()):
            return
        total, observed = state.agreement + self.current_learning_rate() * agreement, state.observed + 1
        if int(observed) >= self.window:
            learnt = state.auxiliary_weight + self.beta * total
            state.auxiliary_weight = torch.where(self.is_main(seen), state.auxiliary_weight, learnt)
            total, observed = torch.zeros_like(total), torch.zeros_like(observed)
        state.agreement, state.observed = total, observed
