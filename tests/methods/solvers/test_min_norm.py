"""The min-norm point against an independent solver, its optimality conditions, and degenerate input."""

from __future__ import annotations

import numpy as np
import pytest
import quadprog
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from gramian_cases import random_rows
from steelyard.methods.solvers.min_norm import min_norm_point


def oracle(rows: np.ndarray) -> np.ndarray:
    """Nearest point to the origin by non-negative least squares: ``min ‖Jᵀα‖² + (Σα - 1)²`` has the same direction."""
    scale = np.linalg.norm(rows, axis=1).max()
    system = np.vstack([rows.T / scale, np.ones(len(rows))])
    target = np.zeros(system.shape[0])
    target[-1] = 1
    alpha, _ = nnls(system, target, maxiter=1000)
    return alpha / alpha.sum()


def gap(rows: torch.Tensor, alpha: torch.Tensor) -> float:
    """How far below the supporting plane a vertex reaches, relative to the sizes involved (0 at the optimum)."""
    point = alpha @ rows
    reach = (point @ point - rows @ point) / (point.norm() * rows.norm(dim=1)).clamp(min=1e-300)
    return float(reach.max())


@settings(max_examples=150)
@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 10**6), st.floats(0, 3))
def test_agrees_with_non_negative_least_squares(tasks: int, dimension: int, seed: int, spread: float) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(tasks, dimension)) * 10 ** generator.uniform(-spread, spread, size=(tasks, 1))
    J = torch.from_numpy(rows)
    alpha = min_norm_point(J @ J.T)
    assert float(alpha.min()) >= 0
    assert float(alpha.sum()) == pytest.approx(1, rel=1e-12)
    smallest, found = np.linalg.norm(oracle(rows) @ rows), float((alpha @ J).norm())
    size = np.linalg.norm(rows, axis=1).min()
    assert found <= smallest * (1 + 1e-9) + 1e-7 * size


@pytest.mark.parametrize("tasks", [2, 5, 20, 40])
@pytest.mark.parametrize("conflict", [0.0, 1.0, 3.0])
def test_agrees_with_quadprog(tasks: int, conflict: float) -> None:
    rows = random_rows(tasks, 60, tasks, 10.0, conflict)
    gramian = (rows @ rows.T).numpy()
    constraints = np.concatenate([np.ones((tasks, 1)), np.eye(tasks)], axis=1)
    bounds = np.concatenate([[1.0], np.zeros(tasks)])
    expected = quadprog.solve_qp(gramian, np.zeros(tasks), constraints, bounds, meq=1)[0]
    found = min_norm_point(rows @ rows.T)
    assert np.abs(found.numpy() - expected).max() <= 1e-8


@pytest.mark.parametrize("tasks", [2, 10, 40])
@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e6])
def test_optimality_conditions_at_any_norm_ratio(tasks: int, ratio: float) -> None:
    generator = torch.Generator().manual_seed(tasks)
    for _ in range(10):
        rows = torch.randn(tasks, 200, generator=generator, dtype=torch.float64) + 0.3
        rows *= ratio ** torch.rand(tasks, 1, generator=generator, dtype=torch.float64)
        assert gap(rows, min_norm_point(rows @ rows.T)) < 1e-9


@pytest.mark.parametrize("scale", [1e-24, 1.0, 1e24])
def test_only_ratios_matter(scale: float) -> None:
    rows = torch.randn(5, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    G = rows @ rows.T
    assert torch.allclose(min_norm_point(G * scale), min_norm_point(G), rtol=1e-9)


def test_known_cases() -> None:
    equal = torch.ones(3, 3, dtype=torch.float64)
    assert float(min_norm_point(equal).sum()) == pytest.approx(1)
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    assert min_norm_point(opposite).tolist() == pytest.approx([0.5, 0.5])
    unequal_opposite = torch.tensor([[1.0, -2.0], [-2.0, 4.0]], dtype=torch.float64)
    assert min_norm_point(unequal_opposite).tolist() == pytest.approx([2 / 3, 1 / 3])
    orthogonal = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    assert min_norm_point(orthogonal).tolist() == pytest.approx([0.8, 0.2])
    short_and_long = torch.tensor([[1.0, 2.0], [2.0, 9.0]], dtype=torch.float64)
    assert min_norm_point(short_and_long).tolist() == pytest.approx([1.0, 0.0])
    with_zero = torch.diag(torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64))
    assert min_norm_point(with_zero).tolist() == [0.0, 1.0, 0.0]
    assert min_norm_point(torch.ones(1, 1)).tolist() == [1.0]
    assert bool(min_norm_point(torch.full((2, 2), float("nan"))).isnan().all())
