"""Non-negative quadratics: optimality conditions everywhere, an independent solver where it is exact."""

from __future__ import annotations

import numpy as np
import pytest
import quadprog
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gramian_cases import random_rows
from steelyard.methods.solvers.nonnegative import nonnegative_minimum
from steelyard.methods.solvers.unit_rows import UnitRows


def cosines(rows: torch.Tensor) -> torch.Tensor:
    return UnitRows.of((rows @ rows.T).double()).definite()


def violation(C: torch.Tensor, q: torch.Tensor, x: torch.Tensor) -> float:
    """How far ``x ≥ 0``, ``Cx + q ≥ 0``, ``x (Cx + q) = 0`` fail, relative to the sums behind them."""
    slack = x @ C + q
    size = x.sum(1, keepdim=True) + q.abs().amax(1, keepdim=True)
    return float((torch.maximum(-slack, torch.minimum(x, slack)) / size).max())


@settings(max_examples=60)
@given(
    st.integers(1, 15),
    st.integers(1, 30),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1.0, 5.0]),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
)
def test_optimality_conditions(tasks: int, size: int, seed: int, conflict: float, copies: int, single: bool) -> None:
    rows = random_rows(tasks, size, seed, 1e6, conflict)
    for sign in (1, -1)[:copies]:
        rows = torch.cat([rows, sign * rows[: tasks // 2 + 1]])  # equal and opposite gradients
    C = cosines(rows.float() if single else rows)
    x = nonnegative_minimum(C, C)  # bounded: q lies in the range of C
    assert float(x.min()) >= 0
    assert violation(C, C, x) <= 1e-11


@pytest.mark.parametrize("tasks", [1, 2, 10, 30])
def test_agrees_with_quadprog(tasks: int) -> None:
    C = cosines(random_rows(tasks, 60, tasks, conflict=1.0))
    q = random_rows(5, tasks, 7)
    for scale in (1e-20, 1.0, 1e20):
        found = nonnegative_minimum(C, q * scale) / scale
        for linear, x in zip(q, found, strict=True):
            expected = quadprog.solve_qp(C.numpy(), -linear.numpy(), np.eye(tasks), np.zeros(tasks))[0]
            assert np.abs(x.numpy() - expected).max() <= 1e-9 * max(1, np.abs(expected).max())


def test_a_guess_does_not_change_the_answer() -> None:
    C = cosines(random_rows(12, 40, 0, conflict=1.0))
    q = random_rows(6, 12, 1)
    guess = torch.rand(6, 12, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.allclose(nonnegative_minimum(C, q, guess), nonnegative_minimum(C, q), rtol=1e-9, atol=1e-12)


def test_an_unbounded_minimum_shows() -> None:
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    assert float(nonnegative_minimum(opposite, -torch.ones(1, 2, dtype=torch.float64)).min()) > 1e11


def test_nothing_to_do() -> None:
    C = torch.eye(3, dtype=torch.float64)
    assert torch.equal(nonnegative_minimum(C, torch.zeros(2, 3, dtype=torch.float64)), torch.zeros(2, 3))


def test_a_gramian_that_is_symmetric_to_single_precision_only() -> None:
    """As `rows @ rows.T` is on some processors: equal rows with unlike products."""
    G = torch.tensor([[1.0, -0.7373], [-0.7373, 1.0]], dtype=torch.float64).repeat(2, 2)
    G[3, 1] *= 1 + 1.2e-7
    G[3, 3] *= 1 + 1.2e-7
    C = UnitRows.of(G).definite()
    assert violation(C, C, nonnegative_minimum(C, C)) <= 1e-11
