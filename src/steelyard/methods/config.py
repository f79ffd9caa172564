"""ConFIG: conflict-free inverse gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.state import State
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.equiangular import equiangular
from steelyard.methods.solvers.unit_rows import UnitRows


class ConFIG(GramianBalancer):
    """The direction with the same cosine to every gradient, as long as the gradients' projections on it together.

    ``u = unit(U⁺1)`` with the unit gradients as rows of ``U``, and ``d = (Σ_k ⟨g_k, u⟩) u``. On their Gramian ``C``,
    ``y = C⁺1`` and ``w_k = (Σ_t ‖g_t‖ (C y)_t) / (yᵀC y) · y_k / ‖g_k‖``. Weights may be negative.

    Args:
        tasks: task names.
        common: the options of `Balancer`.

    Where gradients are linearly dependent (eigenvalues of ``C`` below 1.2e-7 T) the pseudoinverse leaves least squares;
    for exactly opposite gradients ``U⁺1 = 0``, and nothing moves. A zero gradient has no direction: it takes no part,
    with weight 1.

    Cost: one backward pass through each task's head; one eigendecomposition of ``C``.

    Source: Liu, Chu, Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks" (2024),
    arXiv 2408.11104, and the authors' code.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 3.0]]) @ w  # gradients (1, 0) and (0, 3)
        >>> balancer = steelyard.ConFIG(["a", "b"], shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # u is (1, 1) / √2, and the projections on it are 1 / √2 and 3 / √2
        tensor([2., 2.])
    """

    name = "config"
    paper = "Liu, Chu, Thuerey (2024), arXiv 2408.11104"
    signed_weights = True

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        movers = rows.moving.nonzero().squeeze(1)
        weights = torch.ones_like(rows.norms)
        if len(movers):
            part = UnitRows(rows.norms[movers], rows.cosines[movers][:, movers])
            C = part.definite()
            y, _ = equiangular(C)
            products = C @ y
            square = y @ products
            length = torch.where(square > 0, part.norms @ products / square, torch.zeros_like(square))
            weights[movers] = length * y / part.norms
        return weights
