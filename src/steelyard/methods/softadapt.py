"""SoftAdapt: weights from the losses' rates of change."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import one_of
from steelyard.base.periods import add_to_period, close_period_mean, declare_period_mean
from steelyard.base.state import State
from steelyard.errors import OptionError

Variant = Literal["original", "normalised", "loss-weighted"]
Per = Literal["step", "epoch"]

_HIGHEST_ORDER = 30
"""A difference of this order multiplies losses by up to 1e8: of a higher one, rounding is what is left."""


class SoftAdapt(Balancer):
    """A softmax of the losses' slopes: what falls least, or rises, weighs most.

    With ``s_k`` the slope of the last ``order + 1`` losses,

    - ``original``: ``w_k = e^{β s_k} / Σ_j e^{β s_j}``
    - ``normalised``: the same with ``s_k / Σ_j |s_j|``
    - ``loss-weighted``: ``w_k = f_k e^{β s_k} / Σ_j f_j e^{β s_j}``, with ``f_k`` the mean of those losses

    Weights sum to 1. The slope of a task with too short a history counts as 0.

    Args:
        tasks: task names.
        variant: as above.
        beta: ``β``; positive favours what falls least, negative what falls most. In the unit of 1/loss, but for
            ``normalised``.
        order: the slope is the forward difference of this order of accuracy at the oldest of the ``order + 1``
            losses; 1 is ``L - L⁻``, the last change.
        per: ``"step"``, this step's loss included, or ``"epoch"``: slopes of the epochs' mean losses, ended ones only.
        period: with ``per="epoch"``, its length in optimizer steps; ``None`` waits for `Balancer.end_epoch`.
        common: the options of `Balancer`; ``every`` refreshes the weights each so many steps.

    Errors: in the variant ``loss-weighted``, a negative loss raises `LossError`.

    Source: Heydari, Thompson, Mehmood, "SoftAdapt: Techniques for Adaptive Loss Weighting of Neural Networks with
    Multi-Part Loss Functions" (2019), arXiv 1912.12355, and the first author's published code. Deviations: that code
    divides by ``Σ_j s_j`` in ``normalised``, which may vanish and, while losses fall, turns all signs, so that what
    falls most weighs most; an earlier version of it divides by ``Σ_j |s_j|``, as here. Its order is the highest that
    the losses it is given allow.

    Example:
        >>> balancer = steelyard.SoftAdapt(["a", "b"], beta=1.0)
        >>> for a, b in torch.tensor([[2.0, 2.0], [1.0, 2.0]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # softmax of the slopes -1 and 0
        tensor([0.2689, 0.7311], dtype=torch.float64)
    """

    name = "softadapt"
    paper = "Heydari, Thompson, Mehmood (2019), arXiv 1912.12355"

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        variant: Variant = "original",
        beta: float = 0.1,
        order: int = 1,
        per: Per = "step",
        period: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        one_of("variant", variant, Variant)
        one_of("per", per, Per)
        if not 1 <= order <= _HIGHEST_ORDER:
            raise OptionError(f"order must be a whole number from 1 to {_HIGHEST_ORDER}, got {order!r}")
        if period is not None and per == "step":
            raise OptionError("period is the length of an epoch: give it together with per='epoch'")
        self.variant, self.beta, self.order = variant, beta, order
        self.positive_losses = variant == "loss-weighted"
        self.periodic = per == "epoch"
        self.declare("history", (order + 1, "T"), default=float("nan"), reduce="mean")
        if self.periodic:
            self.set_period(period)
            declare_period_mean(self)

    def weigh(self, seen: Seen, state: State) -> Tensor:
        if self.periodic:
            add_to_period(state, seen.losses)
        else:
            state.history = torch.cat([state.history[1:], seen.losses[None]])
        slope = (forward_difference(self.order).to(state.history.device)[:, None] * state.history).sum(0)
        slope = torch.where(slope.isnan(), torch.zeros_like(slope), slope)
        if self.variant == "normalised":
            total = slope.abs().sum()
            slope = torch.where(total > 0, slope / total, slope)
        share = (self.beta * slope).softmax(0)
        if self.variant != "loss-weighted":
            return share
        mean = state.history.nanmean(0)
        # A task of which nothing is known yet counts like the average of the others.
        mean = torch.where(mean.isnan(), mean.nanmean().nan_to_num(1.0), mean)
        # Relative to the largest mean, and in logarithms, so that extreme losses neither overflow nor vanish.
        logits = self.beta * slope + torch.where(mean.max() > 0, mean / mean.max(), torch.ones_like(mean)).log()
        return logits.softmax(0)

    def period_ended(self, state: State) -> None:
        if self.periodic:
            seen = state.period_count > 0
            mean = close_period_mean(state, otherwise=torch.zeros_like(state.period_sum))
            state.history = torch.where(seen, torch.cat([state.history[1:], mean[None]]), state.history)


def forward_difference(order: int) -> Tensor:
    """Coefficients ``[order + 1]``, oldest first, of the first derivative at the oldest of equally spaced points."""
    later = [(-1) ** (j + 1) * comb(order, j) / j for j in range(1, order + 1)]
    return torch.tensor([-sum(1 / j for j in range(1, order + 1)), *later], dtype=torch.float64, device="cpu")
