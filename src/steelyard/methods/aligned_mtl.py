"""Aligned-MTL: independent components of equal strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.options import one_of
from steelyard.base.state import State
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.equiangular import RANK
from steelyard.methods.solvers.unit_rows import UnitRows

CommonScale = Literal["min", "median", "rmse"]

SHORTEST = 1e-12  # of the longest component: singular values are exact to 1e-16 of the largest


class AlignedMTL(GramianBalancer):
    """The gradients' principal components are given one length, so that none dominates and none conflicts.

    With ``G = V Λ Vᵀ``, ``B = √λ V Λ^{-1/2} Vᵀ`` and ``d = Jᵀ B 1``, hence ``w = B 1``; ``λ`` is the smallest
    eigenvalue, the ``median`` one (the lower of two) or the mean (``rmse``), always of those that are not zero. Weights
    may be negative.

    Args:
        tasks: task names.
        common_scale: ``"min"``, ``"median"`` or ``"rmse"``.
        common: the options of `Balancer`.

    Directions in which the cosines have eigenvalues below 1.2e-7 T (linearly dependent gradients, as float32 knows
    them) have no component and are left out; so are zero gradients, with weight 0, and components that are shorter than
    1e-12 of the longest, which float64 cannot tell from rounding.

    Cost: one backward pass through each task's head; an eigen- and a singular value decomposition of ``[T, T]``.

    Source: Senushkin, Patakin, Kuznetsov, Konushin, "Independent Component Alignment for Multi-Task Learning" (2023),
    arXiv 2305.19000, and the authors' code. Deviation: eigenvalues come from the singular values of a factor of ``G``
    and rank from the cosines, so that a short gradient beside one 1e6 times as long keeps its component; that code
    cuts eigenvalues off at rounding of the largest.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 4.0]]) @ w  # gradients (1, 0) and (0, 4)
        >>> balancer = steelyard.AlignedMTL(["a", "b"], shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # both components as long as the shorter
        tensor([1., 1.])
    """

    name = "aligned-mtl"
    paper = "Senushkin et al. (2023), arXiv 2305.19000"
    signed_weights = True

    def __init__(self, tasks: Sequence[str], *, common_scale: CommonScale = "min", **common: Any) -> None:
        super().__init__(tasks, **common)
        one_of("common_scale", common_scale, CommonScale)
        self.common_scale = common_scale

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        weights = torch.zeros_like(rows.norms)
        movers = rows.moving.nonzero().squeeze(1)
        if not len(movers):
            return weights
        values, vectors = torch.linalg.eigh(rows.cosines[movers][:, movers])
        kept = values > RANK * len(values)
        # G = F Fᵀ: the singular values of F are exact to 1e-16 of the largest, those of G to 1e-8 only.
        factor = rows.norms[movers, None] * vectors[:, kept] * values[kept].sqrt()
        basis, singular, _ = torch.linalg.svd(factor, full_matrices=False)
        known = singular > SHORTEST * singular[0]
        basis, singular = basis[:, known], singular[known]
        if self.common_scale == "min":
            scale = singular[-1]
        elif self.common_scale == "median":
            scale = singular.median()
        else:
            scale = singular.norm() / len(singular) ** 0.5
        weights[movers] = basis @ (scale / singular * basis.sum(0))
        return weights
