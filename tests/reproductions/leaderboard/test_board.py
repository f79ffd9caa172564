"""All problems side by side: who is ranked, how failures count, and how stable ranks are."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from reproductions.leaderboard.made_up_board import made_up, planted, ten
from steelyard.errors import LeaderboardError
from steelyard.reproductions.leaderboard.board import Board, own_row
from steelyard.reproductions.leaderboard.gains import row_named
from steelyard.reproductions.leaderboard.stability import PlaceRange, correlation, stability
from steelyard.study.analysis.statistics import interval

BASES = {"single-task": 0.2, "equal": 0.2, "fixed": 0.2}


@pytest.fixture(scope="module")
def board():
    return Board(planted())


def test_what_failed_is_last_in_rank_and_no_part_of_means(board):
    broken = board.ranked.index("broken")
    assert board.ranks[1, broken] == len(board.ranked)
    table = board.table("sum", ["broken"])[:, 0]
    assert np.isnan(table).tolist() == [place == 1 for place in range(8)]
    found = board.over_problems(board.table("sum", ["broken", "good"]), ["broken", "good"])
    assert found["broken"].by_problem.keys() == {f"p{place}" for place in range(8) if place != 1}
    assert found["broken"].interval == interval(table[np.isfinite(table)])
    assert found["good"].better == 8


def test_troubles_are_named(board):
    assert [(each.problem, each.row, each.judged) for each in board.troubles] == [
        ("p1", "broken", False),
        ("p2", "lost", True),
    ]
    assert "is nan" in board.troubles[0].why
    assert board.troubles[1].why == "worse than one prediction for all rows in a, b"


def test_without_trivial_values_a_collapse_is_still_seen():
    problem = planted()[2]
    tasks = tuple(dataclasses.replace(task, trivial=None) for task in problem.tasks)
    (found,) = Board([dataclasses.replace(problem, tasks=tasks)]).troubles
    assert (found.row, found.why) == ("lost", "far below most others")


def test_ranked_is_what_was_run_everywhere():
    problems = ten(BASES | {"uw": 0.1}, 2)
    problems[1] = dataclasses.replace(problems[1], rows=problems[1].rows[:-1])
    found = Board(problems)
    assert found.ranked == ["single-task", "equal", "fixed"]
    assert found.names[-1] == "uw"


def test_variants_are_not_ranked_and_are_held_to_their_own_row(board):
    assert "good, SGD" not in board.ranked
    changes = board.against_own(["good(look=trunk)", "good, SGD"])
    for place, problem in enumerate(board.problems):
        ours, theirs = row_named(problem, "good(look=trunk)"), row_named(problem, "good")
        errors = [
            [np.mean([1 - each.per_seed[seed].test[task] for seed in range(4)]) for task in "ab"]
            for each in (ours, theirs)
        ]
        assert changes[place, 0] == pytest.approx(1 - np.mean(np.divide(*errors)), abs=2e-3)  # but for its correction


def test_a_variant_without_its_row_named_is_found_by_its_name():
    problem = made_up(errors=BASES | {"uw": 0.1, "uw-revised": 0.1, "uw-revised, SGD": 0.1, "mgda": 0.1})
    assert own_row(problem.rows[-2], problem) == "uw-revised"
    assert own_row(problem.rows[-1], problem) == ""
    assert own_row(dataclasses.replace(problem.rows[-1], of="uw"), problem) == "uw"


def test_a_name_is_one_group():
    problems = [made_up("a"), made_up("b", groups={"fixed": "method"})]
    with pytest.raises(LeaderboardError, match="'fixed' is of the group 'method' on b, and of 'fixed' elsewhere"):
        Board(problems)
    with pytest.raises(LeaderboardError, match="no problem"):
        Board([])


def test_without_single_tasks_the_plain_sum_is_the_reference():
    problem = made_up(errors={"equal": 0.2, "uw": 0.1})
    found = Board([problem])
    assert found.reference == "sum"
    assert found.table("sum", ["uw"])[0, 0] == pytest.approx(0.5)
    assert math.isnan(found.table("single", ["uw"])[0, 0])


def test_costs_are_geometric_means_against_the_plain_sum():
    problems = [made_up(name, BASES | {"uw": 0.1}) for name in "ab"]
    rows = [dataclasses.replace(problems[0].rows[3], seconds_per_step=8 * 0.11, peak_memory=None)]
    rows.append(dataclasses.replace(problems[1].rows[3], seconds_per_step=2 * 0.11, peak_memory=6_000_000))
    found = Board([
        dataclasses.replace(problem, rows=(*problem.rows[:3], row)) for problem, row in zip(problems, rows, strict=True)
    ])  # fmt: skip
    assert found.costs("uw") == pytest.approx((4.0, 3.0))


def test_ranks_far_apart_are_stable_and_equal_ones_are_ranges():
    apart = Board(ten({"single-task": 0.5, "equal": 0.4, "fixed": 0.3, "uw": 0.1}, 8, scatter=0.02))
    found = stability(apart, draws=200, halves=10)
    assert {name: each.text for name, each in found.ranges.items()} == {
        "uw": "1", "fixed": "2", "equal": "3", "single-task": "4",
    }  # fmt: skip
    assert (found.half_problems, found.half_seeds, found.half_epochs, found.other_base) == pytest.approx((1.0,) * 4)
    alike = Board(ten(BASES | {"uw": 0.1, "a": 0.2, "b": 0.2}, 8, scatter=0.1))
    found = stability(alike, draws=200, halves=10)
    assert found.ranges["uw"].text == "1"
    assert found.stable == ["uw"]
    assert all(each.low <= 3 and each.high >= 4 for name, each in found.ranges.items() if name != "uw")
    assert PlaceRange(3, 5).text == "3–5"


def test_another_base_may_turn_a_rank():
    """`a` halves a small error, `b` takes a fifth off a large one, which are more of the value."""
    tasks = {"single-task": (0.02, 0.5), "equal": (0.02, 0.5), "fixed": (0.02, 0.5)}
    board = Board(ten(tasks | {"a": (0.01, 0.5), "b": (0.02, 0.4)}, 6))
    found = stability(board, draws=50, halves=4)
    assert found.ranges["a"] == PlaceRange(1, 2)
    assert found.ranges["b"] == PlaceRange(1, 2)
    assert found.other_base < 1


def reaching(problem, half):
    """The problem with other validation values in the first half of the epochs, from those of the whole."""
    rows = []
    for row in problem.rows:
        per_seed = {
            seed: dataclasses.replace(found, reached={task: (half(value), value) for task, value in found.test.items()})
            for seed, found in row.per_seed.items()
        }
        rows.append(dataclasses.replace(row, per_seed=per_seed))
    return dataclasses.replace(problem, rows=tuple(rows))


def test_half_of_the_budget_may_turn_ranks():
    problems = ten({"single-task": 0.5, "equal": 0.4, "fixed": 0.3, "uw": 0.1}, 3)
    assert stability(Board(problems), draws=50, halves=4).half_epochs == pytest.approx(1)
    turned = [reaching(problem, lambda value: 0.99 - value) for problem in problems]
    assert stability(Board(turned), draws=50, halves=4).half_epochs == pytest.approx(-1)
    silent = [turned[0], reaching(turned[1], lambda value: math.nan), turned[2]]
    assert math.isnan(stability(Board(silent), draws=50, halves=4).half_epochs)


def test_with_too_few_problems_nothing_has_a_rank():
    assert stability(Board(ten(BASES | {"uw": 0.1}, 5)), draws=50, halves=4).ranges == {}


def test_correlations_are_spearmans():
    random = np.random.default_rng(2)
    ours, theirs = random.normal(size=(2, 12)).round(1)
    assert correlation(ours, theirs) == pytest.approx(stats.spearmanr(ours, theirs).statistic)
    assert math.isnan(correlation(np.ones(4), ours[:4]))


@pytest.mark.slow("a range of ranks is held to its rows over many leaderboards")
def test_a_range_holds_the_true_rank():
    """Of 12 rows with true gains 0 to 11 % over a problem's own scatter, ranges hold the true place mostly."""
    held, wide, draw = [], [], np.random.default_rng(11)
    for _ in range(40):
        problems = []
        for place in range(10):
            errors = {f"m{row}": 0.2 * (1 - 0.01 * row + 0.04 * draw.normal()) for row in range(12)}
            errors = {"single-task": 0.2, **errors}
            problems.append(made_up(f"p{place}", errors, scatter=0.03, random=int(draw.integers(1 << 30))))
        ranges = stability(Board(problems), draws=200, halves=2).ranges
        # Single-task learning is as good as m0 in truth: they share the last two places.
        held += [ranges[f"m{row}"].low <= 12 - row <= ranges[f"m{row}"].high for row in range(1, 12)]
        wide += [ranges[f"m{row}"].high - ranges[f"m{row}"].low for row in range(1, 12)]
    print(f"\nheld {np.mean(held):.3f}, places in a range {np.mean(wide) + 1:.1f} of 13")
    assert np.mean(held) >= 0.9
    assert np.mean(wide) < 9
