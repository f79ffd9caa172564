"""What intervals are about, in full sentences, and the numbers in them from the formulas."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from steelyard.study.analysis.interval_scope import about_rows, about_test, other_rows, sampling_half
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.trial import SINGLE_TASK
from study import made_up
from study.made_up import ACCURACY, RMSE, plan

DIVISION = (
    "Intervals are about other seeds on this division of the rows into training, validation and test, not about other "
    "rows"
)
PROGRAM = "cd /home/me && python train.py"
PARTS = [0.01, -0.02, 0.005, 0.0]  # by which the joint networks' values differ without each part of the rows


def rows(made, *test_rows):
    tasks = [dataclasses.replace(task, test_rows=count) for task, count in zip(made.tasks, test_rows, strict=True)]
    return dataclasses.replace(made, tasks=tuple(tasks))


def results(made, value, left_out=None):
    """Results of all trials: ``value(method, setting, seed, task)``, ``left_out`` alike."""
    found = {}
    for method in made.methods:
        for setting in range(len(made.settings)):
            for seed in made.seeds:
                for trial in made.trials_of(method.name, setting, seed):
                    where = {task: (method.name, setting, seed, task) for task in trial.tasks}
                    result = made_up.result({task: value(*place) for task, place in where.items()})
                    without = {task: parts for task, place in where.items() if left_out and (parts := left_out(*place))}
                    found[trial] = dataclasses.replace(result, left_out=without)
    return TrialResults(made, found, {})


def counted(method, setting, seed, task):
    """A number of 400 rows."""
    return (300 + 20 * seed + (10 if method == SINGLE_TASK else 0) + 40 * setting) / 400


def without_parts(method, setting, seed, task):
    return [0.8 + seed / 100 + (part * (1 + setting) if method != SINGLE_TASK else 0.0) for part in PARTS]


def half_of(*, factor=1.0, parts=PARTS):
    """The jackknife's half-width, of groups of rows."""
    count, values = len(parts), np.array(parts) * factor
    return stats.t.ppf(0.975, count - 1) * math.sqrt((count - 1) / count * ((values - values.mean()) ** 2).sum())


# --- which rows ---


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"folds": 2},
            "Intervals are about other seeds and other rows alike: each seed tests on one of 2 folds, and neighbouring "
            "folds share most of their training rows.",
        ),
        (
            {"resplit": True},
            "Intervals are about other seeds and other rows alike: each seed has its own division of the rows into "
            "training, validation and test, and divisions share most of their rows.",
        ),
        (
            {"reference": PROGRAM},
            "Intervals are about other seeds; about other rows only if the program divides its rows by the seed, which "
            "it does for --resplit by trial.division.",
        ),
        ({}, f"{DIVISION}."),
    ],
)
def test_what_intervals_are_about(changes, text):
    made = dataclasses.replace(plan(metrics=[("a", (RMSE,)), ("b", (RMSE,))]), **changes)
    assert about_rows(results(made, lambda *place: 0.5 + place[2])) == text


@pytest.mark.parametrize(("count", "rest"), [(1, ""), (3, ""), (4, " at most")])
def test_rows_that_are_counted_tell_what_others_would_do_the_widest_first(count, rest):
    names = [f"t{place}" for place in range(count)]
    made = rows(plan(metrics=[(name, (ACCURACY,)) for name in names]), *[400 * 4**place for place in range(count)])
    value = 330 / 400  # single-task: the mean over three seeds
    said = [
        f"t{place} digit ±{196 * math.sqrt(value * (1 - value) / 400 / 4**place):.2g} points ({400 * 4**place} rows)"
        for place in range(count)
    ]
    assert about_rows(results(made, counted)) == (
        f"{DIVISION}; as many other test rows would move a value by{rest} {', '.join(said[:3])}."
    )


