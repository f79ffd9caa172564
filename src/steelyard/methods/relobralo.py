"""ReLoBRaLo: relative loss balancing with random look-back."""

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
from steelyard.errors import OptionError


class ReLoBRaLo(Balancer):
    """Tasks that fell least weigh most, with a memory that now and then is renewed from the very start.

    ``w ← α (ρ w + (1-ρ) b(L⁰)) + (1-α) b(L⁻)`` with ``b(L') = T · softmax(L / (τ L'))``, where ``L⁻`` is the step's
    before, ``L⁰`` the first and ``ρ`` is 1 with probability ``keep``, else 0, drawn once a step. ``w = 1`` in a
    task's first step, ``b(L⁻)`` in its second. ``L/L'`` is 1 where ``L'`` is exactly zero.

    Args:
        tasks: task names.
        alpha: ``0 ≤ α < 1``, memory of the weights.
        temperature: ``τ > 0``; larger is more even.
        keep: ``0 ≤ E[ρ] ≤ 1``, the probability not to look back.
        common: the options of `Balancer`; ``generator`` draws ``ρ``, and its state is part of the state dict.

    Errors: a negative loss raises `LossError`.

    Source: Bischof & Kraus, "Multi-Objective Loss Balancing for Physics-Informed Deep Learning" (2021), arXiv
    2110.09813, and the authors' published code, of which the first two steps (α = 1, then 0) are too. Deviations: that
    code adds 1e-12 to ``τ L'``, and has ``keep=1`` by default; the paper's values differ by problem.

    Example:
        >>> balancer = steelyard.ReLoBRaLo(["a", "b"])
        >>> for a, b in torch.tensor([[4.0, 4.0], [2.0, 4.0]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # 2 softmax(1/2, 1)
        tensor([0.7551, 1.2449], dtype=torch.float64)
    """

    name = "relobralo"
    paper = "Bischof & Kraus (2021), arXiv 2110.09813"
    positive_losses = True
    rescaling = "weights"
    draws = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        alpha: float = 0.999,
        temperature: float = 1.0,
        keep: float = 0.999,
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        within("alpha", alpha, 0, 1)
        at_least("temperature", temperature, 0, strictly=True)
        if not isinstance(keep, int | float) or not 0 <= keep <= 1:
            raise OptionError(f"keep must lie in [0, 1], got {keep!r}")
        self.alpha, self.temperature, self.keep = alpha, temperature, keep
        self.declare("count", reduce="mean")
        self.declare("first", default=float("nan"), reduce="mean")
        self.declare("last", default=float("nan"), reduce="mean")
        self.declare("weights", default=1.0, reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        state.first = torch.where(state.count == 0, seen.losses, state.first)
        looks_back = bool(torch.rand((), generator=self.generator, dtype=torch.float64, device="cpu") >= self.keep)
        fresh = self._balanced(seen.losses, state.last)
        memory = self._balanced(seen.losses, state.first) if looks_back else state.weights
        mixed = self.alpha * memory + (1 - self.alpha) * fresh
        weights = torch.where(state.count >= 2, mixed, torch.where(state.count == 1, fresh, torch.ones_like(fresh)))
        state.count, state.last, state.weights = state.count + 1, seen.losses, weights
        return weights

    def _balanced(self, losses: Tensor, before: Tensor) -> Tensor:
        return len(losses) * (ratio(losses, before) / self.temperature).softmax(0)
