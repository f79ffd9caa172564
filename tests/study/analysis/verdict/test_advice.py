"""What follows from a study, by rule and by whole studies that were made up for it."""

import math
from dataclasses import replace

import pytest

from reproductions.made_up_outcomes import CLEAR_ALONE, DRAWN
from steelyard.study.analysis.costs import own_networks
from steelyard.study.analysis.make_judgement import findings, judge_plan
from steelyard.study.analysis.verdict.advice import Candidate, advice
from steelyard.study.judgement import Interval
from steelyard.study.storage.store import Store
from study.made_up import ACCURACY, RMSE, SCORE, fill, plan

GOOD, WORSE, OPEN = Interval(0.05, 0.03, 0.07), Interval(-0.05, -0.07, -0.03), Interval(0.0, -0.03, 0.03)
NEARLY = Interval(-0.002, -0.006, 0.002)
UNBOUNDED = Interval(0.05, -math.inf, math.inf)


def candidate(change: Interval, clearly: Interval | None = None, **known: object) -> Candidate:
    plain = Candidate(
        name="the plain sum",
        change=change,
        by_itself=change,
        clearly=change if clearly is None else clearly,
        among=1,
        tasks=3,
        apart="",
        on_their_own=0,
        gains="",
        gaining=0,
        harmless=False,
        cost=0.5,
    )
    return replace(plain, **known)


