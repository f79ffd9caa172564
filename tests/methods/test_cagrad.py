"""CAGrad: the paper's dual problem on explicit rows, and its duality gap as the proof of optimality."""

from __future__ import annotations

import pytest
import torch

from cells import every
from gramian_cases import balancer, random_rows, weigh


def paper_objective(w: torch.Tensor, rows: torch.Tensor, c: float) -> float:
    """``g_wᵀg_0 + c ‖g_0‖ ‖g_w‖``, which the paper minimises over the simplex."""
    mean, combined = rows.mean(0), w @ rows
    return float(combined @ mean + c * mean.norm() * combined.norm())


def paper_direction(w: torch.Tensor, rows: torch.Tensor, c: float) -> torch.Tensor:
    """``g_0 + c ‖g_0‖ g_w / ‖g_w‖``."""
    mean, combined = rows.mean(0), w @ rows
    return mean + c * mean.norm() * combined / combined.norm()


@every("ratio", [1.0, 1e6])
@every("c", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("tasks", [1, 2, 3, 10, 30])
def test_it_solves_the_papers_problem(tasks: int, c: float, ratio: float) -> None:
    for seed, conflict in ((0, 0.0), (1, 0.5), (2, 2.0)):
        rows = random_rows(tasks, 200, seed, ratio, conflict)
        weights = weigh(balancer("cagrad", tasks, c=c, rescale=False), rows)
        direction = weights @ rows
        w = weights - 1 / tasks
        assert float(w.min()) >= -1e-12 * float(w.max())
        w = w.clamp(min=0) / w.clamp(min=0).sum()
        error = direction - paper_direction(w, rows, c)
        assert float(error.norm()) <= 1e-10 * float(rows.mean(0).norm())
        # Any w bounds the least improvement from above, any d in the ball from below: they meet at the optimum only.
        reached, bound = float((rows @ direction).min()), paper_objective(w, rows, c)
        assert reached == pytest.approx(bound, abs=1e-10 * float((rows.norm(dim=1) @ w) * rows.mean(0).norm()))


def test_it_is_divided_by_one_plus_c_squared() -> None:
    rows = random_rows(3, 20, 0)
    plain = weigh(balancer("cagrad(c=0.4,rescale=False)", 3), rows)
    assert torch.allclose(weigh(balancer("cagrad(c=0.4)", 3), rows) * 1.16, plain, rtol=1e-12)


def test_without_a_ball_it_is_the_mean() -> None:
    assert weigh(balancer("cagrad(c=0)", 4), random_rows(4, 9, 0)).tolist() == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("c", [0.2, 0.5])
def test_at_a_pareto_stationary_point_it_hurts_nobody_where_the_ball_allows(c: float) -> None:
    rows = torch.tensor([[1.0, 0.1], [-1.0, 0.2], [0.1, 3.0]], dtype=torch.float64)
    rows = torch.cat([rows, -rows[:2].sum(0, keepdim=True)])
    weights = weigh(balancer("cagrad", 4, c=c, rescale=False), rows)
    direction, mean = weights @ rows, rows.mean(0)
    assert bool(weights.isfinite().all())
    assert float((direction - mean).norm()) <= c * float(mean.norm()) * (1 + 1e-9)


def test_opposite_gradients_stay_at_their_mean() -> None:
    rows = random_rows(1, 8, 0)
    weights = weigh(balancer("cagrad(rescale=False)", 2), torch.cat([rows, -rows]))
    assert weights.tolist() == pytest.approx([0.5, 0.5])
