"""GO4Align: one weight per group of similar tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import at_least
from steelyard.base.state import State
from steelyard.errors import OptionError
from steelyard.methods.solvers.k_means import k_means_on_line


class GO4Align(Balancer):
    """Tasks are grouped anew in every step by a risk indicator, and each group gets its mean as the weight.

    The indicator is ``γ_k = p_k Σ_j L_j / L_k`` with ``p_k ∝ p_k e^{-η L_k}``, ``Σ p = 1``: the inverse share in the
    losses, times a memory of the losses so far. Then k-means of the ``γ_k``, and ``w_k`` is the mean of ``γ`` in the
    group of ``k``. A loss of exactly zero stays out of the groups and weighs 1.

    Args:
        tasks: task names.
        groups: number of groups; 1 gives all tasks the same weight.
        step_size: ``η ≥ 0``, in the unit of 1/loss.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Source: Shen, Wang, Xiao, van Noord, Worring, "GO4Align: Group Optimization for Multi-Task Alignment" (2024), arXiv
    2404.06486. Certainty: the authors' code, not the paper. Deviation: k-means on the line is solved exactly, where
    that code iterates from a random start.

    Example:
        >>> a, b, c = torch.tensor([1.0, 1.2, 4.0], requires_grad=True)
        >>> balancer = steelyard.GO4Align(["a", "b", "c"], step_size=0)
        >>> _ = balancer({"a": a, "b": b, "c": c})
        >>> balancer.last_weights  # γ is 2.07 and 1.72, one group; and 0.52
        tensor([1.8944, 1.8944, 0.5167], dtype=torch.float64)
    """

    name = "go4align"
    paper = "Shen et al. (2024), arXiv 2404.06486"
    positive_losses = True
    revision = 1  # shares of the tasks at hand were kept beside those of the absent ones as if they were of all

    def __init__(self, tasks: Sequence[str], *, groups: int = 2, step_size: float = 1e-4, **common: Any) -> None:
        super().__init__(tasks, **common)
        if not isinstance(groups, int) or groups < 1:
            raise OptionError(f"groups must be a whole number of at least 1, got {groups!r}")
        at_least("step_size", step_size, 0)
        self.groups, self.step_size = groups, step_size
        self.declare("log_memory", reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        held = state.log_memory.logsumexp(0)  # by those at hand together, which goes on to be theirs
        memory = (state.log_memory - self.step_size * seen.losses).log_softmax(0)
        state.log_memory = memory + held
        positive = seen.losses > 0
        weights = torch.ones_like(seen.losses)
        if bool(positive.any()):
            losses = seen.losses[positive]
            indicator = memory[positive].exp() * (losses.sum() / losses)
            weights[positive] = k_means_on_line(indicator, self.groups)
        return weights
