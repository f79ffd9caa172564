"""What affinities would have told: all of it where gains are made of them, nothing where they are not."""

import numpy as np
import pytest

from grouping.test_effects import TASKS, table
from steelyard.grouping.affinity_correlation import FITTED, PAIRS, judged

TRUTH = np.random.default_rng(0).normal(size=(6, 6))


def means(truth, sizes=(2, 3, 4, 5, 6)):
    """Gains that are the mean of the others' affinities, without noise."""
    sums = table(truth, 0.0, 0, sizes)
    return {subset: {task: gain / (len(subset) - 1) for task, gain in gains.items()} for subset, gains in sums.items()}


def by_name(measured, **given):
    return {each.name: each for each in judged(TASKS, measured, given)}


def test_what_gains_are_made_of_tells_all_and_its_opposite_the_opposite():
    found = by_name(means(TRUTH), true=TRUTH, opposite=-TRUTH)
    assert found["true"].correlation == pytest.approx(1)
    assert found["opposite"].correlation == pytest.approx(-1)
    assert found["true"].subsets == 57  # all but the six of one task
    assert found[PAIRS].correlation == pytest.approx(1)
    assert found[PAIRS].subsets == 42  # pairs are not held to themselves
    assert found[PAIRS].values[1, 2] == pytest.approx(TRUTH[1, 2])
    assert found[FITTED].correlation > 0.9


def test_rows_are_those_who_gain():
    assert by_name(means(TRUTH), turned=TRUTH.T)["turned"].correlation < 0.5


def test_what_has_nothing_to_do_with_the_gains_tells_nothing():
    told = [
        by_name(means(TRUTH), x=np.random.default_rng(s).normal(size=(6, 6)))["x"].correlation for s in range(1, 60)
    ]
    assert abs(np.mean(told)) < 0.1


def test_unknown_affinities_leave_their_subsets_out():
    holes = TRUTH.copy()
    holes[0, 1] = holes[1, 0] = np.nan
    found = by_name(means(TRUTH), holes=holes)["holes"]
    assert found.correlation == pytest.approx(1)
    assert found.subsets == 56  # all but the pair: of the others another task knows something


def test_too_few_subsets_tell_nothing():
    found = by_name({frozenset(TASKS): dict.fromkeys(TASKS, 0.1)}, true=TRUTH)
    assert {name: each.correlation for name, each in found.items()} == {"true": None, PAIRS: None, FITTED: None}
    assert found["true"].subsets == 1
    assert found[PAIRS].subsets == 0
