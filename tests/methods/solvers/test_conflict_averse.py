"""CAGrad's problem against a general solver of the paper's form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from gramian_cases import random_rows
from steelyard.methods.solvers.conflict_averse import conflict_averse_point
from steelyard.methods.solvers.unit_rows import UnitRows


def direction(rows: torch.Tensor, c: float) -> torch.Tensor:
    parts = UnitRows.of(rows @ rows.T)
    return parts.multipliers(conflict_averse_point(parts, c), of_zero=0.0) @ rows


def scipy_optimum(rows: torch.Tensor, c: float) -> float:
    """``min_w g_wᵀg_0 + c ‖g_0‖ ‖g_w‖`` over the simplex, by SLSQP."""
    gramian = (rows @ rows.T).numpy()
    scale = np.trace(gramian) / len(gramian)
    gramian = gramian / scale
    mean = np.full(len(gramian), 1 / len(gramian))
    radius = c * np.sqrt(mean @ gramian @ mean)

    def objective(w: np.ndarray) -> float:
        return float(w @ gramian @ mean + radius * np.sqrt(w @ gramian @ w + 1e-18))

    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    options = {"ftol": 1e-14, "maxiter": 500}
    starts = [mean, *np.eye(len(mean))]
    found = [minimize(objective, s, bounds=[(0, 1)] * len(s), constraints=simplex, options=options) for s in starts]
    return min(result.fun for result in found) * scale


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("tasks", [2, 3, 6])
def test_agrees_with_scipy(tasks: int, c: float) -> None:
    for seed, conflict in ((0, 0.0), (1, 1.0), (2, 3.0)):
        rows = random_rows(tasks, 30, seed, 10.0, conflict)
        reached = float((rows @ direction(rows, c)).min())
        size = float(rows.norm(dim=1).max() ** 2)
        assert reached == pytest.approx(scipy_optimum(rows, c), abs=1e-6 * size)


@settings(max_examples=40)
@given(
    st.integers(1, 10), st.integers(1, 20), st.integers(0, 10**6), st.floats(0.01, 0.99), st.sampled_from([0.0, 3.0])
)
def test_the_direction_stays_in_the_ball_and_beats_the_mean(
    tasks: int, size: int, seed: int, c: float, conflict: float
) -> None:
    rows = random_rows(tasks, size, seed, 1e3, conflict)
    found, mean = direction(rows, c), rows.mean(0)
    assert float((found - mean).norm()) <= c * float(mean.norm()) * (1 + 1e-7)
    rounding = 1e-7 * float(rows.norm(dim=1).max()) * float(mean.norm())
    assert float((rows @ found).min()) >= float((rows @ mean).min()) - rounding


@pytest.mark.parametrize(("tasks", "size"), [(5, 20), (40, 12), (40, 16), (64, 20), (100, 12), (100, 16), (100, 80)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_tasks_than_dimensions(tasks: int, size: int, dtype: torch.dtype) -> None:
    """The paper's dual bounds what any direction in the ball reaches, and the multipliers' own value attains it."""
    for seed in range(4):
        rows = random_rows(tasks, size, seed, conflict=0.3).to(dtype).double()
        unit = conflict_averse_point(UnitRows.of((rows.to(dtype) @ rows.to(dtype).T).double()), 0.5)
        weights = unit / rows.norm(dim=1)
        mean = rows.mean(0)
        assert float((weights @ rows - mean).norm()) <= 0.5 * float(mean.norm()) * (1 + 1e-5)
        dual = (weights - 1 / tasks).clamp(min=0)
        combined = dual / dual.sum() @ rows
        bound = float(combined @ mean + 0.5 * mean.norm() * combined.norm())
        scale = float(rows.norm(dim=1).max() * mean.norm())
        assert bound - float((rows @ (weights @ rows)).min()) <= (1e-9 if dtype == torch.float64 else 1e-5) * scale
