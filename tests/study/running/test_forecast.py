"""A dry run trains a few steps of each kind, whatever the study would take."""

import dataclasses
from types import SimpleNamespace

import pytest
from torch.utils.data import Dataset

from steelyard.errors import NonFiniteLossError
from steelyard.problems import Data, Metric, load_problem
from steelyard.study.planning.make_plan import plan
from steelyard.study.running import forecast
from steelyard.study.training.train import train


@pytest.mark.parametrize(
    "options",
    [
        {"epoch_steps": 1_000_000},
        {"epochs": 1_000_000},
        {"batch_size": 1},
        {"epochs": 10**9, "epoch_steps": 10**9, "batch_size": 2},
        {"settings": (0.01,), "epoch_steps": 1_000_000},
        {"seeds": 1000},
    ],
    ids=str,
)
def test_few_steps_are_timed(options, tmp_path, monkeypatch):
    taken, shown = [], []

    def train(trial, problem, hardware):
        result = real(trial, problem)
        taken.append(result.steps)
        shown.append([len(rows) for rows in (problem.data().validation, problem.data().test)])
        return result

    real = forecast.train
    monkeypatch.setattr(forecast, "train", train)
    made = plan("digits", ["single-task", "equal"], **{"seeds": 1, **options})
    found = forecast.estimate(made, tmp_path / "none.sqlite", workers=1)
    assert len(taken) == 4, "each kind twice: the first time is not counted"
    assert max(taken) <= forecast.STEPS + 2
    assert max(map(max, shown)) <= 2 * forecast.EVALUATED * made.batch_size + len(made.tasks)
    trials = {trial: made.steps(trial) for trial in made.trials}
    assert found.trials == len(trials)
    assert found.seconds > 1e-6 * sum(trials.values())


def test_a_rate_at_which_training_diverges_is_timed_as_well(tmp_path):
    """Whether it does, the study says of that trial alone; a dry run only asks how long steps take."""
    made = plan("digits", ["equal", "pcgrad"], seeds=1, epochs=1, learning_rate=1e30)
    with pytest.raises(NonFiniteLossError):
        train(made.trials[0], load_problem("digits"))
    assert forecast.estimate(made, tmp_path / "none.sqlite", workers=1).seconds > 0


def test_what_is_seen_of_some_rows_is_counted_for_all(tmp_path, monkeypatch):
    """A clock that runs by rows: 1 s for each that is learnt from, 0.1 s for each that is evaluated."""
    made = plan("digits", ["single-task", "equal"], seeds=1, epochs=3, batch_size=4)
    problem = load_problem("digits")
    now = [0.0]

    def train(trial, small, hardware):
        data = small.data()
        work = float(len(data.train))
        now[0] += work + 0.1 * (len(data.validation) + 2 * len(data.test))
        return SimpleNamespace(work=work, steps=len(data.train) / trial.batch_size)

    monkeypatch.setattr(forecast, "train", train)
    monkeypatch.setattr(forecast.time, "process_time", lambda: now[0])
    cost = forecast._time(problem, made.trials[0])
    assert cost.step == pytest.approx(made.batch_size)
    assert cost.evaluation == pytest.approx(0.1 * len(problem.data().validation))


@pytest.mark.parametrize(("workers", "patience", "shortest"), [(1, 0, 1.0), (2, 0, 1.0), (2, 4, 0.5)])
def test_each_method_has_its_time_and_all_of_it_a_range(tmp_path, monkeypatch, workers, patience, shortest):
    """A method whose step takes seven times as long counts seven times; the last trial may have a worker alone."""
    steps = {"single-task": 1.0, "equal": 1.0, "pcgrad": 7.0}
    monkeypatch.setattr(forecast, "_time", lambda problem, trial: forecast._Cost(steps[trial.method], 0.0))
    monkeypatch.setattr(forecast, "START", 0.0)
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: 0.0)
    made = plan("digits", list(steps), seeds=2, epochs=10, patience=patience)
    found = forecast.estimate(made, tmp_path / "none.sqlite", workers=workers)
    trained = 10 * made.settings[0].steps[""]
    assert found.seconds == pytest.approx(2 * (2 + 1 + 7) * trained / workers)
    assert found.least == pytest.approx(shortest * found.seconds / forecast.SPREAD)
    assert found.most == pytest.approx(forecast.SPREAD * (found.seconds + (7 * trained if workers > 1 else 0)))


@pytest.mark.parametrize("apart", [False, True], ids=["in memory", "read when needed"])
def test_metrics_have_their_time(apart, tmp_path, monkeypatch):
    """By a clock on which each row that a metric sees takes so long; nothing else moves it."""
    now = [0.0]

    def slow(seconds):
        def function(outputs, targets):
            assert len(outputs) == len(targets)
            now[0] += seconds * len(targets)
            return 0.5

        return Metric(f"slow {seconds}", function, higher_is_better=True, ideal=1.0)

    plain = load_problem("digits")
    rows = {part: dataclasses.replace(each) for part, each in plain.data().splits().items()}
    data = Data(**(({part: Rows(each) for part, each in rows.items()}) if apart else rows))
    tasks = [
        dataclasses.replace(plain.task("left"), metrics=(slow(1.0), slow(10.0))),
        dataclasses.replace(plain.task("right"), metrics=(slow(100.0),)),
    ]
    problem = dataclasses.replace(plain, tasks=tasks, load=lambda: data)
    made = plan("digits", ["single-task", "equal"], seeds=1, epochs=3)
    monkeypatch.setattr(forecast, "load_problem", lambda reference: problem)
    monkeypatch.setattr(forecast, "_time", lambda problem, trial: forecast._Cost(0.0, 0.0))
    monkeypatch.setattr(forecast, "START", 0.0)
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: now[0])
    found = forecast.estimate(made, tmp_path / "none.sqlite", workers=1)
    validation, test = len(plain.data().validation), len(plain.data().test)
    left = 3 * 2 * validation + (2 * 11 + 19) * test
    right = 100 * (3 * 2 * validation + (2 + 19) * test)
    assert found.seconds == pytest.approx(2 * (left + right))  # alone, and together
    assert now[0] == pytest.approx(111 * (validation + test)), "each metric once"


class Rows(Dataset):
    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, row):
        return self.split.inputs[row], {name: targets[row] for name, targets in self.split.targets.items()}


def test_a_study_calls_metrics_as_often_as_is_counted():
    """The chosen epoch is the first one here, so that test is read twice."""
    seen = [0]

    def function(outputs, targets):
        seen[0] += len(targets)
        return 0.5

    plain = load_problem("digits")
    task = dataclasses.replace(plain.task("left"), metrics=(Metric("flat", function, True, 1.0),))
    trial = dataclasses.replace(plan("digits", ["single-task"], seeds=1).trials[0], epochs=2)
    train(trial, dataclasses.replace(plain, tasks=[task, plain.task("right")]))
    data = plain.data()
    assert seen[0] == 2 * 2 * len(data.validation) + (2 + 19) * len(data.test)
