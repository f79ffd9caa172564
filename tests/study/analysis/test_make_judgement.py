"""From stored results to cells, rows, curves, failures and sentences, checked by hand."""

import dataclasses
import io
import math
import re

import pytest
from rich.console import Console

from steelyard.errors import StoreError
from steelyard.report.json_and_csv import to_csv, to_json
from steelyard.report.study_page import write_page
from steelyard.report.terminal import render
from steelyard.study import judge
from steelyard.study.analysis.make_judgement import judge_plan
from steelyard.study.planning.plan import Choice, Tuning
from steelyard.study.storage.store import Store
from steelyard.study.trial import SINGLE_TASK, Account, Failed
from study.made_up import ACCURACY, RMSE, SCORE, fill, judged, plan, result

ALONE = [{"left": 0.90, "right": 0.80}, {"left": 0.91, "right": 0.81}, {"left": 0.89, "right": 0.79}]


def shifted(left, right, base=ALONE, jitter=(0.001, -0.001, 0.0)):
    """The single-task values, moved by these amounts with a little noise."""
    return [
        {"left": row["left"] + left + noise, "right": row["right"] + right - noise}
        for row, noise in zip(base, jitter, strict=True)
    ]


def cell(judgement, method, task, setting=0):
    return next(c for c in judgement.cells if (c.method, c.task, c.setting) == (method, task, setting))


def row(judgement, method, setting=0):
    return next(r for r in judgement.rows if (r.method, r.setting) == (method, setting))


def test_cells_by_hand(tmp_path):
    found = judged(tmp_path / "s", plan(), {SINGLE_TASK: ALONE, "equal": shifted(-0.05, 0.0)})
    left = cell(found, "equal", "left")
    assert left.values == pytest.approx({0: 0.851, 1: 0.859, 2: 0.84})
    assert left.mean == pytest.approx(0.85)
    assert left.sd == pytest.approx(0.009539392)
    assert (left.difference.mean, left.difference.high - left.difference.mean) == pytest.approx(
        (-0.05, 4.302653 * 0.001 / math.sqrt(3)), rel=1e-6
    )
    # Errors of 15 % against 10 %, less the bias of a ratio: (1.5 · 1e-4 − 0.95e-4) / (3 · 0.1²).
    assert left.relative.mean == pytest.approx(-0.5 + 0.55e-4 / 0.03)
    assert left.verdict == "negative transfer"
    assert left.p_value < 0.01
    assert cell(found, "equal", "right").verdict == "no difference"
    alone = cell(found, SINGLE_TASK, "left")
    assert (alone.verdict, alone.difference, alone.p_value) == (None, None, None)
    right = cell(found, "equal", "right").relative.mean
    assert row(found, "equal").delta_m.mean == pytest.approx((left.relative.mean + right) / 2)
    assert (found.complete, found.planned, found.finished) == (True, 9, 9)


def test_the_region_is_a_fraction_of_the_single_task_value(tmp_path):
    """1 % of 0.9 is 0.009: a loss of 0.008 makes no difference, one of 0.012 does."""
    calm = (0.0001, -0.0001, 0.0)
    found = judged(tmp_path / "s", plan(), {SINGLE_TASK: ALONE, "equal": shifted(-0.008, -0.012, jitter=calm)})
    assert cell(found, "equal", "left").verdict == "no difference"
    assert cell(found, "equal", "right").verdict == "negative transfer"


def test_lower_is_better_turns_the_signs(tmp_path):
    made = plan(metrics=[("left", (RMSE,)), ("right", (SCORE,))])
    alone = [{"left": 2.0, "right": 50.0}, {"left": 2.1, "right": 51.0}, {"left": 1.9, "right": 49.0}]
    ours = [{"left": 1.0, "right": 60.0}, {"left": 1.05, "right": 61.0}, {"left": 0.95, "right": 59.5}]
    found = judged(tmp_path / "s", made, {SINGLE_TASK: alone, "equal": ours})
    assert cell(found, "equal", "left").verdict == "gain"
    assert cell(found, "equal", "left").difference.mean == pytest.approx(-1.0)
    assert cell(found, "equal", "left").relative.mean == pytest.approx(0.5)
    assert cell(found, "equal", "right").relative.mean == pytest.approx(60.1667 / 50 - 1, rel=1e-3)
    assert row(found, "equal").delta_m.mean == pytest.approx((0.5 + 0.20333) / 2, rel=1e-3)


def test_delta_m_is_the_mean_over_tasks_of_the_mean_over_metrics(tmp_path):
    made = plan(metrics=[("left", (ACCURACY, RMSE)), ("right", (ACCURACY,))], seeds=2)
    alone = [{"left": (0.9, 2.0), "right": 0.5}, {"left": (0.9, 2.0), "right": 0.5}]
    ours = [{"left": (0.95, 1.0), "right": 0.4}, {"left": (0.95, 1.0), "right": 0.4}]
    found = judged(tmp_path / "s", made, {SINGLE_TASK: alone, "equal": ours})
    assert row(found, "equal").delta_m.mean == pytest.approx(((0.5 + 0.5) / 2 + (-0.2)) / 2)


def test_a_perfect_baseline_is_left_out_with_a_note(tmp_path):
    perfect = [{"left": 1.0, "right": value["right"]} for value in ALONE]
    ours = [{"left": 0.99, "right": value["right"] + 0.02} for value in ALONE]
    found = judged(tmp_path / "s", plan(), {SINGLE_TASK: perfect, "equal": ours})
    left = cell(found, "equal", "left")
    assert left.relative is None
    assert "left out of Δm" in left.note
    assert left.difference.mean == pytest.approx(-0.01)
    assert row(found, "equal").delta_m.mean == pytest.approx(0.1, rel=1e-3)  # the right task alone: errors .2 to .18


