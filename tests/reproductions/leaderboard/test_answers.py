"""The sentences of the leaderboard: the planted truth is found, and every number is worked out once more here."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from scipy import stats

from reproductions.leaderboard.made_up_board import made_up, planted, ten
from steelyard.reproductions.evidence import points
from steelyard.reproductions.leaderboard.answer_architectures import at_equal_cost, family_of_architectures
from steelyard.reproductions.leaderboard.answer_cost import cost_front, front
from steelyard.reproductions.leaderboard.answer_methods import choosing, family_of_methods, headline, left_out_gains
from steelyard.reproductions.leaderboard.answer_same import same_trainings
from steelyard.reproductions.leaderboard.answer_where import DIVIDES, sides
from steelyard.reproductions.leaderboard.answers import answers
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_answer import problem_by_problem
from steelyard.reproductions.leaderboard.over_problems import together_over_problems
from steelyard.reproductions.leaderboard.ranks import critical_difference
from steelyard.reproductions.leaderboard.same_training import is_same
from steelyard.reproductions.leaderboard.stability import stability
from steelyard.study.analysis.statistics import interval

METHODS = ["good", "bad", "like", "broken", "lost"]

SAME = "Which rows are one training under several names?"


@pytest.fixture(scope="module")
def board():
    return Board(planted())


@pytest.fixture(scope="module")
def said(board):
    return {each.question: each for each in answers(board, stability(board, draws=100, halves=5))}


def mean_gain(board, name, against):
    """Over problems, of errors, without the correction; with its interval by scipy."""
    gains = []
    for problem in board.problems:
        rows = {row.name: row for row in problem.rows}
        if not rows[name].per_seed:
            continue
        errors = [
            [np.mean([1 - each.per_seed[seed].test[task] for seed in problem.seeds]) for task in "ab"]
            for each in (rows[name], rows[against])
        ]
        gains.append(1 - np.mean(np.divide(*errors)))
    return 100 * np.mean(gains), 100 * np.array(
        stats.t.interval(0.95, len(gains) - 1, np.mean(gains), stats.sem(gains))
    )


def numbers(text):
    return [float(each.replace("−", "-")) for each in re.findall(r"[−+]?\d+(?:\.\d+)?", text)]


def test_the_better_method_is_found_and_the_worse(board, said):
    answer = said["Does any method beat the tuned plain sum?"]
    found = family_of_methods(board)
    assert answer.answer.startswith("2 of 6 methods beat the tuned plain sum over 8 problems: good +")
    assert "1 is shown to be worse: bad −" in answer.answer
    texts = dict(re.findall(r"(good|fixed|bad) ([−+].*?\))", answer.answer))
    assert texts.keys() == {"good", "fixed", "bad"}
    for name, text in texts.items():
        assert text == points(found["sum"][name].interval)
        mean, ends = mean_gain(board, name, "equal")
        assert numbers(text) == pytest.approx([mean, *ends], abs=0.3)
    assert "for all 11 comparisons" in answer.lines[1]
    assert said["Does any method beat the best fixed weights?"].answer.startswith("1 of 5 methods beats the best fixed")
    assert headline(board) == "2 methods beat the tuned plain sum, 1 method beats the best fixed weights"


def test_both_comparisons_are_one_family(board):
    names = [*METHODS, "fixed"]
    changes = np.concatenate(
        [board.table("sum", board.named("method", "fixed")), board.table("fixed", METHODS)], axis=1
    )
    together = together_over_problems(changes)
    found = family_of_methods(board)
    assert sorted(found["sum"]) == sorted(names)
    got = [*(each.p_value for each in found["sum"].values()), *(each.p_value for each in found["fixed"].values())]
    np.testing.assert_allclose(got, together)


def test_problem_by_problem_intervals_are_counted(board, said):
    line = said["Does any method beat the tuned plain sum?"].lines[0]
    for problem, samples in zip(board.problems, board.samples("sum"), strict=True):
        found = [interval(samples[name]) for name in (*METHODS, "fixed") if len(samples[name])]
        above, below = sum(each.low > 0 for each in found), sum(each.high < 0 for each in found)
        assert f"on {problem.problem} {above} above and {below} below of {len(found)}" in line
    assert "about 1.2 of all 47 would lie above" in line


def test_the_choice_by_other_problems_is_not_told_by_the_one_left_out():
    changes = np.array([[9.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert left_out_gains(changes) == ([1.0, 0.0, 0.0], [1, 0, 0])


def test_what_a_choice_gains(board, said):
    answer = said["What does one gain by taking the method that did best elsewhere?"]
    assert answer.answer.endswith("of Δm over the plain sum: more than the plain sum.")
    assert points(interval(board.table("sum", ["good"])[:, 0])) in answer.answer
    assert answer.lines[0].startswith("Chosen: good (8 ×).")
    worse = Board(ten({"single-task": 0.2, "equal": 0.2, "uw": lambda place: 0.25 + 0.001 * place}, 6))
    assert choosing(worse).answer.endswith("over the plain sum: less.")


def test_where_it_pays_is_welchs_test(board, said):
    questions = [question for question in said if question.startswith("Do methods gain more where")]
    assert len(questions) == len(DIVIDES) == 4
    divided = sides(board, DIVIDES[0])
    medians = [np.nanmedian(row) for row in board.table("sum", METHODS)]
    assert divided.where == pytest.approx(medians[1::2])
    assert divided.elsewhere == pytest.approx(medians[::2])
    difference, p_value = divided.difference()
    expected = stats.ttest_ind(divided.where, divided.elsewhere, equal_var=False)
    assert p_value == pytest.approx(expected.pvalue)
    ends = expected.confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((ends.low, ends.high))
    assert f"(p = {p_value:.2g}, Holm over 1)" in said[questions[0]].answer
    assert points(difference) in said[questions[0]].answer
    assert "it is so on 0, not on 8; 3 of each are needed" in said[questions[1]].answer
    for part in (divided.where, divided.elsewhere):
        assert points(interval(part)) in said[questions[0]].lines[0]


def test_a_true_difference_is_found_where_it_is():
    problems = ten(
        {"single-task": 0.2, "equal": 0.2, "uw": lambda place: (0.1 if place % 2 else 0.2) * (1 + 0.01 * place)}, 8
    )
    problems = [
        dataclasses.replace(problem, facts={"missing_labels": 0.3 * (place % 2)})
        for place, problem in enumerate(problems)
    ]
    found = {each.question: each.answer for each in answers(Board(problems), stability(Board(problems), 20, 2))}
    assert found["Do methods gain more where labels are missing?"].startswith("More: by +5")
    assert "8 do not say" in found["Do methods gain more where losses start 10 times apart or more?"]


def test_places_and_optimizers(board, said):
    place, optimizer = (
        said[question]
        for question in ("Does it matter where gradients are read?", "Does it matter which optimizer steps?")
    )
    changes = board.against_own(["good(look=trunk)", "good, SGD"])
    assert f"look=trunk: {points(interval(changes[:, 0]))} over 8 problems, shown to matter" in place.answer
    assert f"SGD: {points(interval(changes[:, 1]))} over 8 problems, not shown to matter" in optimizer.answer
    assert "1 is shown to differ: good(look=trunk)" in place.lines[0]
    assert "none is shown to differ." in optimizer.lines[0]


def test_architectures(board, said):
    answer = said["Does an architecture under the plain sum beat hard sharing under it?"].answer
    found = family_of_architectures(board)["mmoe"]
    assert answer.startswith(
        f"1 of 1 architecture beats the tuned plain sum over 8 problems: mmoe {points(found.interval)}"
    )
    equal = at_equal_cost(board, ["mmoe"])[:, 0]
    table = board.table("sum", [*METHODS, "mmoe"])
    # All methods are quicker than mmoe, as rows are made.
    np.testing.assert_allclose(equal, table[:, -1] - np.nanmedian(table[:, :-1], axis=1))
    text = said["Architecture against weighting, at equal cost in time?"].answer
    assert f"mmoe {points(interval(equal))}, better" in text


def test_equal_cost_takes_no_method_that_costs_more():
    problems = ten({"single-task": 0.2, "equal": 0.2, "mmoe": 0.1, "slow": 0.05}, 6, groups={"mmoe": "architecture"})
    assert np.isnan(at_equal_cost(Board(problems), ["mmoe"])).all()
    quick = [
        dataclasses.replace(
            problem,
            rows=tuple(dataclasses.replace(row, seconds_per_step=0.1) for row in problem.rows),
        )
        for problem in problems
    ]
    np.testing.assert_allclose(at_equal_cost(Board(quick), ["mmoe"]), 6 * [[0.5 - 0.75]])


def test_the_front_is_what_nothing_beats(board, said):
    rows = {row.name: row for row in front(board)}
    assert rows.keys() == {"equal", "fixed", "good", "bad", "like", "lost", "mmoe"}  # broken has no number on p1
    for row in rows.values():
        beaten = any(
            (other.time < row.time and other.gain.mean >= row.gain.mean)
            or (other.time <= row.time and other.gain.mean > row.gain.mean)
            for other in rows.values()
        )  # fmt: skip
        assert row.on_front == (row.gain.mean > 0 and not beaten)
    assert [name for name, row in rows.items() if row.on_front] == ["fixed", "good"]
    text = said["What does a gain cost?"].answer
    assert f"good {rows['good'].time:.2f} ×, {points(rows['good'].gain)}" in text
    assert text.index("fixed 1.09 ×") < text.index("good 1.18 ×")
    assert "equal" not in text, "the plain sum gains nothing over itself"
    most = max(rows.values(), key=lambda row: row.memory)
    assert f"takes {most.name}, {most.memory:.2f} ×" in said["What does a gain cost?"].lines[0]


def test_where_no_method_beats_either_it_is_said_once():
    alike = [made_up(f"p{place}", dict.fromkeys(("single-task", "equal", "fixed", "uw"), 0.2)) for place in range(6)]
    assert headline(Board(alike)) == "No method is shown to beat the tuned plain sum or the best fixed weights"


def test_what_is_cheap_and_behind_is_no_gain(board):
    """To cost less is no gain; where there is none, none has a price."""
    rows = [{row.name: row for row in problem.rows} for problem in board.problems]
    behind = [
        dataclasses.replace(problem, rows=tuple(found[name] for name in ("single-task", "equal", "bad")))
        for problem, found in zip(board.problems, rows, strict=True)
    ]
    cheap = [
        dataclasses.replace(
            problem, rows=(*problem.rows[:2], dataclasses.replace(problem.rows[2], seconds_per_step=1e-4))
        )
        for problem in behind
    ]
    assert not any(row.on_front for row in front(Board(cheap)))
    assert cost_front(Board(cheap)).answer == "No row that has a number everywhere gains over the plain sum."


def test_friedman_is_scipys(board, said):
    table = np.nan_to_num(board.table("single", board.ranked), nan=-9.0)
    chi_square = stats.friedmanchisquare(*table.T).statistic
    problems, rows = table.shape
    expected = (problems - 1) * chi_square / (problems * (rows - 1) - chi_square)
    answer = said["Do rows differ in rank?"]
    assert answer.answer.startswith("They do")
    assert f"F = {expected:.2f} of {rows - 1} and {(rows - 1) * (problems - 1)} degrees" in answer.answer
    difference = critical_difference(rows, problems)
    assert f"by more than {difference:.1f} of {rows} (" in answer.answer
    average = stats.rankdata(-table, axis=1).mean(0)
    apart = int((average - average.min() > difference).sum())
    assert answer.lines[0] == (
        f"The best average rank is that of good, {average.min():.1f}; {apart} of the other {rows - 1} rows are told "
        "from it."
    )


def test_with_few_problems_nothing_is_said_over_them():
    few = Board(planted()[:3])
    found = answers(few, stability(few, draws=20, halves=2))
    assert headline(few) == "3 problems: too few to say which method when"
    assert (
        cost_front(few)
        .lines[1]
        .startswith("Which rows are better than others: cannot be said from 3 problems: with fewer than 6, ")
    )
    for each in found:
        if each.question not in ("What does a gain cost?", SAME):
            assert each.answer.startswith("Cannot be said from 3 problems"), each.question
    assert not re.search(r"shown to (beat|be worse|matter)", " ".join(each.answer for each in found))


def test_a_row_without_some_problems_says_on_how_many_it_is_ahead():
    """Others are ahead on all of them, and say nothing of it."""
    everywhere = {"single-task": 0.2, "equal": 0.2, "mmoe": lambda place: 0.15 + 0.001 * place}
    problems = ten(everywhere | {"ple": lambda place: 0.14 + 0.001 * place}, scatter=0.01,
                   groups={"mmoe": "architecture", "ple": "architecture"})  # fmt: skip
    problems[:3] = [
        dataclasses.replace(each, rows=tuple(row for row in each.rows if row.name != "ple")) for each in problems[:3]
    ]
    said = {each.question: each.answer for each in answers(Board(problems), stability(Board(problems), 20, 2))}
    answer = said["Does an architecture under the plain sum beat hard sharing under it?"]
    assert re.fullmatch(
        r"2 of 2 architectures beat the tuned plain sum over 10 problems: ple [^,]*, on 7 of them, mmoe [^,]*\); "
        r"none is shown to be worse\.", answer,
    )  # fmt: skip


def test_one_seed_lies_neither_above_nor_below():
    text = problem_by_problem(Board([made_up("p", seeds=(0,))]), "sum", ["fixed"])
    assert "on p 0 above and 0 below of 0. " in text


def test_one_problem_has_numbers_and_no_intervals():
    one = Board(
        [
            made_up(
                errors={"single-task": 0.2, "equal": 0.2, "uw": 0.15, "uw, SGD": 0.14994},
                groups={"uw, SGD": "optimizer"},
            )
        ]
    )
    found = {each.question: each for each in answers(one, stability(one, draws=20, halves=2))}
    assert found["What does a gain cost?"].answer.endswith(": uw 1.09 ×, +25.0 points.")
    assert found["Does it matter which optimizer steps?"].lines[0].endswith(": uw, SGD 0.0 points.")


def test_what_is_not_there_is_said():
    alone = Board([made_up(errors={"single-task": 0.2})])
    found = {each.question: each.answer for each in answers(alone, stability(alone, draws=20, halves=2))}
    assert found.pop(SAME) == "None."
    assert all(answer.startswith("Cannot be said") for answer in found.values())


def copied(problem, **copies):
    """With rows that have another's values, each a little off by rounding."""
    rows = {row.name: row for row in problem.rows}
    for name, (own, off) in copies.items():
        seeds = {
            seed: dataclasses.replace(found, test={task: value * (1 + off) for task, value in found.test.items()})
            for seed, found in rows[own].per_seed.items()
        }
        rows[name] = dataclasses.replace(rows[name], per_seed=seeds)
    return dataclasses.replace(problem, rows=tuple(rows.values()))


