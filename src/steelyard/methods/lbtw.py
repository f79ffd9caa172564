"""LBTW: loss-balanced task weighting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import at_least
from steelyard.base.ratios import ratio
from steelyard.base.state import State


class LBTW(Balancer):
    """Tasks whose loss has fallen since the epoch's first batch weigh less.

    ``w_k = (L_k / L_k(first batch of the epoch))^α``, held fixed. 1 in the first batch, where the first batch's loss
    was exactly zero, and where all losses are.

    Args:
        tasks: task names.
        alpha: ``α ≥ 0``; 0 is the plain sum.
        period: length of an "epoch" in optimizer steps; ``None`` waits for `Balancer.end_epoch`.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Source: Liu, Liang, Gitter, "Loss-Balanced Task Weighting to Reduce Negative Transfer in Multi-Task Learning"
    (AAAI 2019 student abstract), and the authors' code. Deviation: that code also scales the weights to sum to T
    (``scale="sum"``).

    Example:
        >>> balancer = steelyard.LBTW(["a", "b"])
        >>> for a, b in torch.tensor([[4.0, 4.0], [1.0, 4.0]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # a fell to a quarter: √(1/4)
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """

    name = "lbtw"
    paper = "Liu, Liang, Gitter (AAAI 2019)"
    positive_losses = True
    independent = True
    rescaling = "weights"
    periodic = True

    def __init__(self, tasks: Sequence[str], *, alpha: float = 0.5, period: int | None = None, **common: Any) -> None:
        super().__init__(tasks, **common)
        at_least("alpha", alpha, 0)
        self.alpha = alpha
        self.set_period(period)
        self.declare("first_loss", default=float("nan"), reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        state.first_loss = torch.where(state.first_loss.isnan(), seen.losses, state.first_loss)
        weights = ratio(seen.losses, state.first_loss) ** self.alpha
        # Where every loss is zero nothing is left to weigh; ones can be rescaled, zeros cannot.
        return weights if bool((weights > 0).any()) else torch.ones_like(weights)

    def period_ended(self, state: State) -> None:
        state.first_loss = torch.full_like(state.first_loss, float("nan"))
