"""IMTL-G: the paper's closed form on explicit rows."""

from __future__ import annotations

import pytest
import torch

from gramian_cases import balancer, random_rows, weigh


def reference(rows: torch.Tensor) -> torch.Tensor:
    """``α_{2:T} = g_1 Uᵀ (D Uᵀ)⁻¹``, ``α_1 = 1 - Σ α_{2:T}``; rows of ``D``: ``g_1 - g_t``, of ``U``: ``u_1 - u_t``."""
    units = rows / rows.norm(dim=1, keepdim=True)
    D, U = rows[:1] - rows[1:], units[:1] - units[1:]
    others = torch.linalg.solve((D @ U.T).T, (rows[:1] @ U.T)[0])
    return torch.cat([1 - others.sum()[None], others])


@pytest.mark.parametrize("conflict", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("tasks", [2, 3, 10, 40])
def test_it_is_its_reference(tasks: int, conflict: float) -> None:
    rows = random_rows(tasks, 200, tasks, 10.0, conflict)
    found, expected = weigh(balancer("imtl-g", tasks), rows), reference(rows)
    assert float((found - expected).norm()) <= 1e-10 * float(expected.norm())


@pytest.mark.parametrize("tasks", [1, 2, 5, 30])
def test_projections_are_equal_at_norm_ratios_of_a_million(tasks: int) -> None:
    rows = random_rows(tasks, 100, tasks, 1e6, 1.0)
    weights = weigh(balancer("imtl-g", tasks), rows)
    projections = (weights @ rows) @ (rows / rows.norm(dim=1, keepdim=True)).T
    assert float(weights.sum()) == pytest.approx(1)
    assert projections.tolist() == pytest.approx([float(projections[0])] * tasks, rel=1e-9)


def test_equal_gradients_share() -> None:
    row = random_rows(1, 20, 0)
    weights = weigh(balancer("imtl-g", 3), torch.cat([row, row, 2 * row]))
    assert weights.tolist() == pytest.approx([0.4, 0.4, 0.2])


def test_opposite_gradients_cancel() -> None:
    row = random_rows(1, 20, 0)
    rows = torch.cat([row, -2 * row])
    weights = weigh(balancer("imtl-g", 2), rows)
    assert weights.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert float((weights @ rows).norm()) <= 1e-14 * float(row.norm())


def test_zero_gradients_take_no_part() -> None:
    rows = torch.cat([random_rows(2, 20, 0), torch.zeros(2, 20, dtype=torch.float64)])
    weights = weigh(balancer("imtl-g", 4), rows)
    assert weights[2:].tolist() == [0.25, 0.25]
    assert torch.allclose(weights[:2], weigh(balancer("imtl-g", 2), rows[:2]) / 2, rtol=1e-12)
    assert weigh(balancer("imtl-g", 2), 0 * rows[:2]).tolist() == [0.5, 0.5]
