"""IMTL-G: the gradient half of impartial multi-task learning."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.state import State
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.equiangular import equiangular
from steelyard.methods.solvers.unit_rows import UnitRows


class IMTLG(GramianBalancer):
    """The combined gradient has the same projection on every task's gradient.

    ``Σ w_k = 1`` and ``⟨Σ_k w_k g_k, u_t⟩`` is the same for all unit gradients ``u_t``; on their Gramian ``C``,
    ``w_k ∝ (C⁻¹1)_k / ‖g_k‖``, which is the paper's ``w_{2:T} = g_1 Uᵀ (D Uᵀ)⁻¹``. Weights may be negative.

    Args:
        tasks: task names.
        common: the options of `Balancer`.

    Where gradients are linearly dependent (eigenvalues of ``C`` below 1.2e-7 T): if some combination of them vanishes
    that has the same product with all, as for opposite gradients, that is the solution and nothing moves; else the
    solution of least squares is taken, so that tasks with equal directions share. A zero gradient has no direction: it
    takes no part, with weight ``1/T``. The ``w`` before they are normalised may sum to nearly zero, and then
    the normalised ones are large: that is the method.

    Cost: one backward pass through each task's head; one eigendecomposition of ``C``.

    Source: Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang, "Towards Impartial Multi-task Learning" (ICLR 2021).

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 3.0]]) @ w  # gradients (1, 0) and (0, 3)
        >>> balancer = steelyard.IMTLG(["a", "b"], shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> balancer.last_weights, w.grad  # the projection on either is 0.75
        (tensor([0.7500, 0.2500], dtype=torch.float64), tensor([0.7500, 0.7500]))
    """

    name = "imtl-g"
    paper = "Liu et al. (ICLR 2021)"
    signed_weights = True
    rescaling = "proportion"

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        moving = rows.moving
        size, movers = len(moving), moving.nonzero().squeeze(1)
        weights = torch.full((size,), 1 / size, dtype=torch.float64, device="cpu")
        if len(movers):
            part = UnitRows(rows.norms[movers], rows.cosines[movers][:, movers])
            inside, outside = equiangular(part.definite())
            # Relative to the shortest gradient, so that the sum neither overflows nor vanishes.
            unscaled = (outside if bool(outside.any()) else inside) * (part.norms.min() / part.norms)
            weights[movers] = unscaled / unscaled.sum() * (len(movers) / size)
        return weights
