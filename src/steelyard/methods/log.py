"""Scale-invariant loss: the sum of log losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steelyard.methods.equal import Equal
from steelyard.methods.loss_stages.log_losses import LogLosses


class Log(Equal):
    """The sum of log losses, in which no loss's unit matters.

    ``Σ_k log(L_k + ε)``, so that ``w_k = 1 / (L_k + ε)``.

    Args:
        tasks: task names.
        epsilon: ``ε ≥ 0``, in the unit of the losses.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Example:
        >>> a, b = torch.tensor([2.0, 8.0], requires_grad=True)
        >>> balancer = steelyard.Log(["a", "b"])
        >>> _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # 1 / L
        tensor([0.5000, 0.1250], dtype=torch.float64)
    """

    name = "log"

    def __init__(self, tasks: Sequence[str], *, epsilon: float = 1e-8, **common: Any) -> None:
        super().__init__(tasks, **common)
        self.prepend_stages([LogLosses(epsilon)])
        self.rescaling = "contribution"
