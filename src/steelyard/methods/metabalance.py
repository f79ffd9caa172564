"""MetaBalance: auxiliary gradients near the main one's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.options import one_of, within
from steelyard.base.state import State
from steelyard.methods.bases import AuxiliaryBalancer

Strategy = Literal["both", "reduce", "enlarge"]


class MetaBalance(AuxiliaryBalancer):
    """Auxiliary gradients are scaled towards the norm of the main task's, so that they help without drowning it.

    ``w_main = 1``; for the others ``w_k = r E_main / E_k + 1 - r`` with ``E_k ← β E_k + (1 - β) ‖g_k‖``
    (bias-corrected).

    Args:
        tasks: task names.
        main: the main task; must be given.
        relax: ``0 ≤ r ≤ 1``; 1 makes the average norms equal, 0 is the plain sum.
        beta: ``0 ≤ β < 1``, per step.
        strategy: ``"both"``; ``"reduce"`` only where an auxiliary norm is the larger, ``"enlarge"`` only where it is
            the smaller.
        common: the options of `Balancer`.

    An auxiliary gradient that has been exactly zero so far has weight 1. Before the main task was first seen, all
    weights are 1; in a batch without it, its last average counts.

    Cost: one backward pass through each task's head to the features.

    Source: He, Feng, Cheng, Ji, Guo, Caverlee, "MetaBalance: Improving Multi-Task Recommendations via Adapting Gradient
    Magnitudes of Auxiliary Tasks" (2022), arXiv 2203.06801. Certainty: ``both`` is the authors' code, in the order of
    its operations and with its defaults; ``reduce`` and ``enlarge`` stand in no code that we found, and apply the same
    formula to one side. Deviations: one norm over all that ``shared=`` names, where that code scales parameter by
    parameter; averages are bias-corrected, which tells where a task comes in late.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 4.0]]) @ w  # gradients (1, 0) and (0, 4)
        >>> balancer = steelyard.MetaBalance(["a", "b"], main="a", relax=1, shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # b's as long as that of the main task
        tensor([1., 1.])
    """

    name = "metabalance"
    paper = "He et al. (2022), arXiv 2203.06801"
    reads = "norms"

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        main: str | None = None,
        relax: float = 0.7,
        beta: float = 0.9,
        strategy: Strategy = "both",
        **common: Any,
    ) -> None:
        super().__init__(tasks, main=main, **common)
        if relax != 1:
            within("relax", relax, 0, 1)
        within("beta", beta, 0, 1)
        one_of("strategy", strategy, Strategy)
        self.relax, self.beta, self.strategy = relax, beta, strategy
        self.declare("average", reduce="mean")
        self.declare("mass", reduce="mean")
        self.declare("main_average", shape=(), reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        usable = seen.norms.isfinite()
        average = self.beta * state.average + (1 - self.beta) * seen.norms
        state.average = torch.where(usable, average, state.average)
        state.mass = torch.where(usable, self.beta * state.mass + (1 - self.beta), state.mass)
        size = state.average / torch.where(state.mass > 0, state.mass, 1.0)
        main = self.is_main(seen)
        if self.main in seen.tasks:
            state.main_average = size[seen.tasks.index(self.main)]
        scalable = ~main & (size > 0) & (state.main_average > 0)
        if self.strategy == "reduce":
            scalable = scalable & (size > state.main_average)
        elif self.strategy == "enlarge":
            scalable = scalable & (size < state.main_average)
        scaled = self.relax * state.main_average / torch.where(scalable, size, 1.0) + 1 - self.relax
        weights = torch.where(scalable, scaled, torch.ones_like(scaled))
        return torch.where(usable, weights, torch.full_like(weights, float("nan")))