@pytest.mark.parametrize(
    ("count", "more"), [(1, ""), (3, ""), (4, ", and so on for 1 more"), (6, ", and so on for 3 more")]
)
@pytest.mark.parametrize("methods", [(SINGLE_TASK, "uw", "equal"), (SINGLE_TASK, "dwa", "uw")])
def test_rows_that_are_left_out_tell_what_others_would_do_to_differences(count, more, methods):
    """Of the plain sum, or the first strategy, where the labels are most."""
    made = plan(methods, settings=2, metrics=[(f"t{place}", (RMSE,)) for place in range(count)])
    made = rows(made, *range(100, 100 + count))
    name = "the plain sum" if "equal" in methods else "dwa"
    said = ", ".join(f"t{place} digit ±{half_of(factor=2):.2g} ({100 + place} rows)" for place in range(min(3, count)))
    first = "equal" if "equal" in methods else "dwa"

    def parts(method, setting, seed, task):
        """Of another method another number, which must not be taken."""
        return [
            100.0 * value if method not in (SINGLE_TASK, first) else value
            for value in without_parts(method, setting, seed, task)
        ]

    assert about_rows(results(made, counted, parts)) == (
        f"{DIVISION}; as many other test rows would move the differences of {name} by {said}{more}."
    )


def test_tasks_of_which_nobody_left_rows_out_are_not_named():
    made = rows(plan(metrics=[("a", (RMSE,)), ("b", (ACCURACY,))]), 7, 9)
    found = results(made, counted, lambda *place: without_parts(*place) if place[3] == "b" else None)
    half = 100 * half_of()
    assert about_rows(found) == (
        f"{DIVISION}; as many other test rows would move the differences of the plain sum by b digit ±{half:.2g} "
        "points (9 rows)."
    )
    for methods in (("equal", "uw"), (SINGLE_TASK,)):  # nothing to compare
        made = plan(methods, metrics=[("a", (RMSE,)), ("b", (RMSE,))])
        assert about_rows(results(made, counted, without_parts)) == f"{DIVISION}."


def test_other_rows_are_the_jackknifes_interval_of_the_mean_difference():
    made = rows(plan(seeds=3), 400, 400)
    found = results(made, counted, without_parts)
    task = made.tasks[0]
    assert other_rows(found, task, "equal", SINGLE_TASK, 0) == pytest.approx(half_of(), rel=1e-9)
    for changes in ({"folds": 2}, {"resplit": True}):  # the interval over seeds holds it
        assert (
            other_rows(
                dataclasses.replace(found, plan=dataclasses.replace(made, **changes)), task, "equal", SINGLE_TASK, 0
            )
            is None
        )
    # Over the seeds that both have.
    some = results(made, counted, lambda m, s, seed, t: without_parts(m, s, seed, t) if seed or m == "equal" else None)
    assert other_rows(some, task, "equal", SINGLE_TASK, 0) == pytest.approx(half_of(), rel=1e-9)
    none = results(made, counted, lambda m, s, seed, t: without_parts(m, s, seed, t) if m == "equal" else None)
    assert other_rows(none, task, "equal", SINGLE_TASK, 0) is None
    uneven = results(made, counted, lambda m, s, seed, t: without_parts(m, s, seed, t)[: 3 if seed == 1 else 4])
    assert other_rows(uneven, task, "equal", SINGLE_TASK, 0) is None


# --- the rows of a count ---


def test_a_count_of_rows_has_the_error_of_a_share():
    """Of single-task learning with all labels, or of the first method; none for what counts no rows."""
    made = rows(plan(settings=2), 400, 0)
    share = 370 / 400
    expected = 1.96 * math.sqrt(share * (1 - share) / 400)
    assert sampling_half(results(made, counted), made.tasks[0]) == pytest.approx(expected, rel=1e-12)
    assert sampling_half(results(made, counted), made.tasks[1]) is None, "so many rows as nobody knows"
    others = rows(plan(("uw", "equal"), settings=2), 400, 400)
    share = 360 / 400
    expected = 1.96 * math.sqrt(share * (1 - share) / 400)
    found = results(others, lambda method, *rest: counted(method, *rest) if method == "uw" else 0.5)
    assert sampling_half(found, others.tasks[0]) == pytest.approx(expected, rel=1e-12)
    assert sampling_half(results(made, lambda *place: 0.5001), made.tasks[0]) is None, "no number of rows"
    assert sampling_half(TrialResults(made, {}, {}), made.tasks[0]) is None
    assert sampling_half(results(made, lambda *place: 1.0), made.tasks[0]) == 0.0
    errors = rows(plan(metrics=[("a", (RMSE,))]), 400)
    assert sampling_half(results(errors, counted), errors.tasks[0]) is None


