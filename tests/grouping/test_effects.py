"""Who helps whom: effects that are there are found, and the correlation says how far they predict."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from steelyard.grouping.effects import effects

TASKS = [f"t{number}" for number in range(6)]


def table(truth: np.ndarray, noise: float, seed: int, sizes=(2, 3, 4, 5, 6)):
    rng = np.random.default_rng(seed)
    found = {}
    for size in sizes:
        for chosen in combinations(range(6), size):
            gain = {TASKS[i]: truth[i, [j for j in chosen if j != i]].sum() + noise * rng.normal() for i in chosen}
            found[frozenset(gain)] = gain
    return found


def test_effects_that_are_there_are_found() -> None:
    """Row: whose gain, column: who is present; nearly exact without noise, and within their errors with it."""
    truth = np.random.default_rng(0).normal(size=(6, 6))
    exact = effects(TASKS, table(truth, 0.0, 0))
    off = ~np.eye(6, dtype=bool)
    assert exact.values[off] == pytest.approx(truth[off], abs=0.01)
    assert np.isnan(exact.values[~off]).all()
    assert exact.correlation == pytest.approx(1.0, abs=0.01)
    outside = []
    for seed in range(40):
        noisy = effects(TASKS, table(truth, 1.0, seed))
        outside += (np.abs(noisy.values - truth) > 2 * noisy.errors)[off].tolist()
    assert np.mean(outside) < 0.1


def test_where_nothing_predicts_the_correlation_says_so() -> None:
    """No positive one by chance: what is left out pulls the others' mean the other way, so it lies below zero."""
    found = [effects(TASKS, table(np.zeros((6, 6)), 1.0, seed)).correlation for seed in range(30)]
    assert -0.5 < np.mean(found) < 0.05


def test_what_was_never_measured_is_not_known() -> None:
    found = effects(TASKS, {frozenset(["t0", "t1"]): {"t0": 0.1, "t1": 0.2}})
    assert np.isfinite(found.values).sum() == 2
    assert found.values[0, 1] == pytest.approx(0.1, rel=0.1)
    assert found.correlation is None
    assert effects(TASKS, {}).correlation is None
