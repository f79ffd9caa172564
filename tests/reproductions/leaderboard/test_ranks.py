"""Ranks and their tests, against the worked example of Demšar (2006), scipy, and printed tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from steelyard.reproductions.leaderboard.ranks import critical_difference, friedman, ranks, studentized_range

# Table 6 of Demšar (2006): AUC of C4.5 with and without two parameters, on fourteen data sets. On voting it prints two
# equal values and ranks them as different: the third is a little larger here.
DEMSAR = np.array([
    (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.97501, 0.975), (0.957, 0.978, 0.946, 0.970),
])  # fmt: skip


def test_the_worked_example():
    found = ranks(DEMSAR)
    np.testing.assert_allclose(found.mean(0), [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    test = friedman(found)
    assert test.chi_square == pytest.approx(9.28, abs=0.005)
    assert test.statistic == pytest.approx(3.69, abs=0.005)
    assert test.freedoms == (3, 39)
    assert test.p_value == pytest.approx(stats.f.sf(test.statistic, 3, 39))
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize(("rows", "printed"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (7, 2.949), (10, 3.164)])
def test_quantiles_are_those_of_the_printed_table(rows, printed):
    assert studentized_range(rows, 0.95) / math.sqrt(2) == pytest.approx(printed, abs=1e-3)


def test_a_quantile_of_fifty_rows():
    assert studentized_range(50, 0.95) == pytest.approx(stats.studentized_range.ppf(0.95, 50, 1e6), abs=1e-3)


def test_equal_scores_share_their_ranks():
    random = np.random.default_rng(0)
    scores = random.integers(0, 4, size=(20, 3, 7)).astype(float)
    np.testing.assert_array_equal(ranks(scores), stats.rankdata(-scores, axis=-1))
    np.testing.assert_array_equal(ranks(np.array([0.1, np.nan, 0.3, np.nan])), [2, 3.5, 1, 3.5])


def test_friedman_without_ties_is_scipys():
    scores = np.random.default_rng(1).normal(size=(8, 5))
    expected = stats.friedmanchisquare(*scores.T)
    assert friedman(ranks(scores)).chi_square == pytest.approx(expected.statistic)


def test_the_same_order_everywhere_is_no_chance():
    same = friedman(ranks(np.tile(np.arange(4.0), (6, 1))))
    assert (same.statistic, same.p_value) == (math.inf, 0.0)
