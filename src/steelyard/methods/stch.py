"""Smooth Tchebycheff scalarisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Balance, Seen
from steelyard.base.options import at_least
from steelyard.base.periods import add_to_period, close_period_mean, declare_period_mean
from steelyard.base.ratios import log_of_positive, reciprocal
from steelyard.base.state import State
from steelyard.errors import OptionError


class STCH(Balancer):
    """A smooth maximum of the losses, each relative to where it stood after a warm-up.

    In the warm-up ``Σ_k log L_k``, hence ``w_k = 1/L_k``. Then ``T μ log Σ_k (L_k / n_k)^{1/μ}``, hence
    ``w_k = T p_k / L_k`` with ``p = softmax(log(L/n) / μ)``. The nadir ``n_k`` is the mean loss in the last epoch of
    the warm-up. A loss of exactly zero weighs 1 and adds nothing. A task that joins late goes through a warm-up of
    its own, beside the others' maximum.

    Args:
        tasks: task names.
        smoothness: ``μ > 0``; towards 0 the maximum becomes hard.
        warm_up: the warm-up lasts this many epochs and one more, over which the nadir is taken.
        period: length of an "epoch" in optimizer steps; ``None`` waits for `Balancer.end_epoch`.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Source: Lin, Zhang, Yang, Liu, Wang, Zhang, "Smooth Tchebycheff Scalarization for Multi-Objective Optimization"
    (2024), arXiv 2402.19078, and the authors' code. Deviation: that code adds 1e-20 inside the logarithms and reports
    the value less its largest term; here nothing is added, and the value is that of the formula.

    Example:
        >>> balancer = steelyard.STCH(["a", "b"], warm_up=0, period=1)  # the first step gives the nadir
        >>> for a, b in torch.tensor([[2.0, 8.0], [1.0, 8.0]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # L/n is 1/2 and 1, p is 1/3 and 2/3
        tensor([0.6667, 0.1667], dtype=torch.float64)
    """

    name = "stch"
    paper = "Lin et al. (2024), arXiv 2402.19078"
    positive_losses = True
    rescaling = "contribution"
    periodic = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        smoothness: float = 1.0,
        warm_up: int = 4,
        period: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        at_least("smoothness", smoothness, 0, strictly=True)
        if not isinstance(warm_up, int) or warm_up < 0:
            raise OptionError(f"warm_up must be a whole number of epochs of at least 0, got {warm_up!r}")
        self.smoothness, self.warm_up = smoothness, warm_up
        self.set_period(period)
        declare_period_mean(self)
        self.declare("epochs", reduce="max")
        self.declare("nadir", reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Balance:
        add_to_period(state, seen.losses)
        log_losses, inverse = log_of_positive(seen.losses), reciprocal(seen.losses)
        warm = (state.epochs > self.warm_up) & (seen.losses > 0)
        if not bool(warm.any()):
            return Balance(inverse, log_losses.sum())
        logits = ((log_losses + reciprocal(state.nadir).log()) / self.smoothness)[warm]
        pull = torch.ones_like(seen.losses)
        pull[warm] = len(logits) * logits.softmax(0)
        value = len(logits) * self.smoothness * logits.logsumexp(0) + log_losses[~warm].sum()
        return Balance(pull * inverse, value)

    def period_ended(self, state: State) -> None:
        state.epochs = state.epochs + (state.period_count > 0)
        last = (state.epochs == self.warm_up + 1) & (state.period_count > 0)
        state.nadir = torch.where(last, close_period_mean(state, otherwise=state.nadir), state.nadir)
