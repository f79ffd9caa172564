"""All words of a study hold together at 5 %: the procedure is what it says, and simulated studies are rarely wrong."""

import math
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steelyard.study.analysis.multiple_testing import Unit, together
from steelyard.study.analysis.simulation import (
    PROCEDURES,
    coverage,
    per_method,
    plain_sum_first,
    rates,
    recommended,
)
from study.by_weights import adjusted, weights


@st.composite
def studies(draw):
    """Units of tests, some without a first one, and p-values of some of their tests."""
    shape = draw(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=5))
    units = [
        Unit((place, 0) if first else None, tuple((place, other + 1) for other in range(others)))
        for place, (first, others) in enumerate(shape)
    ]
    tests = [test for unit in units for test in (unit.first, *unit.others) if test is not None]
    known = [test for test in tests if draw(st.booleans())]
    return {test: draw(st.floats(0, 1)) for test in known}, units, draw(st.sampled_from([0.5, 0.8, 0.95]))


@given(studies())
@example(({(0, 0): 2.2250738585e-313, (0, 1): 1.0, (1, 0): 1.0}, [Unit((0, 0), ((0, 1),)), Unit((1, 0), ())], 0.8))
def test_it_is_the_procedure_step_by_step(study):
    p_values, units, first = study
    digits = {"rel": 1e-12, "abs": sys.float_info.min}  # below it a number has fewer digits
    assert together(p_values, units, first) == pytest.approx(adjusted(p_values, units, first), **digits)


@given(studies())
def test_weights_sum_to_one_and_never_shrink(study):
    """Which is what makes the error hold whatever the dependence between tests."""
    p_values, units, first = study
    left, before = set(p_values), {}
    for test in sorted(p_values, key=lambda test: p_values[test]):
        now = weights(left, units, first)
        assert sum(now.values()) == pytest.approx(1.0)
        assert all(now[each] >= before.get(each, 0.0) - 1e-12 for each in left)
        before = now
        left.remove(test)


def test_the_plain_sum_does_not_pay_for_the_number_of_strategies():
    """With thirteen strategies its p-value is multiplied by 2 / 0.8, as with one."""
    for strategies in (1, 13):
        units = [Unit((task, 0), tuple((task, 1 + s) for s in range(strategies))) for task in range(2)]
        p_values = {test: 0.5 for unit in units for test in (unit.first, *unit.others)} | {(0, 0): 0.01}
        assert together(p_values, units)[0, 0] == pytest.approx(0.01 * 2 / 0.8)


def test_once_the_plain_sum_is_decided_the_strategies_have_all_of_its_share():
    units = [Unit("sum", ("ema", "uw"))]
    found = together({"sum": 0.01, "ema": 0.02, "uw": 0.9}, units)
    assert found == pytest.approx({"sum": 0.01 / 0.8, "ema": 0.04, "uw": 0.9})
    # And before, a fifth between them.
    assert together({"sum": 1.0, "ema": 0.004, "uw": 0.9}, units)["ema"] == pytest.approx(0.004 * 2 / 0.2)


def test_a_task_that_is_decided_leaves_its_share_to_the_others():
    units = [Unit("a"), Unit("b"), Unit("c")]
    assert together({"a": 0.001, "b": 0.02, "c": 0.04}, units) == pytest.approx({"a": 0.003, "b": 0.04, "c": 0.04})
    assert together({}, units) == {}


def above(studies):
    """What a rate of 5 % is seen to be at most, but for one in a thousand."""
    return 0.05 + 3.1 * math.sqrt(0.05 * 0.95 / studies)


def test_few_studies_without_effects_have_a_false_word():
    """And many had, while each method was a family of its own."""
    studies = 300
    ours, before = rates("normal", 5, 14, 3, [plain_sum_first, per_method], studies)
    assert max(ours.false, ours.wrong) <= above(studies)
    assert before.false > 0.3
    assert ours.sum_found > 0.95  # with as much power as before for what the plain sum does


@pytest.mark.slow("simulates up to 250 studies of every design, number of seeds and noise, some with 300 words")
@pytest.mark.parametrize("kind", ["normal", "heavy-tailed", "tied", "unequal"])
@pytest.mark.parametrize(("methods", "tasks"), [(5, 2), (14, 3), (25, 4), (25, 12), (2, 139)])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_words_hold_together(kind, methods, tasks, seeds):
    studies = 250 if methods * tasks < 150 else 80
    (found,) = rates(kind, seeds, methods, tasks, [plain_sum_first], studies)
    assert max(found.false, found.wrong) <= above(studies)


@pytest.mark.slow("simulates 250 studies of two designs by four procedures")
@pytest.mark.parametrize(("methods", "tasks"), [(5, 2), (14, 3), (25, 4)])
def test_no_procedure_that_holds_finds_more_of_what_the_plain_sum_does_and_of_what_repairs_it(methods, tasks):
    found = dict(zip(PROCEDURES, rates("normal", 5, methods, tasks, list(PROCEDURES.values()), 250), strict=True))
    ours = found.pop("the plain sum first, task by task")
    holding = [each for each in found.values() if max(each.false, each.wrong) <= above(250)]
    assert holding
    assert all(ours.sum_found >= each.sum_found - 0.03 for each in holding)
    assert any(each.methods_found < ours.methods_found for each in holding)


@pytest.mark.slow("simulates 400 studies of differences that are skewed")
def test_skewed_differences_are_beyond_few_seeds():
    """As the page says; those of the design and seeds that its table has at 14."""
    (found,) = rates("skewed", 5, 5, 2, [plain_sum_first], 400)
    assert above(400) < found.false < 0.25


@pytest.mark.slow("simulates 400 studies of a method that collapses in one seed of ten")
def test_what_collapses_now_and_then_is_beyond_words():
    """Five seeds miss it in 59 % of studies, and their interval with it: the page says so, no procedure helps."""
    ours, before = rates("collapsing", 10, 5, 2, [plain_sum_first, per_method], 400)
    assert 0.05 < ours.false < before.false


def test_the_best_of_several_strategies_is_rarely_recommended_where_none_may_be():
    for seeds in (3, 10):
        alone, of_all = recommended(1, seeds)
        assert alone == of_all == pytest.approx(0.025, abs=0.008)
        alone, of_all = recommended(13, seeds)
        assert alone > 0.08
        assert of_all < 0.025


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("skew", "low", "high"), [(0.0, 94.5, 95.5), (0.5, 91.0, 93.0), (1.0, 81.5, 84.5)])
def test_intervals_cover_as_the_site_says(skew, low, high, seeds):
    assert low <= 100 * coverage(skew, seeds) <= high
