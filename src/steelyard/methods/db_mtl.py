"""DB-MTL: dual balancing, and its gradient half alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Balance, Reads, Seen
from steelyard.base.options import at_least, one_of, within
from steelyard.base.row_state import like_rows
from steelyard.base.state import ELEMENTS, TASKS, State
from steelyard.gradients.row_products import squared_norms_of_rows
from steelyard.methods.loss_stages.log_losses import LogLosses

CommonScale = Literal["max", "mean", "median", "min"]


class MaxNorm(Balancer):
    """DB-MTL's gradient half: every task gradient is scaled to the norm of the largest.

    At the trunk, as in the paper: ``ĝ_k ← β_n ĝ_k + (1 - β_n) g_k`` in the task's ``n``-th step, with
    ``β_n = β / n^decay`` and ``ĝ = 0`` before the first, then ``d = s · Σ_k ĝ_k / ‖ĝ_k‖`` with ``s = max_k ‖ĝ_k‖``.
    At features ``‖ĝ_k‖² ← β_n ‖ĝ_k‖² + (1 - β_n) ‖g_k‖²``, bias-corrected, and ``w_k = s / ‖ĝ_k‖``. A task whose
    gradient has been exactly zero so far has weight 1. Heads are left plain.

    Args:
        tasks: task names.
        beta: ``0 ≤ β < 1``; 0 takes each step's own gradients, and is the same at features and trunk.
        decay: ``≥ 0``; 0.5 is the paper's ``β / √n``, 0 a constant.
        common_scale: ``"max"``, ``"mean"``, ``"median"`` or ``"min"`` of the norms.
        common: the options of `Balancer`.

    Cost: at features each head's backward; at the trunk one backward per task, and twice ``T x P`` numbers for rows
    and their average (``beta=0`` needs neither).

    Source: Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Tsang, Kwok, "Dual-Balancing for Multi-Task Learning" (2023), arXiv
    2308.12029, and the authors' code. Deviations: that code has ``decay=0`` by default, and takes no features. There
    the moving average is over squared norms, since rows of different batches do not correspond; it is bias-corrected,
    so that a task which joins late is not scaled by its missing past. The paper's ε = 1e-8 beside the norms is left
    out, since it would mute gradients of that size.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 3.0]]) @ w  # gradients (1, 0) and (0, 3)
        >>> balancer = steelyard.MaxNorm(["a", "b"], beta=0, shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> balancer.last_weights, w.grad
        (tensor([3., 1.], dtype=torch.float64), tensor([3., 3.]))
    """

    name = "max-norm"
    paper = "Lin et al. (2023), arXiv 2308.12029"
    reads = "norms"
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
        if beta > 0:
            self.declare("average", (TASKS, ELEMENTS), reduce="mean")

    def reads_at(self, trunk: bool) -> Reads:
        return "rows" if trunk and self.beta > 0 else "norms"

    def weigh(self, seen: Seen, state: State) -> Tensor | Balance:
        state.updates = state.updates + 1
        beta = self.beta / state.updates**self.decay
        if seen.rows is not None:
            return self._on_rows(seen.rows, beta, state)
        assert seen.squared_norms is not None
        state.square = beta * state.square + (1 - beta) * seen.squared_norms
        state.mass = beta * state.mass + (1 - beta)
        return self._weights((state.square / state.mass).sqrt())

    def _on_rows(self, rows: Tensor, beta: Tensor, state: State) -> Balance:
        part = beta[:, None].to(rows)
        average = torch.lerp(rows, like_rows(state.average, rows, self.name), part)
        state.average = average
        return Balance(self._weights(squared_norms_of_rows(average).sqrt()), rows=average)

    def _weights(self, norms: Tensor) -> Tensor:
        moving = norms > 0
        if not bool(moving.any()):
            return torch.ones_like(norms)
        scale = getattr(norms[moving], self.common_scale)()
        return torch.where(moving, scale / norms, torch.ones_like(norms))


class DBMTL(MaxNorm):
    """Dual balancing: log losses, and task gradients scaled to the norm of the largest.

    With ``g_k = ∇log(L_k + ε)`` at features or trunk, and ``ĝ_k`` their moving averages as in `MaxNorm`,
    ``d = s · Σ_k ĝ_k / ‖ĝ_k‖``, ``s = max_k ‖ĝ_k‖``. Heads receive ``∇log(L_k + ε)``.

    Args:
        tasks: task names.
        epsilon: ``ε`` inside the logarithm, in the unit of the losses.
        beta: ``0 ≤ β < 1`` of the moving average; in a task's ``n``-th step it is ``β / n^decay``.
        decay: ``≥ 0``; 0.5 is the paper's, 0 a constant.
        common_scale: ``s``: ``"max"``, ``"mean"``, ``"median"`` or ``"min"`` of the norms.
        options: those of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Cost: at features each head's backward; at the trunk one backward per task, and twice ``T x P`` numbers.

    Source: Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Tsang, Kwok, "Dual-Balancing for Multi-Task Learning" (2023), arXiv
    2308.12029, and the authors' code, which has ``decay=0`` by default. Deviations: those of `MaxNorm`, which is its
    gradient half alone.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([2.0, 1.0]))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 3.0]]) @ w  # gradients of log L: (0.5, 0) and (0, 1)
        >>> balancer = steelyard.DBMTL(["a", "b"], beta=0, shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # both as long as the longer
        tensor([1., 1.])
    """

    name = "db-mtl"

    def __init__(self, tasks: Sequence[str], *, epsilon: float = 1e-8, **options: Any) -> None:
        super().__init__(tasks, **options)
        self.prepend_stages([LogLosses(epsilon)])
        self.rescaling = "contribution"
