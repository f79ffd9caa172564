"""SoftAdapt."""

from __future__ import annotations

import math

import pytest

import steelyard
from cells import every
from loss_sequences import SIZES, call, epochs_of_losses, mean, run, task_names, tie
from steelyard.errors import LossError, OptionError
from steelyard.methods.softadapt import forward_difference

VARIANTS = ("original", "normalised", "loss-weighted")
COEFFICIENTS = {
    1: (-1, 1),
    2: (-3 / 2, 2, -1 / 2),
    3: (-11 / 6, 3, -3 / 2, 1 / 3),
    5: (-137 / 60, 5, -5, 10 / 3, -5 / 4, 1 / 5),
}
"""As tabulated by the authors (1, 3, 5) and in textbooks (2), oldest first."""


class Reference:
    """e^{βs} (times f) over their sum, s and f from the last order + 1 losses; s = 0 while there are fewer."""

    def __init__(self, variant: str, beta: float, order: int) -> None:
        self.variant, self.beta, self.order, self.past = variant, beta, order, {}

    def push(self, task, loss):
        self.past[task] = [*self.past.get(task, []), loss][-self.order - 1 :]

    def weights(self, tasks):
        s, f = {}, {}
        for task in tasks:
            past = self.past.get(task, [])
            full = len(past) == self.order + 1
            s[task] = sum(a * L for a, L in zip(COEFFICIENTS[self.order], past, strict=True)) if full else 0.0
            f[task] = mean(past) if past else None
        known = [value for value in f.values() if value is not None]
        f = {task: mean(known or [1.0]) if value is None else value for task, value in f.items()}
        total = sum(abs(value) for value in s.values())
        if self.variant == "normalised" and total > 0:
            s = {task: value / total for task, value in s.items()}
        if self.variant != "loss-weighted":
            f = dict.fromkeys(f, 1.0)
        largest = max(self.beta * value for value in s.values())
        terms = {task: f[task] * math.exp(self.beta * s[task] - largest) for task in tasks}
        return {task: term / sum(terms.values()) for task, term in terms.items()}

    def step(self, losses):
        for task, loss in losses.items():
            self.push(task, loss)
        return self.weights(losses)


class PerEpoch(Reference):
    """The losses that count are the means of ended epochs."""

    def __init__(self, variant: str, beta: float, order: int) -> None:
        super().__init__(variant, beta, order)
        self.epoch = {}

    def step(self, losses):
        for task, loss in losses.items():
            self.epoch.setdefault(task, []).append(loss)
        return self.weights(losses)

    def end_epoch(self):
        for task, seen in self.epoch.items():
            self.push(task, mean(seen))
        self.epoch = {}


@every("absent", [False, True])
@every("size", SIZES)
@every("order", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("per", ["step", "epoch"])
def test_it_is_its_reference(per: str, variant: str, order: int, size: int, absent: bool) -> None:
    options = {"variant": variant, "beta": 0.4, "order": order}
    reference = (Reference if per == "step" else PerEpoch)(**options)
    balancer = steelyard.make("softadapt", task_names(size), per=per, **options)
    tie(balancer, reference, epochs_of_losses(size, epochs=6, absent=absent, low=-1, high=1))


@pytest.mark.parametrize("order", COEFFICIENTS)
def test_the_coefficients_are_the_tabulated_ones(order: int) -> None:
    assert forward_difference(order).tolist() == pytest.approx(COEFFICIENTS[order], rel=1e-14)


def test_what_rises_weighs_more_and_a_negative_beta_turns_it_round() -> None:
    rising = [[{"task0": 1.0, "task1": 1.0}, {"task0": 2.0, "task1": 0.5}]]
    for beta, heavier in ((1.0, "task0"), (-1.0, "task1")):
        weights = run(steelyard.make("softadapt", task_names(2), beta=beta), rising)[-1]
        assert max(weights, key=weights.get) == heavier


@pytest.mark.parametrize("variant", VARIANTS)
def test_extreme_slopes_and_zero_losses(variant: str) -> None:
    balancer = steelyard.make("softadapt", task_names(3), variant=variant)
    call(balancer, {"task0": 1e12, "task1": 1e-12, "task2": 0.0})
    weights, _ = call(balancer, {"task0": 1e-12, "task1": 1e12, "task2": 0.0})
    assert sum(weights.values()) == pytest.approx(1)
    assert max(weights, key=weights.get) == "task1"
    call(balancer, dict.fromkeys(task_names(3), 0.0))
    weights, _ = call(balancer, dict.fromkeys(task_names(3), 0.0))
    assert weights == pytest.approx(dict.fromkeys(task_names(3), 1 / 3))


def test_only_the_loss_weighted_variant_minds_negative_losses() -> None:
    call(steelyard.make("softadapt", task_names(1)), {"task0": -1.0})
    with pytest.raises(LossError, match="'task0' is negative"):
        call(steelyard.make("softadapt(variant=loss-weighted)", task_names(1)), {"task0": -1.0})


def test_options_that_cannot_be_meant() -> None:
    with pytest.raises(OptionError, match=r"period is the length of an epoch.*per='epoch'"):
        steelyard.make("softadapt(period=3)", task_names(2))
    with pytest.raises(OptionError, match="order must be a whole number from 1 to 30, got 0"):
        steelyard.make("softadapt(order=0)", task_names(2))
