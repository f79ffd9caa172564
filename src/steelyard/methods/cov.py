"""CoV-Weighting: losses that still vary matter most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import at_least, within
from steelyard.base.ratios import ratio
from steelyard.base.state import State


class CoV(Balancer):
    """The weight is the coefficient of variation of the loss ratio: what no longer changes has been learnt.

    With ``l_k = L_k / mean(L_k so far)``, ``w_k = (σ_k / μ_k) / Σ_j (σ_j / μ_j)``, where ``μ`` and ``σ² = S/n + ε``
    are the mean and the variance of ``l`` over the steps before this one. ``1/T`` in a task's first two steps, the
    others sharing the rest.

    Args:
        tasks: task names.
        decay: ``0 ≤ decay < 1`` takes decaying means with that factor; ``None`` is the mean over all steps.
        epsilon: ``ε ≥ 0``, in the unit of ``l²`` (none); the authors' code has 1e-8.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Source: Groenendijk, Karaoglu, Gevers, Mensink, "Multi-Loss Weighting with Coefficient of Variations" (2021),
    arXiv 2009.01717, and the authors' code, in which decaying means leave ``S/n`` an average over all steps; so here.

    Example:
        >>> balancer = steelyard.CoV(["a", "b"])
        >>> for a, b in torch.tensor([[1.0, 1.0], [2.0, 4.0], [2.0, 4.0]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # l is 1, 2 and 1, 4: σ/μ is 1/3 and 3/5
        tensor([0.3571, 0.6429], dtype=torch.float64)
    """

    name = "cov"
    paper = "Groenendijk et al. (2021), arXiv 2009.01717"
    positive_losses = True
    rescaling = "weights"

    def __init__(
        self, tasks: Sequence[str], *, decay: float | None = None, epsilon: float = 1e-8, **common: Any
    ) -> None:
        super().__init__(tasks, **common)
        if decay is not None:
            within("decay", decay, 0, 1)
        at_least("epsilon", epsilon, 0)
        self.decay, self.epsilon = decay, epsilon
        self.declare("count", reduce="mean")
        self.declare("mean_loss", reduce="mean")
        self.declare("mean_ratio", reduce="mean")
        self.declare("spread", reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        weights = self._weights(state)
        self._move(state, seen.losses)
        return weights

    def _weights(self, state: State) -> Tensor:
        even = torch.full_like(state.count, 1 / len(state.count))
        known = state.count >= 2
        deviation = (state.spread / state.count.clamp(min=1) + self.epsilon).sqrt()
        # Ratios that have faded to nothing, of a loss that has been zero for long, do not vary.
        quotient = deviation / state.mean_ratio
        coefficient = torch.where(known & quotient.isfinite(), quotient, torch.zeros_like(deviation))
        total = coefficient.sum()
        share = torch.where(total > 0, coefficient * known.double().mean() / total, even)
        return torch.where(known, share, even)

    def _move(self, state: State, losses: Tensor) -> None:
        """Welford's recurrences for the mean of ``L`` and the mean and sum of squares of ``l``."""
        first = state.count == 0
        relative = torch.where(first, torch.ones_like(losses), ratio(losses, state.mean_loss))
        state.count = state.count + 1
        fresh = 1 / state.count
        if self.decay is not None:
            fresh = torch.where(first, fresh, torch.full_like(fresh, 1 - self.decay))
        difference = relative - state.mean_ratio
        state.mean_ratio = state.mean_ratio + fresh * difference
        # In the first step the mean moves all the way to l, so nothing is added to the spread.
        state.spread = state.spread + difference * (relative - state.mean_ratio)
        state.mean_loss = state.mean_loss + fresh * (losses - state.mean_loss)