def test_only_seeds_that_both_finished_are_paired(tmp_path):
    ours = shifted(-0.05, 0.0)
    alone = [*ALONE[:2], {"left": 0.1, "right": 0.1}]
    found = judged(tmp_path / "s", plan(), {SINGLE_TASK: alone, "equal": [ours[0], ours[1], None]})
    assert cell(found, "equal", "left").difference.mean == pytest.approx(-0.05)
    assert row(found, "equal").seeds == 2
    assert row(found, "equal").failed == 1
    (failure,) = found.failures
    assert (failure.method, failure.seed, failure.task, failure.error) == ("equal", 2, None, "ValueError: no")
    assert not found.complete
    assert any("1 trial failed and is left out" in text for text in found.verdict)


@pytest.mark.parametrize("lost", [SINGLE_TASK, "equal"])
def test_seeds_are_paired_by_seed_where_the_first_is_lost(tmp_path, lost):
    """Metrics, Δm and further metrics of the seeds that both have; not of the first of each."""
    made = plan(metrics=(("left", (ACCURACY, SCORE)), ("right", (ACCURACY,))))
    alone = [{"left": (0.5 + seed / 10, seed + 1.0), "right": 0.5 + seed / 10} for seed in range(3)]
    values = {
        SINGLE_TASK: alone,
        "equal": [{"left": (a["left"][0], 2 * a["left"][1]), "right": a["right"]} for a in alone],
    }
    values[lost] = [None, *values[lost][1:]]
    found = judged(tmp_path / "s", made, values)
    assert cell(found, "equal", "left").difference.mean == pytest.approx(0.0, abs=1e-12)
    assert row(found, "equal").delta_m.mean == pytest.approx(0.25)  # twice the score: half of one of two tasks
    (other,) = [each for each in found.others if each.method == "equal"]
    assert other.difference.mean == pytest.approx(2.5)


def test_one_seed_is_undecided_and_says_why(tmp_path):
    found = judged(tmp_path / "s", plan(seeds=1), {SINGLE_TASK: ALONE[:1], "equal": [{"left": 0.5, "right": 0.8}]})
    left = cell(found, "equal", "left")
    assert left.verdict == "undecided"
    assert "one seed" in left.note
    assert (left.difference.low, left.difference.high) == (-math.inf, math.inf)
    assert math.isnan(left.sd)
    assert any("One seed cannot tell a difference from chance" in text for text in found.verdict)


def test_a_tie_of_two_seeds_and_a_claim_lost_to_holm_have_notes(tmp_path):
    ours = [{"left": 0.80, "right": 0.8}, {"left": 0.81, "right": 0.7}]
    found = judged(tmp_path / "tie", plan(seeds=2), {SINGLE_TASK: ALONE[:2], "equal": ours})
    assert "agree exactly" in cell(found, "equal", "left").note
    # left by itself: −0.031 with a standard error of 0.0043, p = 0.04; not with two tasks and their mean
    ours = [{"left": 0.865, "right": 0.9}, {"left": 0.875, "right": 0.7}, {"left": 0.868, "right": 0.8}]
    found = judged(tmp_path / "holm", plan(), {SINGLE_TASK: ALONE, "equal": ours})
    left = cell(found, "equal", "left")
    assert left.verdict == "undecided"
    assert left.note == "negative transfer by itself, but not together with all 3 questions of the study"
    text = " ".join(found.verdict)
    assert "The plain sum seems to make left digit worse, but whether by enough to matter is undecided: acc" in text
    assert "Judged alone it would be decided, but not with the rest of the study." in text
    assert "Whether the plain sum hurts or helps right digit is undecided" in text


def test_the_plain_sum_under_another_name_has_its_words_and_costs_the_others_nothing(tmp_path):
    """Constant weights that were chosen equal: the same networks, so the same numbers get the same word.

    Who differs in one number alone, of the last epoch even, asks by itself and pays for it.
    """
    ours = shifted(-0.031, 0.0, jitter=(0.004, -0.004, 0.0))
    values = {SINGLE_TASK: ALONE, "equal": ours, "dwa": shifted(-0.02, 0.01)}
    without = judged(tmp_path / "without", plan((SINGLE_TASK, "equal", "dwa")), values)
    both = judged(tmp_path / "both", plan((SINGLE_TASK, "equal", "best-fixed", "dwa")), {**values, "best-fixed": ours})
    for task in ("left", "right"):
        plain, same = cell(both, "equal", task), cell(both, "best-fixed", task)
        assert (same.verdict, same.p_value, same.note) == (plain.verdict, plain.p_value, plain.note)
        for method in ("equal", "dwa"):
            assert cell(both, method, task) == cell(without, method, task)
    assert cell(both, "best-fixed", "left").verdict == "negative transfer"
    assert not [text for text in both.verdict if "+0.0 %" in text]  # nothing is asked of it beside the plain sum
    other = [dict(found) for found in ours]
    other[2]["right"] += 1e-9
    near = judged(tmp_path / "near", plan((SINGLE_TASK, "equal", "best-fixed", "dwa")), {**values, "best-fixed": other})
    assert cell(near, "equal", "left").p_value > cell(both, "equal", "left").p_value


def test_without_a_baseline_there_is_no_verdict(tmp_path):
    found = judged(tmp_path / "s", plan(methods=["equal", "dwa"]), {"equal": ALONE, "dwa": ALONE})
    assert all(c.verdict is None and c.difference is None for c in found.cells)
    assert row(found, "equal").delta_m is None
    assert any("no single-task baseline" in text for text in found.verdict)


