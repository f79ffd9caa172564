"""What validation data choose: equal budgets, a seed of their own, ordinary trials, and nothing from test data."""

import dataclasses
import json
import math

import pytest

from steelyard import study
from steelyard.base.specs import parse_spec
from steelyard.errors import OptionError, PlanError, UnknownNameError
from steelyard.study.planning.best_fixed import candidates
from steelyard.study.planning.plan import Plan, PlannedMethod, Tuning
from steelyard.study.planning.tuning import SEED, attempts, choose, learning_rates, settle, tried, validation_scores
from steelyard.study.trial import SINGLE_TASK, Curves
from study.made_up import ACCURACY, RMSE, result
from study.made_up import plan as made_plan


def test_learning_rates_are_log_spaced_around_the_own_one_which_comes_first():
    assert learning_rates(0.002, 3) == (0.002, 0.000632, 0.00632)
    assert sorted(learning_rates(0.01, 4)) == [0.001, 0.00316, 0.01, 0.0316]
    assert len(learning_rates(1.0, 5)) == 5
    for own in (0.001, 0.00316, 0.004, 0.0126, 0.0253, 5e-5):
        up = max(learning_rates(own, 3))
        assert len(set(learning_rates(own, 3)) & set(learning_rates(up, 3))) == 2, "a range one step on shares its own"
    with pytest.raises(PlanError, match="tune=1: from 2 to 25"):
        learning_rates(0.1, 1)


def tuned_plan(**options):
    made = made_plan((SINGLE_TASK, "equal"), **options)
    fixed = PlannedMethod("best-fixed", scale="sum", candidates=("fixed(weights=a)", "fixed(weights=b)"))
    return dataclasses.replace(made, methods=(*made.methods, fixed), tuning=Tuning((0.1, 0.03, 0.3), SEED))


def with_validation(left, right):
    """A result whose validation metric is this at its chosen epoch, and whose test metric says the opposite."""
    found = result({"left": 1 - left, "right": 1 - right})
    return dataclasses.replace(found, curves=Curves({}, {}, {"left": [left, 1.0], "right": [right, 1.0]}))


def test_every_network_gets_the_same_number_of_rates_and_only_the_tuning_seed():
    made = tuned_plan(settings=2)
    first, second = attempts(made, 0), attempts(made, 1)
    assert len(first) == 2 * 2  # settings x candidates
    assert {each.trial.seed for each in (*first, *second)} == {SEED}
    counts = {}
    for each in second:
        counts.setdefault((each.arm, each.setting, each.tasks), set()).add(each.learning_rate)
    assert len(counts) == 2 * (2 + 1 + 1)
    assert all(len(rates) == 3 for rates in counts.values())
    # The study's own rate is left unsaid: trials of an untuned study are the same.
    assert {each.trial.learning_rate for each in second if each.learning_rate == 0.1} == {None}


def test_the_best_on_validation_data_is_chosen_network_by_network():
    made = tuned_plan()
    first = attempts(made, 0)
    found = {first[0].trial: with_validation(0.5, 0.5), first[1].trial: with_validation(0.6, 0.6)}
    made = choose(made, first, found)
    assert made.method("best-fixed").choice(0).method == "fixed(weights=b)"
    values = {0.1: (0.5, 0.9), 0.03: (0.8, 0.5), 0.3: (0.7, 0.85)}
    second = attempts(made, 1)
    assert {each.method for each in second if each.arm == "best-fixed"} == {"fixed(weights=b)"}
    made = choose(made, second, {each.trial: with_validation(*values[each.learning_rate]) for each in second})
    assert made.method(SINGLE_TASK).choice(0).learning_rates == {"left": 0.03, "right": 0.1}
    assert made.method("equal").choice(0).learning_rates == {"": 0.3}
    assert [trial.learning_rate for trial in made.trials_of(SINGLE_TASK, 0, 0)] == [0.03, None]
    assert made.trials_of("best-fixed", 0, 2)[0].method == "fixed(weights=b)"
    assert Plan.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_main_task_chooses_alone_where_it_is_learnt():
    made = dataclasses.replace(tuned_plan(), main="right")
    second = attempts(made, 1)
    values = {0.1: (0.5, 0.9), 0.03: (0.8, 0.5), 0.3: (0.7, 0.8)}
    made = choose(made, second, {each.trial: with_validation(*values[each.learning_rate]) for each in second})
    assert made.method("equal").choice(0).learning_rates == {"": 0.1}
    assert made.method(SINGLE_TASK).choice(0).learning_rates == {"left": 0.03, "right": 0.1}


