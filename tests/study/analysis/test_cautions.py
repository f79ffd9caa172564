"""What comes before a verdict: each finding is told where it is so, and nowhere else."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from steelyard.problems import r2
from steelyard.study.analysis.cautions import within_other_rows
from steelyard.study.analysis.make_judgement import judge_plan
from steelyard.study.judgement import Cell, Interval
from steelyard.study.planning.plan import Choice, PlannedMetric, Tuning
from steelyard.study.storage.store import Store
from steelyard.study.trial import SINGLE_TASK
from study.made_up import ACCURACY, RMSE, SCORE, judged, plan, result

R2 = PlannedMetric(r2.name, higher_is_better=True, ideal=1.0, percent=False)
VALUES = [{"left": 0.9, "right": 0.8}, {"left": 0.91, "right": 0.81}, {"left": 0.89, "right": 0.79}]
BOTH = {SINGLE_TASK: VALUES, "equal": VALUES}


def with_tasks(made, **changes):
    """A plan whose tasks have these: ``test_rows=(40, 400)``."""
    tasks = [
        dataclasses.replace(task, **{name: values[place] for name, values in changes.items()})
        for place, task in enumerate(made.tasks)
    ]
    return dataclasses.replace(made, tasks=tuple(tasks))


def with_steps(made, **steps):
    settings = tuple(dataclasses.replace(setting, steps=steps) for setting in made.settings)
    return dataclasses.replace(made, settings=settings)


def said(tmp_path, made, values=BOTH):
    return judged(tmp_path / "s", made, values).cautions


def test_of_a_study_without_faults_nothing_is_said(tmp_path):
    made = with_tasks(plan(), train_rows=(1000, 900), test_rows=(400, 400))
    assert said(tmp_path, made) == []


@pytest.mark.parametrize("seeds_differ", [False, True])
def test_trials_of_one_seed_that_do_not_start_alike_are_told_by_parameter(tmp_path, seeds_differ):
    """By those that they have in common: a single task has one head; other seeds may start otherwise."""
    made = with_tasks(plan(seeds=2), train_rows=(1000, 900), test_rows=(400, 400))
    with Store(tmp_path / "s", write=True) as store:
        for seed in (0, 1):
            for method in (SINGLE_TASK, "equal"):
                for trial in made.trials_of(method, 0, seed):
                    trunk = f"{seed} {method}" if seeds_differ else str(seed)
                    start = {"trunk [3]": trunk, **{f"{task} [1]": str(seed) for task in trial.tasks}}
                    found = result({task: [0.9] for task in trial.tasks})
                    store.add_result(trial, dataclasses.replace(found, start=start))
        told = [text for text in judge_plan(made, store).cautions if "do not start alike" in text]
    assert bool(told) is seeds_differ
    assert not told or "alike: trunk [3]. They differ by chance too" in told[0]


@pytest.mark.parametrize(("own", "told"), [(4, False), (3, True)])
def test_unequal_steps_come_first(tmp_path, own, told):
    """12 steps of the joint network beside 4 are three times as many, beside 3 more."""
    made = with_tasks(with_steps(plan(), **{"": 12, "left": 12, "right": own}), train_rows=(1000, 10))
    found = said(tmp_path, made)
    assert ("more steps" in found[0]) is told
    assert len(found) == 1 + told
    assert not told or "in the same epochs: right digit (4.0 times). A difference may be" in found[0]
    assert not told or found[0].endswith("give all the same steps with --epoch-steps 12.")


@pytest.mark.parametrize(("own", "told"), [(20, False), (5, True)])
def test_of_a_program_the_steps_that_it_took_are_compared(tmp_path, own, told):
    """What it plans nobody knows: networks are told apart by what they did."""
    made = dataclasses.replace(with_steps(plan(), **{"": 1}), reference="cd /home/me && python train.py")
    with Store(tmp_path / "s", write=True) as store:
        for trial in made.trials:
            found = result(dict.fromkeys(trial.tasks, 0.8 + trial.seed / 100))
            store.add_result(trial, dataclasses.replace(found, steps=own if trial.tasks == ("left",) else 20))
        judgement = judge_plan(made, store)
    taken = {(cell.method, cell.task): set(cell.steps.values()) for cell in judgement.cells}
    assert taken == {
        (SINGLE_TASK, "left"): {own},
        (SINGLE_TASK, "right"): {20},
        ("equal", "left"): {20},
        ("equal", "right"): {20},
    }
    said = [text for text in judgement.cautions if "more steps than the task alone" in text]
    assert judgement.cautions[:1] == said[:1]
    assert len(said) is int(told)
    assert not told or ": left digit (4.0 times). A difference" in said[0]
    assert not told or said[0].endswith("give all the same steps, 20, in the program.")


def test_steps_are_compared_with_single_task_learning_only(tmp_path):
    made = with_steps(plan(methods=("equal", "dwa")), **{"": 12, "left": 12, "right": 1})
    assert said(tmp_path, made, {"equal": VALUES, "dwa": VALUES}) == []


def test_of_many_unequal_tasks_the_furthest_are_named(tmp_path):
    names = [f"t{place}" for place in range(6)]
    made = with_steps(
        plan(metrics=[(name, (ACCURACY,)) for name in names]), **{"": 120}, **{f"t{i}": 2 + i for i in range(6)}
    )
    values = [dict.fromkeys(names, 0.8 + seed / 100) for seed in range(3)]
    (text,) = said(tmp_path, made, {SINGLE_TASK: values, "equal": values})
    assert (
        "t0 digit (60.0 times), t1 digit (40.0 times), t2 digit (30.0 times) and t3 digit (24.0 times) and 2 more."
        in text
    )


def test_r2_below_zero_is_worse_than_predicting_the_mean(tmp_path):
    made = plan(metrics=[("left", (R2,)), ("right", (RMSE, R2))])
    alone = [{"left": -0.2 - seed / 100, "right": (2.0, 0.1)} for seed in range(3)]
    ours = [{"left": 0.3 + seed / 100, "right": (2.0, -1.24)} for seed in range(3)]
    (text,) = said(tmp_path, made, {SINGLE_TASK: alone, "equal": ours})
    worst = "equal on right digit (−1.24); single-task on left digit (−0.21)"
    assert text.startswith(f"Worse than predicting the mean (R² below zero): {worst}. ")


@pytest.mark.parametrize(
    ("alone", "left", "end"),
    [
        ((0.9, 0.8), -0.2, ""),  # severe harm, which single-task learning shows
        ((0.9, -0.3), 0.4, " Neither side of such a comparison has learnt much."),
        (
            (-0.3, 0.8),
            -0.2,
            " Where single-task learning is among them, neither side of the comparison has learnt much.",
        ),
    ],
)
def test_nothing_is_said_of_single_task_learning_that_has_learnt(tmp_path, alone, left, end):
    made = plan(metrics=[("left", (R2,)), ("right", (R2,))])
    single = [{"left": alone[0] + seed / 100, "right": alone[1]} for seed in range(3)]
    ours = [{"left": left + seed / 100, "right": -0.5} for seed in range(3)]
    (text,) = said(tmp_path, made, {SINGLE_TASK: single, "equal": ours})
    assert "equal on right digit (−0.50)" in text
    assert text.endswith(f").{end}")


def test_r2_just_below_zero_is_not_told_as_zero(tmp_path):
    made = plan(metrics=[("left", (R2,)), ("right", (R2,))])
    alone = [{"left": 0.5 + seed / 100, "right": 0.5} for seed in range(3)]
    ours = [{"left": -0.0048, "right": -0.0051} for _ in range(3)]
    (text,) = said(tmp_path, made, {SINGLE_TASK: alone, "equal": ours})
    assert text.startswith("Worse than predicting the mean (R² below zero): equal on right digit (−0.01); equal on ")
    assert "left digit (−0.0048)." in text


def test_r2_below_zero_is_told_by_setting(tmp_path):
    made = plan(metrics=[("left", (R2,))], settings=2)
    values = [{"left": -0.2 - seed / 100} for seed in range(3)]
    (text,) = said(tmp_path, made, {SINGLE_TASK: values, "equal": values})
    assert "single-task on left digit with 50 % of the labels (−0.21)" in text


def test_other_metrics_below_zero_are_none_of_it(tmp_path):
    score = PlannedMetric("score", higher_is_better=True, ideal=None, percent=False)
    made = plan(metrics=[("left", (score,)), ("right", (score,))])
    values = [{"left": -1.0 - seed, "right": -2.0 - seed} for seed in range(3)]
    assert said(tmp_path, made, {SINGLE_TASK: values, "equal": values}) == []


def trained(path, made, chosen):
    """A study whose trainings chose these epochs, one after the other."""
    chosen = iter(chosen)
    with Store(path, write=True) as store:
        for trial in made.trials:
            found = result(dict.fromkeys(trial.tasks, 0.8 + trial.seed / 100))
            store.add_result(trial, dataclasses.replace(found, chosen_epoch=next(chosen)))
        return judge_plan(made, store).cautions


@pytest.mark.parametrize(("epochs", "first", "told"), [(10, 5, True), (10, 4, False), (2, 5, False)])
def test_a_best_epoch_of_one_says_that_nothing_was_learnt_after_it(tmp_path, epochs, first, told):
    made = dataclasses.replace(plan(), epochs=epochs)
    found = trained(tmp_path / "s", made, [1] * first + [epochs - (epochs > 2)] * (9 - first))
    assert any(f"Validation chose the first epoch in {first} of 9 trainings" in text for text in found) is told


@pytest.mark.parametrize(("left", "told"), [(1.0, True), (0.1, True), (0.02, False), (0.0, False)])
def test_a_schedule_that_ended_is_not_still_improving(tmp_path, left, told):
    made = dataclasses.replace(plan(), epochs=10, final_rate=left)
    assert bool(trained(tmp_path / "s", made, [10] * 9)) is told


def test_choices_made_on_one_seed_or_fold_are_said_to_be(tmp_path):
    candidates = tuple(dataclasses.replace(method, candidates=("equal", "fixed")) for method in plan().methods)
    rates, weights, both = (
        dataclasses.replace(plan(), tuning=Tuning(tried, 10_007), methods=methods)
        for tried, methods in (((0.1,), plan().methods), ((), candidates), ((0.1,), candidates))
    )
    for made, what in ((rates, "Learning rates"), (weights, "Constant weights")):
        (text,) = judged(tmp_path / what, made, BOTH).cautions
        assert text == f"{what} were chosen on one seed alone: another may choose others (--tune-seeds 3)."
    (text,) = said(tmp_path, made := both)
    assert text.startswith("Learning rates and constant weights were chosen on one seed alone: another may")
    several = dataclasses.replace(made, tuning=Tuning((0.1,), 10_007, (10_008,)))
    assert judged(tmp_path / "several", several, BOTH).cautions == []
    (text,) = judged(tmp_path / "folds", dataclasses.replace(made, folds=3), BOTH).cautions
    assert "on one fold alone" in text


@pytest.mark.parametrize(("rows", "told"), [(50, True), (51, False), (0, False)])
def test_a_twentieth_of_the_labels_is_few(tmp_path, rows, told):
    found = said(tmp_path, with_tasks(plan(), train_rows=(1000, rows)))
    assert len(found) == told
    assert not told or found[0].startswith("Few labels: right digit 50, where another task has 1000.")


@pytest.mark.parametrize(("rows", "fractions", "few"), [
    ((1000, 1000), (0.02, 1.0), "Few labels: left digit 20, where another task has 1000."),
    ((144, 1000), (0.001, 1.0), "Few labels: left digit 1, where another task has 1000."),
    ((13072, 13072), (0.05, 1.0), "Few labels: left digit 654, where another task has 13072."),
    ((5, 1), (1.0, 1.0), None),
    ((50, 1000), (1.0, 0.05), None), ((50, 1000), (1.0, 0.5), None),
])  # fmt: skip
def test_labels_are_few_after_fractions(tmp_path, rows, fractions, few):
    made = with_tasks(plan(), train_rows=rows)
    setting = dataclasses.replace(made.settings[0], fractions=dict(zip(("left", "right"), fractions, strict=True)))
    found = [text for text in said(tmp_path, dataclasses.replace(made, settings=(setting,))) if "Few labels" in text]
    assert [text.partition(" In a batch")[0] for text in found] == [few] * (few is not None)


@pytest.mark.parametrize(("rows", "folds", "told"), [(99, 1, True), (100, 1, False), (0, 1, False), (99, 5, False)])
def test_few_test_labels_make_a_verdict_one_of_its_division(tmp_path, rows, folds, told):
    made = dataclasses.replace(with_tasks(plan(), test_rows=(1000, rows)), folds=folds)
    values = [{"left": 0.9 + seed / 1000, "right": 0.5 + seed / 7} for seed in range(3)]
    found = said(tmp_path, made, {SINGLE_TASK: values, "equal": values})
    assert len(found) == told
    assert not told or found[0].startswith("Few test labels: right digit 99. ")


def with_parts(path, made, spread):
    """A plain sum that hurts both tasks by 10 points, the left one by more or less without some of its rows."""
    parts = [spread * (-1) ** part for part in range(20)]
    with Store(path, write=True) as store:
        for method, value in ((SINGLE_TASK, 0.9), ("equal", 0.8)):
            for seed in made.seeds:
                for trial in made.trials_of(method, 0, seed):
                    values = dict.fromkeys(trial.tasks, value + seed * (1 + (method == "equal")) / 1000)
                    left_out = (
                        {"left": [value + (method == "equal") * part for part in parts]} if "left" in values else {}
                    )
                    store.add_result(trial, dataclasses.replace(result(values), left_out=left_out))
        return judge_plan(made, store)


def test_a_difference_within_what_other_test_rows_would_move_is_a_finding(tmp_path):
    """A jackknife of ±s in twenty parts has a standard error of s √19, and its interval 2.09 times that."""
    made = with_tasks(plan(), test_rows=(500, 500))
    for spread, told in ((0.001, False), (0.02, True)):
        found = with_parts(tmp_path / f"{spread}", made, spread)
        cells = {cell.task: cell for cell in found.cells if cell.method == "equal"}
        half = 2.093 * spread * math.sqrt(19)
        assert cells["left"].rows_half == pytest.approx(half, rel=1e-3)
        assert cells["right"].rows_half is None
        assert cells["left"].verdict == "negative transfer"
        assert (
            f"would move the differences of the plain sum by left digit ±{100 * half:.2g} points (500 rows)"
            in found.about
        )
        said = [text for text in found.cautions if text.startswith("Decided over seeds, and within")]
        assert [text.split(": ")[1].split(".")[0] for text in said] == ["equal on left digit"] * told
    redrawn = with_parts(tmp_path / "r", dataclasses.replace(made, resplit=True), 0.02)
    assert all(cell.rows_half is None for cell in redrawn.cells)  # the interval over seeds holds it


# --- what the intervals are about ---


def about(path, made, values=BOTH):
    return judged(path, made, values).about


def test_a_report_says_what_the_intervals_are_about(tmp_path):
    one = about(tmp_path / "a", plan())
    assert one.startswith("Intervals are about other seeds on this division of the rows")
    assert "not about other rows. Differences are paired by seed (Student's t)" in one
    dealt = about(tmp_path / "b", dataclasses.replace(plan(), folds=3))
    assert dealt.startswith("Intervals are about other seeds and other rows alike: each seed tests on one of 3 folds")
    redrawn = about(tmp_path / "c", dataclasses.replace(plan(), resplit=True))
    assert redrawn.startswith("Intervals are about other seeds and other rows alike: each seed has its own division")


def test_few_test_labels_recommend_a_division_for_every_seed(tmp_path):
    made = with_tasks(plan(), test_rows=(1000, 99))
    (unable,) = said(tmp_path / "a", made)
    assert unable.endswith("one whose load() takes a seed divides them anew (--resplit).")
    (able,) = said(tmp_path / "b", dataclasses.replace(made, redrawable=True))
    assert able.endswith("another picture: give every seed its own with --resplit.")
    assert said(tmp_path / "c", dataclasses.replace(made, redrawable=True, resplit=True)) == []


def test_a_report_says_which_test_was_made_and_what_pairing_has_to_go_by(tmp_path):
    """The mean over tasks of the correlation over seeds, alone and together; without a baseline there is no test."""
    alone = [{"left": 0.90, "right": 0.80}, {"left": 0.92, "right": 0.81}, {"left": 0.91, "right": 0.86}]
    joint = [{"left": 0.80, "right": 0.70}, {"left": 0.82, "right": 0.69}, {"left": 0.81, "right": 0.65}]
    text = about(tmp_path / "a", plan(), {SINGLE_TASK: alone, "equal": joint})
    expected = (1.0 + np.corrcoef([0.80, 0.81, 0.86], [0.70, 0.69, 0.65])[0, 1]) / 2
    assert text.endswith(
        "the networks of a seed share start, batches and rows; between single-task learning and the plain sum values "
        f"correlate by {expected:+.2f}, the mean over tasks."
    )
    program = dataclasses.replace(plan(), reference="cd /home/me && python train.py")
    text = about(tmp_path / "p", program, {SINGLE_TASK: alone, "equal": joint})
    assert "what the runs of a seed share is the program's to say; between single-task learning" in text
    assert text.startswith("Intervals are about other seeds; about other rows only if the program divides its rows by")
    text = about(tmp_path / "r", dataclasses.replace(program, resplit=True), {SINGLE_TASK: alone, "equal": joint})
    assert text.startswith("Intervals are about other seeds and other rows alike: each seed has its own division")
    constant = about(tmp_path / "b", plan(), {SINGLE_TASK: [alone[0]] * 3, "equal": joint})
    assert constant.endswith("share start, batches and rows.")
    assert "paired" not in about(tmp_path / "c", plan(methods=("equal", "uw")), {"equal": joint, "uw": joint})


def test_what_other_test_rows_would_do_is_the_metrics_own_standard_error(tmp_path):
    """Of 90 % on 400 rows: 1.96 √(.9 · .1 / 400). Metrics that do not count rows have none here."""
    made = with_tasks(plan(metrics=[("left", (ACCURACY,)), ("right", (RMSE,))]), test_rows=(400, 400))
    values = [{"left": count / 400, "right": 2.0 + count / 1000} for count in (360, 364, 356)]
    text = about(tmp_path / "s", made, {SINGLE_TASK: values, "equal": values})
    half = 196 * math.sqrt(0.9 * 0.1 / 400)
    assert f"as many other test rows would move a value by left digit ±{half:.2g} points (400 rows)." in text


# --- every sentence in full ---

ROWS = {"train_rows": (1000, 900), "test_rows": (400, 400)}  # of a study in which nothing else is to be said


def started(path, made, starts):
    """A study whose trials start with these digests: ``starts(method, seed) -> {parameter: digest}``."""
    with Store(path, write=True) as store:
        for trial in made.trials:
            found = result(dict.fromkeys(trial.tasks, 0.8 + trial.seed / 100))
            store.add_result(trial, dataclasses.replace(found, start=starts(trial.method, trial.seed)))
        return judge_plan(made, store).cautions


@pytest.mark.parametrize(
    ("count", "said"), [(1, "p0"), (2, "p0 and p1"), (4, "p0, p1, p2 and p3"), (6, "p0, p1, p2 and p3 and 2 more")]
)
def test_unlike_starts_in_full(tmp_path, count, said):
    made = with_tasks(plan(), **ROWS)
    assert started(tmp_path / "s", made, lambda method, seed: {f"p{i}": method for i in range(count)}) == [
        f"Trials of one seed do not start alike: {said}. They differ by chance too, and intervals are wider for it: "
        "build its parts by trial.part(name, build), or write torch.manual_seed(trial.seed) before the network is "
        "built, the shared part first."
    ]
    assert started(tmp_path / "alike", made, lambda method, seed: {"p": "1"}) == []
    assert started(tmp_path / "unknown", made, lambda method, seed: {"p": method} if method == "equal" else {}) == []


@pytest.mark.parametrize(
    ("program", "cure"), [(False, " with --epoch-steps 12"), (True, ", 20, in the program")]
)  # fmt: skip
def test_unequal_steps_in_full(tmp_path, program, cure):
    made = with_tasks(with_steps(plan(), **{"": 12, "left": 12, "right": 3}), **ROWS)
    if program:
        made = dataclasses.replace(made, reference="cd /home/me && python train.py")
    with Store(tmp_path / "s", write=True) as store:
        for trial in made.trials:
            found = result(dict.fromkeys(trial.tasks, 0.8 + trial.seed / 100))
            store.add_result(trial, dataclasses.replace(found, steps=5 if trial.tasks == ("right",) else 20))
        told = judge_plan(made, store).cautions
    assert told == [
        "The joint networks take more steps than the task alone in the same epochs: right digit (4.0 times). A "
        f"difference may be one of training, not of sharing: give all the same steps{cure}."
    ]


def test_r2_below_zero_in_full_the_worst_first(tmp_path):
    """In all settings; what is named twice is counted once, and zero is not below zero."""
    names = [f"t{place}" for place in range(7)]
    made = plan(metrics=[(name, (RMSE, R2)) for name in names])
    values = [{name: (2.0 + seed / 100, -place / 10) for place, name in enumerate(names)} for seed in range(3)]
    fine = [dict.fromkeys(names, (2.0 + seed / 100, 0.5)) for seed in range(3)]
    (text,) = said(tmp_path, made, {SINGLE_TASK: values, "equal": fine})
    assert text == (
        "Worse than predicting the mean (R² below zero): single-task on t6 digit (−0.60); single-task on t5 digit "
        "(−0.50); single-task on t4 digit (−0.40); single-task on t3 digit (−0.30); and 2 more. Neither side of such "
        "a comparison has learnt much."
    )


@pytest.mark.parametrize(
    ("epochs", "chosen", "told"),
    [
        (2, 1, ""), (3, 1, "first"), (10, 1, "first"), (10, 10, "last"), (2, 2, "last"), (1, 1, ""), (10, 5, ""),
        (3, 2, ""),
    ],
)  # fmt: skip
def test_first_and_last_epochs_in_full(tmp_path, epochs, chosen, told):
    made = dataclasses.replace(with_tasks(plan(), **ROWS), epochs=epochs)
    texts = {
        "": [],
        "first": [
            "Validation chose the first epoch in 9 of 9 trainings: what came after made them worse. Try a smaller "
            "learning rate (--tune 5), or more regularisation."
        ],
        "last": [
            "Validation chose the last epoch in 9 of 9 trainings: they were still improving. Train longer before you "
            f"rely on this:\nsteelyard compare made-up --epochs {2 * epochs}"
        ],
    }
    assert trained(tmp_path / "s", made, [chosen] * 9) == texts[told]


@pytest.mark.parametrize("chosen", [1, 10])
@pytest.mark.parametrize(("count", "told"), [(2, False), (3, True)])
def test_half_of_the_trainings_are_enough(tmp_path, chosen, count, told):
    made = dataclasses.replace(with_tasks(plan(seeds=2), **ROWS), epochs=10)
    texts = trained(tmp_path / "s", made, [chosen] * count + [5] * (6 - count))
    assert any(f"epoch in {count} of 6 trainings" in text for text in texts) == told


@pytest.mark.parametrize(
    ("chosen", "told"),
    [  # of each seed: left, right, both
        ([5, 5, 10, 5, 5, 10, 5, 5, 5], "equal (2 of 3 trainings)"),
        ([5, 5, 10, 5, 5, 5, 5, 5, 5], ""),
        ([10, 5, 5, 10, 5, 5, 10, 5, 5], "single-task on left digit (3 of 3 trainings)"),
        ([10, 5, 5, 5, 10, 5, 5, 5, 10], ""),
        ([10, 10, 10, 10, 10, 5, 5, 5, 5], None),
    ],
)
def test_an_arm_that_was_still_improving_beside_others_that_had_ended(tmp_path, chosen, told):
    made = dataclasses.replace(with_tasks(plan(seeds=3), **ROWS), epochs=10)
    texts = trained(tmp_path / "s", made, chosen)
    if told:
        assert texts == [
            f"Still improving at the last epoch, where most others had ended: {told}. What they lack may be training. "
            "Train longer before you rely on this:\nsteelyard compare made-up --epochs 20"
        ]
    else:
        assert [text[:28] for text in texts] == ([] if told == "" else ["Validation chose the last ep"])


def test_arms_that_were_still_improving_come_with_the_most_first_and_not_on_one_training(tmp_path):
    arms = ("uw", "dwa", "equal@mmoe", "cagrad", "imtl", "mgda")
    made = with_tasks(plan(seeds=3, methods=(SINGLE_TASK, "equal", *arms)), **ROWS)  # of two epochs
    late = {"uw": 2, "dwa": 3, "equal@mmoe": 2, "cagrad": 2, "imtl": 3, "mgda": 1}
    assert said_of(tmp_path / "two", made, late) == [
        "dwa (3 of 3 trainings), imtl (3 of 3 trainings), uw (2 of 3 trainings), equal@mmoe (2 of 3 trainings) and "
        "1 more"
    ]
    one = with_tasks(plan(seeds=1, methods=(SINGLE_TASK, "equal", *arms)), **ROWS)
    assert said_of(tmp_path / "one", one, {"uw": 1}) == []


def test_one_amount_of_labels_that_was_still_improving_is_named(tmp_path):
    """In the whole study a third of the trainings; at that amount all of them."""
    made = with_tasks(plan(seeds=3, settings=3, methods=(SINGLE_TASK, "equal", "uw")), **ROWS)
    with Store(tmp_path / "s", write=True) as store:
        for trial in made.trials:
            found = result(dict.fromkeys(trial.tasks, 0.8 + trial.seed / 100))
            few = max(fraction for _, fraction in trial.fractions) > 0.9  # the last of the amounts
            store.add_result(trial, dataclasses.replace(found, chosen_epoch=2 if few and trial.method != "uw" else 1))
        (caution,) = [text for text in judge_plan(made, store).cautions if text.startswith("Still improving")]
    assert caution.split("ended: ")[1].split(". What")[0] == (
        "single-task on left digit with 100 % of the labels (3 of 3 trainings), single-task on right digit with "
        "100 % of the labels (3 of 3 trainings), equal with 100 % of the labels (3 of 3 trainings)"
    )


def said_of(path, made, late):
    """Which arms are told of, where of each so many trainings ended at their best."""
    with Store(path, write=True) as store:
        for trial in made.trials:
            found = result(dict.fromkeys(trial.tasks, 0.8 + trial.seed / 100))
            arm = trial.method + (f"@{trial.architecture}" if trial.architecture != "hard-sharing" else "")
            at = 2 if trial.seed < late.get(arm, 0) else 1
            store.add_result(trial, dataclasses.replace(found, chosen_epoch=at))
        cautions = judge_plan(made, store).cautions
    return [text.split("ended: ")[1].split(". What")[0] for text in cautions if text.startswith("Still improving")]


def test_where_nothing_is_chosen_or_finished_the_last_epoch_says_nothing(tmp_path):
    made = dataclasses.replace(with_tasks(plan(), **ROWS), epochs=10, choose="last")
    assert trained(tmp_path / "s", made, [10] * 9) == []
    assert said(tmp_path / "empty", dataclasses.replace(made, choose="validation"), {}) == []


def chosen_rates(rates, tried=(0.1, 0.3, 0.01), choose=True):
    """A plan in which each network chose a rate."""
    made = with_tasks(plan(), **ROWS)
    methods = tuple(
        dataclasses.replace(method, chosen=(Choice(method.name, rates[method.name]),) if choose else ())
        for method in made.methods
    )
    return dataclasses.replace(made, methods=methods, tuning=Tuning(tried, 10_007, (10_008,)))


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ([0.3, 0.3, 0.1], ("largest", "0.3", 2)),
        ([0.3, 0.3, 0.3], ("largest", "0.3", 3)),
        ([0.01, 0.1, 0.01], ("smallest", "0.01", 2)),
        ([0.1, 0.1, 0.1], None),
        ([0.3, 0.1, 0.01], None),
    ],
)
def test_rates_at_the_edge_in_full(tmp_path, rates, told):
    left, right, joint = rates
    made = chosen_rates({SINGLE_TASK: {"left": left, "right": right}, "equal": {"": joint}})
    expected = told and (
        f"Validation chose the {told[0]} of 3 learning rates ({told[1]}) for {told[2]} of 3 networks: better ones may "
        f"lie beyond. Try around it:\nsteelyard compare made-up --tune 3 --learning-rate {told[1]}"
    )
    assert said(tmp_path, made) == ([expected] if expected else [])


def test_half_of_the_networks_at_the_edge_are_not_most_of_them(tmp_path):
    made = chosen_rates({SINGLE_TASK: {"left": 0.3}, "equal": {"": 0.1}})
    assert said(tmp_path, made) == []


def test_a_choice_on_one_seed_or_fold_in_full(tmp_path):
    candidates = tuple(dataclasses.replace(method, candidates=("equal", "fixed")) for method in plan().methods)
    made = dataclasses.replace(with_tasks(plan(), **ROWS), tuning=Tuning((0.1,), 10_007), methods=candidates)
    text = (
        "Learning rates and constant weights were chosen on one {} alone: another may choose others (--tune-seeds 3)."
    )
    assert said(tmp_path / "a", made) == [text.format("seed")]
    assert said(tmp_path / "b", dataclasses.replace(made, folds=2)) == [text.format("fold")]


def with_many(count, **rows):
    """A plan of so many tasks of which the first has these rows and the others those."""
    metrics = [(f"t{place}", (SCORE,)) for place in range(count)]
    return with_tasks(
        plan(metrics=metrics), **{name: (first, *[other] * (count - 1)) for name, (first, other) in rows.items()}
    )


@pytest.mark.parametrize(("count", "more"), [(2, ""), (5, ""), (6, " and 1 more"), (8, " and 3 more")])
def test_few_labels_in_full(tmp_path, count, more):
    values = [{f"t{place}": 0.8 + seed / 100 for place in range(count)} for seed in range(3)]
    both = {SINGLE_TASK: values, "equal": values}
    named = [f"t{place} digit" for place in range(1, min(count, 5))]
    few = ", ".join(f"{name} 40" for name in named) + more
    assert said(tmp_path / "a", with_many(count, train_rows=(800, 40)), both) == [
        f"Few labels: {few}, where another task has 800. In a batch such a task has few rows, and its loss weighs as "
        "much as any other's."
    ]
    few = ", ".join(f"{name} 99" for name in named) + more
    made = with_many(count, test_rows=(800, 99))
    begins = f"Few test labels: {few}. Verdicts are about this division of the rows, and another one may give another "
    assert said(tmp_path / "b", made, both) == [
        f"{begins}picture: a problem with folds= tests on all rows, and one whose load() takes a seed divides them "
        "anew (--resplit)."
    ]
    assert said(tmp_path / "c", dataclasses.replace(made, redrawable=True), both) == [
        f"{begins}picture: give every seed its own with --resplit."
    ]


def test_one_row_is_few(tmp_path):
    assert len(said(tmp_path, with_tasks(plan(), train_rows=(1000, 1), test_rows=(400, 400)))) == 1
    assert len(said(tmp_path / "2", with_tasks(plan(), train_rows=(1000, 900), test_rows=(400, 1)))) == 1


def cell(method, task, verdict, mean, half, setting=0):
    return Cell(
        method=method, setting=setting, task=task, values={0: 0.5}, mean=0.5, sd=0.0, last_mean=0.5, last_sd=0.0,
        difference=None if mean is None else Interval(mean, mean - 0.1, mean + 0.1), relative=None, p_value=None,
        verdict=verdict, rows_half=half,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"verdict": "gain", "mean": 0.2, "half": 0.2}, True),
        ({"verdict": "gain", "mean": 0.2, "half": 0.19}, False),
        ({"verdict": "negative transfer", "mean": -0.2, "half": 0.3}, True),
        ({"verdict": "negative transfer", "mean": -0.2, "half": 0.1}, False),
        ({"verdict": "undecided", "mean": 0.2, "half": 0.3}, False),
        ({"verdict": "no difference", "mean": 0.2, "half": 0.3}, False),
        ({"verdict": "gain", "mean": 0.2, "half": None}, False),
        ({"verdict": "gain", "mean": None, "half": 0.3}, False),
    ],
)
@pytest.mark.parametrize("redrawable", [False, True])
def test_what_other_test_rows_might_have_done_in_full(changes, told, redrawable):
    found = SimpleNamespace(plan=dataclasses.replace(plan(), redrawable=redrawable))
    instead = "--resplit" if redrawable else "more test rows, or a division for every seed (--resplit)"
    text = (
        "Decided over seeds, and within what other test rows of the same number might move it by: uw on left digit. "
        f"What would tell: {instead}."
    )
    cells = [cell("uw", "left", **changes), cell("uw", "left", **changes, setting=1)]  # named once
    assert within_other_rows(found, cells) == [text] * told
    many = [cell(f"m{place}", "right", "gain", 0.1, 0.2) for place in range(6)]
    assert (
        ": m0 on right digit, m1 on right digit, m2 on right digit, m3 on right digit and 2 more. What"
        in (within_other_rows(found, many)[0])
    )
