"""The direction that makes the same angle with every task gradient."""

from __future__ import annotations

import torch
from torch import Tensor

RANK = torch.finfo(torch.float32).eps
"""Eigenvalues of ``T`` cosines below ``T`` times this are what rounding leaves of zero: gradients are float32."""
_NULL = 1e-5


def equiangular(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """``C⁺1`` and the part of ``1`` in the null space of ``C``, both ``[T]`` float64.

    ``Σ_k (C⁺1)_k u_k`` has the same product with every unit row, if any direction has; else the products are 1 in the
    sense of least squares. Eigenvalues below ``1.2e-7 T`` count as zero, and so does a part below 1e-5 of ``‖1‖``.

    Args:
        cosines: ``C [T, T]``; see `UnitRows.definite`.
    """
    values, vectors = torch.linalg.eigh(cosines)
    components = vectors.sum(0)  # of the vector of ones
    kept = values > RANK * len(values)
    inside = vectors @ torch.where(kept, components / torch.where(kept, values, torch.ones_like(values)), 0.0)
    outside = vectors @ torch.where(kept, 0.0, components)
    # What rounding leaves of a part that is not there must not be mistaken for a direction.
    if float(outside.norm()) <= _NULL * len(values) ** 0.5:
        outside = torch.zeros_like(outside)
    if float(torch.where(kept, components, 0.0).norm()) <= _NULL * len(values) ** 0.5:
        inside = torch.zeros_like(inside)
    return inside, outside
