"""Scale-invariant loss: the sum of log losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steelyard.base.stages import LogLosses
from steelyard.methods.equal import Equal


class Log(Equal):
    """The sum of log losses, in which no loss's unit matters.

    ``Σ_k log(L_k + ε)``, so that ``w_k = 1 / (L_k + ε)``.

    Args:
        tasks: task names.
        epsilon: ``ε ≥ 0``, in the unit of the losses.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.
    """

    name = "log"

    def __init__(self, tasks: Sequence[str], *, epsilon: float = 1e-8, **common: Any) -> None:
        super().__init__(tasks, **common)
        self.prepend_stages([LogLosses(epsilon)])
        self.rescaling = "contribution"
