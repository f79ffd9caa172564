"""Dynamic weight averaging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import at_least
from steelyard.base.periods import add_to_period, close_period_mean, declare_period_mean
from steelyard.base.ratios import ratio
from steelyard.base.state import State


class DWA(Balancer):
    """Tasks whose loss fell least over the last two epochs weigh most.

    ``w = T · softmax(r / τ)`` with ``r_k = L̄_k(e-1) / L̄_k(e-2)``, the ratio of the last two epochs' mean losses;
    ``w = 1`` in the first two. A task with
    fewer than two epochs behind it, or whose mean loss was exactly zero, counts as one that stands still (``r = 1``).

    Args:
        tasks: task names.
        temperature: ``τ > 0``; larger is more even.
        period: length of an "epoch" in optimizer steps; ``None`` waits for `Balancer.end_epoch`.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Source: Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention" (2019), arXiv 1803.10704, and the
    authors' code.

    Example:
        >>> balancer = steelyard.DWA(["a", "b"], period=1)  # an "epoch" of one step
        >>> for a, b in torch.tensor([[4.0, 4.0], [2.0, 4.0], [1.0, 4.0]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # 2 softmax(r / 2): a fell to half, b stood still
        tensor([0.8756, 1.1244], dtype=torch.float64)
    """

    name = "dwa"
    paper = "Liu, Johns, Davison (2019), arXiv 1803.10704"
    positive_losses = True
    rescaling = "weights"
    periodic = True

    def __init__(
        self, tasks: Sequence[str], *, temperature: float = 2.0, period: int | None = None, **common: Any
    ) -> None:
        super().__init__(tasks, **common)
        at_least("temperature", temperature, 0, strictly=True)
        self.temperature = temperature
        self.set_period(period)
        declare_period_mean(self)
        self.declare("last_mean", default=float("nan"), reduce="mean")
        self.declare("mean_before", default=float("nan"), reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        add_to_period(state, seen.losses)
        rate = ratio(state.last_mean, state.mean_before)
        return len(rate) * (rate / self.temperature).softmax(0)

    def period_ended(self, state: State) -> None:
        seen = state.period_count > 0
        state.mean_before = torch.where(seen, state.last_mean, state.mean_before)
        state.last_mean = close_period_mean(state, otherwise=state.last_mean)
