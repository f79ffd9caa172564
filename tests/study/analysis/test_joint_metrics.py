"""Metrics of all tasks together are those of the outputs put side by side, also of networks trained apart."""

import contextlib
import csv
import io
import math
import sqlite3
import textwrap

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from steelyard import study
from steelyard.cli.app import app
from steelyard.errors import ProblemError
from steelyard.problems import load_problem
from steelyard.report import from_json
from steelyard.study.analysis.statistics import interval
from steelyard.study.planning.plan import Plan
from steelyard.study.storage.store import Store
from steelyard.study.training.kept_outputs import pack, unpack
from steelyard.study.training.train import train
from study import made_up

PROBLEM = """
    import torch
    from torch import nn
    from steelyard.problems import Data, JointMetric, Problem, Split, regression

    def load(fold):
        generator = torch.Generator().manual_seed(fold)
        def split(rows):
            x = torch.randn(rows, 3, generator=generator)
            half = x[:, 1].clone()
            half[::2] = torch.nan
            return Split(x, {"whole": x[:, 0] * 2, "half": half})
        return Data(split(40), split(20), split(20))

    def largest(outputs, targets):
        assert len(targets["whole"]) == 2 * len(targets["half"]) == 20
        return max(float((outputs[task][:, 0] - targets[task]).abs().max()) for task in outputs)

    problem = Problem(
        "mine", (regression("whole"), regression("half")), load, lambda: nn.Linear(3, 4),
        lambda task: nn.Linear(4, 1), batch_size=8, epochs=2, folds=2,
        joint=(JointMetric("largest miss", largest, higher_is_better=False, ideal=0.0, percent=True),),
    )
"""


@pytest.mark.parametrize("shape", [(5,), (4, 1), (2, 3, 2)])
def test_outputs_survive_as_text(shape):
    outputs = torch.randn(shape)
    assert torch.equal(unpack(pack(outputs)), outputs)


def trained(folder, methods=("single-task", "equal"), **changed):
    """Three seeds of the problem, all trained; and what `changed` makes of its file."""
    file, store = folder / "mine.py", folder / "s.sqlite"
    file.write_text(textwrap.dedent(PROBLEM))
    plan = study.plan(str(file), methods, seeds=3, **changed)
    problem = load_problem(str(file))
    results = {trial: train(trial, problem) for trial in plan.trials}
    return plan, problem, results, store


def fill(store, plan, results):
    with Store(store, write=True) as opened:
        opened.add_plan(plan.to_dict())
        for trial, result in results.items():
            opened.add_result(trial, result)


def joint(judgement):
    return [other for other in judgement.others if other.task is None]


def edit(folder, before, after):
    file = folder / "mine.py"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_joint_metrics_of_a_study(tmp_path):
    plan, problem, results, store = trained(tmp_path)
    one = next(trial for trial in results if (trial.seed, trial.tasks) == (2, ("half",)))
    fill(store, plan, {trial: result for trial, result in results.items() if trial is not one})  # one is not finished
    single, equal = joint(study.judge(store))
    assert (single.metric, single.method, equal.method) == ("largest miss", "single-task", "equal")
    assert (single.higher_is_better, single.percent, single.setting) == (False, True, 0)
    assert (list(single.values), list(equal.values)) == ([0, 1], [0, 1, 2])
    (trial,) = plan.trials_of("equal", 0, 1)
    kept = {task: unpack(text)[:, 0] for task, text in results[trial].outputs.items()}
    targets = problem.data(1).test.targets
    misses = torch.cat([kept["whole"] - targets["whole"], kept["half"] - targets["half"][1::2]])
    assert equal.values[1] == pytest.approx(float(misses.abs().max()))
    assert single.values[0] != equal.values[0]
    assert equal.mean == pytest.approx(np.mean(list(equal.values.values())))
    assert equal.sd == pytest.approx(np.std(list(equal.values.values()), ddof=1))
    assert single.difference is None
    assert equal.difference == interval([equal.values[seed] - single.values[seed] for seed in (0, 1)])


def test_every_amount_of_labels_has_its_own(tmp_path):
    plan, _, results, store = trained(tmp_path, settings=[0.5, 1.0])
    fill(store, plan, results)
    found = {(other.method, other.setting): other for other in joint(study.judge(store))}
    assert set(found) == {(method, setting) for method in ("single-task", "equal") for setting in (0, 1)}
    for setting in (0, 1):
        ours, alone = found["equal", setting], found["single-task", setting]
        assert ours.difference.mean == pytest.approx(ours.mean - alone.mean)
    assert found["equal", 0].values != found["equal", 1].values


def test_stores_from_before_and_problems_without_joint_metrics_have_none(tmp_path):
    store = tmp_path / "s.sqlite"
    plan = study.plan("digits", ["equal"], seeds=1, epochs=1)
    result = train(plan.trials[0], load_problem("digits"))
    assert result.outputs == {}
    with Store(store, write=True) as opened:
        opened.add_plan(plan.to_dict())
        opened.add_result(plan.trials[0], result)
    made_up.version_1(store)
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE trial SET result = json_remove(result, '$.outputs')")
    with Store(store) as opened:
        assert opened.results(Plan.from_dict(opened.latest_plan()).trials)[plan.trials[0]].outputs == {}
    assert study.judge(store).others == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("return max(", "return None and max(", "joint metric 'largest miss' on the test data is a NoneType"),
        ("return max(", "raise KeyError('gone') or max(", "joint metric 'largest miss' on the test data failed"),
        ("return max(", "targets['whole'].mul_(2); return max(", "changes the data in place"),
    ],
)
def test_a_metric_that_fails_is_told_before_anything_is_trained(tmp_path, before, after, said):
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(PROBLEM))
    edit(tmp_path, before, after)
    with pytest.raises(ProblemError, match=said):
        study.plan(str(file), ["equal"], seeds=1)