def test_failed_attempts_are_passed_over_and_all_failed_leave_the_own_rate():
    made = tuned_plan()
    second = attempts(made, 1)
    found = {e.trial: with_validation(0.5, 0.5) for e in second if e.arm == "equal" and e.learning_rate == 0.3}
    made = choose(made, second, found)
    assert made.method("equal").choice(0).learning_rates == {"": 0.3}
    assert made.method(SINGLE_TASK).choice(0).learning_rates == {"left": 0.1, "right": 0.1}


def test_with_several_seeds_the_mean_decides_of_what_finished_on_all():
    made = dataclasses.replace(tuned_plan(), tuning=Tuning((0.1, 0.03, 0.3), SEED, (SEED + 1,)))
    second = attempts(made, 1)
    assert {each.trial.seed for each in (*attempts(made, 0), *second)} == {SEED, SEED + 1}
    # 0.03 is the best on the first seed and the worst on the second; 0.3 fails on one of them.
    values = {
        (0.1, SEED): 0.8, (0.1, SEED + 1): 0.8, (0.03, SEED): 0.85, (0.03, SEED + 1): 0.2, (0.3, SEED + 1): 0.99,
    }  # fmt: skip
    found = {
        each.trial: with_validation(values[at], values[at])
        for each in second
        if (at := (each.learning_rate, each.trial.seed)) in values
    }
    chosen = choose(made, second, found)
    assert chosen.method("equal").choice(0).learning_rates == {"": 0.1}
    one = {trial: value for trial, value in found.items() if trial.seed == SEED}
    assert choose(made, second, one).method("equal").choice(0).learning_rates == {"": 0.03}
    assert Plan.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.tuning_text.endswith("tried on seeds 10007, 10008, the best on validation data used")


def test_a_plan_of_the_first_version_was_tuned_on_one_seed():
    values = json.loads(json.dumps(tuned_plan().to_dict()))
    del values["tuning"]["more"]
    assert Plan.from_dict(values) == tuned_plan()


def test_tuning_on_several_seeds_or_folds_is_planned_and_said():
    made = study.plan("digits", ["equal"], seeds=2, epochs=1, tune=2, tune_seeds=3)
    assert made.tuning.seeds == (SEED, SEED + 1, SEED + 2)
    assert len(tried(made)) == 2 * 3
    with pytest.raises(PlanError, match=f"seed {SEED + 1} is the one that tuning uses"):
        study.plan("digits", ["equal"], seeds=[SEED + 1], epochs=1, tune=2, tune_seeds=2)
    with pytest.raises(PlanError, match="tune_seeds=0"):
        study.plan("digits", ["equal"], seeds=2, epochs=1, tune=2, tune_seeds=0)


def beyond_plan(beyond=2):
    made = made_plan((SINGLE_TASK, "equal", "uw", "dwa"))
    return dataclasses.replace(made, tuning=Tuning(learning_rates(0.1, 3), SEED, (SEED + 1,), beyond))


BEST = {"left": 0.1, "right": 0.01, "equal": 1.0, "uw": 100.0, "dwa": 0.0001}


def by_distance(made, asked, fails=()):
    """Results of networks that do the better the nearer their rate is to the best one; keeps a list of what it gave."""

    def results_of(trials):
        found = {}
        for trial in trials:
            name = trial.tasks[0] if trial.method == SINGLE_TASK else trial.method
            rate = made.learning_rate if trial.learning_rate is None else trial.learning_rate
            away = abs(math.log10((rate or 0.1) / BEST[name]))
            if (name, rate) not in fails:
                found[trial] = with_validation(1 - 0.1 * away, 1 - 0.1 * away)
            asked.setdefault(name, set()).add(rate or 0.1)
        return found

    return results_of


