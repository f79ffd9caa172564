"""Equal weights: the plain sum."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.state import State


class Equal(Balancer):
    """The plain sum of the losses, the reference that every other method is held against.

    ``Σ_k L_k``: every weight is 1.

    Args:
        tasks: task names.
        common: the options of `Balancer`.

    Example:
        >>> a, b = torch.tensor([1.0, 4.0], requires_grad=True)
        >>> balancer = steelyard.Equal(["a", "b"])
        >>> balancer({"a": a, "b": b}).item()
        5.0
    """

    name = "equal"
    looks_at_nothing = True
    independent = True  # by what a loss stage in front makes of its own losses
    rescaling = "weights"

    def weigh(self, seen: Seen, state: State) -> Tensor:
        return torch.ones_like(seen.losses)
