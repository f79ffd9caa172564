"""IGB: improvable gap balancing, first version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Balance, Seen
from steelyard.base.periods import add_to_period, close_period_mean, declare_period_mean
from steelyard.base.ratios import log_of_positive, ratio, reciprocal
from steelyard.base.state import State
from steelyard.errors import OptionError


class IGB(Balancer):
    """Log losses, weighted by how far each loss still is from where it would end.

    ``Σ_k v_k log L_k`` with ``v = T · softmax(L / b)`` held fixed, hence ``w_k = v_k / L_k``. The base ``b_k`` is the
    mean loss in an early epoch; ``v_k = 1`` until that epoch has ended. A loss of exactly zero has ``w_k = v_k``.

    Args:
        tasks: task names.
        base_epoch: which epoch, counted from 1 and for each task on its own, gives the base.
        log_losses: ``False`` balances ``Σ_k v_k L_k``.
        period: length of an "epoch" in optimizer steps; ``None`` waits for `Balancer.end_epoch`.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Source: Dai, Fei, Lu, "Improvable Gap Balancing for Multi-Task Learning" (2023), arXiv 2307.15429, and the
    authors' code. This is IGBv1; IGBv2 learns the weights by reinforcement.

    Example:
        >>> balancer = steelyard.IGB(["a", "b"], base_epoch=1, period=1)  # the first step gives the base
        >>> for a, b in torch.tensor([[2.0, 2.0], [1.0, 2.0]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights * torch.tensor([1.0, 2.0])  # v = 2 softmax(1/2, 1)
        tensor([0.7551, 1.2449], dtype=torch.float64)
    """

    name = "igb"
    paper = "Dai, Fei, Lu (2023), arXiv 2307.15429"
    positive_losses = True
    periodic = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        base_epoch: int = 2,
        log_losses: bool = True,
        period: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        if not isinstance(base_epoch, int) or base_epoch < 1:
            raise OptionError(f"base_epoch must be a whole number of at least 1, got {base_epoch!r}")
        self.base_epoch, self.log_losses = base_epoch, log_losses
        self.rescaling = "contribution" if log_losses else "weights"
        self.set_period(period)
        declare_period_mean(self)
        self.declare("epochs", reduce="max")
        self.declare("base", default=float("nan"), reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Balance:
        add_to_period(state, seen.losses)
        known = ~state.base.isnan()
        gap = ratio(seen.losses, state.base)[known]
        pull = torch.ones_like(seen.losses)
        pull[known] = len(gap) * gap.softmax(0)
        if self.log_losses:
            return Balance(pull * reciprocal(seen.losses), (pull * log_of_positive(seen.losses)).sum())
        return Balance(pull)

    def period_ended(self, state: State) -> None:
        seen = state.period_count > 0
        state.epochs = state.epochs + seen
        mean = close_period_mean(state, otherwise=state.base)
        state.base = torch.where(seen & (state.epochs == self.base_epoch), mean, state.base)