def chosen_rates(made):
    return {name: made.method(name).choice(0).learning_rates for name in (SINGLE_TASK, "equal", "uw", "dwa")}


def test_past_an_edge_rates_are_tried_while_the_outermost_is_the_best():
    made, asked = beyond_plan(), {}
    trained = set()

    def results_of(trials):
        trained.update(trials)
        return by_distance(made, asked)(trials)

    settled = settle(made, results_of)
    assert chosen_rates(settled) == {
        SINGLE_TASK: {"left": 0.1, "right": 0.01}, "equal": {"": 1.0}, "uw": {"": 3.16}, "dwa": {"": 0.00316},
    }  # fmt: skip
    first = {0.0316, 0.1, 0.316}
    assert asked == {
        "left": first,  # its best lies inside
        "right": {*first, 0.01, 0.00316},  # 0.00316 is worse than 0.01, and nothing lies past that
        "equal": {*first, 1.0, 3.16},
        "uw": {*first, 1.0, 3.16},  # it would go on, and may not
        "dwa": {*first, 0.01, 0.00316},
    }
    # What was trained can be told from the plan that has chosen, whichever round a network stopped in.
    assert set(tried(settled)) == trained
    assert settle(settled, results_of) == settled
    assert Plan.from_dict(json.loads(json.dumps(settled.to_dict()))) == settled
    assert "3 learning rates for every network (0.0316, 0.1, 0.316, and up to 2 more past an edge" in made.tuning_text
    assert chosen_rates(settle(beyond_plan(0), by_distance(made, {})))["uw"] == {"": 0.316}


def test_an_edge_whose_neighbour_fails_is_kept_and_an_open_round_keeps_the_next_one_open():
    made = beyond_plan()
    first = settle(made, lambda trials: {})
    assert first == made
    found = choose(made, attempts(made, 1), by_distance(made, {})([each.trial for each in attempts(made, 1)]))
    past = attempts(found, 2)
    assert {(each.arm, each.learning_rate) for each in past} == {
        (SINGLE_TASK, 0.0316), (SINGLE_TASK, 0.01), ("equal", 0.316), ("equal", 1.0),
        ("uw", 0.316), ("uw", 1.0), ("dwa", 0.0316), ("dwa", 0.01),
    }  # fmt: skip
    assert {each.tasks for each in past if each.arm == SINGLE_TASK} == {("right",)}
    results = by_distance(made, {}, fails={("uw", 1.0)})([each.trial for each in past])
    found = choose(found, past, results)
    assert chosen_rates(found)["uw"] == {"": 0.316}
    assert {each.arm for each in attempts(found, 3)} == {SINGLE_TASK, "equal", "dwa"}


def test_rates_past_an_edge_need_an_edge():
    with pytest.raises(PlanError, match="tune_beyond=2 goes past the learning rates of tune=, which tries none"):
        study.plan("digits", ["equal"], seeds=2, epochs=1, tune_beyond=2)
    with pytest.raises(PlanError, match="tune_beyond=-1: from 0 to 12"):
        study.plan("digits", ["equal"], seeds=2, epochs=1, tune=2, tune_beyond=-1)


def test_a_plan_of_before_goes_past_no_edge():
    values = json.loads(json.dumps(tuned_plan().to_dict()))
    del values["tuning"]["beyond"]
    assert Plan.from_dict(values) == tuned_plan()


def test_a_round_that_is_not_finished_keeps_the_next_one_open():
    made = tuned_plan()
    first, second = attempts(made, 0), attempts(made, 1)
    assert settle(made, lambda trials: {}) == made
    assert set(tried(made)) == {each.trial for each in (*first, *second)}
    settled = settle(made, lambda trials: {trial: with_validation(0.5, 0.5) for trial in trials})
    assert settled.method("equal").choice(0).learning_rates == {"": 0.1}