def test_rows_that_are_one_training_are_named():
    errors = {"single-task": 0.2, "equal": 0.21, "a": 0.15, "b": 0.16, "c": 0.17, "d": 0.18, "e": 0.19}
    first, second, third = (made_up(f"p{place}", errors, random=place) for place in range(3))
    board = Board(
        [
            copied(first, b=("a", 1e-8), c=("a", -3e-7), e=("equal", 0.0)),
            copied(second, b=("a", 0.0), d=("c", 1e-8), e=("d", 2e-6)),
            copied(third, b=("a", 0.0)),
        ]
    )
    found = same_trainings(board)
    assert found.question == SAME
    assert found.answer == "Wherever they were run: a and b. On p0: equal and e; a and c. On p1: c and d."
    assert same_trainings(Board([first])).answer == "None."
    two = Board([copied(first, b=("a", 0.0)), copied(second, b=("a", 0.0))])
    assert same_trainings(two).answer == "Wherever they were run: a and b."  # two problems are enough
    # Of one problem nothing is said of others; one seed that differs is another training; a failed row is none.
    assert same_trainings(Board([copied(second, b=("a", 0.0))])).answer == "On p1: a and b."
    (seed, *_), row = first.seeds, {row.name: row for row in first.rows}["a"]
    other = {**row.per_seed, seed: dataclasses.replace(row.per_seed[seed], test={"a": 0.5, "b": 0.5})}
    assert not is_same(row, dataclasses.replace(row, per_seed=other))
    assert not is_same(row, dataclasses.replace(row, per_seed={seed: row.per_seed[seed]}))
    assert not is_same(dataclasses.replace(row, per_seed={}), dataclasses.replace(row, per_seed={}))


def test_a_variant_that_is_its_own_row_is_compared_with_nothing():
    problems = planted()
    assert np.isfinite(Board(problems).against_own(["good(look=trunk)"])).all()
    same = [copied(problems[0], **{"good(look=trunk)": ("good", 0.0)}), *problems[1:]]
    changes = Board(same).against_own(["good(look=trunk)"])
    assert np.isnan(changes[0]).all()
    assert np.isfinite(changes[1:]).all()


@pytest.mark.slow("forty leaderboards")
def test_without_an_effect_nothing_is_said():
    """In 40 leaderboards of eight problems in which nothing is true, next to no sentence says something."""
    draw, wrong = np.random.default_rng(1), 0
    for _ in range(40):
        problems = [
            made_up(f"p{place}", {"single-task": 0.2, "equal": 0.2, "fixed": 0.2} | {
                f"m{row}": 0.2 * (1 + 0.05 * draw.normal()) for row in range(5)
            }, seeds=(0, 1))
            for place in range(8)
        ]  # fmt: skip
        family = family_of_methods(Board(problems))
        p_values = [each.p_value for found in family.values() for each in found.values()]
        wrong += min(value for value in p_values if math.isfinite(value)) <= 0.05
    assert wrong <= 5
