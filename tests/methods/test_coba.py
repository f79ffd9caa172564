"""CoBa."""

from __future__ import annotations

import math
import random
from importlib import import_module

import pytest
import torch

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, softmax, task_names
from steelyard.errors import MissingInputError


def slope(values: list[float]) -> float:
    """Of the least-squares line through equally spaced values."""
    n = len(values)
    x_mean, y_mean = (n - 1) / 2, sum(values) / n
    return sum((x - x_mean) * (y - y_mean) for x, y in enumerate(values)) / sum((x - x_mean) ** 2 for x in range(n))


class Reference:
    """RCS, ACS and DF as printed, every history a plain list."""

    def __init__(self, window: int, warm_up: int, temperature: float) -> None:
        self.window, self.warm_up, self.tau = window, warm_up, temperature
        self.V, self.alpha, self.a = {}, {}, []

    def validated(self, losses):
        newest = []
        for task, loss in losses.items():
            self.V.setdefault(task, []).append(loss)
            if len(self.V[task]) >= self.warm_up:
                ratios = [V / self.V[task][0] for V in self.V[task][-self.window :]]
                self.alpha.setdefault(task, []).append(slope(ratios))
                newest.append(self.alpha[task][-1])
        if newest:
            self.a.append(max(newest))

    def step(self, losses):
        T, w = len(losses), self.window
        if not self.a:
            return dict.fromkeys(losses, 1 / T)
        history = {task: self.alpha.get(task, [])[-w:] for task in losses}
        now = {task: past[-1] if past else 0.0 for task, past in history.items()}
        total = sum(abs(alpha) for alpha in now.values())
        rcs = softmax({task: T * alpha / total if total else 0.0 for task, alpha in now.items()})
        acs = softmax(
            {
                task: -len(past) * now[task] / sum(abs(alpha) for alpha in past) if past else 0.0
                for task, past in history.items()
            }
        )
        a = self.a[-w:]
        over_time = [math.exp(-self.tau * len(a) * value / sum(abs(each) for each in a)) for value in a]
        df = min(1.0, len(a) * over_time[-1] / sum(over_time))
        return {task: df * rcs[task] + (1 - df) * acs[task] for task in losses}


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("window", "warm_up", "temperature"), [(10, 2, 5.0), (3, 4, 0.5)])
def test_it_is_its_reference(window: int, warm_up: int, temperature: float, size: int, absent: bool) -> None:
    options = {"window": window, "warm_up": warm_up, "temperature": temperature}
    balancer, reference = steelyard.make("coba", task_names(size), **options), Reference(**options)
    training = epochs_of_losses(size, epochs=16, steps=2, absent=absent)
    # Validation losses fall, then rise, at each task's own time.
    source = random.Random(2)
    turn = {task: source.randint(3, 12) for task in task_names(size)}
    for epoch, steps in enumerate(training):
        for losses in steps:
            weights, _ = call(balancer, losses)
            assert weights == pytest.approx(reference.step(losses), rel=1e-10), f"epoch {epoch}"
            assert sum(weights.values()) == pytest.approx(1)
        shown = {
            task: 10 ** (int(task[-1]) - 2) * (0.8 ** min(epoch, turn[task]) + 0.05 * max(0, epoch - turn[task]))
            for task in task_names(size)
            if not (absent and epoch % 5 == 4 and task == "task0" and size > 1)
        }
        balancer.observe(validation={task: torch.tensor(loss, dtype=torch.float64) for task, loss in shown.items()})
        reference.validated(shown)
        balancer.end_epoch()


def validate(balancer: steelyard.Balancer, **losses: float) -> None:
    balancer.observe(validation={task: torch.tensor(loss, dtype=torch.float64) for task, loss in losses.items()})


def test_the_slow_task_weighs_more_and_the_diverging_one_less() -> None:
    slow = steelyard.make("coba", task_names(2))
    for time in range(6):
        validate(slow, task0=0.5**time, task1=0.95**time)
    weights, _ = call(slow, {"task0": 1.0, "task1": 1.0})
    assert weights["task1"] > 0.6

    diverging = steelyard.make("coba", task_names(2))
    for time in range(10):
        validate(diverging, task0=0.9**time, task1=0.9**time if time < 5 else 0.6 + 0.3 * (time - 5))
    weights, _ = call(diverging, {"task0": 1.0, "task1": 1.0})
    assert weights["task1"] < 0.3


@pytest.mark.filterwarnings("ignore:the loss of .task1. is exactly 0:steelyard.SteelyardWarning")
def test_validation_losses_that_stand_still_weigh_alike() -> None:
    balancer = steelyard.make("coba", task_names(3))
    for _ in range(4):
        validate(balancer, task0=1e-12, task1=0.0, task2=1e12)
    assert call(balancer, dict.fromkeys(task_names(3), 1.0))[0] == pytest.approx(dict.fromkeys(task_names(3), 1 / 3))


def test_epochs_without_validation_are_an_error_that_shows_the_line() -> None:
    balancer = steelyard.make("coba", task_names(2))
    call(balancer, {"task0": 1.0, "task1": 1.0})
    balancer.end_epoch()
    with pytest.raises(MissingInputError, match=r"none in two epochs: call balancer.observe\(validation="):
        balancer.end_epoch()


def test_many_steps_without_validation_are_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("steelyard.methods.coba"), "_PATIENCE", 5)
    balancer = steelyard.make("coba", task_names(1))
    for _ in range(5):
        call(balancer, {"task0": 1.0})
    with pytest.raises(MissingInputError, match="none in 5 steps"):
        call(balancer, {"task0": 1.0})
    validate(balancer, task0=1.0)
    for _ in range(5):
        call(balancer, {"task0": 1.0})


def test_it_goes_on_from_a_checkpoint() -> None:
    def validated(balancer: steelyard.Balancer, times: range) -> steelyard.Balancer:
        for time in times:
            validate(balancer, task0=0.5**time, task1=0.8**time)
        return balancer

    straight = validated(steelyard.make("coba", task_names(2)), range(6))
    resumed = steelyard.make("coba", task_names(2))
    resumed.load_state_dict(validated(steelyard.make("coba", task_names(2)), range(3)).state_dict())
    validated(resumed, range(3, 6))
    ones = dict.fromkeys(task_names(2), 1.0)
    assert call(resumed, ones) == call(straight, ones)
