"""Projection on the dual cone of the task gradients: the directions that conflict with none of them."""

from __future__ import annotations

from torch import Tensor

from steelyard.methods.solvers.nonnegative import nonnegative_minimum


def dual_cone_projection(cosines: Tensor, coefficients: Tensor) -> Tensor:
    """``argmin_{v ≥ u} vᵀCv`` as ``[B, T]`` float64, for every row ``u`` of ``coefficients``.

    ``Σ_k v_k u_k`` is the point nearest to ``Σ_k u_k u_k`` that has a non-negative product with every unit row; each
    product falls short of that by no more than ``1e-12 Σ_k |v_k|``.

    Args:
        cosines: ``C [T, T]``; see `UnitRows.definite`.
        coefficients: ``u [B, T]``, of the unit rows.
    """
    return coefficients + nonnegative_minimum(cosines, coefficients @ cosines)
