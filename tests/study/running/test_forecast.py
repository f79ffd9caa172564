"""A dry run trains a few steps of each kind, whatever the study would take."""

import pytest

from steelyard.study.planning.make_plan import plan
from steelyard.study.running import forecast


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
    taken = []

    def train(trial, problem, hardware):
        result = real(trial, problem)
        taken.append(result.steps)
        return result

    real = forecast.train
    monkeypatch.setattr(forecast, "train", train)
    made = plan("digits", ["single-task", "equal"], **{"seeds": 1, **options})
    found = forecast.estimate(made, tmp_path / "none.sqlite", workers=1)
    assert len(taken) == 4, "each kind twice: the first time is not counted"
    assert max(taken) <= forecast.STEPS + 2
    trials = {trial: made.steps(trial) for trial in made.trials}
    assert found.trials == len(trials)
    assert found.seconds > 1e-6 * sum(trials.values())
