"""UPGrad and DualProj: projections on the dual cone, by an independent solver on the rows themselves."""

from __future__ import annotations

import numpy as np
import pytest
import quadprog
import torch

from gramian_cases import balancer, random_rows, weigh
from steelyard.errors import LossError


def projection(point: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``argmin ‖x - point‖`` over ``⟨g_k, x⟩ ≥ 0``."""
    scale = float(point.norm())
    units = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    found = quadprog.solve_qp(np.eye(len(point)), (point / scale).numpy(), units.T, np.zeros(len(rows)))[0]
    return torch.from_numpy(found) * scale


def reference(method: str, rows: torch.Tensor, preferences: torch.Tensor) -> torch.Tensor:
    """The direction."""
    if method == "dualproj":
        return projection(preferences @ rows, rows)
    return preferences @ torch.stack([projection(row, rows) for row in rows])


@pytest.mark.parametrize("method", ["upgrad", "dualproj"])
@pytest.mark.parametrize("ratio", [1.0, 1e3])
@pytest.mark.parametrize("tasks", [1, 2, 3, 10, 30])
def test_it_is_its_reference(method: str, tasks: int, ratio: float) -> None:
    for conflict in (0.0, 1.0, 3.0):
        rows = random_rows(tasks, 40, tasks, ratio, conflict)
        u = torch.linspace(0.5, 2.0, tasks, dtype=torch.float64)
        priorities = {str(task): float(value) for task, value in enumerate(u)}
        found = weigh(balancer(method, tasks, priorities=priorities), rows) @ rows
        expected = reference(method, rows, u / tasks)
        assert float((found - expected).norm()) <= 1e-9 * float(rows.norm(dim=1).max())


def conflict(rows: torch.Tensor, weights: torch.Tensor) -> float:
    """Worst product with a task's gradient, relative to ``‖g_i‖ Σ|w_k| ‖g_k‖``."""
    norms = rows.norm(dim=1)
    gramian = rows @ rows.T
    return float((gramian @ weights / (norms * (weights.abs() @ norms)).clamp(min=1e-300)).min())


@pytest.mark.parametrize("method", ["upgrad", "dualproj"])
@pytest.mark.parametrize("size", [2, 5, 200], ids=lambda size: f"{size}d")
@pytest.mark.parametrize("tasks", [2, 3, 10, 40])
def test_it_never_conflicts(method: str, tasks: int, size: int) -> None:
    for seed, ratio in enumerate((1.0, 1e2, 1e6, 1e12)):
        for common in (0.0, 1.0, 10.0):
            rows = random_rows(tasks, size, seed, ratio, common)
            assert conflict(rows, weigh(balancer(method, tasks), rows)) >= -1e-10


@pytest.mark.parametrize("method", ["upgrad", "dualproj"])
@pytest.mark.parametrize("size", [3, 100], ids=lambda size: f"{size}d")
def test_it_never_conflicts_in_float32(method: str, size: int) -> None:
    for seed in range(5):
        rows = random_rows(12, size, seed, 1e6, 1.0).float()
        rows[6:] = -rows[:6]  # exactly dependent: rounding alone makes the Gramian indefinite
        assert conflict(rows.double(), weigh(balancer(method, 12), rows)) >= -1e-5


@pytest.mark.parametrize("method", ["upgrad", "dualproj"])
def test_without_conflict_it_is_the_mean(method: str) -> None:
    rows = random_rows(4, 9, 0).abs()
    assert weigh(balancer(method, 4), rows).tolist() == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("method", ["upgrad", "dualproj"])
def test_zero_gradients_keep_their_preference(method: str) -> None:
    rows = torch.cat([random_rows(2, 9, 0, conflict=3.0), torch.zeros(1, 9, dtype=torch.float64)])
    assert float(weigh(balancer(method, 3, priorities={"2": 1.5}), rows)[2]) == 0.5


def test_more_tasks_than_a_projection_each_allows_are_sent_to_one_projection() -> None:
    rows = random_rows(401, 100, 0)
    with pytest.raises(LossError, match=r"for the 401 tasks of this batch that takes minutes a step .* take dualproj"):
        weigh(balancer("upgrad", 401), rows)
    assert conflict(rows, weigh(balancer("dualproj", 401), rows)) >= -1e-10
