"""LDC-MTL: weights are learnt that hold the weighted losses together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Balance, Seen
from steelyard.base.options import at_least
from steelyard.base.state import State
from steelyard.methods.loss_stages.initial_scale import InitialScale

_ROUNDING = 1e-9
"""Weighted losses as near as that are equal: those of the first step are 1, to rounding."""


class LDCMTL(Balancer):
    """Weighted losses that drift apart are penalised, and the weights are learnt with the network.

    ``Σ_k v_k L_k / sg(Σ v) + λ · 2/T · Σ_{i<j} |v_i L_i - v_j L_j|`` with ``v = sigmoid(s)``, ``s`` learnt, the losses
    in units of their first value. Both terms move network and ``s``, hence ``w_k = v_k (1 / Σ v + λ · 2/T · n_k)``,
    where ``n_k`` counts the tasks with a smaller ``v L`` less those with a larger one; it may be negative where
    ``λ > 1/(2 (T - 1))``.

    Args:
        tasks: task names.
        penalty: ``λ ≥ 0``; the authors have ``penalty=0.01`` (40 tasks) to 0.1 (2 tasks).
        initial: ``s`` at the start.
        normalise: whether losses are divided by their first value; the authors do not where losses are alike.
        learn: ``"inside"``, or ``"external"`` for a Parameter that your own optimizer trains.
        common: the options of `Balancer`; ``learning_rate`` is that of ``s``.

    Source: "LDC-MTL: Balancing Multi-Task Learning through Scalable Loss Discrepancy Control" (2025), arXiv 2502.08585,
    and the authors' code. Deviations: they sum ``|v_k L_k - v_{k+1} L_{k+1}|`` along the list of tasks, which depends
    on its order; here it is the mean of that over all orders. That is for 40 tasks, where ``s`` is one number per task
    as here (updated in closed form after use, by Adam). For two and three tasks they have a small network on the
    features instead; of two, the penalty is of the plain losses and nothing divides by ``Σ v``; of three, gradients
    pass through ``Σ v``, and losses are divided by their first value over the smallest of these.

    Example:
        >>> balancer = steelyard.LDCMTL(["a", "b"], penalty=0.1, initial=0.0)
        >>> for a, b in torch.tensor([[1.0, 1.0], [1.0, 0.5]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        ...     print(balancer.last_weights.round(decimals=2))  # b has come further: a matters more
        tensor([0.5000, 0.5000], dtype=torch.float64)
        tensor([0.5500, 0.4500], dtype=torch.float64)
    """

    name = "ldc-mtl"
    paper = "LDC-MTL (2025), arXiv 2502.08585"
    signed_weights = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        penalty: float = 0.05,
        initial: float = 1.0,
        normalise: bool = True,
        learn: str = "inside",
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        at_least("penalty", penalty, 0)
        self.penalty = penalty
        self.declare_learned("logits", initial, learn)
        if normalise:
            self.prepend_stages([InitialScale(steps=1)])

    def weigh(self, seen: Seen, state: State) -> Balance:
        v = state.logits.sigmoid()
        weighted = v * seen.losses
        slopes = 1 / v.sum() + self.penalty * 2 / len(v) * _rank_differences(weighted)
        self.learn(state, "logits", weighted * (1 - v) * slopes)
        return Balance(v * slopes, (weighted * slopes).sum())


def _rank_differences(values: Tensor) -> Tensor:
    """``[T]``, how many are smaller less how many are larger: the slopes of ``Σ_{i<j} |x_i - x_j|``."""
    order, rounding = values.sort().values, _ROUNDING * values.abs()
    smaller = torch.searchsorted(order, values - rounding)
    at_most = torch.searchsorted(order, values + rounding, right=True)
    return (smaller + at_most - len(values)).to(values)
