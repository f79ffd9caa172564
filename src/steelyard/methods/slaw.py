"""SLAW: weights from the spread of each loss, which stands for the norm of its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import at_least, within
from steelyard.base.ratios import reciprocal, shares
from steelyard.base.state import State


class SLAW(Balancer):
    """The weight is the inverse standard deviation of the loss, which stands for its gradient's norm.

    ``w_k = T (1/s_k) / Σ_j (1/s_j)`` with ``s_k² = EMA(L_k²) - EMA(L_k)²``, this step's loss included. The averages
    are plain means over a task's first ``1/(1-β)`` steps. A task whose loss has not varied so far (the first step)
    weighs 1, the others sharing the rest.

    Args:
        tasks: task names.
        beta: ``0 < β < 1``, per step.
        common: the options of `Balancer`.

    Source: Crawshaw & Košecká, "SLAW: Scaled Loss Approximate Weighting for Efficient Multi-Task Learning" (2021),
    arXiv 2109.08218. The formula and its start from plain means are those of the first author's published code (where
    the method is called CLAW). Deviations: the variance is computed by a recurrence that cannot turn negative,
    and that code's threshold of 1e-5 under ``s`` is left out, since it would mute losses of that size.

    Example:
        >>> balancer = steelyard.SLAW(["a", "b"])
        >>> for a, b in torch.tensor([[1.0, 1.0], [2.0, 4.0]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # s is 0.5 and 1.5
        tensor([1.5000, 0.5000], dtype=torch.float64)
    """

    name = "slaw"
    paper = "Crawshaw & Košecká (2021), arXiv 2109.08218"

    def __init__(self, tasks: Sequence[str], *, beta: float = 0.99, **common: Any) -> None:
        super().__init__(tasks, **common)
        at_least("beta", beta, 0, strictly=True)
        within("beta", beta, 0, 1)
        self.beta = beta
        self.declare("count", reduce="mean")
        self.declare("mean", reduce="mean")
        self.declare("variance", reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        state.count = state.count + 1
        fresh = (1 / state.count).clamp(min=1 - self.beta)
        difference = seen.losses - state.mean
        state.mean = state.mean + fresh * difference
        state.variance = (1 - fresh) * (state.variance + fresh * difference**2)
        deviation = state.variance.sqrt()
        # Relative to the largest, so that the inverses of extreme deviations stay finite.
        inverse = reciprocal(deviation / deviation.max())
        return shares(inverse, deviation.gt(0))
