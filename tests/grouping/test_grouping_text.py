"""The first words of a grouping: as much of an advice as its interval against single tasks allows."""

import dataclasses
import math

import pytest

from grouping.planted_groups import find, planted, write_problem
from steelyard.grouping.grouping_result import GroupingResult
from steelyard.grouping.grouping_text import write_words
from steelyard.study.judgement import Interval

OVER = "over single tasks on test data"
TOGETHER, GROUPS = "all tasks together with equal", "{t0, t2} and {t1, t3} together with equal"


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> GroupingResult:
    folder = tmp_path_factory.mktemp("group")
    return find(write_problem(folder, 4), folder / "s.sqlite", planted(0.1, 0.01), affinities=False)[0]


def told(found: GroupingResult, change: Interval | None, over_one: float) -> list[str]:
    """With this Δm of every choice, and the groups better than one network by so much or not."""
    rows = [dataclasses.replace(row, delta_m=change) for row in found.judgement.rows]
    judgement = dataclasses.replace(found.judgement, rows=rows)
    over = Interval(over_one, over_one - 0.01, over_one + 0.01)
    return write_words(dataclasses.replace(found, judgement=judgement, over_one=over, own_over_one=None))


@pytest.mark.parametrize(("over_one", "choice", "count"), [(-0.2, TOGETHER, "1 network"), (0.2, GROUPS, "2 networks")])
def test_the_first_words_are_an_advice_only_where_it_is_shown_to_lose_nothing(found, over_one, choice, count) -> None:
    def words(*change: float) -> str:
        return " ".join(told(found, Interval(*change) if change else None, over_one)[:2])

    tail = f"{OVER}, {count} instead of 4."
    assert words(0.05, 0.03, 0.07).startswith(f"Train {choice}: +5.0 % (+3.0 to +7.0) {tail} ")
    assert "undecided" not in words(0.05, 0.03, 0.07)
    little = f"Train {choice}: +0.2 % (−0.9 to +1.3) {tail} That is not shown to be better than training every task"
    assert words(0.002, -0.009, 0.013) == f"{little} alone, and no more than 1 % worse."
    little = f"Train {choice}: −0.2 % (−0.3 to −0.1) {tail} That is worse than training every task alone"
    assert words(-0.002, -0.003, -0.001) == f"{little}, but by no more than 1 %."
    undecided = f"Whether tasks should share is undecided. If they do, train {choice}"
    assert words(0.002, -0.011, 0.015).startswith(f"{undecided}: +0.2 % (−1.1 to +1.5) {tail} ")
    assert words().startswith(f"{undecided}: no change is known {tail} ")
    alone = "Train every task alone, or allow more networks, or try another --method: the best choice here"
    assert words(-0.02, -0.03, -0.01).startswith(f"{alone}, {choice}, is −2.0 % (−3.0 to −1.0) {tail} ")
    assert words(0.02, -math.inf, math.inf).startswith(f"Train {choice}: +2.0 % (one seed, no interval) {tail} ")
    for little in (0.0, 0.0004, 0.009):  # of one seed, what does not matter is no advice
        assert words(little, -math.inf, math.inf).startswith(f"{undecided}: +{100 * little:.1f} % (one seed")
    assert words(-0.02, -math.inf, math.inf).startswith(f"{undecided}: −2.0 % (one seed, no interval) {tail} ")


def test_groups_that_are_left_with_one_seed_are_no_advice_beside_networks_that_are_shown_to_be_better(found) -> None:
    one, better = Interval(-0.05, -math.inf, math.inf), Interval(0.05, 0.049, 0.052)
    assert dataclasses.replace(found, over_one=one, own_over_one=better).recommended == "own networks"
    assert dataclasses.replace(found, over_one=one, own_over_one=one).recommended == "grouping"
    assert dataclasses.replace(found, over_one=one, own_over_one=None).recommended == "grouping"


@pytest.mark.parametrize(("paid", "says"), [(-0.01, "Groups do not pay here: "), (None, "no other choice of what was")])
def test_groups_that_did_not_last_are_told_with_one_seed_too(found, paid, says) -> None:
    same = dict.fromkeys(found.arms, found.arms["own networks"])
    one = dataclasses.replace(found, arms=same, paid=paid, over_one=None, over_own=None, own_over_one=None)
    text = " ".join(write_words(one))
    assert says.lower() in text.lower()
    assert ("better on validation data" in text) == (paid is None)