def test_cost_counts_all_single_task_networks_as_one_model(tmp_path):
    values = {SINGLE_TASK: ALONE, "equal": ALONE}
    found = judged(tmp_path / "s", plan(), values, seconds={SINGLE_TASK: 10.0, "equal": 12.0})
    alone, summed = row(found, SINGLE_TASK), row(found, "equal")
    assert (alone.seconds, alone.relative_cost) == (20.0, 1.0)
    assert alone.steps_per_second == pytest.approx(1.0)  # 2 steps a second each, one after the other
    assert (summed.seconds, summed.relative_cost) == (12.0, 0.6)
    assert any("0.60 × the time of the 2 single-task networks" in text for text in found.verdict)


def test_times_are_processor_time_with_the_median_and_the_spread_over_seeds(tmp_path):
    """By the clock a busy machine made the second seed ten times as slow; its processor knows better."""
    clock, worked = [10.0, 100.0, 10.0], {SINGLE_TASK: [5.0, 5.0, 6.0], "equal": [6.0, 7.0, 8.0]}
    made = plan()

    def judge_by(path, counted):
        with Store(path, write=True) as store:
            for method, seconds in worked.items():
                for seed in made.seeds:
                    for trial in made.trials_of(method, 0, seed):
                        found = result({task: ALONE[seed][task] for task in trial.tasks}, clock[seed])
                        work = seconds[seed] if counted(method, seed) else 0.0
                        store.add_result(trial, dataclasses.replace(found, processor_seconds=work))
            return row(judge_plan(made, store), "equal")

    found = judge_by(tmp_path / "a", lambda method, seed: True)
    assert (found.cost_low, found.relative_cost, found.cost_high) == (0.6, 0.7, 0.8)  # two single tasks, a median of 10
    assert (found.processor_seconds, found.seconds) == (7.0, 40.0)
    # Where one trial of an earlier version did not count it, all are told by the clock.
    mixed = judge_by(tmp_path / "b", lambda method, seed: (method, seed) != ("equal", 0))
    assert (mixed.cost_low, mixed.relative_cost, mixed.cost_high) == (0.5, 0.5, 5.0)
    assert math.isnan(mixed.processor_seconds)


def test_nothing_finished_yet_is_rows_of_nan_and_no_cells(tmp_path):
    made = plan()
    with Store(tmp_path / "s", write=True) as store:
        store.add_plan(made.to_dict())
    found = judge(tmp_path / "s")
    assert found.cells == []
    assert found.curves == []
    assert math.isnan(row(found, "equal").seconds)
    assert row(found, "equal").delta_m is None
    assert any("9 of 9 trials are not finished" in text for text in found.verdict)


def test_earlier_plans_of_a_store_can_be_shown_again(tmp_path):
    first, second = plan(), dataclasses.replace(plan(methods=(SINGLE_TASK, "dwa")), command="later")
    with Store(tmp_path / "s", write=True) as store:
        for made in (first, second):
            store.add_plan(made.to_dict())
            fill(store, made, {method.name: ALONE for method in made.methods})
    assert judge(tmp_path / "s").methods == judge(tmp_path / "s", plan=0).methods == [SINGLE_TASK, "dwa"]
    assert judge(tmp_path / "s", plan=1).methods == [SINGLE_TASK, "equal"]
    with pytest.raises(StoreError, match=r"holds 2 plans, 0 \(the latest\) to 1: there is no plan=2"):
        judge(tmp_path / "s", plan=2)
    with Store(tmp_path / "one", write=True) as store:
        store.add_plan(first.to_dict())
    with pytest.raises(StoreError, match=r"one holds 1 plan, 0: there is no plan=5"):
        judge(tmp_path / "one", plan=5)


def test_metrics_that_carry_no_verdict_are_kept_too(tmp_path):
    made = plan(metrics=[("left", (ACCURACY, RMSE)), ("right", (ACCURACY,))])
    alone = [{"left": (0.9, 2.0 + seed), "right": 0.5} for seed in range(3)]
    ours = [{"left": (0.9, 2.5 + seed * 1.1), "right": 0.5} for seed in range(2)]
    found = judged(tmp_path / "s", made, {SINGLE_TASK: alone, "equal": [*ours, None]})
    single, joint = found.others
    assert (single.method, single.task, single.metric) == (SINGLE_TASK, "left", "RMSE")
    assert (single.values, single.mean, single.sd) == ({0: 2.0, 1: 3.0, 2: 4.0}, 3.0, 1.0)
    assert (single.difference, single.higher_is_better, single.percent) == (None, False, False)
    assert joint.values == {0: 2.5, 1: 3.6}
    half = 12.7062 * 0.05
    assert (joint.difference.mean, joint.difference.high) == pytest.approx((0.55, 0.55 + half), rel=1e-5)
    assert (found.architecture, found.parameters) == ("hard-sharing", 100)


def test_a_half_finished_store_is_judged_by_what_is_there(tmp_path):
    made = plan()
    with Store(tmp_path / "s", write=True) as store:
        store.add_plan(made.to_dict())
        fill(store, made, {SINGLE_TASK: ALONE[:2], "equal": shifted(-0.05, 0.0)[:1]})
        found = judge(tmp_path / "s")  # while the writer is at it
    assert cell(found, SINGLE_TASK, "left").mean == pytest.approx(0.905)
    assert cell(found, "equal", "left").verdict == "undecided"
    assert row(found, "equal").delta_m.mean == pytest.approx(cell(found, "equal", "left").relative.mean / 2, abs=0.01)


