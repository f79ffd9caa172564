"""GradNorm: gradient norms that follow the tasks' training rates."""

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


class GradNorm(Balancer):
    """Weighted gradient norms are driven to their mean, larger for tasks that train slowly.

    ``w = T softmax(ξ)``; with ``n_k = w_k ‖g_k‖``, ``r_k = (L_k / L_k(0)) / mean(L / L(0))`` and the target ``n̄
    r_k^α`` held fixed, Adam descends ``Σ_k |n_k - n̄ r_k^α| / n̄`` over ``ξ`` after use. Its gradient is ``w_k (s_k -
    mean_t(w_t s_t))`` with ``s_k = sign(n_k - n̄ r_k^α) ‖g_k‖ / n̄``: closed form, no double backward.

    Args:
        tasks: task names.
        alpha: ``α ≥ 0``, how strongly slow tasks are favoured; 0 makes all norms equal.
        learning_rate: of ``ξ``; the paper's 0.025.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`: its training rate would not be defined.

    Cost: one backward pass through each task's head to the features.

    Source: Chen, Badrinarayanan, Lee, Rabinovich, "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
    Multitask Networks" (2018), arXiv 1711.02257. Deviations: ``ξ`` keeps weights positive and their sum at T, where the
    paper learns ``w`` and renormalises it; the objective is divided by ``n̄``, so that Adam sees the same numbers at
    norms of 1e-12; norms are read where ``shared=`` points, the paper's last shared layer being one choice.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = steelyard.GradNorm(["a", "b"], shared=[w])
        >>> for _ in range(2):
        ...     a, b = torch.tensor([[1.0, 0.0], [0.0, 3.0]]) @ w  # gradients (1, 0) and (0, 3)
        ...     _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # 2 softmax(0.025, -0.025): Adam's first step
        tensor([1.0250, 0.9750], dtype=torch.float64)
    """

    name = "gradnorm"
    paper = "Chen et al. (2018), arXiv 1711.02257"
    reads = "norms"
    positive_losses = True

    def __init__(
        self, tasks: Sequence[str], *, alpha: float = 1.5, learning_rate: float | None = 0.025, **common: Any
    ) -> None:
        super().__init__(tasks, learning_rate=learning_rate, **common)
        at_least("alpha", alpha, 0)
        self.alpha = alpha
        self.declare_learned("logits")
        self.declare("initial_loss", default=float("nan"), reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        weights = len(seen.losses) * state.logits.softmax(0)
        starting = state.initial_loss.isnan() & seen.losses.isfinite()
        state.initial_loss = torch.where(starting, seen.losses, state.initial_loss)
        left = ratio(seen.losses, state.initial_loss)
        rate = ratio(left, left.mean())
        norms = weights * seen.norms
        mean = norms.mean()
        slopes = (norms - mean * rate**self.alpha).sign() * ratio(seen.norms, mean)
        gradient = weights * (slopes - (weights * slopes).mean())
        # Nothing is learnt from a step without gradients, or one that is not finite.
        usable = (mean > 0) & gradient.isfinite().all()
        self.learn(state, "logits", torch.where(usable, gradient, torch.zeros_like(gradient)))
        return weights
