"""Shrunk gains are nearer to the truth than measured ones, for every truth."""

from __future__ import annotations

import numpy as np
import pytest

from steelyard.grouping.shrinkage import shrunk


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("count", [4, 10, 50])
def test_the_error_is_never_larger_and_smaller_where_noise_rules(count: int, spread: float) -> None:
    rng = np.random.default_rng(count)
    truth = rng.normal(size=count) * spread + 3.0
    before, after = 0.0, 0.0
    for _ in range(400):
        measured = truth + rng.normal(size=count)
        before += ((measured - truth) ** 2).sum()
        after += ((shrunk(measured[:, None], np.ones(1))[:, 0] - truth) ** 2).sum()
    assert after < before * 1.001
    if spread == 0.0 and count >= 10:
        assert after < 0.4 * before


def test_order_mean_and_holes_stay() -> None:
    gains = np.array([[0.1, -np.inf], [0.3, 0.2], [0.2, 0.1], [-0.1, -np.inf], [0.6, -np.inf]])
    found = shrunk(gains, np.array([0.1, 0.1]))
    assert (np.isfinite(found) == np.isfinite(gains)).all()
    assert (np.argsort(found[:, 0]) == np.argsort(gains[:, 0])).all()
    assert found[:, 0].mean() == pytest.approx(gains[:, 0].mean())
    # 1 − (5 − 3) / (5 − 1) · 0.01 / 0.067
    assert found[4, 0] == pytest.approx(0.22 + (1 - 0.5 * 0.01 / 0.067) * 0.38)
    assert (found[1:3, 1] == gains[1:3, 1]).all()  # of two nobody knows the spread


def test_without_noise_or_spread_nothing_moves() -> None:
    gains = np.random.default_rng(0).normal(size=(6, 2))
    assert (shrunk(gains, np.zeros(2)) == gains).all()
    assert (shrunk(np.full((6, 1), 0.25), np.ones(1)) == 0.25).all()
