"""The family of loss weightings by exponential moving averages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import one_of, within
from steelyard.base.periods import add_to_period, close_period_mean, declare_period_mean
from steelyard.base.ratios import reciprocal, shares
from steelyard.base.state import State
from steelyard.errors import OptionError

Variant = Literal["inverse", "normalised", "to-max", "to-min", "to-mean", "proportional"]
Start = Literal["bias-corrected", "first-loss"]
Per = Literal["step", "epoch"]


class EMA(Balancer):
    """Losses scaled by the moving average of their own magnitude.

    ``E_k ← β E_k + (1 - β) L_k``, then

    - ``inverse``: ``w_k = 1 / E_k``
    - ``normalised``: ``w_k = T (1/E_k) / Σ_j (1/E_j)``
    - ``to-max``, ``to-min``, ``to-mean``: ``w_k = ref(E) / E_k``, the largest, smallest or mean average as the common
      scale
    - ``proportional``: ``w_k = T E_k / Σ_j E_j``, which favours large losses

    A task whose loss has been exactly zero so far weighs 1 and stays out of the others' common scale
    (``proportional``: it weighs 0).

    Args:
        tasks: task names.
        beta: ``0 ≤ β < 1``; with 0, ``inverse`` has the gradient of ``Σ log L_k``.
        variant: as above.
        start: ``"bias-corrected"`` divides ``E`` by ``1 - β^n``, ``"first-loss"`` starts ``E`` at the first loss.
            Either way constant losses give constant weights.
        per: ``"step"``, or ``"epoch"``: the average moves once per epoch, on the epoch's mean losses; weights are 1
            in the first. After it ``inverse`` and ``normalised`` have another scale than that plain sum: where it is a
            smaller one, Adam, which remembers gradients for about ``1/(1 - β₂)`` steps, learns slowly for as long. With
            ``to-mean`` the weighted sum stays where it was.
        period: with ``per="epoch"``, its length in optimizer steps; ``None`` waits for `Balancer.end_epoch`.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Source: Lakkapragada, Sleiman, Surabhi, Wall, "Mitigating Negative Transfer in Multi-Task Learning with Exponential
    Moving Average Loss Weighting Strategies" (2023), arXiv 2211.12999. Certainty: reconstructed from the abstract,
    which says "multiple techniques" of scaling by the exponential moving average of observed magnitudes: the variants
    are ours.

    Example:
        >>> balancer = steelyard.EMA(["a", "b"], beta=0.5)
        >>> for a, b in torch.tensor([[5.0, 1.0], [2.0, 1.0]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # 1 / E: of a, (0.25 · 5 + 0.5 · 2) / 0.75 = 3
        tensor([0.3333, 1.0000], dtype=torch.float64)
    """

    name = "ema"
    paper = "Lakkapragada et al. (2023), arXiv 2211.12999"
    positive_losses = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        beta: float = 0.99,
        variant: Variant = "inverse",
        start: Start = "bias-corrected",
        per: Per = "step",
        period: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        within("beta", beta, 0, 1)
        one_of("variant", variant, Variant)
        one_of("start", start, Start)
        one_of("per", per, Per)
        if period is not None and per == "step":
            raise OptionError("period is the length of an epoch: give it together with per='epoch'")
        self.beta, self.variant, self.start = beta, variant, start
        self.periodic = per == "epoch"
        self.independent = variant == "inverse"
        self.rescaling = {"inverse": "contribution", "proportional": "none"}.get(variant, "proportion")
        self.declare("average", reduce="mean")
        self.declare("mass", reduce="mean")
        if self.periodic:
            self.rescaling = "none"  # the first epoch is a plain sum
            self.set_period(period)
            declare_period_mean(self)

    def weigh(self, seen: Seen, state: State) -> Tensor:
        if self.periodic:
            add_to_period(state, seen.losses)
        else:
            self._move(state, seen.losses, torch.ones_like(seen.losses))
        known = state.mass > 0
        if not self.periodic:
            return self._weights(state.average / state.mass)
        if not bool(known.any()):
            return torch.ones_like(seen.losses)
        weights = torch.ones_like(seen.losses)
        weights[known] = self._weights(state.average[known] / state.mass[known])
        return weights

    def period_ended(self, state: State) -> None:
        if self.periodic:
            seen = (state.period_count > 0).double()
            self._move(state, close_period_mean(state, otherwise=torch.zeros_like(seen)), seen)

    def _move(self, state: State, losses: Tensor, seen: Tensor) -> None:
        """One step of the average where ``seen`` is 1; ``mass`` is the weight that the average has gathered."""
        fresh = (1 - self.beta) * torch.ones_like(seen)
        if self.start == "first-loss":
            fresh = torch.where(state.mass == 0, torch.ones_like(seen), fresh)
        fresh = fresh * seen
        state.average = (1 - fresh) * state.average + fresh * losses
        state.mass = (1 - fresh) * state.mass + fresh

    def _weights(self, average: Tensor) -> Tensor:
        if self.variant == "proportional":
            total = average.sum()
            return torch.where(total > 0, len(average) * average / total, torch.ones_like(average))
        inverse = reciprocal(average)
        positive = average > 0
        if self.variant == "inverse" or not bool(positive.any()):
            return inverse
        if self.variant == "normalised":
            # Relative to the smallest, so that the sum of inverses of extreme averages stays finite.
            return shares(average[positive].min() * inverse, positive)
        known = average[positive]
        reference = {"to-max": known.max(), "to-min": known.min(), "to-mean": known.mean()}[self.variant]
        return torch.where(positive, reference * inverse, inverse)
