"""CR-MOGM: the weights of any method, averaged over the steps."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.base.options import within
from steelyard.base.stage import Stage
from steelyard.base.state import State


class CRMOGM(Stage):
    """Average over the steps what the rest of the line weighs by.

    ``λ_k ← α λ_k + (1 - α) λ̂_k``, ``λ̂_k`` the multiplier of task k's gradient that the method behind it gives, its
    loss stages included. Weights that follow one batch are correlated with the noise of that batch's gradients, and so
    biased; averaged ones hardly are.

    Args:
        alpha: ``0 ≤ α < 1``, per step; 0 leaves the method as it is.

    The average starts from a task's first weight, and moves in the steps that have the task: what is smoothed is each
    weight, so where tasks are absent the sum is the method's on average only (``scale="sum"`` fixes it). It moves in
    steps that hold the method's weights too (``every=n``). Scale, guards and priorities come after it; plain heads are
    not weighed, and so not smoothed. A weight that is not finite, which only ``on_nonfinite="ignore"`` lets through,
    is passed on and leaves the average alone.

    Errors: it stands in front of all loss stages (``cr-mogm+log+mgda``), since it averages what all of the line gives.
    Methods whose direction no weights describe (`GradDrop`) are refused.

    Source: Zhou, Zhang, Jiang, Zhong, Gu, Zhu, "On the Convergence of Stochastic Multi-Objective Gradient Manipulation
    and Beyond" (NeurIPS 2022). Certainty: the equation and the start as third-party implementations have them; the
    authors' code was not found. In the paper ``α`` grows towards 1 as the learning rate falls; here it is constant.

    Example:
        >>> balancer = steelyard.Chain(steelyard.CRMOGM(alpha=0.5), steelyard.UWOptimal(["a", "b"]))  # w = 1 / L
        >>> for a, b in torch.tensor([[1.0, 1.0], [2.0, 0.5]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # halfway from (1, 1) to (1/2, 2)
        tensor([0.7500, 1.5000], dtype=torch.float64)
    """

    reweighs = True

    def __init__(self, alpha: float = 0.9) -> None:
        super().__init__()
        within("alpha", alpha, 0, 1)
        self.alpha = alpha
        self.declare("average", default=float("nan"), reduce="mean")

    def transform(self, losses: Tensor, state: State) -> tuple[Tensor, Tensor]:
        return losses, torch.ones_like(losses)

    def reweigh(self, weights: Tensor, state: State) -> Tensor:
        finite = weights.isfinite()
        before = torch.where(state.average.isnan(), weights, state.average)
        smoothed = torch.where(finite, self.alpha * before + (1 - self.alpha) * weights, weights)
        state.average = torch.where(finite, smoothed, state.average)
        return smoothed
