"""Learning-rate annealing for physics-informed networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from steelyard.base.float64 import double
from steelyard.base.observation import Seen
from steelyard.base.options import Heads, within
from steelyard.base.state import State
from steelyard.methods.bases import AuxiliaryBalancer


class LRAnnealing(AuxiliaryBalancer):
    """Boundary and data terms are scaled up to the largest gradient of the residual.

    ``λ_k ← β λ_k + (1 - β) max|g_main| / mean|g_k|`` for every task but the main one (the residual), over the
    elements of the gradient with respect to the trunk's parameters; ``λ_main = 1``. The average starts at the first
    ratio. A task whose gradient is exactly zero keeps its weight.

    The mean is over the parameters that the task's loss depends on, ``θ`` of its own network: what another task alone
    uses (an unknown coefficient of the equation, a branch of its own) has no gradient and is not counted, whatever lies
    in ``shared=``. Zeros of a parameter that the loss does depend on (a unit that is off, rows of a table) count.

    Args:
        tasks: task names.
        main: the residual.
        beta: ``0 ≤ β < 1``; the paper recommends 0.9.
        common: the options of `Balancer`.

    Cost: trunk only (in a physics-informed network: all parameters), one backward per task and ``T x P`` numbers.

    Source: Wang, Teng, Perdikaris, "Understanding and Mitigating Gradient Flow Pathologies in Physics-Informed Neural
    Networks" (2021), arXiv 2001.04536, and the authors' code. Deviations: that code starts at ``λ = 1``; it renews
    ``λ`` in every tenth step (``every=10``) and after the optimizer's, so that it counts from the next step on; its
    mean is that of the weight matrices' means, biases aside, and of the weighted gradients ``λ_k g_k``. So the two
    agree in form, and in no single step.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[4.0, 1.0], [0.1, 0.3]]) @ w  # max|g_a| = 4, mean|g_b| = 0.2
        >>> balancer = steelyard.LRAnnealing(["a", "b"], main="a", shared=[w])
        >>> _ = balancer({"a": a, "b": b})
        >>> [round(weight, 4) for weight in balancer.last_weights.tolist()]
        [1.0, 20.0]
    """

    name = "lr-annealing"
    paper = "Wang, Teng, Perdikaris (2021), arXiv 2001.04536"
    reads = "rows"
    where = frozenset({"trunk"})
    default_heads: ClassVar[Heads] = "weighted"

    def __init__(self, tasks: Sequence[str], *, main: str | None = None, beta: float = 0.9, **common: Any) -> None:
        super().__init__(tasks, main=main, **common)
        within("beta", beta, 0, 1)
        self.beta = beta
        self.declare("average", default=float("nan"), reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        assert seen.rows is not None
        main = self.is_main(seen)
        means = double(seen.rows.abs().mean(1))
        if seen.reached is not None:
            means = means * seen.rows.shape[1] / seen.reached.sum(1)
            means = torch.where(seen.reached.any(1), means, 0.0)  # a remembered task keeps its weight
        if bool(main.any()):
            largest = double(seen.rows[main].abs().max())
            ratio = torch.where(means > 0, largest / means, state.average)
            moved = self.beta * state.average + (1 - self.beta) * ratio
            state.average = torch.where(state.average.isnan(), ratio, moved)
        weights = torch.where(state.average.isnan(), torch.ones_like(means), state.average)
        return torch.where(main, torch.ones_like(means), weights)