def test_a_metric_is_tried_on_every_fold_that_is_tested_on(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(PROBLEM))
    first, second = (float(load_problem(str(file)).data(fold).test.targets["whole"].sum()) for fold in (0, 1))
    wrong = f"return None if abs(float(targets['whole'].sum()) - {second}) < 1e-6 else max("
    edit(tmp_path, "return max(", wrong)
    assert abs(first - second) > 1e-3
    study.plan(str(file), ["equal"], seeds=1)
    with pytest.raises(ProblemError, match="is a NoneType"):
        study.plan(str(file), ["equal"], seeds=2)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("return max(", "raise KeyError('gone') or max(", "joint metric 'largest miss' on the test data failed"),
        ("x[:, 0] * 2", "x[:, 0] * 3", "no longer as when the study was planned: 'whole' of test"),
        ("def load(fold):", "def load(fold):\n    raise OSError('no disk')", "no disk"),
    ],
)
def test_what_cannot_be_had_any_more_is_said_and_the_study_is_judged(tmp_path, before, after, said):
    plan, _, results, store = trained(tmp_path)
    fill(store, plan, results)
    edit(tmp_path, before, after)
    judgement = study.judge(store)
    assert joint(judgement) == []
    assert judgement.cells
    (note,) = [note for note in judgement.notes if "metrics of all tasks together are left out" in note]
    assert said in note


def test_what_the_problem_no_longer_has_is_said(tmp_path):
    plan, _, results, store = trained(tmp_path)
    fill(store, plan, results)
    edit(tmp_path, "joint=(", "joint=() and (")
    assert "has none any more" in study.judge(store).notes[-1]
    edit(tmp_path, '(regression("whole"), regression("half"))', '(regression("half"), regression("whole"))')
    edit(tmp_path, "joint=() and (", "joint=(")
    assert "its tasks are no longer those of the study" in study.judge(store).notes[-1]


def test_a_division_for_every_seed_is_held_to_that_of_the_plan(tmp_path):
    """Whatever seed the problem's own division has."""
    file, store = tmp_path / "mine.py", tmp_path / "s.sqlite"
    file.write_text(textwrap.dedent(PROBLEM).replace("def load(fold)", "def load(seed=1)").replace("folds=2,", ""))
    edit(tmp_path, "manual_seed(fold)", "manual_seed(seed)")
    plan = study.plan(str(file), ["single-task", "equal"], seeds=2, resplit=True)
    redrawn = load_problem(str(file)).redrawn()
    fill(store, plan, {trial: train(trial, redrawn) for trial in plan.trials})
    found = study.judge(store)
    assert [len(other.values) for other in joint(found)] == [2, 2], found.notes
    edit(tmp_path, "x[:, 0] * 2", "x[:, 0] * 3")
    assert joint(study.judge(store)) == []


@pytest.mark.parametrize("what", ["outputs", "targets"])
def test_what_one_metric_is_given_the_next_one_is_given_too(tmp_path, what):
    file = tmp_path / "mine.py"
    taking = f"""
def first(outputs, targets):
    {what}.pop("half")
    return 0.0

def largest("""
    file.write_text(textwrap.dedent(PROBLEM).replace("\ndef largest(", taking))
    edit(tmp_path, "joint=(", 'joint=(JointMetric("first", first, higher_is_better=True), ')
    study.plan(str(file), ["equal"], seeds=1)
    edit(tmp_path, f'{what}.pop("half")', f'{what}["half"].mul_(2)')
    with pytest.raises(ProblemError, match="changes the data in place"):
        study.plan(str(file), ["equal"], seeds=1)


def test_a_value_without_end_is_no_number(tmp_path, recwarn):
    plan, _, results, store = trained(tmp_path)
    fill(store, plan, results)
    edit(tmp_path, "return max(", "return float('inf') * max(")
    assert all(math.isnan(other.mean) for other in joint(study.judge(store)))
    assert not recwarn.list


def test_inputs_may_have_moved_by_a_last_digit(tmp_path):
    plan, _, results, store = trained(tmp_path)
    fill(store, plan, results)
    expected = joint(study.judge(store))
    edit(tmp_path, "return Split(x,", "return Split(x * (1 + 1e-6),")
    assert joint(study.judge(store)) == expected


def steelyard(*words):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_a_value_that_is_not_a_number_is_shown_as_none(tmp_path):
    file, page = tmp_path / "mine.py", tmp_path / "p.html"
    file.write_text(textwrap.dedent(PROBLEM).replace("return max(", "return float('nan') * max("))
    out = steelyard("compare", file, "--seeds", 2, "--store", tmp_path / "s.sqlite", "--page", page)
    assert "largest miss, % ↓" in out
    assert "nan" not in out
    assert "largest miss" in page.read_text()


def test_they_stand_in_what_report_writes(tmp_path):
    plan, _, results, store = trained(tmp_path)
    fill(store, plan, results)
    json, table, page = (tmp_path / f"r.{kind}" for kind in ("json", "csv", "html"))
    out = steelyard("report", store, "--json", json, "--csv", table, "--page", page)
    judgement = study.judge(store)
    equal = next(other for other in joint(judgement) if other.method == "equal")
    assert f"{100 * equal.mean:.1f}" in out
    assert from_json(json.read_text()) == judgement
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    shown = [row for row in rows if (row["metric"], row["method"]) == ("largest miss", "equal")]
    assert {int(row["seed"]): float(row["value"]) for row in shown} == equal.values
    assert "all tasks together" in page.read_text()
