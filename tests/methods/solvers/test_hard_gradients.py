"""Every solver's answer by the conditions that define it, on gradients of the structures at which solvers break."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hard_gradients import Case, cases
from steelyard.methods.solvers.bargaining import bargaining_point
from steelyard.methods.solvers.conflict_averse import conflict_averse_point
from steelyard.methods.solvers.dual_cone import dual_cone_projection
from steelyard.methods.solvers.equiangular import equiangular
from steelyard.methods.solvers.min_norm import min_norm_point
from steelyard.methods.solvers.unit_rows import UnitRows

CASES = cases(104, seed=0)


def gramian_of(case: Case) -> tuple[Tensor, Tensor]:
    rows = case.rows().double()
    return rows, rows @ rows.T


@pytest.mark.parametrize("part", range(4))
def test_min_norm(part: int) -> None:
    """The point ``x`` is the shortest: ``⟨x, g_k⟩ ≥ ‖x‖²`` for all k."""
    for case in CASES[part::4]:
        rows, gramian = gramian_of(case)
        alpha = min_norm_point(gramian)
        assert float(alpha.min()) >= 0, case
        assert float(alpha.sum()) == pytest.approx(1), case
        products = gramian @ alpha
        reach = rows.norm(dim=1) * float(alpha @ rows.norm(dim=1))
        assert bool((alpha @ products - products <= 1e-12 * reach).all()), case


@pytest.mark.parametrize("part", range(4))
def test_dual_cone(part: int) -> None:
    """Feasible, and complementary slackness, for every task's gradient and for their mean."""
    for case in CASES[part::4]:
        parts = UnitRows.of(gramian_of(case)[1])
        C, some = parts.definite(), torch.eye(case.tasks, dtype=torch.float64)[:8]
        given = torch.cat([some, parts.norms[None] / parts.norms.max().clamp(min=1e-300)])
        v = dual_cone_projection(C, given)
        added, products = v - given, v @ C
        size = v.abs().sum(1, keepdim=True)
        assert bool(v.isfinite().all()), case
        assert float(added.min()) >= -1e-12 * float(size.max()), case
        assert bool((products >= -1e-9 * size).all()), case
        assert bool((torch.minimum(added, products.clamp(min=0)) <= 1e-9 * size).all()), case


@pytest.mark.parametrize("part", range(4))
def test_conflict_averse(part: int) -> None:
    """Within the ball, and the paper's dual at the multipliers, which bounds what is possible, is attained."""
    for case in CASES[part::4]:
        rows, gramian = gramian_of(case)
        parts = UnitRows.of(gramian)
        if not bool(parts.moving.any()):
            continue  # the method itself settles it
        weights = parts.multipliers(conflict_averse_point(parts, 0.5), of_zero=1 / case.tasks)
        assert bool(weights.isfinite().all()), case
        unit = rows / parts.norms.max()
        mean = unit.mean(0)
        direction = weights @ unit
        scale = float(weights.abs() @ unit.norm(dim=1))
        assert float((direction - mean).norm()) <= 0.5 * float(mean.norm()) + 1e-7 * scale, case
        dual = (weights - 1 / case.tasks).clamp(min=0)
        shortest = min_norm_point(gramian / parts.norms.max() ** 2)  # the bound's point where gradients are stationary
        bounds = [shortest @ unit] + ([dual / dual.sum() @ unit] if float(dual.sum()) > 0 else [mean])
        bound = min(float(each @ mean + 0.5 * mean.norm() * each.norm()) for each in bounds)
        assert bound - float((unit @ direction).min()) <= 1e-6 * scale, case


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_bargaining(alpha: float) -> None:
    """``(G w)_k = w_k^{-1/α}``, where the gradients' cosines are told apart from dependent ones."""
    solved = 0
    for case in CASES[::2]:
        parts = UnitRows.of(gramian_of(case)[1])
        movers = parts.moving.nonzero().squeeze(1)
        if not len(movers):
            continue
        game = UnitRows(parts.norms[movers], parts.cosines[movers][:, movers])
        w = bargaining_point(game, torch.ones(len(movers), dtype=torch.float64), alpha)
        assert bool(w.isfinite().all()), case
        assert float(w.min()) > 0, case
        if float(torch.linalg.eigvalsh(game.cosines)[0]) < 1e-6 or case.structure == "ratio 1e6":
            continue  # at dependent gradients w grows without bound; ratios are tested where α allows for them
        gains = (game.cosines * game.norms) @ w * game.norms
        assert torch.allclose(gains * w ** (1 / alpha), torch.ones_like(w), rtol=1e-7), case
        solved += 1
    assert solved >= 10


def test_equiangular() -> None:
    """The same product with every gradient, where any direction has it."""
    for case in CASES:
        parts = UnitRows.of(gramian_of(case)[1])
        C = parts.definite()
        inside, outside = equiangular(C)
        assert bool(inside.isfinite().all()), case
        if float(torch.linalg.eigvalsh(C)[0]) > 1e-4:
            assert torch.allclose(C @ inside, torch.ones_like(inside), rtol=1e-9), case
            assert not bool(outside.any()), case
