"""Results belong to the code, the data and the versions that they were trained with."""

import dataclasses
import sys
import textwrap

import pytest
from rich.console import Console
from rich.progress import Progress

import steelyard.study.planning.origin as origin
from steelyard import study
from steelyard.errors import SteelyardWarning, TrainingError
from steelyard.problems import load_problem
from steelyard.report import render
from steelyard.report.page import page
from steelyard.study.planning.plans import Plan
from steelyard.study.running.work import check_origin
from steelyard.study.storage.store import Store
from study import made_up
from study.in_process import MadeUp

PROBLEM = """
    import torch
    from pathlib import Path
    from torch import nn
    from origin_helper import THRESHOLD
    from steelyard.problems import Data, Problem, Split, classification

    def load():
        generator = torch.Generator().manual_seed(0)
        shift = float((Path(__file__).parent / "shift.txt").read_text())
        def split(rows):
            x = torch.randn(rows, 4, generator=generator)
            return Split(x, {"kind": (x[:, 0] > THRESHOLD).long(), "sign": (x[:, 1] > shift).long()})
        return Data(split(96), split(60), split(60))

    problem = Problem("mine", (classification("kind", 2), classification("sign", 2)), load,
                      lambda: nn.Linear(4, 8), lambda task: nn.Linear(8, task.outputs), batch_size=16, epochs=1)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "origin_helper.py").write_text("THRESHOLD = 0.0\n")
    (tmp_path / "shift.txt").write_text("0")
    (tmp_path / "mine.py").write_text(textwrap.dedent(PROBLEM))
    yield tmp_path / "mine.py"
    sys.modules.pop("origin_helper", None)


@pytest.fixture
def run(file, tmp_path):
    """Run a study with made-up trials in the workers' place: how many were trained, the notes, and what was said."""

    engine = MadeUp()

    def command(seeds=2, **options):
        engine.trained.clear()
        plan = study.plan(str(file), ["equal"], seeds=seeds)
        with open(tmp_path / "out", "w") as out, Progress(console=Console(file=out, width=200)) as bar:
            judgement = study.run(plan, tmp_path / "s.sqlite", progress=bar, engine=engine, **options)
        return len(engine.trained), judgement.notes, (tmp_path / "out").read_text()

    return command


def edit_helper(folder):
    (folder / "origin_helper.py").write_text("THRESHOLD = 1e-9\n")  # the same labels, other code


def edit_data(folder):
    (folder / "shift.txt").write_text("0.05")


def undo(folder):
    (folder / "origin_helper.py").write_text("THRESHOLD = 0.0\n")
    (folder / "shift.txt").write_text("0")
    origin.__version__, origin.torch.__version__ = VERSIONS


VERSIONS = origin.__version__, origin.torch.__version__


@pytest.mark.parametrize("edit", ["helper", "data", "steelyard", "torch"])
def test_after_an_edit_trials_are_trained_anew_and_undone_the_old_ones_are_served(run, tmp_path, monkeypatch, edit):
    assert run()[:2] == (2, [])
    trained, notes, said = run()
    assert trained == 0
    assert notes[0].startswith("2 of 2 trials reused, trained at ")
    load = load_problem(str(tmp_path / "mine.py"))
    if edit == "helper":
        edit_helper(tmp_path)
    elif edit == "data":
        edit_data(tmp_path)
        load._data.clear()  # another process would read the file anew
    elif edit == "steelyard":
        monkeypatch.setattr(origin, "__version__", "0.0.9")
    else:
        monkeypatch.setattr(origin.torch, "__version__", "1.0")
    trained, notes, said = run()
    assert (trained, notes) == (2, [])
    assert "Trained with other code or data: 2 trials." in said
    assert "--reuse-any" in said
    monkeypatch.undo()
    undo(tmp_path)
    load_problem(str(tmp_path / "mine.py"))._data.clear()
    trained, notes, said = run()
    assert trained == 0
    assert "2 of 2 trials reused" in notes[0]


def test_the_flag_takes_results_of_other_code_and_says_so_for_ever(run, tmp_path):
    run()
    edit_helper(tmp_path)
    trained, notes, _ = run(seeds=3, reuse_any=True)
    assert trained == 1
    assert notes[0].startswith("2 of 3 trials reused")
    assert notes[1] == "trained with other code or data, and taken all the same: 2 trials"
    again = study.judge(tmp_path / "s.sqlite")
    assert again.notes == notes
    assert all(note in page(again) for note in notes)
    with open(tmp_path / "shown", "w") as out:
        render(again, Console(file=out, width=200))
    assert all(note in (tmp_path / "shown").read_text() for note in notes)
    # Without it they are trained; the estimate counts alike.
    plan = study.plan(str(tmp_path / "mine.py"), ["equal"], seeds=3)
    for reuse_any, finished in ((False, 1), (True, 3)):
        assert study.estimate(plan, tmp_path / "s.sqlite", reuse_any=reuse_any).finished == finished
    assert run(seeds=3)[0] == 2


def test_a_plan_of_the_first_version_is_shown_and_says_what_is_not_known(tmp_path):
    plan = made_up.plan()
    with Store(tmp_path / "s.sqlite", write=True) as store:
        values = plan.to_dict()
        del values["origin"], values["also"]
        store.add_plan(values)
        made_up.fill(store, plan, {"equal": [{"left": 0.5, "right": 0.5}]})
    made_up.version_1(tmp_path / "s.sqlite")
    judgement = study.judge(tmp_path / "s.sqlite")
    assert judgement.finished == 1
    assert judgement.notes == [
        "planned by Steelyard 0.1, which took no note of code and data: results may be of earlier ones"
    ]


def test_trials_of_the_first_version_are_not_taken_for_todays_but_by_the_flag(run, tmp_path):
    plan = study.plan(str(tmp_path / "mine.py"), ["equal"], seeds=1)
    old = dataclasses.replace(plan.trials[0], problem="mine.py@0123456789abcdef")
    with Store(tmp_path / "s.sqlite", write=True) as store:
        store.add_result(old, made_up.result({task: [0.5, 0.5] for task in old.tasks}))
    made_up.version_1(tmp_path / "s.sqlite")
    assert run(seeds=1, reuse_any=True)[0] == 0
    trained, _, said = run(seeds=1)
    assert trained == 1
    assert "Trained with other code or data: 1 trial." in said


def test_a_built_in_problem_has_an_origin_too():
    plan = study.plan("digits", ["equal"], seeds=1, epochs=1)
    assert plan.trials[0].problem == f"digits@{plan.origin.mark(0)}"
    assert Plan.from_dict(plan.to_dict()) == plan


def test_each_fold_has_its_own_data():
    plan = study.plan("digits", ["equal"], seeds=1, epochs=1)
    folds = dataclasses.replace(plan.origin, data=("a", "b"))
    assert folds.mark(0) == folds.mark(2) != folds.mark(1)
    assert dataclasses.replace(folds, data=("a", None)).mark(0) == folds.mark(0)  # others do not matter


def test_a_worker_notices_an_edit_and_tells_of_other_data(file, tmp_path):
    problem = load_problem(str(file))
    made = origin.Origin.of(problem, [0])
    check_origin(made, problem, 0)
    with pytest.warns(SteelyardWarning, match="not those that the study was planned with"):
        check_origin(dataclasses.replace(made, data=("other",)), problem, 0)
    edit_helper(tmp_path)
    with pytest.raises(TrainingError, match="was changed while the study was running"):
        check_origin(made, problem, 0)