def test_curves_are_means_over_seeds_and_skip_gaps(tmp_path):
    made = plan(methods=["equal"], seeds=2)
    first = {"left": [1.0, math.nan], "right": [math.nan, math.nan]}
    second = {"left": [3.0, 2.0], "right": [math.nan, 1.0]}
    with Store(tmp_path / "s", write=True) as store:
        for trial, curve in zip(made.trials, (first, second), strict=True):
            store.add_result(trial, result({"left": 0.5, "right": 0.5}, curve=curve))
        store.add_plan(made.to_dict())
    (curve,) = judge(tmp_path / "s").curves
    assert curve.epochs == [1, 2]
    assert curve.losses["left"] == [2.0, 2.0]
    assert math.isnan(curve.losses["right"][0])
    assert curve.losses["right"][1] == 1.0


def test_a_mean_curve_ends_where_more_than_half_of_the_trainings_have(tmp_path):
    """The last ones to go on would speak for all; an epoch at which half of them still train has a mean."""
    for lengths, shown in (((3, 1), 3), ((3, 1, 1), 1), ((3, 2, 2, 1), 2), ((3, 3, 1), 3), ((2,), 2)):
        made = dataclasses.replace(plan(methods=["equal"], seeds=len(lengths)), epochs=3)
        path = tmp_path / "-".join(map(str, lengths))
        with Store(path, write=True) as store:
            for trial, length in zip(made.trials, lengths, strict=True):
                losses = {task: [10.0, 20.0, 30.0][:length] for task in ("left", "right")}
                store.add_result(trial, result({"left": 0.5, "right": 0.5}, curve=losses))
            store.add_plan(made.to_dict())
        (curve,) = judge(path).curves
        assert curve.epochs == [1, 2, 3]
        known = [not math.isnan(value) for value in curve.losses["left"]]
        assert known == [epoch <= shown for epoch in curve.epochs]
        assert curve.losses["left"][:shown] == [10.0, 20.0, 30.0][:shown]


# --- sentences ---


def test_the_verdict_says_who_is_hurt_by_how_much_and_what_repairs_it(tmp_path):
    made = plan(methods=[SINGLE_TASK, "equal", "ema", "dwa"])
    values = {
        SINGLE_TASK: ALONE,
        "equal": shifted(-0.05, 0.0),
        "ema": shifted(0.0, 0.0, jitter=(0.0005, -0.0005, 0.0001)),
        "dwa": shifted(-0.03, 0.0, jitter=(0.0008, -0.0008, 0.0)),
    }
    found = judged(tmp_path / "s", made, values, seconds={SINGLE_TASK: 10.0, "equal": 10.0, "ema": 11.0, "dwa": 10.0})
    text = "\n".join(found.verdict)
    assert (
        "The plain sum hurts left digit: accuracy 85.00 % against 90.00 % alone, −5.00 points (−5.25 to −4.75)." in text
    )
    assert "The plain sum makes no difference that matters for right digit" in text
    assert "ema (at 1.10 × the plain sum's training time) repairs left digit." in text
    assert "Not repaired, but by itself better than under the plain sum, is left digit with dwa by +2.0" in text
    assert "Over all tasks (mean change relative to the plain sum), better than it: ema +1" in text


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"left": 0.3, "right": 0.1, "": 0.3}, "the largest of 3 learning rates (0.3) for 2 of 3 networks"),
        ({"left": 0.03, "right": 0.03, "": 0.03}, "the smallest of 3 learning rates (0.03) for 3 of 3 networks"),
        ({"left": 0.3, "right": 0.1, "": 0.1}, None),
    ],
)
def test_rates_at_the_edge_of_those_tried_are_told(tmp_path, rates, said):
    made = plan()
    alone = Choice(SINGLE_TASK, {name: rate for name, rate in rates.items() if name})
    chosen = {SINGLE_TASK: alone, "equal": Choice("equal", {"": rates[""]})}
    methods = tuple(dataclasses.replace(method, chosen=(chosen[method.name],)) for method in made.methods)
    tuned = dataclasses.replace(made, methods=methods, tuning=Tuning((0.1, 0.03, 0.3), 10_007))
    found = judged(tmp_path / "s", tuned, {SINGLE_TASK: ALONE, "equal": ALONE})
    assert found.tuning == (
        "3 learning rates for every network (0.03, 0.1, 0.3), tried on seed 10007, the best on validation data used"
    )
    text = " ".join(found.cautions)
    assert ("Validation chose the" in text) == (said is not None)
    assert said is None or said in text
    # Where more may be tried past these, they are no edge; the outermost of those is.
    further = judged(
        tmp_path / "f", dataclasses.replace(tuned, tuning=Tuning((0.1, 0.03, 0.3), 10_007, (), 1)),
        {SINGLE_TASK: ALONE, "equal": ALONE},
    )  # fmt: skip
    assert "Validation chose the" not in " ".join(further.cautions)


def test_the_outermost_rate_past_an_edge_is_told(tmp_path):
    made = plan()
    chosen = {SINGLE_TASK: Choice(SINGLE_TASK, {"left": 0.949, "right": 0.1}), "equal": Choice("equal", {"": 0.949})}
    methods = tuple(dataclasses.replace(method, chosen=(chosen[method.name],)) for method in made.methods)
    tuned = dataclasses.replace(made, methods=methods, tuning=Tuning((0.1, 0.03, 0.3), 10_007, (), 1))
    text = " ".join(judged(tmp_path / "s", tuned, {SINGLE_TASK: ALONE, "equal": ALONE}).cautions)
    assert "the largest of 3 and 1 further learning rates (0.949) for 2 of 3 networks" in text


