"""The point of smallest norm in the convex hull of task gradients, from their Gramian."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.methods.solvers.nonnegative import nonnegative_minimum
from steelyard.methods.solvers.unit_rows import UnitRows

_TOLERANCE = 4e-15


def min_norm_point(gramian: Tensor) -> Tensor:
    """``argmin_{α ≥ 0, Σα = 1} αᵀ G α`` as ``[T]`` float64: exact, by Wolfe's active-set method.

    Args:
        gramian: ``[T, T]``, symmetric positive semidefinite; NaN or inf in it makes every weight NaN. Only ratios
            matter: ``G`` and ``10^20 G`` have the same answer.

    The affine minimiser of each active set is found on the *cosines* ``C``, with ``α_i = μ_i / ‖g_i‖``, so that
    gradients whose norms differ by 1e6 do not make the system ill-conditioned. The search starts from the active set of
    the conic form, ``min ½ xᵀGx - Σx`` over ``x ≥ 0``, which is settled in a few block pivots. A zero gradient is
    itself the point of smallest norm.

    Source: Wolfe, "Finding the nearest point in a polytope", Mathematical Programming 11 (1976).
    """
    size = len(gramian)
    home = gramian.device
    G = gramian.detach().double().cpu()
    squares = G.diagonal()
    if not bool(G.isfinite().all()):
        return torch.full((size,), float("nan"), dtype=torch.float64, device=home)
    first = int(squares.argmin())
    alpha = torch.zeros(size, dtype=torch.float64, device="cpu")
    alpha[first] = 1.0
    if size == 1 or float(squares[first]) <= 0:
        return alpha.to(home)
    norms = squares.sqrt()
    cosines = G / norms[:, None] / norms
    everywhere = _affine_minimiser(cosines, norms)
    if bool((everywhere > 0).all()):  # the minimiser of the whole affine hull lies inside: no search needed
        return everywhere.to(home)
    active = _start(G, norms)
    target = _affine_minimiser(cosines[active][:, active], norms[active])
    if bool((target > 0).all()):
        alpha.zero_()
        alpha[active] = target
    else:
        active = [first]
    for _ in range(20 * size + 20):
        # Optimal once no point reaches below the supporting plane: ⟨x, g_j⟩ ≥ ‖x‖² for all j. The products carry the
        # rounding of Σ_i α_i ‖g_i‖ ‖g_j‖: what lies within that is no gain.
        products = G @ alpha
        gain = (alpha @ products - products) / (norms * (alpha @ norms))
        gain[active] = -1.0
        best = int(gain.argmax())
        if float(gain[best]) <= _TOLERANCE:
            break
        active.append(best)
        while True:
            target = _affine_minimiser(cosines[active][:, active], norms[active])
            current = alpha[active]
            if bool((target > 0).all()):
                alpha.zero_()
                alpha[active] = target
                break
            # Walk towards the affine minimiser until the first weight vanishes, and let go of that point.
            leaving = target <= 0
            steps = torch.where(leaving, current / (current - target), torch.full_like(current, 2.0))
            position = int(steps.argmin())
            moved = (current + float(steps[position]) * (target - current)).clamp(min=0)
            moved[position] = 0.0
            alpha.zero_()
            alpha[active] = moved / moved.sum()
            gone = active.pop(position)
            if gone == best:  # the point that promised a gain cannot enter: what is left is rounding
                return alpha.to(home)
    return alpha.to(home)


def _start(G: Tensor, norms: Tensor) -> list[int]:
    """The active set of the conic form."""
    conic = nonnegative_minimum(UnitRows.of(G).definite(), -(norms.min() / norms)[None])[0]
    active: list[int] = conic.nonzero().squeeze(1).tolist()
    return active


def _affine_minimiser(cosines: Tensor, norms: Tensor) -> Tensor:
    """``argmin_{Σα = 1} αᵀGα``, where ``μ = α ∘ ‖g‖`` solves ``C μ + λ a = 0``, ``aᵀμ = 1`` with ``a ∝ 1/‖g‖``."""
    size = len(norms)
    a = norms.min() / norms
    system = torch.zeros(size + 1, size + 1, dtype=torch.float64, device="cpu")
    system[:size, :size] = cosines
    system[:size, size] = system[size, :size] = a
    right = torch.zeros(size + 1, dtype=torch.float64, device="cpu")
    right[size] = 1.0
    solution, failed = torch.linalg.solve_ex(system, right)
    if int(failed) or not bool(solution.isfinite().all()):  # linearly dependent gradients
        solution = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution[:, 0]
    alpha: Tensor = solution[:size] * a
    return alpha / alpha.sum()