# --- which test ---

SHARED = "Differences are paired by seed (Student's t): the networks of a seed share start, batches and rows"


def varied(method, setting, seed, task):
    """Alone 0, 1, 2; together the other way round in the right task, and in another order with few labels."""
    joint = {"left": (0.0, 1.0, 2.0), "right": (2.0, 1.0, 0.5)}[task] if setting == 0 else (1.0, 0.0, 0.5)
    return float(seed) if method == SINGLE_TASK else joint[seed] if method in ("equal", "dwa") else 7.0 - seed


@pytest.mark.parametrize("settings", [1, 2])
@pytest.mark.parametrize(
    ("methods", "name"), [((SINGLE_TASK, "uw", "equal"), "the plain sum"), ((SINGLE_TASK, "dwa", "uw"), "dwa")]
)
def test_the_mean_correlation_over_tasks_and_settings(settings, methods, name):
    made = plan(methods, settings=settings, metrics=[("left", (RMSE,)), ("right", (RMSE,))])
    alone = (0.0, 1.0, 2.0)
    each = [np.corrcoef(alone, other)[0, 1] for other in ((0.0, 1.0, 2.0), (2.0, 1.0, 0.5))]
    each += [np.corrcoef(alone, (1.0, 0.0, 0.5))[0, 1]] * (2 if settings == 2 else 0)
    mean = f"{np.mean(each):+.2f}".replace("-", "−")
    assert mean.startswith("−" if settings == 2 else "+0.01")
    assert about_test(results(made, varied)) == (
        f"{SHARED}; between single-task learning and {name} values correlate by {mean}, the mean over tasks."
    )


def test_of_one_task_there_is_no_mean_over_tasks():
    made = plan(metrics=[("left", (RMSE,))])
    assert about_test(results(made, varied)) == (
        f"{SHARED}; between single-task learning and the plain sum values correlate by +1.00."
    )


@pytest.mark.parametrize("constant", [SINGLE_TASK, "equal"])
def test_what_does_not_vary_correlates_with_nothing(constant):
    made = plan()
    assert about_test(results(made, lambda m, s, seed, t: 0.5 if m == constant else seed / 10)) == f"{SHARED}."
    assert about_test(results(plan(seeds=2), lambda m, s, seed, t: seed / 10)) == f"{SHARED}."


def test_of_a_program_nobody_knows_what_its_runs_share():
    made = dataclasses.replace(plan(metrics=[("left", (RMSE,))]), reference=PROGRAM)
    assert about_test(results(made, varied)) == (
        "Differences are paired by seed (Student's t): what the runs of a seed share is the program's to say; between "
        "single-task learning and the plain sum values correlate by +1.00."
    )


@pytest.mark.parametrize(("methods", "seeds"), [((SINGLE_TASK,), 3), (("equal", "uw"), 3), ((SINGLE_TASK, "equal"), 1)])
def test_without_a_comparison_there_is_no_test(methods, seeds):
    made = plan(methods, seeds=seeds)
    assert about_test(results(made, lambda m, s, seed, t: seed / 10)) == ""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1.0, 1e300, 1e-300])
def test_how_values_of_two_networks_correlate_does_not_hang_on_their_size(size):
    made = plan(metrics=[("left", (RMSE,))])
    values = {SINGLE_TASK: (1.0, 2.0, 3.0), "equal": (1.0, 2.0, 2.0)}
    found = results(made, lambda method, setting, seed, task: size * values[method][seed])
    assert about_test(found).endswith("values correlate by +0.87.")