def test_of_many_strategies_the_best_are_named_and_the_others_counted(tmp_path):
    strategies = [f"ema(beta=0.{digit})" for digit in range(1, 7)]
    made = plan(methods=[SINGLE_TASK, "equal", *strategies])
    small = {name: (0.0001 * place, -0.0001, 0.0002) for place, name in enumerate(strategies)}
    values = {SINGLE_TASK: ALONE, "equal": shifted(-0.05, 0.0)}
    values |= {name: shifted(0.001 * place, 0.0, jitter=small[name]) for place, name in enumerate(strategies)}
    repairs, better = (
        next(text for text in judged(tmp_path / "s", made, values).verdict if words in text)
        for words in ("repair left digit", "better than it")
    )
    assert repairs.startswith("6 of 6 strategies repair left digit, above all ema(beta=0.6) (at 1.00 ×")
    assert "6 of 6 strategies, above all ema(beta=0.6) +" in better
    for text in (repairs, better):
        assert "ema(beta=0.3)" in text
        assert "ema(beta=0.2)" not in text


def test_an_undecided_task_says_how_many_seeds_are_likely_to_settle_it(tmp_path):
    lower = [-0.0152, -0.0145, -0.0128, -0.0151, -0.0129]
    base = [{"left": 0.90 + seed / 100, "right": 0.80 + seed / 100} for seed in range(5)]
    ours = [{"left": row["left"] + 4 * x + 0.042, "right": row["right"]} for row, x in zip(base, lower, strict=True)]
    text = "\n".join(judged(tmp_path / "s", plan(seeds=5), {SINGLE_TASK: base, "equal": ours}).verdict)
    assert re.search(r"left digit worse, .* Likely to settle it: \d+ to \d+ seeds\.", text), text


def test_of_several_undecided_tasks_all_must_be_settled_by_the_seeds_told(tmp_path):
    wide = [{"left": 0.88, "right": 0.79}, {"left": 0.86, "right": 0.785}, {"left": 0.87, "right": 0.79}]
    text = "\n".join(judged(tmp_path / "s", plan(), {SINGLE_TASK: ALONE, "equal": wide}).verdict)
    assert "Whether the plain sum hurts or helps both tasks is undecided" in text
    assert "Likely" not in text  # the effect on the right digit may be none, for which no number of seeds is honest


def test_in_a_cross_validation_no_more_seeds_are_asked_for_than_there_are_folds(tmp_path):
    lower = [-0.0152, -0.0145, -0.0128, -0.0151, -0.0129]
    base = [{"left": 0.90 + seed / 100, "right": 0.80 + seed / 100} for seed in range(5)]
    ours = [{"left": row["left"] + 4 * x + 0.042, "right": row["right"]} for row, x in zip(base, lower, strict=True)]
    made = dataclasses.replace(plan(seeds=5), folds=5)
    assert "Likely" not in "\n".join(judged(tmp_path / "s", made, {SINGLE_TASK: base, "equal": ours}).verdict)


def test_where_the_sum_hurts_and_the_best_strategy_is_open_it_is_that_one_which_is_undecided(tmp_path):
    """Else "undecided" would stand beside a plain sum that is shown to be worse."""
    made = plan(methods=[SINGLE_TASK, "equal", "ema"])
    near = [{task: row[task] + noise for task in row} for row, noise in zip(ALONE, (0.012, -0.012, 0.004), strict=True)]
    values = {SINGLE_TASK: ALONE, "equal": shifted(-0.1, -0.1), "ema": near}
    found = judged(tmp_path / "s", made, values, seconds={SINGLE_TASK: 10.0, "equal": 10.0, "ema": 11.0}).verdict
    assert found[0].startswith("Over all tasks the plain sum is worse than single-task learning")
    said = "Whether to share is undecided: under ema, which is better than the plain sum, it is Δm +"
    assert found[1].startswith(said)
    assert found[1].endswith(").")


def test_the_best_of_several_has_to_be_clearer_than_the_only_one(tmp_path):
    """Its interval is above zero; as that of the best of five by the same numbers it is not."""
    near = [
        {task: value + 0.02 + noise for task, value in row.items()}
        for row, noise in zip(ALONE, (0.006, -0.006, 0.0), strict=True)
    ]
    seconds = dict.fromkeys([SINGLE_TASK, "equal", "ema", "dwa", "uw", "stch", "gls"], 10.0)
    values = {SINGLE_TASK: ALONE, "equal": shifted(-0.1, -0.1), "ema": near}
    (one,) = [
        text
        for text in judged(tmp_path / "one", plan(methods=list(values)), values, seconds).verdict
        if text.startswith("Share under ")
    ]
    assert one == "Share under ema, at 0.50 × the training time of single tasks."
    values |= dict.fromkeys(["dwa", "uw", "stch", "gls"], shifted(-0.12, -0.12))
    said = judged(tmp_path / "five", plan(methods=list(values)), values, seconds).verdict[1]
    assert said.startswith("Whether to share is undecided: under ema, which is better than the plain sum, it is Δm +")
    assert said.endswith("). ema was chosen of 5 by the same numbers, and would have to be clearer.")


def test_what_is_hurt_is_to_be_trained_alone_and_the_others_may_stay_open(tmp_path):
    """Right gains or loses by seed, so that the mean over tasks is open; left is hurt for certain."""
    ours = [
        {"left": row["left"] - 0.05 + noise / 100, "right": row["right"] + 0.1 + noise}
        for row, noise in zip(ALONE, (0.08, -0.08, 0.0), strict=True)
    ]
    found = judged(tmp_path / "s", plan(), {SINGLE_TASK: ALONE, "equal": ours})
    assert "Train left digit alone; whether sharing helps the other is undecided." in found.verdict


