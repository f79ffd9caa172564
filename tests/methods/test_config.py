"""ConFIG: the pseudoinverse of the unit gradients, on explicit rows."""

from __future__ import annotations

import pytest
import torch

from cells import every
from gramian_cases import balancer, random_rows, weigh


def reference(rows: torch.Tensor) -> torch.Tensor:
    """The direction: ``(Σ_k ⟨g_k, u⟩) u``, ``u = unit(pinv(unit rows) 1)``."""
    units = rows / rows.norm(dim=1, keepdim=True)
    best = torch.linalg.pinv(units) @ torch.ones(len(rows), dtype=torch.float64)
    best = best / best.norm()
    return (rows @ best).sum() * best


@every("ratio", [1.0, 1e6])
@every("conflict", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("tasks", [1, 2, 3, 10, 40])
def test_it_is_its_reference(tasks: int, conflict: float, ratio: float) -> None:
    rows = random_rows(tasks, 200, tasks, ratio, conflict)
    expected = reference(rows)
    error = weigh(balancer("config", tasks), rows) @ rows - expected
    assert float(error.norm()) <= 1e-10 * float(rows.norm(dim=1).sum())


def test_dependent_gradients_are_met_by_least_squares() -> None:
    rows = random_rows(2, 20, 0)
    rows = torch.cat([rows, rows[1:], 5 * rows[:1]])
    assert torch.allclose(weigh(balancer("config", 4), rows) @ rows, reference(rows), rtol=1e-9)


def test_opposite_gradients_stand_still() -> None:
    row = random_rows(1, 20, 0)
    assert weigh(balancer("config", 2), torch.cat([row, -3 * row])).tolist() == [0.0, 0.0]


def test_zero_gradients_take_no_part() -> None:
    rows = torch.cat([random_rows(2, 20, 0), torch.zeros(1, 20, dtype=torch.float64)])
    weights = weigh(balancer("config", 3), rows)
    assert float(weights[2]) == 1
    assert torch.allclose(weights[:2], weigh(balancer("config", 2), rows[:2]), rtol=1e-12)
