"""Metrics of all tasks together are those of the outputs put side by side, also of networks trained apart."""

import contextlib
import sqlite3
import textwrap

import pytest
import torch

from steelyard import study
from steelyard.problems import load_problem
from steelyard.study.analysis.joint_metrics import JointValue, joint_values
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
        joint=(JointMetric("largest miss", largest, higher_is_better=False, ideal=0.0),),
    )
"""


@pytest.mark.parametrize("shape", [(5,), (4, 1), (2, 3, 2)])
def test_outputs_survive_as_text(shape):
    outputs = torch.randn(shape)
    assert torch.equal(unpack(pack(outputs)), outputs)


def test_joint_metrics_of_a_study(tmp_path):
    file, store = tmp_path / "mine.py", tmp_path / "s.sqlite"
    file.write_text(textwrap.dedent(PROBLEM))
    plan = study.plan(str(file), ["single-task", "equal"], seeds=3)
    problem = load_problem(str(file))
    results = {trial: train(trial, problem) for trial in plan.trials}
    with Store(store, write=True) as opened:
        opened.add_plan(plan.to_dict())
        for trial, result in results.items():
            if (trial.seed, trial.tasks) != (2, ("half",)):  # one that is not finished
                opened.add_result(trial, result)
    single, equal = joint_values(store)
    assert (single.metric, single.method, equal.method) == ("largest miss", "single-task", "equal")
    assert (list(single.values), list(equal.values)) == ([0, 1], [0, 1, 2])
    (trial,) = plan.trials_of("equal", 0, 1)
    kept = {task: unpack(text)[:, 0] for task, text in results[trial].outputs.items()}
    targets = problem.data(1).test.targets
    misses = torch.cat([kept["whole"] - targets["whole"], kept["half"] - targets["half"][1::2]])
    assert equal.values[1] == pytest.approx(float(misses.abs().max()))
    assert single.values[0] != equal.values[0]


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
    assert joint_values(store) == []


def test_compare_prints_them_below_the_table(tmp_path, monkeypatch, capsys):
    from steelyard.report import announcements as comparison

    values = {0: 0.08, 1: 0.1}
    found = [JointValue("test error", True, "equal", 0, values), JointValue("test error", True, "dwa", 0, {})]
    monkeypatch.setattr(comparison, "joint_values", lambda store: found)
    comparison.show_joint(tmp_path / "s.sqlite")
    out = capsys.readouterr().out
    assert "equal" in out
    assert "9 ± 1.4 %" in out
    assert "dwa" not in out
