"""ConicGrad's problem: within a cone about the mean gradient, the least improved task gains as much as it can."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.methods.solvers.min_norm import min_norm_point
from steelyard.methods.solvers.unit_rows import UnitRows

_VANISHING = 3e-8
"""A mean gradient so much shorter than its parts is what rounding of the Gramian leaves of zero."""
_CANCELLED = 3e-5
"""So much shorter than its parts a combination counts as zero: its angle is known to 1e-7 from there on."""
_TOLERANCE = 1e-12
_STEPS = 100


def conic_point(rows: UnitRows, c: float) -> Tensor:
    """Weights ``w [T]`` of the gradients, ``‖Σ w_k g_k‖ = ‖g_0‖``: the direction of ``argmax_d min_k ⟨g_k, d⟩`` over
    ``‖d‖ ≤ 1``, ``⟨u_0, d⟩ ≥ c``, with ``g_0`` the mean and ``u_0 = g_0 / ‖g_0‖``.

    That set is the convex hull of the unit vectors within the cone, so the problem is convex even where no ``d`` in it
    improves all tasks. Its dual is ``min_{μ ≥ 0} N(μ) - μ c``, ``N(μ)`` the least norm of the convex combinations of
    ``g_k + μ u_0``, and ``N'(μ)`` is the cosine of that combination and ``u_0``, which rises with ``μ``: what is sought
    is the least ``μ`` with ``N'(μ) ≥ c``. As long as the same gradients take part, it is the root of a quadratic.

    Where the combination vanishes (a Pareto-stationary point) its cosine jumps; the direction just behind is as good as
    any.
    """
    size = len(rows.norms)
    scale = float(rows.norms.max())
    mean_weights = torch.full_like(rows.norms, 1 / size)
    if scale == 0:
        return mean_weights
    norms = rows.norms / scale
    G = rows.cosines * norms[:, None] * norms
    products = G.mean(1)  # ⟨g_k, g_0⟩
    length = float(products.mean().clamp(min=0).sqrt())
    if length <= _VANISHING * float(norms.mean()):
        return mean_weights
    along = products / length  # ⟨g_k, u_0⟩

    def nearest(mu: float) -> tuple[Tensor, float, float]:
        """The convex combination, and the length and cosine of what it makes; a cosine of -1 where it vanishes."""
        weights = min_norm_point(G + mu * (along[:, None] + along) + mu * mu)
        total = weights + mu / (size * length)
        norm = float((total @ G @ total).clamp(min=0).sqrt())
        if norm <= _CANCELLED * float(total @ norms):
            return weights, norm, -1.0
        return weights, norm, float(total @ along) / norm

    low, high, mu = 0.0, 2 / (1 - c * c) ** 0.5, 0.0
    weights, norm, cosine = nearest(mu)
    best = (mu, weights, norm) if cosine >= c - _TOLERANCE else None
    for _ in range(_STEPS if best is None else 0):
        root = None if cosine == -1 else _crossing(G, along, weights, c)
        mu = root if root is not None and low < root < high else (low + high) / 2
        weights, norm, cosine = nearest(mu)
        if cosine >= c - _TOLERANCE:
            high, best = mu, (mu, weights, norm)
        else:
            low = mu
        if abs(cosine - c) <= _TOLERANCE or high - low <= _TOLERANCE * high:
            break
    if best is None:
        mu = high
        weights, norm, _ = nearest(mu)
        best = (mu, weights, norm)
    mu, weights, norm = best
    found = (weights + mu / (size * length)) * (length / norm)
    return torch.where(rows.norms > 0, found, mean_weights)  # of a zero gradient any weight makes the same direction


def _crossing(G: Tensor, along: Tensor, weights: Tensor, c: float) -> float | None:
    """Where the cosine is ``c``, if the gradients that take part stay the same."""
    active = weights.nonzero().squeeze(1)
    count = len(active)
    # min ½ ‖Σ ω_k g_k + μ u_0‖² over Σ ω = 1 with equality alone: linear in μ.
    system = torch.zeros(count + 1, count + 1, dtype=G.dtype, device="cpu")
    system[:count, :count] = G[active][:, active]
    system[:count, count] = system[count, :count] = 1.0
    sides = torch.zeros(count + 1, 2, dtype=G.dtype, device="cpu")
    sides[count, 0] = 1.0
    sides[:count, 1] = -along[active]
    solved, failed = torch.linalg.solve_ex(system, sides)
    if int(failed) or not bool(solved.isfinite().all()):
        return None
    start, slope = solved[:count].unbind(1)
    inner = G[active][:, active]
    a0, a1 = float(start @ along[active]), float(slope @ along[active]) + 1
    n0 = float(start @ inner @ start)
    n1 = float(start @ inner @ slope + start @ along[active])
    n2 = float(slope @ inner @ slope + 2 * (slope @ along[active]) + 1)
    # (a0 + μ a1)² = c² (n0 + 2 μ n1 + μ² n2)
    A, B, C = a1 * a1 - c * c * n2, a0 * a1 - c * c * n1, a0 * a0 - c * c * n0
    if B * B < A * C or A == 0:
        return None
    rest = (B * B - A * C) ** 0.5
    roots = [root for root in ((-B - rest) / A, (-B + rest) / A) if root > 0 and a0 + root * a1 >= 0]
    return min(roots, default=None)
