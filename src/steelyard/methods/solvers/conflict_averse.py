"""CAGrad's problem: the least improved task improves as much as a ball around the mean gradient allows."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.methods.solvers.min_norm import min_norm_point
from steelyard.methods.solvers.nonnegative import nonnegative_minimum
from steelyard.methods.solvers.unit_rows import UnitRows

_TOLERANCE = 1e-13
_STATIONARY = 1e-9
_VANISHING = 3e-8
"""A mean gradient so much shorter than its parts is what rounding of the Gramian leaves of zero."""
_STEPS = 100


def conflict_averse_point(rows: UnitRows, c: float) -> Tensor:
    """Coefficients ``ω [T]`` of the unit rows in ``argmax_d min_k ⟨g_k, d⟩``, ``‖d - g_0‖ ≤ c ‖g_0‖``, ``g_0`` the
    mean.

    The nearest ``d`` to ``g_0`` with ``⟨g_k, d⟩ ≥ λ`` for all ``k`` is a quadratic problem, and its distance ``s(λ)``
    is convex and increasing: Newton's method from above finds where it is ``c ‖g_0‖``. That is the dual of the paper's
    ``min_w g_wᵀg_0 + c ‖g_0‖ ‖g_w‖``, without its division by ``‖g_w‖``.

    At a Pareto-stationary point (a convex combination of the gradients vanishes, to 1e-9) no ``d`` improves all
    tasks, and many are as good: the one nearest to ``g_0`` is taken.
    """
    size = len(rows.norms)
    norms = rows.norms / rows.norms.max()
    C = rows.definite()
    mean = norms / size  # coefficients of g_0
    products = C @ mean  # ⟨u_k, g_0⟩
    length = float((mean @ products).clamp(min=0).sqrt())
    radius = c * length
    if length <= _VANISHING * float(mean.sum()) or c == 0:
        return rows.norms / size
    moving = rows.moving
    inverse = torch.where(moving, float(norms[moving].min()) / norms, torch.zeros_like(norms))  # λ is in this unit

    def nearest(level: float, start: Tensor | None) -> tuple[Tensor, float]:
        """Multipliers of the constraints, and the distance from ``g_0``, infinite where no ``d`` meets them."""
        linear = products - level * inverse
        candidate = nonnegative_minimum(C, linear[None], None if start is None else start[None])[0]
        slack = float((C @ candidate + linear).min())
        distance = float((candidate @ C @ candidate).clamp(min=0).sqrt())
        return candidate, float("inf") if slack < -1e-6 * float(linear.abs().max()) else distance

    level = float(((products + radius)[moving] / inverse[moving]).min())  # no task can improve more than that
    outermost = nonnegative_minimum(C, -inverse[None])[0]  # the constraints that bind as λ grows without bound
    stationary = not bool(moving.all()) or _stationary(C, norms, outermost)
    if stationary:
        level = 0.0
    multipliers, distance = nearest(level, None if stationary else outermost > 0)
    if stationary and distance <= radius:
        return (mean + multipliers) * rows.norms.max()
    low, high = float((products[moving] / inverse[moving]).min()), level
    for _ in range(_STEPS):
        if abs(distance - radius) <= _TOLERANCE * radius:
            break
        candidate = _on_the_sphere(C, products, inverse, radius, multipliers)
        if candidate is not None:
            multipliers = candidate
            break
        if distance == float("inf"):
            high = level
            following = (low + high) / 2
        else:
            # By convexity, the root of the tangent never lies below the solution.
            following = level - (distance - radius) * distance / float(multipliers @ inverse)
            low, high = (low, level) if distance > radius else (level, min(high, following))
            following = min(max(following, low), high)
        if following == level:
            break
        level = following
        multipliers, distance = nearest(level, multipliers > 0)
    return (mean + multipliers) * rows.norms.max()


def _on_the_sphere(C: Tensor, products: Tensor, inverse: Tensor, radius: float, multipliers: Tensor) -> Tensor | None:
    """The solution, if the constraints that are active now are those of the solution: a quadratic equation."""
    active = multipliers.nonzero().squeeze(1)
    factor, failed = torch.linalg.cholesky_ex(C[active][:, active])
    if int(failed):
        return None
    sides = torch.stack([inverse[active], products[active]], 1)
    rising, falling = torch.cholesky_solve(sides, factor).unbind(1)  # multipliers = λ · rising - falling
    a, b, c = float(sides[:, 0] @ rising), float(sides[:, 0] @ falling), float(sides[:, 1] @ falling) - radius**2
    if b * b < a * c:
        return None
    level = (b + (b * b - a * c) ** 0.5) / a
    candidate = torch.zeros_like(multipliers)
    candidate[active] = level * rising - falling
    off = abs(float((candidate @ C @ candidate).clamp(min=0).sqrt()) - radius)
    slack = C @ candidate + products - level * inverse
    rounding = 1e-14 * (1 + float(candidate.abs().sum()))
    optimal = float(candidate.min()) >= 0 and float(slack.min()) >= -rounding and off <= 1e-12 * radius + rounding
    return candidate if optimal else None


def _stationary(C: Tensor, norms: Tensor, outermost: Tensor) -> bool:
    """Whether the shortest convex combination of the gradients vanishes."""
    if float((outermost @ C @ outermost).clamp(min=0).sqrt()) > 1e-5 * float(outermost.sum()):
        return False  # already the combination of the conic form is far from it
    weighted = min_norm_point(C * norms[:, None] * norms) * norms
    return bool((weighted @ C @ weighted).clamp(min=0).sqrt() <= _STATIONARY * weighted.sum())
