"""Task gradients as lengths and angles: what keeps the small solvers free of scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

REGULARISATION = 1e-12
"""Added to the cosines' diagonal where a factorisation must exist; far above their rounding, far below what shows."""


@dataclass(frozen=True)
class UnitRows:
    """The Gramian taken apart: ``G_ij = ‖g_i‖ ‖g_j‖ C_ij``.

    With multipliers ``w = ω / ‖g‖`` a combination ``Σ_k w_k g_k`` is one of unit rows, ``Σ_k ω_k u_k``, so a problem
    solved for ``ω`` on the cosines is as well conditioned at norm ratios of 1e6 as at 1.

    Attributes:
        norms: ``[T]``, ``‖g_k‖``.
        cosines: ``[T, T]``, with a diagonal of ones. A zero gradient, which has no direction, stands as one
            that is orthogonal to all others.
    """

    norms: Tensor
    cosines: Tensor

    @staticmethod
    def of(gramian: Tensor) -> UnitRows:
        """Take a finite Gramian ``[T, T]`` apart, in float64 on the CPU.

        Its two halves are averaged: on some processors a product ``J Jᵀ`` in float32 is symmetric to rounding only, and
        to solvers that take it for symmetric that would be an error of 1e-7, where they are good to 1e-12.
        """
        G = gramian.detach().double().cpu()
        norms = G.diagonal().clamp(min=0).sqrt()
        divisor = torch.where(norms > 0, norms, torch.ones_like(norms))
        cosines = G / divisor[:, None] / divisor
        cosines = ((cosines + cosines.T) / 2).clamp(-1, 1)
        cosines = torch.where(norms > 0, cosines, torch.zeros_like(cosines))
        cosines.fill_diagonal_(1.0)
        return UnitRows(norms, cosines)

    @property
    def moving(self) -> Tensor:
        """``[T]``, which gradients are not zero."""
        return self.norms > 0

    def multipliers(self, unit: Tensor, of_zero: float | Tensor = 1.0) -> Tensor:
        """``w = ω / ‖g‖ [T]`` for coefficients ``ω`` of the unit rows, and ``of_zero`` for zero gradients."""
        moving = self.moving
        divisor = torch.where(moving, self.norms, torch.ones_like(self.norms))
        otherwise = torch.as_tensor(of_zero, dtype=unit.dtype, device=unit.device).expand_as(unit)
        return torch.where(moving, unit / divisor, otherwise)

    def definite(self) -> Tensor:
        """The cosines ``[T, T]``, their diagonal raised where rounding has made them indefinite.

        A Gramian summed in float32 may have eigenvalues of -1e-7; raising by as much is within its precision.
        """
        eye = torch.eye(len(self.norms), dtype=torch.float64, device="cpu")
        _, failed = torch.linalg.cholesky_ex(self.cosines + REGULARISATION * eye)
        if not int(failed):
            return self.cosines
        lowest: Tensor = torch.linalg.eigvalsh(self.cosines)[0]
        return self.cosines - 2 * lowest * eye
