"""Projection on the simplex."""

from __future__ import annotations

import numpy as np
import pytest
import quadprog
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.methods.solvers.simplex import project_on_simplex


@settings(max_examples=100)
@given(st.integers(1, 20), st.integers(0, 10**6), st.floats(-3, 3))
def test_agrees_with_quadprog(size: int, seed: int, spread: float) -> None:
    y = np.random.default_rng(seed).normal(size=size) * 10**spread
    constraints = np.concatenate([np.ones((size, 1)), np.eye(size)], axis=1)
    bounds = np.concatenate([[1.0], np.zeros(size)])
    expected = quadprog.solve_qp(np.eye(size), y, constraints, bounds, meq=1)[0]
    found = project_on_simplex(torch.from_numpy(y))
    assert float(found.sum()) == pytest.approx(1, rel=1e-14)
    assert float(found.min()) >= 0
    assert np.abs(found.numpy() - expected).max() <= 1e-12 * (1 + np.abs(y).max())


def test_known_cases() -> None:
    def project(*y: float) -> list[float]:
        return project_on_simplex(torch.tensor(y, dtype=torch.float64)).tolist()

    assert project(0.2, 0.8) == pytest.approx([0.2, 0.8])
    assert project(5.0, 0.0) == [1.0, 0.0]
    assert project(1e12, 1e12, 0.0) == pytest.approx([0.5, 0.5, 0.0])
    assert project(-7.0) == [1.0]