def test_three_seeds_that_agree_by_chance_decide_nothing(tmp_path):
    """Six of 400 rows in every seed: a metric in steps of a row hides what lies below a step."""
    alone = [{"left": count / 400, "right": 0.8 + count / 1e4} for count in (360, 364, 356)]
    ours = [
        {"left": (count + 6) / 400, "right": right}
        for count, right in zip((360, 364, 356), (0.7, 0.9, 0.8), strict=True)
    ]
    for rows, left in ((0, "undecided"), (400, "undecided"), (40_000, "gain")):
        made = plan()
        made = dataclasses.replace(made, tasks=tuple(dataclasses.replace(t, test_rows=rows) for t in made.tasks))
        found = cell(judged(tmp_path / f"{rows}", made, {SINGLE_TASK: alone, "equal": ours}), "equal", "left")
        assert found.verdict == left, rows
        half = 4.302653 / math.sqrt(3) * math.sqrt(0.015 / rows + rows**-2 / 6) if rows else 0.0
        assert found.difference.high - found.difference.mean == pytest.approx(half, rel=1e-6)
        assert ("agree exactly" in found.note) is (rows == 0)


def test_nothing_better_than_the_sum_is_said_with_the_best_figure(tmp_path):
    made = plan(methods=[SINGLE_TASK, "equal", "ema", "dwa"])
    values = {
        SINGLE_TASK: ALONE,
        "equal": shifted(0.0, 0.0, jitter=(0.00001, -0.00001, 0.0)),
        "ema": shifted(0.001, 0.0, jitter=(0.01, -0.01, 0.0)),
        "dwa": shifted(-0.05, -0.05, jitter=(0.0001, -0.0001, 0.0)),
    }
    text = "\n".join(judged(tmp_path / "s", made, values).verdict)
    assert "Over all tasks (mean change relative to the plain sum), nothing is shown to be better than it: ema" in text
    assert "is the highest of 2." in text
    assert "Over all tasks (mean change relative to the plain sum), worse than it: dwa −" in text


def test_where_all_are_worse_than_the_sum_the_least_bad_is_no_highest(tmp_path):
    made = plan(methods=[SINGLE_TASK, "equal", "dwa"])
    values = {SINGLE_TASK: ALONE, "equal": shifted(0.0, 0.0), "dwa": shifted(-0.05, -0.05)}
    text = "\n".join(judged(tmp_path / "s", made, values).verdict)
    assert "nothing is shown to be better than it.\n" in text
    assert text.count("dwa −") == 1


def test_a_difference_that_is_shown_but_slight_is_not_called_better(tmp_path):
    made = plan(methods=[SINGLE_TASK, "equal", "dwa"])
    values = {SINGLE_TASK: ALONE, "equal": shifted(0.0, 0.0), "dwa": shifted(0.0005, 0.0005)}
    text = "\n".join(judged(tmp_path / "s", made, values).verdict)
    assert "told from it, but by less than 1 %: dwa +0." in text
    assert ", better than it" not in text


def test_a_strategy_that_diverged_is_not_the_highest(tmp_path):
    made = plan(methods=[SINGLE_TASK, "equal", "ema", "dwa"])
    values = {
        SINGLE_TASK: ALONE,
        "equal": shifted(0.0, 0.0),
        "ema": [{"left": math.nan, "right": math.nan}] * 3,
        "dwa": shifted(0.001, 0.0, jitter=(0.01, -0.01, 0.0)),
    }
    text = "\n".join(judged(tmp_path / "s", made, values).verdict)
    assert "nothing is shown to be better than it: dwa" in text
    assert "nan" not in text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("method", [SINGLE_TASK, "equal"])
def test_a_value_that_is_none_in_a_store_of_before_is_said_and_breaks_nothing(tmp_path, method, value):
    made = plan(metrics=[("left", (ACCURACY, SCORE)), ("right", (ACCURACY,))])
    values = {
        name: [{"left": (0.9 + off + each, 2.0 + each), "right": 0.8 + off - each} for each in (0.0, 0.001, 0.003)]
        for name, off in ((SINGLE_TASK, 0.0), ("equal", -0.05))
    }
    values[method][2]["left"] = (value, value)
    found = judged(tmp_path / "s", made, values)
    text = "\n".join(found.verdict)
    assert not re.search(r"\b(nan|inf)\b", text)
    assert "left digit is undecided: accuracy" in text
    assert "alone." in text
    assert "worse, but whether by enough to matter is undecided: accuracy 74.87 % against 79.87 % alone, −5" in text
    assert found.cautions[0] == (
        "No value on test data (NaN or infinite): accuracy of left digit in 1 of 6 values, score of left digit in 1 of "
        "6 values. Means and differences with such a seed have none either."
    )
    assert cell(found, "equal", "left").note == "no value on test data in 1 of 3 seeds"
    for write in (to_json, to_csv, lambda judgement: write_page(judgement, tmp_path / "page.html")):
        write(found)
    render(found, Console(file=io.StringIO()))


def test_many_tasks_are_counted(tmp_path):
    names = [f"t{i}" for i in range(12)]
    made = plan(methods=[SINGLE_TASK, "equal", "ema"], metrics=[(name, (ACCURACY,)) for name in names])
    alone = [dict.fromkeys(names, 0.9 + seed / 100) for seed in range(3)]
    noise = [(-1, 1, 0), (1, -1, 0), (0, 1, -1)]
    ours = [
        {n: alone[seed][n] - 0.1 - i / 200 + noise[i % 3][seed] / 1000 for i, n in enumerate(names)}
        for seed in range(3)
    ]
    found = judged(tmp_path / "s", made, {SINGLE_TASK: alone, "equal": ours, "ema": alone})
    text = "\n".join(found.verdict)
    assert "The plain sum hurts all 12 tasks: above all t11 digit accuracy" in text
    assert "Of the 12 tasks that the plain sum hurts, so many are repaired: ema 12." in text
    assert all(len(sentence) < 500 for sentence in found.verdict)