def test_scores_do_not_depend_on_units_and_an_error_of_zero_does_not_decide_alone():
    made = made_plan(metrics=(("left", (ACCURACY,)), ("right", (RMSE,))))
    few = [with_validation(0.5, 2.0), with_validation(0.75, 4.0), with_validation(1.0, 4.0)]
    scores = validation_scores(made.tasks, few)
    assert scores[0] == pytest.approx(scores[1])
    assert scores[1] - scores[2] == pytest.approx(math.log(2) / 2)


def test_constant_weightings():
    def weights(text, tasks, main=None):
        return [parse_spec(found).options["weights"] for found in candidates(parse_spec(text), tasks, main)]

    assert weights("best-fixed", "ab")[:2] == ["a: 1, b: 1", "a: 1, b: 0.1"]
    assert len(weights("best-fixed", "ab")) == 5
    helped = weights("best-fixed(ratios=(0,2))", "abc", "b")
    assert helped == [
        "a: 1, b: 1, c: 1",
        "a: 0, b: 1, c: 0",
        "a: 2, b: 1, c: 2",
    ]
    assert weights("best-fixed", "abcdef")[1] == "a: 3, b: 1, c: 1, d: 1, e: 1, f: 1"
    assert len(weights("best-fixed", "abcdef")) == 7
    assert len(weights("best-fixed", "abc")) == 7
    with pytest.raises(OptionError, match="must be numbers of at least 0"):
        weights("best-fixed(ratios=(-1,))", "ab")
    with pytest.raises(UnknownNameError, match="Did you mean 'ratios'"):
        weights("best-fixed(ratio=1)", "ab")


@pytest.mark.takes("workers start, and train every candidate")
def test_a_tuned_study_from_end_to_end(tmp_path):
    methods = [SINGLE_TASK, "equal", "best-fixed(ratios=(0.3,))"]
    made = study.plan("digits", methods, seeds=2, epochs=1, tune=2, settings=[0.05])
    store = tmp_path / "s.sqlite"
    expected = study.estimate(made, store, workers=2)
    assert expected.trials == 1 + 4 * 2 + 4 * 2  # the other weighting; rates; the study
    found = study.run(made, store, progress=False)
    assert found.complete
    assert found.tuning.startswith("2 learning rates for every network (0.000632, 0.002) and 2 constant weightings")
    chosen = {row.method: row.chosen for row in found.rows}
    assert chosen["equal"] in ("rate 0.002", "rate 0.000632")
    assert chosen["best-fixed(ratios=(0.3,))"].startswith("left 1, right ")
    again = study.run(made, store, progress=False)
    assert repr(again) == repr(found) == repr(study.judge(store))
    # As many trials as were said at the start, those that chose among them, and nothing is left to do.
    finished = study.estimate(made, store)
    assert (finished.trials, finished.finished) == (17, 17)
    # A rate past the edge: each network has one of two that were tried, and one more there; then nothing is left to do.
    further = study.plan("digits", methods, seeds=2, epochs=1, tune=2, tune_beyond=1, settings=[0.05])
    assert study.run(further, store, progress=False).complete
    finished = study.estimate(further, store)
    assert finished.trials == finished.finished >= 17 + 4


def test_values_without_a_logarithm_are_scored_by_their_places():
    """Where the last epoch is taken, a log-likelihood is what it is."""
    likelihood = dataclasses.replace(RMSE, higher_is_better=True, ideal=None)
    made = made_plan(metrics=(("left", (likelihood,)), ("right", (ACCURACY,))))
    found = []
    for left, right in ((-3.0, 0.9), (-1.0, 0.8), (0.0, 0.7), (-0.5, 0.95)):
        each = result({"left": left, "right": right})
        curves = dataclasses.replace(each.curves, validation={"left": [left], "right": [right]})
        found.append(dataclasses.replace(each, curves=curves, chosen_epoch=1))
    assert validation_scores(made.tasks, found) == [2.0, 2.0, 1.5, 0.5]
    assert validation_scores(made.tasks[:1], found) == [3.0, 2.0, 0.0, 1.0]
