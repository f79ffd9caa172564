"""The equiangular direction and what is left where there is none."""

from __future__ import annotations

import pytest
import torch

from gramian_cases import random_rows
from steelyard.methods.solvers.equiangular import equiangular
from steelyard.methods.solvers.unit_rows import UnitRows


@pytest.mark.parametrize("tasks", [1, 2, 5, 40])
def test_products_are_equal(tasks: int) -> None:
    rows = random_rows(tasks, 60, tasks, 1e6, 1.0)
    C = UnitRows.of(rows @ rows.T).cosines
    inside, outside = equiangular(C)
    assert torch.allclose(C @ inside, torch.ones(tasks, dtype=torch.float64), rtol=1e-10)
    assert not bool(outside.any())


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_equal_gradients_share_whatever_the_rounding(noise: float) -> None:
    row = random_rows(1, 30, 0)
    rows = row.expand(5, 30) + noise * random_rows(5, 30, 1)
    inside, outside = equiangular(UnitRows.of(rows @ rows.T).definite())
    assert torch.allclose(inside, torch.full((5,), 0.2, dtype=torch.float64), rtol=1e-6)
    assert not bool(outside.any())


def test_opposite_gradients_leave_the_null_space_alone() -> None:
    C = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    inside, outside = equiangular(C)
    assert inside.tolist() == [0.0, 0.0]
    assert outside.tolist() == pytest.approx([1.0, 1.0])