def test_each_setting_has_its_own_sentences(tmp_path):
    made = plan(settings=2)
    values = [{SINGLE_TASK: ALONE, "equal": shifted(-0.05, 0.0)}, {SINGLE_TASK: ALONE, "equal": shifted(0.05, 0.0)}]
    text = "\n".join(judged(tmp_path / "s", made, values).verdict)
    assert "With 50 % of the labels: the plain sum hurts left digit" in text
    assert "With 100 % of the labels: the plain sum helps left digit" in text


def test_a_judgement_is_plain_data(tmp_path):
    found = judged(tmp_path / "s", plan(), {SINGLE_TASK: ALONE, "equal": shifted(-0.05, 0.0)})
    values = dataclasses.asdict(found)
    assert values["cells"][0]["method"] == SINGLE_TASK
    assert repr(judged(tmp_path / "s", plan(), {SINGLE_TASK: ALONE, "equal": shifted(-0.05, 0.0)})) == repr(found)


def test_networks_that_were_still_improving_are_told(tmp_path):
    """A verdict after too few epochs is a verdict on the number of epochs."""
    made = plan()  # of two epochs
    for chosen, told in ((2, True), (1, False)):
        with Store(tmp_path / str(chosen), write=True) as store:
            for method, by_seed in ((SINGLE_TASK, ALONE), ("equal", shifted(-0.05, 0.0))):
                for seed, values in enumerate(by_seed):
                    for trial in made.trials_of(method, 0, seed):
                        found = result({task: values[task] for task in trial.tasks})
                        store.add_result(trial, dataclasses.replace(found, chosen_epoch=chosen))
            text = "\n".join(judge_plan(made, store).cautions)
        assert ("Validation chose the last epoch in 9 of 9 trainings: they were still improving." in text) is told
        assert ("before you rely on this:\nsteelyard compare made-up --epochs 4" in text) is told


def test_the_chosen_epoch_and_the_last_one_are_told_apart(tmp_path):
    """Values, differences and Δm are those of the epoch that validation chose; the last one's are beside them."""
    made = plan(seeds=3)
    later = [{task: value - 0.3 for task, value in row.items()} for row in ALONE]
    chosen = {SINGLE_TASK: ALONE, "equal": shifted(-0.05, 0.0)}
    last = {SINGLE_TASK: later, "equal": [{task: value + 0.1 for task, value in row.items()} for row in later]}
    with Store(tmp_path / "s", write=True) as store:
        for method, by_seed in chosen.items():
            for seed, values in enumerate(by_seed):
                for trial in made.trials_of(method, 0, seed):
                    at_last = {task: [last[method][seed][task]] for task in trial.tasks}
                    store.add_result(trial, result({task: values[task] for task in trial.tasks}, last=at_last))
        found = judge_plan(made, store)
    left = cell(found, "equal", "left")
    assert (left.mean, left.last_mean) == pytest.approx((0.85, 0.7))
    assert (left.sd, left.last_sd) == pytest.approx((0.009539392, 0.01))
    assert left.difference.mean == pytest.approx(-0.05)
    assert left.values == pytest.approx({0: 0.851, 1: 0.859, 2: 0.84})
    assert row(found, "equal").delta_m.mean == pytest.approx(-0.25, rel=5e-3)
    assert row(found, "equal").delta_m_last.mean == pytest.approx((0.1 / 0.4 + 0.1 / 0.5) / 2, rel=1e-3)


def test_two_seeds_have_a_deviation(tmp_path):
    found = judged(tmp_path / "s", plan(seeds=2), {SINGLE_TASK: ALONE[:2], "equal": ALONE[:2]})
    assert cell(found, "equal", "left").sd == pytest.approx(0.01 / math.sqrt(2))


def test_a_judgement_repeats_the_plan(tmp_path):
    made = plan(settings=2)
    found = judged(tmp_path / "s", made, [{SINGLE_TASK: ALONE, "equal": ALONE}] * 2)
    for name in ("problem", "summary", "command", "machine", "created", "epochs", "batch_size"):
        assert getattr(found, name) == getattr(made, name), name
    assert found.versions == dict(made.versions)
    assert found.seeds == [0, 1, 2]
    assert found.methods == [SINGLE_TASK, "equal"]
    assert [(task.name, task.label, task.metric, task.equivalence) for task in found.tasks] == [
        ("left", "left digit", "accuracy", 0.01),
        ("right", "right digit", "accuracy", 0.01),
    ]
    assert [(setting.index, setting.label) for setting in found.settings] == [(0, "50 %"), (1, "100 %")]
    assert [(c.setting, c.method, c.task) for c in found.cells] == [
        (setting, method, task) for setting in (0, 1) for method in (SINGLE_TASK, "equal") for task in ("left", "right")
    ]
    assert [(r.setting, r.method) for r in found.rows] == [(c.setting, c.method) for c in found.cells[::2]]
    assert [(curve.setting, curve.method) for curve in found.curves] == [(r.setting, r.method) for r in found.rows]


def test_what_a_ledger_kept_is_a_mean_over_seeds(tmp_path):
    made = dataclasses.replace(plan(), ledger=20)
    with Store(tmp_path / "s", write=True) as store:
        fill(store, made, {SINGLE_TASK: ALONE, "equal": shifted(0.0, 0.0)})
        for seed, share in enumerate((0.2, 0.6)):
            (trial,) = made.trials_of("equal", 0, seed)
            kept = {"left": Account(10, share, 0.1, share / 2)}
            store.add_result(trial, dataclasses.replace(result({"left": 0.9, "right": 0.8}), ledger=kept))
        (hurt,) = judge_plan(made, store).hurt
        assert (hurt.method, hurt.setting, hurt.task, hurt.values) == ("equal", 0, "left", {0: 0.2, 1: 0.6})
        assert (hurt.mean, hurt.against) == pytest.approx((0.4, 0.2))
        plain = dataclasses.replace(made, ledger=0)
        fill(store, plain, {"equal": shifted(0.0, 0.0)})
        assert judge_plan(plain, store).hurt == []