ALONE = "Train every task alone: nothing here is shown to be as good."
SINGLES = "× the training time of single tasks"
UW = {"name": "uw", "among": 5}
RULES = {
    "share": (candidate(GOOD), None, f"Share under the plain sum, at 0.50 {SINGLES}."),
    "share without a cost": (candidate(GOOD, cost=math.nan), None, "Share under the plain sum."),
    "share, nearly": (
        candidate(NEARLY), None,
        f"Share under the plain sum, at 0.50 {SINGLES}: no more than 1 % worse over all tasks.",
    ),
    "share, but for one": (
        candidate(GOOD, apart="b", on_their_own=1, cost=0.83), None,
        f"Share under the plain sum, and train b alone as well, at 0.83 {SINGLES} in all.",
    ),
    "nothing shared": (candidate(GOOD, apart="a, b and c", on_their_own=3), None, ALONE),
    "worse": (candidate(WORSE), None, ALONE),
    "worse, one hurt": (
        candidate(WORSE, apart="b", on_their_own=1), None,
        "Train b alone; whether the others should share is undecided.",
    ),
    "worse, two of three hurt": (
        candidate(WORSE, apart="a and b", on_their_own=2), None,
        "Train a and b alone; whether sharing helps the other is undecided.",
    ),
    "worse, one hurt, the others harmless": (
        candidate(WORSE, apart="b", on_their_own=1, harmless=True), None,
        "Train b alone as well: sharing under the plain sum costs the others nothing that matters.",
    ),
    "worse, one hurt, another gains": (
        candidate(WORSE, apart="b", on_their_own=1, gains="c", gaining=1, harmless=True), None,
        "Train b alone as well: sharing under the plain sum helps c and costs the other nothing that matters.",
    ),
    "worse, two of three hurt, the third gains": (
        candidate(WORSE, apart="a and b", on_their_own=2, gains="c", gaining=1, harmless=True), None,
        "Train a and b alone as well: sharing under the plain sum helps c.",
    ),
    "worse, two of three hurt, the third is as it was": (
        candidate(WORSE, apart="a and b", on_their_own=2, harmless=True), None,
        "Train a and b alone as well: sharing under the plain sum costs the other nothing that matters.",
    ),
    "worse, and one gains": (
        candidate(WORSE, gains="b", gaining=1), None,
        "Whether to share is undecided: the plain sum helps b, and over all tasks it is by itself worse, Δm −5.0 % "
        "(−7.0 to −3.0).",
    ),
    "open": (candidate(OPEN), None, "Whether to share is undecided."),
    "open, and one gains": (candidate(OPEN, gains="b", gaining=1), None, "Whether to share is undecided."),
    "all seeds agree": (
        candidate(GOOD, UNBOUNDED, by_itself=UNBOUNDED), None, "Whether to share is undecided.",
    ),
    "the best of several": (candidate(GOOD, **UW), candidate(OPEN), f"Share under uw, at 0.50 {SINGLES}."),
    "the best of several, not clearly": (
        candidate(GOOD, OPEN, **UW), candidate(OPEN),
        "Whether to share is undecided: under uw, which is better than the plain sum, it is Δm +5.0 % (+3.0 to +7.0). "
        "uw was chosen of 5 by the same numbers, and would have to be clearer.",
    ),
    "the plain sum in its place": (
        candidate(GOOD, OPEN, **UW), candidate(GOOD, cost=0.3),
        f"Share under the plain sum, at 0.30 {SINGLES}. uw, which is better than it, was chosen of 5 by the same "
        "numbers, and would have to be clearer.",
    ),
    "without a plain sum": (
        candidate(GOOD, OPEN, **UW), None,
        "Whether to share is undecided. uw was chosen of 5 by the same numbers, and would have to be clearer.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_what_follows(rule: str) -> None:
    best, plain, said = RULES[rule]
    assert advice(best, [plain] if plain else [], plain or (best if best.among == 1 else None)) == said


def test_of_strategies_that_are_shown_above_the_plain_sum_the_first_that_is_clear_is_advised() -> None:
    best, second = candidate(GOOD, OPEN, **UW), candidate(GOOD, **{**UW, "name": "dwa"})
    plain = candidate(OPEN)
    assert advice(best, [second, plain], plain) == f"Share under dwa, at 0.50 {SINGLES}."
    assert advice(best, [second], None) == f"Share under dwa, at 0.50 {SINGLES}."


def test_a_strategy_may_be_advised_that_is_not_shown_above_a_plain_sum_that_may_not() -> None:
    plain, uw = candidate(WORSE), candidate(GOOD, **UW)
    assert advice(plain, [uw], plain) == f"Share under uw, at 0.50 {SINGLES}."


def test_training_alone_is_advised_where_all_are_worse_by_themselves() -> None:
    plain, uw = candidate(WORSE), candidate(OPEN, Interval(0.0, -0.1, 0.1), **UW)
    assert advice(plain, [uw], plain) == (
        "Whether to share is undecided: the plain sum is by itself worse over all tasks, and under uw Δm is "
        "+0.0 % (−3.0 to +3.0)."
    )
    assert advice(plain, [candidate(WORSE, **UW)], plain) == ALONE
    hurts_all = candidate(OPEN, Interval(0.0, -0.1, 0.1), apart="a, b and c", on_their_own=3)
    assert advice(hurts_all, [uw], hurts_all) == (
        "Whether to share is undecided: the plain sum leaves no task to share, and under uw Δm is +0.0 % (−3.0 to "
        "+3.0)."
    )
    assert advice(hurts_all, [replace(uw, on_their_own=3)], hurts_all) == ALONE


def verdict(path, metrics, by_method, rows=0) -> str:
    """``by_method``: seed by seed, the values of all tasks; None of one that failed."""
    seeds = len(next(iter(by_method.values())))
    made = plan(tuple(by_method), seeds=seeds, metrics=tuple(metrics.items()))
    made = replace(made, tasks=tuple(replace(task, test_rows=rows) for task in made.tasks))
    values = {
        method: [each and dict(zip(metrics, each, strict=True)) for each in by_seed]
        for method, by_seed in by_method.items()
    }
    with Store(path, write=True) as store:
        fill(store, made, values)
        return "\n".join(judge_plan(made, store).verdict)


@pytest.mark.parametrize(("metric", "alone", "together", "what"), [
    (ACCURACY, 1.0, 0.7, "error"), (RMSE, 0.0, 0.2, "error"), (SCORE, 0.0, -0.3, "value"),
])  # fmt: skip
def test_nothing_is_advised_where_a_task_has_no_part_in_the_change(tmp_path, metric, alone, together, what) -> None:
    """Its error alone is zero, of which nothing is a multiple: it may be hurt by any amount."""
    noise = (0.001, -0.002, 0.0, 0.0015)
    said = verdict(
        tmp_path / "s",
        {"left": (ACCURACY,), "right": (metric,)},
        {
            "single-task": [(0.8 + each, alone) for each in noise],
            "equal": [(0.9 - each, together + each) for each in noise],
        },
    )
    outside = f"right digit has no part in Δm, as its {what} alone is zero"
    assert f"Over the other task ({outside}) the plain sum is better than single-task learning: Δm +" in said
    assert f"Nothing is advised: {outside}." in said
    assert "Share" not in said


@pytest.mark.parametrize(("left", "said_of_dwa"), [
    (0.9, "better than it: dwa +"), (0.6, "worse than it: dwa −"),
    (0.8, "nothing is shown to be better than it: dwa "),
])  # fmt: skip
@pytest.mark.parametrize(("perfect", "rest", "outside"), [
    ((1.0, 0.9), "tasks", "b digit has no part in this change, as its"),
    ((1.0, 1.0), "task", "b digit and c digit have no part in this change, as their"),
])  # fmt: skip
def test_what_is_relative_to_the_sum_names_tasks_that_have_no_part_in_it(
    tmp_path, left, said_of_dwa, perfect, rest, outside
) -> None:
    noise = (0.001, -0.002, 0.0, 0.0015)
    said = verdict(
        tmp_path / "s",
        dict.fromkeys("abc", (ACCURACY,)),
        {
            "single-task": [(0.8 + each, 0.9 + each, 0.9 + each) for each in noise],
            "equal": [(0.8 - each, *perfect) for each in noise],
            "dwa": [(left + 2 * each, 0.7 + each, perfect[1] + 1e-3 * each) for each in noise],
        },
    )
    assert f"Over the other {rest} (mean change relative to the plain sum), {said_of_dwa}" in said
    assert f"\n{outside} error under the plain sum is zero.\n" in said


def test_a_task_with_a_part_in_the_change_of_one_strategy_is_not_left_out(tmp_path) -> None:
    """One strategy failed in the only seed in which the plain sum makes an error; the other did not."""
    noise = (0.001, -0.002, 0.0, 0.0015)
    said = verdict(
        tmp_path / "s",
        {"left": (ACCURACY,), "right": (ACCURACY,)},
        {
            "single-task": [(0.8 + each, 0.9 + each) for each in noise],
            "equal": [(0.8 - each, right) for each, right in zip(noise, (1.0, 1.0, 1.0, 0.6), strict=True)],
            "dwa": [*((0.9 + each, 0.7 + each) for each in noise[:3]), None],
            "uw": [(0.9 + each, 0.7 + each) for each in noise],
        },
    )
    assert "Over all tasks (mean change relative to the plain sum)" in said
    assert "has no part in this change" not in said


def test_a_task_without_a_number_on_test_data_is_named(tmp_path) -> None:
    noise = (0.001, -0.002, 0.0)
    said = verdict(
        tmp_path / "s",
        {"left": (ACCURACY,), "right": (SCORE,)},
        {
            "single-task": [(0.8 + each, 1.0 if each else math.nan) for each in noise],
            "equal": [(0.9 - each, 1.0 + each) for each in noise],
        },
    )
    assert "Over all tasks nothing is said of the plain sum: right digit had no number on test data." in said
    assert "Share" not in said


@pytest.mark.parametrize("rows", [0, 20])
@pytest.mark.parametrize("change", [-0.05, 0.05])
def test_seeds_that_all_agree_decide_nothing(tmp_path, rows, change) -> None:
    """Each one row of twenty: of so few, all may agree by chance."""
    said = verdict(
        tmp_path / "s",
        {"left": (ACCURACY,), "right": (ACCURACY,)},
        {"single-task": [(0.8, 0.7)] * 3, "equal": [(0.8 + change, 0.7 + change)] * 3},
        rows,
    )
    assert "Whether to share is undecided." in said
    assert "Share" not in said
    assert "Train" not in said


def study_of(path, made, values):
    with Store(path, write=True) as store:
        fill(store, made, values)
        return findings(made, store)


def test_networks_of_their_own_cost_their_part_of_all(tmp_path) -> None:
    made = plan(("single-task",), seeds=2, metrics=tuple((name, (RMSE,)) for name in "abcd"))
    found = study_of(tmp_path / "s", made, {"single-task": [dict.fromkeys("abcd", 1.0)] * 2})
    for tasks, part in (("a", 0.25), ("ab", 0.5), ("abcd", 1.0)):
        assert own_networks(found, list(tasks), 0) == pytest.approx(part)


def test_a_change_varies_as_the_rows_that_it_counts_at_least(tmp_path) -> None:
    """√d rows of n, as a part of the error alone, of one of two tasks and of one of two metrics."""
    made = plan(("single-task", "equal"), seeds=3, metrics=(("left", (ACCURACY,)), ("right", (ACCURACY, RMSE))))
    made = replace(made, tasks=tuple(replace(task, test_rows=400) for task in made.tasks))
    values = {
        "single-task": [{"left": 0.8, "right": (0.9, 0.0)}] * 3,
        "equal": [{"left": 0.8 - 8 / 400, "right": (0.9, 0.0)}] * 3,
    }
    found = study_of(tmp_path / "s", made, values)
    one, none = ((rows + 1 / 6) ** 0.5 / 400 for rows in (8, 0))
    expected = math.hypot(one / 0.2 / 2, none / 0.1 / 2 / 2)
    assert found.change_floor("equal", "single-task", 0) == pytest.approx(expected)


def test_a_strategy_that_is_not_clear_enough_does_not_take_the_plain_sums_place(tmp_path) -> None:
    """The best of thirteen has to hold for all of them; the plain sum was not chosen."""
    noise = (0.008, -0.008, 0.0)
    made = {
        "single-task": [(1.0 + each, 1.0 - each) for each in (0.001, -0.001, 0.0)],
        "equal": [(0.95 + each, 0.95 + each) for each in noise],
        **{f"ema(beta={place / 100})": [(0.96 + each, 0.97) for each in noise] for place in range(12)},
        "uw": [(0.942 + 1.01 * each, 0.942 + 0.99 * each) for each in noise],
    }
    said = verdict(tmp_path / "s", {"left": (RMSE,), "right": (RMSE,)}, made)
    assert "Share under the plain sum, at 0.50 × the training time of single tasks. uw, which is better than it" in said
    assert "was chosen of 13 by the same numbers" in said


def around(middle: float, *, spread: float) -> list[tuple[float, float]]:
    return [(middle + spread * each, middle - spread * each) for each in (1.0, -0.5, -0.6, 0.2)]


def test_the_second_best_is_advised_where_the_best_is_not_clear(tmp_path) -> None:
    made = {
        "single-task": around(1.0, spread=0.0002),
        "dwa": [(0.7, 0.7), (1.0, 0.98), (0.75, 0.8), (1.05, 1.0)],
        "uw": around(0.9, spread=0.0003),
    }
    said = verdict(tmp_path / "s", {"left": (RMSE,), "right": (RMSE,)}, made)
    assert "Share under uw, at 0.50 × the training time of single tasks." in said


@pytest.mark.parametrize("left", [[None], [(0.95, 0.95)]], ids=["all", "all but one"])
def test_a_plain_sum_that_failed_in_its_seeds_silences_no_strategy(tmp_path, left) -> None:
    made = {
        "single-task": around(1.0, spread=0.0002),
        "equal": [*left, None, None, None],
        "uw": around(0.9, spread=0.0003),
        "dwa": around(1.2, spread=0.0004),
    }
    said = verdict(tmp_path / "s", {"left": (RMSE,), "right": (RMSE,)}, made)
    assert "Over all tasks uw is better than single-task learning" in said
    assert "uw helps both tasks" in said
    assert "dwa hurts both tasks" in said
    assert "Share under uw" in said


def test_one_row_in_twenty_says_nothing_of_all_tasks(tmp_path) -> None:
    alone = [(14 / 20, 14 / 20), (14 / 20, 14 / 20), (15 / 20, 13 / 20)]
    joint = [(left + 1 / 20, right + 1 / 20) for left, right in alone]
    said = verdict(
        tmp_path / "s",
        {"left": (ACCURACY,), "right": (ACCURACY,)},
        {"single-task": alone, "equal": joint},
        20,
    )
    assert "Over all tasks it is undecided whether the plain sum is better or worse" in said


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_nothing_is_advised_by_roundings(tmp_path, factor) -> None:
    """All seeds agree exactly, but for the last bit."""
    alone = [(1.1, 0.7), (0.9, 1.3), (1.7, 0.1)]
    joint = [(left * factor, right * factor) for left, right in alone]
    said = verdict(tmp_path / "s", {"left": (RMSE,), "right": (RMSE,)}, {"single-task": alone, "equal": joint})
    assert "Whether to share is undecided." in said


def test_what_is_better_than_the_plain_sum_by_itself_is_adjusted_for_all_that_might_be(tmp_path) -> None:
    """One of two strategies on one of two tasks, with p = 0.03."""
    gains = CLEAR_ALONE + DRAWN
    alone = [(0.9 + 1e-4 * place, 0.9 - 1e-4 * place) for place in range(5)]
    plain = [(0.8 + 1e-4 * (place % 2), 0.8 + 1e-4 * (place % 3)) for place in range(5)]
    made = {
        "single-task": alone,
        "equal": plain,
        "uw": [(left - 1e-5 * (place % 2), right) for place, (left, right) in enumerate(plain)],
        "dwa": [(left + 1e-3 * gain, right - 1e-5) for (left, right), gain in zip(plain, gains, strict=True)],
    }
    metrics = {"left": (ACCURACY,), "right": (ACCURACY,)}
    assert "by itself better than under the plain sum" not in verdict(tmp_path / "four", metrics, made)
    made["dwa"] = [(left + 1e-2 * gain + 0.02, right) for (left, right), gain in zip(plain, 0.1 * gains, strict=True)]
    assert "by itself better than under the plain sum, is left digit with dwa" in verdict(
        tmp_path / "clear", metrics, made
    )
