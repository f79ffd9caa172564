"""Revised uncertainty weighting, whose objective is never negative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.nn.functional import softplus

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Balance, Seen
from steelyard.base.options import at_least
from steelyard.base.state import State


class UWRevised(Balancer):
    """Uncertainty weighting with a regulariser that keeps the objective at or above zero.

    ``Σ_k L_k / (2 σ_k²) + log(1 + σ_k²)`` with ``s = log σ²`` learnt, hence ``w_k = ½ e^{-s_k}``. The gradient in
    ``s`` is ``σ_k²/(1 + σ_k²) - ½ e^{-s_k} L_k``.

    Args:
        tasks: task names.
        initial: ``σ > 0`` at the start.
        learn: ``"inside"``, or ``"external"`` for a Parameter that your own optimizer trains.
        common: the options of `Balancer`; ``learning_rate`` is that of ``s``.

    Errors: a negative loss raises `LossError`: its weight would grow without bound.

    Source: Liebel & Körner, "Auxiliary Tasks in Multi-task Learning" (2018), arXiv 1805.06334. Deviations:
    ``s = log σ²`` is learnt where the paper learns ``σ`` itself, which steps over zero once losses are small; it is
    updated in closed form after use, by Adam without weight decay.

    Example:
        >>> a, b = torch.tensor([1e-6, 1e-6], requires_grad=True)
        >>> balancer = steelyard.UWRevised(["a", "b"], initial=0.1)
        >>> round(balancer({"a": a, "b": b}).item(), 4)  # 2 log(1 + 0.01); that of `UW` is below zero here
        0.02
    """

    name = "uw-revised"
    paper = "Liebel & Körner (2018), arXiv 1805.06334"
    positive_losses = True
    independent = True

    def __init__(self, tasks: Sequence[str], *, initial: float = 1.0, learn: str = "inside", **common: Any) -> None:
        super().__init__(tasks, **common)
        at_least("initial", initial, 0, strictly=True)
        self.declare_learned("log_variance", 2 * math.log(initial), learn)

    def weigh(self, seen: Seen, state: State) -> Balance:
        log_variance = state.log_variance
        weights = 0.5 * (-log_variance).exp()
        penalised = weights * seen.losses
        self.learn(state, "log_variance", log_variance.sigmoid() - penalised)
        return Balance(weights, (penalised + softplus(log_variance, threshold=700)).sum())
