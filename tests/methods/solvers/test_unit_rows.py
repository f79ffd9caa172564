"""Lengths and angles of a Gramian."""

from __future__ import annotations

import pytest
import torch

from gramian_cases import random_rows
from steelyard.methods.solvers.unit_rows import UnitRows


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_gramian_is_norms_and_cosines(scale: float) -> None:
    rows = scale * random_rows(5, 20, 0, 1e6)
    parts = UnitRows.of(rows @ rows.T)
    units = rows / rows.norm(dim=1, keepdim=True)
    assert torch.allclose(parts.norms, rows.norm(dim=1), rtol=1e-14)
    assert torch.allclose(parts.cosines, units @ units.T, rtol=1e-13, atol=1e-15)
    unit = torch.arange(5, dtype=torch.float64)
    assert torch.allclose(parts.multipliers(unit) @ rows, unit @ units, rtol=1e-12)


def test_a_zero_row_is_orthogonal_to_all() -> None:
    rows = random_rows(3, 20, 0)
    rows[1] = 0
    parts = UnitRows.of(rows @ rows.T)
    assert parts.moving.tolist() == [True, False, True]
    assert parts.cosines[1].tolist() == [0.0, 1.0, 0.0]
    assert float(parts.multipliers(torch.ones(3, dtype=torch.float64), of_zero=7.0)[1]) == 7.0


def test_single_precision_noise_is_raised_to_definite() -> None:
    rows = random_rows(20, 4, 0).float()
    C = UnitRows.of((rows @ rows.T).double()).definite()
    exact = UnitRows.of(rows.double() @ rows.double().T).cosines
    assert float(torch.linalg.eigvalsh(C)[0]) > 0
    assert float((C - exact).abs().max()) < 3e-6
    full = random_rows(4, 20, 0)
    parts = UnitRows.of(full @ full.T)
    assert parts.definite() is parts.cosines, "what is definite stays as it is"


def test_halves_that_rounding_made_unlike_are_averaged() -> None:
    rows = random_rows(6, 20, 0)
    noise = 1e-7 * random_rows(6, 6, 1)
    G = rows @ rows.T
    C = UnitRows.of(G * (1 + noise)).cosines
    assert torch.equal(C, C.T)
    assert float((C - UnitRows.of(G).cosines).abs().max()) < 1e-6
