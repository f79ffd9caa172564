"""Convex quadratic problems over the non-negative orthant, many at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.methods.solvers.unit_rows import REGULARISATION

_TOLERANCE = 1e-13
_PATIENCE = 3
_ROUNDS = 60
"""Pivots after which `_descend` takes over."""


def nonnegative_minimum(cosines: Tensor, linear: Tensor, start: Tensor | None = None) -> Tensor:
    """``argmin_{x ≥ 0} ½ xᵀCx + qᵀx`` as ``[B, T]`` float64, for every row ``q`` of ``linear``.

    Args:
        cosines: ``C [T, T]``, positive semidefinite with a diagonal of ones; see `UnitRows.definite`.
        linear: ``q [B, T]``, of any scale.
        start: ``[B, T]``, a guess which entries are not zero.

    Block principal pivoting: guess which entries are free, solve for them, exchange all that have the wrong sign, and
    single ones (Murty's rule, which cannot cycle) once that stops helping. The guesses are settled on ``C`` with 1e-12
    added to its diagonal; proximal steps then take that out again. Where the minimum is unbounded, entries of the size
    1e12 say so. Where many more gradients than dimensions let rounding send the pivots in circles, `_descend` goes on,
    which lowers the objective with every step and so must end.

    Source: Kim & Park, "Fast nonnegative matrix factorization: an active-set-like method and comparisons" (2011).
    """
    size = linear.abs().amax(1, keepdim=True)
    q = linear / torch.where(size > 0, size, torch.ones_like(size))
    x = torch.zeros_like(q)
    free = q < 0 if start is None else start.clone()
    left = (q < 0).any(1).nonzero().squeeze(1)
    fewest = torch.full((len(q),), q.shape[1] + 1, device="cpu")
    patience = torch.full((len(q),), _PATIENCE, device="cpu")
    numbers = torch.arange(q.shape[1], device="cpu")
    near = x.clone()
    for _ in range(_ROUNDS):
        if not len(left):
            return x * size
        chosen = free[left]
        guess = _Guess.of(cosines, q[left], chosen)
        near[left] = guess.solution
        slack = guess.solution @ cosines + q[left]
        wrong = torch.where(chosen, guess.solution, slack) < -_TOLERANCE * guess.scale
        count = wrong.sum(1)
        settled = count == 0
        if bool(settled.any()):
            x[left[settled]] = guess.refined(cosines, q[left])[settled]
        patience[left] = torch.where(count < fewest[left], _PATIENCE, patience[left] - 1)
        fewest[left] = torch.minimum(fewest[left], count)
        last = torch.where(wrong, numbers, -1).amax(1, keepdim=True) == numbers
        free[left] = chosen ^ torch.where((patience[left] >= 0)[:, None], wrong, last & wrong)
        left = left[~settled]
    for row in left.tolist():
        x[row] = _descend(cosines, q[row], near[row].clamp(min=0))
    return x * size


def _descend(C: Tensor, q: Tensor, near: Tensor) -> Tensor:
    """One problem by a primal active-set method from ``near [T] ≥ 0``: entries enter where the objective falls fastest.

    Source: Lawson & Hanson, "Solving Least Squares Problems" (1974), chapter 23.
    """
    x, free = _within(C, q, near, near > 0)
    barred = torch.zeros_like(free)  # entries that could not stay, at this x
    lowest = float(0.5 * x @ C @ x + q @ x)
    for _ in range(20 * len(q) + 20):
        slack = x @ C + q
        gain = torch.where(free | barred, 0.0, -slack)
        entering = int(gain.argmax())
        if float(gain[entering]) <= _TOLERANCE * (1 + float(x.sum())):
            break
        tried = free.clone()
        tried[entering] = True
        moved, tried = _within(C, q, x, tried)
        value = float(0.5 * moved @ C @ moved + q @ moved)
        if value < lowest:
            x, free, lowest = moved, tried, value
            barred = torch.zeros_like(free)
        else:
            barred[entering] = True
    refined = _Guess.of(C, q[None], free[None]).refined(C, q[None])
    return torch.where(_violation(C, q[None], refined) <= _violation(C, q[None], x[None]), refined, x[None])[0]


def _within(C: Tensor, q: Tensor, x: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """From ``x`` towards the minimiser over the free entries, letting go of those that would turn negative."""
    while True:
        target = _Guess.of(C, q[None], free[None]).solution[0]
        leaving = free & (target <= 0)
        if not bool(leaving.any()):
            return target, free
        reach = torch.where(leaving, x / (x - target).clamp(min=torch.finfo(x.dtype).tiny), 2.0)
        first = int(reach.argmin())
        x = torch.where(free, x + float(reach[first]) * (target - x), 0.0).clamp(min=0)
        free = free & ~(leaving & (x <= 0))
        free[first] = False
        x = torch.where(free, x, 0.0)


@dataclass(frozen=True)
class _Guess:
    """The unconstrained minimiser over each problem's chosen entries, and its factorisation.

    Chosen entries are gathered in front of small systems ``[B, m, m]``, which the identity fills up.
    """

    solution: Tensor
    factor: Tensor
    right: Tensor
    place: Tensor
    used: Tensor

    @staticmethod
    def of(C: Tensor, q: Tensor, chosen: Tensor) -> _Guess:
        count = chosen.sum(1)
        width = max(1, int(count.max()))
        place = chosen.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
        used = torch.arange(width, device="cpu") < count[:, None]
        system = C[place[:, :, None], place[:, None, :]] * (used[:, :, None] & used[:, None, :])
        system.diagonal(dim1=1, dim2=2).add_(torch.where(used, REGULARISATION, 1.0))
        factor, _ = torch.linalg.cholesky_ex(system)
        right = (q.gather(1, place) * used).neg()[:, :, None]
        found = torch.cholesky_solve(right, factor)
        return _Guess(_spread(q, place, found), factor, right, place, used)

    @property
    def scale(self) -> Tensor:
        """``[B, 1]``, what rounding is relative to; ``q`` has entries up to 1."""
        return 1 + self.solution.abs().sum(1, keepdim=True)

    def refined(self, C: Tensor, q: Tensor) -> Tensor:
        """The solution without the regularisation, wherever that violates the conditions less."""
        found = self.solution.gather(1, self.place)[:, :, None] * self.used[:, :, None]
        for _ in range(2):
            found = torch.cholesky_solve(self.right + REGULARISATION * found, self.factor)
        better, plain = _spread(q, self.place, found).clamp(min=0), self.solution.clamp(min=0)
        return torch.where(_violation(C, q, better) <= _violation(C, q, plain), better, plain)


def _spread(like: Tensor, place: Tensor, found: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(1, place, found[:, :, 0])


def _violation(C: Tensor, q: Tensor, x: Tensor) -> Tensor:
    """``[B, 1]``, how far ``x ≥ 0``, ``Cx + q ≥ 0``, ``x(Cx + q) = 0`` fail."""
    slack = x @ C + q
    return torch.maximum(-slack, torch.minimum(x, slack)).amax(1, keepdim=True)
