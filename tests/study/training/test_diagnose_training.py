"""A diagnosis over training: it trains as a study does, looking changes nothing, and means are means."""

import math

import pytest
import torch
from rich.console import Console
from torch import nn

import steelyard
from steelyard.errors import PlanError, SharedError, TrainingError, UnknownNameError
from steelyard.problems import Data, Problem, Split, classification, regression
from steelyard.report.diagnosis_course import show_course
from steelyard.study.training.diagnose_training import averaged, diagnose_training
from steelyard.study.training.train import train
from steelyard.study.trial import Trial

torch.set_num_threads(1)


def made(rows=200, size=1.0, **options):
    """Two tasks on random data, one with every third label missing; dropout draws random numbers."""
    generator = torch.Generator().manual_seed(0)
    splits = []
    for _ in range(3):
        x = torch.randn(rows, 6, generator=generator)
        z = size * x[:, 2] * x[:, 3]
        z[::3] = math.nan
        splits.append(Split(x, {"kind": (x[:, 0] > 0).long(), "size": z}))
    defaults = {
        "tasks": (classification("kind", 2), regression("size")),
        "load": lambda: Data(*splits),
        "trunk": lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2)),
        "head": lambda task: nn.Linear(16, task.outputs),
        "batch_size": 32,
    }
    return Problem("made", **{**defaults, **options})


@pytest.mark.parametrize("shared", ["features", "trunk"])
def test_it_trains_as_the_plain_sum_of_a_study_does(shared):
    course = diagnose_training(made(), epochs=3, shared=shared, seed=4)
    fractions = (("kind", 1.0), ("size", 1.0))
    trial = Trial("made", "equal", ("kind", "size"), 4, fractions, epochs=3, batch_size=32, scale="sum")
    curves = train(trial, made()).curves
    assert [look.looks for look in course.epochs] == [7, 7, 7]  # every step, so that the means are the study's
    for place, task in enumerate(("kind", "size")):
        assert [float(look.losses[place]) for look in course.epochs] == pytest.approx(curves.losses[task], rel=1e-6)
    assert course.whole.looks == 21
    assert course.whole.place == shared


def test_looks_are_spread_over_many_steps(monkeypatch):
    monkeypatch.setattr("steelyard.study.training.diagnose_training.LOOKS", 3)
    seen = []
    course = diagnose_training(made(), epochs=2, on_epoch=lambda epoch, epochs: seen.append((epoch, epochs)))
    assert [look.looks for look in course.epochs] == [3, 3]
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_the_places_are_compared_on_the_way():
    """The trunk has one layer, so that the last one shows everything."""
    course = diagnose_training(made(), epochs=2)
    features, last = course.fidelity
    assert (features.place, features.looks, last.place, last.looks) == ("features", 8, "last", 8)
    assert last.correlation == pytest.approx(1)
    assert last.wrong_sign in (0, pytest.approx(math.nan, nan_ok=True))
    assert last.norms_off == pytest.approx(0, abs=1e-4)
    assert features.correlation < 0.99
    assert not course.not_compared


def test_why_places_are_not_compared_is_told(monkeypatch, capsys):
    def refuse(losses, forward):
        raise SharedError("there are no features")

    monkeypatch.setattr("steelyard.study.training.diagnose_training._at_all_places", refuse)
    course = diagnose_training(made(), epochs=1)
    assert (course.fidelity, course.not_compared) == ((), "there are no features")
    show_course(course, Console(width=200))
    assert "were not compared: there are no features" in capsys.readouterr().out


def test_a_task_a_thousand_times_as_large_is_found():
    course = diagnose_training(made(size=1000.0), epochs=2)
    assert course.whole.dominant == "size"
    assert course.whole.drowned == ("kind",)
    assert all(look.ratio > 100 for look in course.epochs)


def test_means_are_over_the_looks_that_saw_a_task():
    features = torch.ones(1, 2, requires_grad=True) * 1.0

    def look(**rows):
        losses = {task: (features * torch.tensor(row)).sum() for task, row in rows.items()}
        return steelyard.diagnose(losses, shared=features)

    first, second = look(a=[1.0, 0.0], b=[-1.0, 1.0]), look(b=[3.0, 4.0])
    found = averaged(("a", "b", "never"), [first, second])
    assert (found.tasks, found.absent, found.looks) == (("a", "b"), ("never",), 2)
    assert found.norms.tolist() == pytest.approx([1.0, (math.sqrt(2) + 5) / 2])
    assert float(found.cosines[0, 1]) == float(found.cosines[1, 0]) == pytest.approx(-math.sqrt(0.5))
    assert found.conflict_rate == 1.0


def test_what_cannot_work_is_named():
    with pytest.raises(TrainingError, match="is nan in epoch 1 under the plain sum"):
        diagnose_training(made(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e9)), epochs=4)
    with pytest.raises(UnknownNameError, match="Did you mean 'trunk'"):
        diagnose_training(made(), shared="trunkk")
    with pytest.raises(PlanError, match="epochs=0"):
        diagnose_training(made(), epochs=0)
    with pytest.raises(PlanError, match="seed=-1"):
        diagnose_training(made(), seed=-1)
