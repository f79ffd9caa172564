"""The bargaining point: what Nash-MTL and FairGrad solve."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.methods.solvers.unit_rows import UnitRows

_TOLERANCE = 1e-13
_STEPS = 100
_FLOOR = 1e-14
"""Least eigenvalue of the cosines that is told apart from zero."""


def bargaining_point(rows: UnitRows, power: Tensor, alpha: float = 1.0) -> Tensor:
    """``w > 0`` with ``(G w)_k = p_k w_k^{-1/α}``, as ``[T]`` float64.

    Args:
        rows: gradients, none of them zero.
        power: ``p [T] > 0``, bargaining power.
        alpha: ``α > 0``; 1 is Nash's point, which no rescaling of a gradient changes.

    It is the minimiser of the convex ``½ wᵀGw - Σ_k p_k ψ(w_k)`` with ``ψ'(w) = w^{-1/α}``, found by damped Newton
    steps on ``β = w ‖g‖^{2α/(1+α)}``, in which orthogonal gradients have ``β = 1`` whatever their norms.

    Where a positive combination of the gradients vanishes there is no such point: ``w`` grows without bound while
    ``‖Jᵀw‖² = Σ p_k`` (``α = 1``). There, eigenvalues of the cosines count as 1e-14 at least, so that ``w`` ends near
    the ray on which it would go to infinity, at about 1e7 times its ordinary size.
    """
    exponent = 1 / alpha
    relative = rows.norms ** ((1 - alpha) / (1 + alpha))
    relative = relative / relative.max()
    floor = _FLOOR * torch.eye(len(power), dtype=torch.float64, device="cpu")
    M = (rows.definite() + floor) * relative[:, None] * relative
    p = power * relative**2

    def objective(beta: Tensor) -> float:
        gain = beta.log() if exponent == 1 else beta ** (1 - exponent) / (1 - exponent)
        return float(0.5 * beta @ M @ beta - p @ gain)

    beta = torch.ones_like(p)
    now = objective(beta)
    for _ in range(_STEPS):
        gain = p * beta ** (1 - exponent)
        residual = gain - beta * (M @ beta)
        error = float((residual / gain).abs().max())
        if error <= _TOLERANCE:
            break
        factor, _ = torch.linalg.cholesky_ex(M * beta[:, None] * beta + torch.diag(exponent * gain))
        step = torch.cholesky_solve(residual[:, None], factor)[:, 0]  # relative to β, so that β stays positive
        decrease = float(step @ residual)
        length = min(1.0, 1.0 / float(step.abs().max()))
        if error < 1e-6:  # the objective's own rounding would hide what is left to gain
            following = beta * (step * length).exp()
            left = p * following ** (1 - exponent)
            if float(((left - following * (M @ following)) / left).abs().max()) >= error:
                break
            beta = following
            continue
        following = beta * (step * length).exp()
        while objective(following) > now - 1e-4 * length * decrease and length > 1e-6:
            length /= 2
            following = beta * (step * length).exp()
        if length <= 1e-6:
            break
        beta, now = following, objective(following)
    return beta * rows.norms ** (-2 * alpha / (1 + alpha))
