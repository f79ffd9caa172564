"""DB-MTL: dual balancing, and its gradient half alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.balancer import Balancer
from steelyard.chain import LogLosses
from steelyard.observation import Seen
from steelyard.options import at_least, one_of, within
from steelyard.state import State

CommonScale = Literal["max", "mean", "median", "min"]


class MaxNorm(Balancer):
    """DB-MTL's gradient half: every task gradient is scaled to the norm of the largest.

    ``d = s · Σ_k g_k / ‖ĝ_k‖`` with ``s = max_k ‖ĝ_k‖``, hence ``w_k = s / ‖ĝ_k‖``. At features ``‖ĝ_k‖² ← β_n ‖ĝ_k‖² + (1 - β_n) ‖g_k‖²`` in the task's ``n``-th step,
    with ``β_n = β / n^decay``, bias-corrected. A task whose gradient has been exactly zero so far has weight 1. Heads are left plain.

    Args:
        tasks: task names.
        beta: ``0 ≤ β < 1``; 0 takes each step's own norms.
        decay: ``≥ 0``; 0.5 is the paper's ``β / √n``, 0 a constant.
        common_scale: ``"max"``, ``"mean"``, ``"median"`` or ``"min"`` of the norms.
        common: the options of `Balancer`.

    Source: Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Kwok, "Dual-Balancing for Multi-Task Learning" (2023), arXiv 2308.12029.
    Deviations: at features the moving average is over squared norms, since rows of different batches do not correspond there (the paper
    averages the trunk's rows); it is bias-corrected, so that a task which joins late is not scaled by its missing past; the paper's ε = 1e-8
    beside the norms is left out, since it would mute gradients of that size.
    """

    name = "max-norm"
    paper = "Lin et al. (2023), arXiv 2308.12029"
    reads = "norms"
    where = frozenset({"features"})
    default_heads = "plain"
    rescaling = "proportion"

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        beta: float = 0.9,
        decay: float = 0.5,
        common_scale: CommonScale = "max",
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        within("beta", beta, 0, 1)
        at_least("decay", decay, 0)
        one_of("common_scale", common_scale, CommonScale)
        self.beta, self.decay, self.common_scale = beta, decay, common_scale
        self.declare("square", reduce="mean")
        self.declare("mass", reduce="mean")
        self.declare("updates", reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        assert seen.squared_norms is not None
        state.updates = state.updates + 1
        beta = self.beta / state.updates**self.decay
        state.square = beta * state.square + (1 - beta) * seen.squared_norms
        state.mass = beta * state.mass + (1 - beta)
        norms = (state.square / state.mass).sqrt()
        moving = norms > 0
        if not bool(moving.any()):
            return torch.ones_like(norms)
        scale = getattr(norms[moving], self.common_scale)()
        return torch.where(moving, scale / norms, torch.ones_like(norms))


class DBMTL(MaxNorm):
    """Dual balancing: log losses, and task gradients scaled to the norm of the largest.

    `MaxNorm` on ``g_k = ∇log(L_k + ε)``; heads receive ``∇log(L_k + ε)``.

    Args:
        tasks: task names.
        epsilon: ``ε`` inside the logarithm, in the unit of the losses.
        beta, decay, common_scale: as in `MaxNorm`.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Source and deviations: as in `MaxNorm`.
    """

    name = "db-mtl"

    def __init__(self, tasks: Sequence[str], *, epsilon: float = 1e-8, **options: Any) -> None:
        super().__init__(tasks, **options)
        self.prepend_stages([LogLosses(epsilon)])
        self.rescaling = "contribution"
