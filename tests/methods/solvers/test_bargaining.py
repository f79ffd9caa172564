"""The bargaining point: its equations, for any gradients that have one."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gramian_cases import random_rows
from steelyard.methods.solvers.bargaining import bargaining_point
from steelyard.methods.solvers.unit_rows import UnitRows


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 3.0]), st.floats(0, 3))
def test_its_equations(tasks: int, seed: int, alpha: float, conflict: float) -> None:
    rows = random_rows(tasks, 40, seed, 10.0, conflict)
    power = random_rows(1, tasks, seed + 1)[0].abs() + 0.1
    gramian = rows @ rows.T
    w = bargaining_point(UnitRows.of(gramian), power, alpha)
    assert float(w.min()) > 0
    assert torch.allclose(gramian @ w, power * w ** (-1 / alpha), rtol=1e-8)


def test_norms_do_not_matter_to_nash() -> None:
    rows = random_rows(6, 40, 0, 1.0, 2.0)
    power = torch.ones(6, dtype=torch.float64)
    plain = bargaining_point(UnitRows.of(rows @ rows.T), power)
    for scale in (1e-12, 1e12):
        factors = scale * 10 ** torch.linspace(-6, 6, 6, dtype=torch.float64)
        scaled = factors[:, None] * rows
        assert torch.allclose(bargaining_point(UnitRows.of(scaled @ scaled.T), power) * factors, plain, rtol=1e-9)


def test_orthogonal_gradients_have_a_closed_form() -> None:
    norms = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
    rows = UnitRows(norms, torch.eye(3, dtype=torch.float64))
    for alpha in (0.5, 1.0, 2.0):
        expected = norms ** (-2 * alpha / (1 + alpha))
        assert torch.allclose(bargaining_point(rows, torch.ones(3, dtype=torch.float64), alpha), expected, rtol=1e-12)