def on_400_rows(made):
    return dataclasses.replace(made, tasks=tuple(dataclasses.replace(task, test_rows=400) for task in made.tasks))


def test_seeds_that_agree_by_chance_ease_nothing(tmp_path):
    """Three, three and four rows more than the plain sum are no more than √(10 / 3) rows would move."""
    made = on_400_rows(plan(methods=(SINGLE_TASK, "equal", "uw", "dwa")))
    alone, summed = ([{"left": rows / 400, "right": 0.5}] * 3 for rows in (380, 300))
    few, many = ([{"left": (300 + more) / 400, "right": 0.5} for more in by] for by in ((3, 3, 4), (40, 40, 41)))
    found = judged(tmp_path / "s", made, {SINGLE_TASK: alone, "equal": summed, "uw": few, "dwa": many})
    (eased,) = [text for text in found.verdict if text.startswith("Not repaired, but by itself better")]
    assert "dwa by +10.1 points (+6.1 to +14.0)" in eased, "√(40 1/3 + 1/6) rows, whatever the seeds say"
    assert "uw" not in eased


def test_metrics_without_a_verdict_vary_as_counts_do_too(tmp_path):
    made = on_400_rows(plan(metrics=[("left", (RMSE, ACCURACY)), ("right", (ACCURACY,))]))
    values = {
        method: [{"left": (1.234 + seed / 7, rows / 400), "right": 0.5} for seed in range(3)]
        for method, rows in ((SINGLE_TASK, 380), ("equal", 374))
    }
    _, joint = judged(tmp_path / "s", made, values).others
    half = 4.30265 * math.sqrt((6 + 1 / 6) / 3) / 400
    assert (joint.difference.mean, joint.difference.high) == pytest.approx((-0.015, -0.015 + half), abs=1e-7)


def test_a_trial_that_other_code_has_finished_has_not_failed(tmp_path):
    """With --reuse-any: it failed with the code of today, and has a result of before."""
    now = plan(seeds=3)
    before = dataclasses.replace(now, identity="made-up@old")
    values = {SINGLE_TASK: ALONE, "equal": shifted(-0.05, 0.0)}
    with Store(tmp_path / "s", write=True) as store:
        fill(store, before, values)
        store.add_failure(now.trials[0], Failed("ValueError: no", "Traceback"))
        found = judge_plan(dataclasses.replace(now, also=tuple(store.origins("made-up"))), store)
    assert (found.complete, found.finished, found.failures) == (True, 9, [])
    assert not [text for text in found.verdict if "not finished" in text or "failed" in text]


def test_a_sentence_tells_the_values_of_the_seeds_that_its_difference_is_of(tmp_path):
    """One joint network failed, on the seed whose values are the lowest."""
    alone = [{"left": value, "right": 0.8} for value in (0.90, 0.91, 0.89, 0.50)]
    ours = [
        {"left": value, "right": 0.8 + part} for value, part in zip((0.84, 0.86, 0.83), (0.001, -0.001, 0), strict=True)
    ]
    found = judged(tmp_path / "s", plan(seeds=4), {SINGLE_TASK: alone, "equal": [*ours, None]})
    (said,) = [text for text in found.verdict if "left digit" in text and "against" in text]
    assert re.search(r"accuracy 84\.3 % against 90\.0 % alone, −5\.7 points", said)


def test_a_failed_trial_of_two_settings_is_counted_once_and_shown_with_both(tmp_path):
    """The task that keeps its labels is trained alone once."""
    made = plan(settings=2)
    half, whole = made.settings
    made = dataclasses.replace(made, settings=(dataclasses.replace(half, fractions={"left": 0.5, "right": 1.0}), whole))
    values = {SINGLE_TASK: [*ALONE[:2], None], "equal": ALONE}
    found = judged(tmp_path / "s", made, [values, values])
    assert [(failure.task, failure.setting) for failure in found.failures] == [
        ("left", 0), ("right", 0), ("left", 1), ("right", 1)
    ]  # fmt: skip
    assert found.failed == 3
    assert found.finished + found.failed == found.planned
    console = Console(file=io.StringIO(), width=100)
    render(found, console)
    assert "Failed trials: 3" in console.file.getvalue()
    assert "3 trials failed and are left out" in found.verdict[-1]


def test_what_is_advised_of_each_amount_of_labels_goes_on_after_the_colon(tmp_path):
    values = {SINGLE_TASK: ALONE, "equal": shifted(0.05, 0.05)}
    text = "\n".join(judged(tmp_path / "s", plan(settings=2), [values, values]).verdict)
    assert "With 50 % of the labels: share under the plain sum" in text


def test_three_folds_of_unequal_size_that_agree_by_chance_decide_nothing(tmp_path):
    made = plan()
    tasks = tuple(dataclasses.replace(task, test_rows=17) for task in made.tasks)
    made = dataclasses.replace(made, tasks=tasks)
    alone = [{"left": 9 / 17, "right": 0.5}, {"left": 9 / 17, "right": 0.5}, {"left": 8 / 16, "right": 0.5}]
    ours = [{"left": 10 / 17, "right": 0.5}, {"left": 10 / 17, "right": 0.5}, {"left": 9 / 16, "right": 0.5}]
    found = cell(judged(tmp_path / "s", made, {SINGLE_TASK: alone, "equal": ours}), "equal", "left")
    assert found.verdict == "undecided"
    assert found.p_value > 0.1
