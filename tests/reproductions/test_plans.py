"""Every reproduction's plans: names, problems and arms exist; with data at hand, the quick ones are planned whole."""

import dataclasses
import os

import pytest

from steelyard.method_registry import BEST_FIXED, method_class, stage_class
from steelyard.models.build_network import architecture_spec
from steelyard.problems import load_problem
from steelyard.problems.files import search_path
from steelyard.reproductions import load_reproduction, reproduction_names
from steelyard.reproductions.papers import db_mtl_claim
from steelyard.reproductions.reproduction import SIZES, Experiment
from steelyard.reproductions.run_reproduction import Where, prepare
from steelyard.study.planning.arms import parse_arms
from steelyard.study.planning.planned_methods import planned_methods
from steelyard.study.planning.tuning import make_tuning
from steelyard.study.running.engines.local import Local
from steelyard.study.trial import SINGLE_TASK

WITHOUT_CONSTANT_WEIGHTS = {"amtfl"}  # nothing is claimed beside them, and a hundred tasks have a hundred and one


def every():
    return [pytest.param(name, size, id=f"{name}-{size}") for name in reproduction_names() for size in SIZES]


@pytest.mark.parametrize(("name", "size"), every())
def test_experiments_name_what_there_is(name, size):
    found = load_reproduction(name)
    experiments = found.experiments(size)
    assert len({each.name for each in experiments}) == len(experiments)
    for each in experiments:
        problem = load_problem(each.problem)
        assert set(each.tasks or ()) <= set(problem.task_names)
        make_tuning(1e-3, each.tune, (), range(each.seeds or 3), each.tune_seeds, each.tune_beyond)
        arms = parse_arms(each.methods)
        # What every table holds: the baselines that fairness asks for.
        assert [str(arm) for arm in arms][:2] == [SINGLE_TASK, "equal"]
        assert (str(arms[2]) == BEST_FIXED) == (name not in WITHOUT_CONSTANT_WEIGHTS)
        for arm in arms:
            if arm.method.name not in (SINGLE_TASK, BEST_FIXED):
                method_class(arm.method.name)
            for stage in arm.method.stages:
                stage_class(stage.name)
            if arm.architecture:
                architecture_spec(str(arm.architecture))
    assert set(found.takes) == set(found.scope) == set(SIZES)


@pytest.mark.parametrize("name", reproduction_names())
def test_judges_say_something_before_anything_was_run(name):
    found = load_reproduction(name)
    findings = found.judge({})
    assert all(finding.word == "undecided" for finding in findings)
    assert found.figures({}) == []


def test_what_an_experiment_says_reaches_its_plan():
    asked = Experiment(
        "All of it",
        "",
        "digits",
        "single-task,mgda",
        seeds=2,
        epochs=7,
        settings=(0.5,),
        tasks=("right",),
        tune=2,
        tune_seeds=3,
        tune_beyond=1,
        shared="trunk",
        scale="paper",
        batch_size=64,
        epoch_steps=9,
        patience=4,
        learning_rate=0.02,
    )
    given = {field.name for field in dataclasses.fields(Experiment) if getattr(asked, field.name) != field.default}
    assert given == {field.name for field in dataclasses.fields(Experiment)}, "each must differ from its default"
    made = dataclasses.replace(load_reproduction("ema"), experiments=lambda size: (asked,))
    (prepared,) = prepare(made, "quick", Where(Local(), workers=1))
    plan = prepared.plan
    assert (plan.seeds, plan.epochs, plan.batch_size, plan.epoch_steps, plan.patience) == ((0, 1), 7, 64, 9, 4)
    assert tuple(plan.task_names) == ("right",)
    assert [setting.fractions for setting in plan.settings] == [{"right": 0.5}]
    assert (len(plan.tuning.rates), len(plan.tuning.seeds), plan.tuning.beyond) == (2, 3, 1)
    assert min(plan.tuning.rates) <= 0.02 <= max(plan.tuning.rates)
    joint = next(trial for trial in plan.trials if trial.method != SINGLE_TASK)
    assert (joint.shared, joint.scale) == ("trunk", "paper")


def test_db_mtls_own_form_averages_gradients_and_not_their_lengths():
    """Asked to look there, the method is told lengths; where the trunk itself is the place, gradients."""
    place = load_problem("qm8").shared
    for arm in db_mtl_claim.AT_TRUNK.values():
        methods, _ = planned_methods(parse_arms(arm), ["a", "b"], place, "paper", "hard-sharing", None)
        assert (place, methods[0].shared) == ("features", "trunk")
    for size in ("real", "full"):
        of_qm8 = next(each for each in db_mtl_claim.experiments(size) if each.name == db_mtl_claim.QM8)
        assert set(db_mtl_claim.AT_TRUNK.values()) <= set(of_qm8.methods.split(","))


@pytest.mark.skipif(not os.environ.get("STEELYARD_DATA"), reason="STEELYARD_DATA names no folder with data")
@pytest.mark.parametrize("name", reproduction_names())
@pytest.mark.slow("every reproduction's real data are read and its methods tried")
def test_the_quick_plan_is_made_without_training(name):
    found = load_reproduction(name)
    folders = {folder for problem in found.problems("quick") for folder in load_problem(problem).needs}
    missing = [folder for folder in folders if not any((place / folder).is_dir() for place in search_path())]
    if missing:
        pytest.skip(f"no {', '.join(missing)} in STEELYARD_DATA")
    prepared = prepare(found, "quick", Where(Local(), workers=2))
    assert len(prepared) == len(found.experiments("quick"))
    for each in prepared:
        assert len(each.trials) >= len(each.plan.trials) > 0
