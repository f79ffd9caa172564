"""GLS: the geometric mean of the losses."""

from __future__ import annotations

import torch

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Balance, Seen
from steelyard.base.ratios import log_of_positive
from steelyard.base.state import State


class GLS(Balancer):
    """The geometric mean of the losses, in which rescaling one loss rescales all contributions alike.

    ``(Π_k L_k)^{1/T}``, computed as ``exp(mean log L_k)``, hence ``w_k = (Π_j L_j)^{1/T} / (T L_k)``. A loss of exactly
    zero, which would pull the product and every other task's weight to zero, is left out of the mean (``T`` counts the
    others) and weighs one over the number of all tasks.

    Args:
        tasks: task names.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Source: Chennupati, Sistu, Yogamani, Rawashdeh, "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss
    Strategy for Multi-Task Learning" (2019), arXiv 1904.08492.

    Example:
        >>> a, b = torch.tensor([2.0, 8.0], requires_grad=True)
        >>> balancer = steelyard.GLS(["a", "b"])
        >>> round(balancer({"a": a, "b": b}).item(), 4)  # √(2 · 8)
        4.0
        >>> [round(float(w) * loss, 4) for w, loss in zip(balancer.last_weights, (2, 8))]  # both contribute alike
        [2.0, 2.0]
    """

    name = "gls"
    paper = "Chennupati et al. (2019), arXiv 1904.08492"
    positive_losses = True
    rescaling = "proportion"

    def weigh(self, seen: Seen, state: State) -> Balance:
        positive = seen.losses > 0
        count = positive.sum().clamp(min=1)
        log_mean = log_of_positive(seen.losses).sum() / count
        # In logarithms throughout: neither the product nor the quotient of extreme losses over- or underflows.
        weights = (log_mean - log_of_positive(seen.losses)).exp() / count
        value = torch.where(positive.any(), log_mean.exp(), torch.zeros_like(log_mean))
        return Balance(torch.where(positive, weights, torch.ones_like(weights) / len(weights)), value)
