"""RLW: random loss weighting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import one_of
from steelyard.base.state import State

Distribution = Literal["normal", "dirichlet"]


class Random(Balancer):
    """Weights drawn anew in every step.

    ``w = softmax(z)`` with ``z ~ N(0, I)``, or ``w ~ Dirichlet(1)``; either sums to 1 (``scale="sum"`` makes it T).

    Args:
        tasks: task names.
        distribution: ``"normal"`` or ``"dirichlet"``.
        common: the options of `Balancer`; ``generator`` draws the weights, and its state is part of the state dict.

    Source: Lin, Ye, Zhang, Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task
    Learning" (2021), arXiv 2111.10603, and the authors' code. Deviation: that code takes the softmax of Dirichlet draws
    too; here they are weights as they are.

    Example:
        >>> balancer = steelyard.Random(["a", "b"])
        >>> for a, b in torch.ones(3, 2, requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        ...     print(f"{balancer.last_weights.sum():.6f}")
        1.000000
        1.000000
        1.000000
    """

    name = "random"
    looks_at_nothing = True
    independent = True  # by what a loss stage in front makes of its own losses
    paper = "Lin et al. (2021), arXiv 2111.10603"
    rescaling = "weights"
    draws = True

    def __init__(self, tasks: Sequence[str], *, distribution: Distribution = "normal", **common: Any) -> None:
        super().__init__(tasks, **common)
        one_of("distribution", distribution, Distribution)
        self.distribution = distribution

    def weigh(self, seen: Seen, state: State) -> Tensor:
        size = len(seen.losses)
        if self.distribution == "normal":
            draw = torch.randn(size, dtype=torch.float64, generator=self.generator, device="cpu").softmax(0)
        else:
            # Normalised unit exponentials are Dirichlet(1) distributed.
            draw = torch.empty(size, dtype=torch.float64, device="cpu").exponential_(generator=self.generator)
            draw = draw / draw.sum()
        return draw.to(seen.losses.device)
