"""The family of loss weightings by exponential moving averages."""

from __future__ import annotations

import pytest

import steelyard
from cells import every
from loss_sequences import SIZES, call, epochs_of_losses, mean, run, task_names, tie
from steelyard.errors import LossError, OptionError

VARIANTS = ("inverse", "normalised", "to-max", "to-min", "to-mean", "proportional")
STARTS = ("bias-corrected", "first-loss")


def weights_of(variant: str, average: dict[str, float]) -> dict[str, float]:
    """The table of variants, word by word."""
    count, values = len(average), list(average.values())
    inverse_sum = sum(1 / value for value in values)
    return {
        task: {
            "inverse": 1 / E,
            "normalised": count * (1 / E) / inverse_sum,
            "to-max": max(values) / E,
            "to-min": min(values) / E,
            "to-mean": mean(values) / E,
            "proportional": count * E / sum(values),
        }[variant]
        for task, E in average.items()
    }


class Reference:
    """E ← βE + (1-β)L per step and task; from zero and divided by 1-β^n, or from the first loss."""

    def __init__(self, beta: float, variant: str, start: str) -> None:
        self.beta, self.variant, self.start = beta, variant, start
        self.E, self.n = {}, {}

    def move(self, task, loss):
        if self.start == "first-loss":
            self.E[task] = self.beta * self.E[task] + (1 - self.beta) * loss if task in self.E else loss
        else:
            self.E[task] = self.beta * self.E.get(task, 0.0) + (1 - self.beta) * loss
        self.n[task] = self.n.get(task, 0) + 1

    def average(self, task):
        return self.E[task] if self.start == "first-loss" else self.E[task] / (1 - self.beta ** self.n[task])

    def step(self, losses):
        for task, loss in losses.items():
            self.move(task, loss)
        return weights_of(self.variant, {task: self.average(task) for task in losses})


class PerEpoch(Reference):
    """The average moves at the end of an epoch, on the epoch's mean losses; a task without one weighs 1."""

    def __init__(self, beta: float, variant: str, start: str) -> None:
        super().__init__(beta, variant, start)
        self.epoch = {}

    def step(self, losses):
        for task, loss in losses.items():
            self.epoch.setdefault(task, []).append(loss)
        known = {task: self.average(task) for task in losses if task in self.E}
        return dict.fromkeys(losses, 1.0) | (weights_of(self.variant, known) if known else {})

    def end_epoch(self):
        for task, seen in self.epoch.items():
            self.move(task, mean(seen))
        self.epoch = {}


@every("size", SIZES)
@every("start", STARTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_its_reference(variant: str, start: str, size: int) -> None:
    for beta, absent in ((0.0, False), (0.9, True), (0.999, False)):
        options = {"beta": beta, "variant": variant, "start": start}
        losses = epochs_of_losses(size, epochs=3, absent=absent)
        tie(steelyard.make("ema", task_names(size), **options), Reference(**options), losses)


@every("size", SIZES)
@every("start", STARTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_per_epoch_it_is_its_reference(variant: str, start: str, size: int) -> None:
    for absent in (False, True):
        options = {"beta": 0.6, "variant": variant, "start": start}
        balancer = steelyard.make("ema", task_names(size), per="epoch", **options)
        tie(balancer, PerEpoch(**options), epochs_of_losses(size, epochs=5, steps=4, absent=absent))


def test_inverse_without_memory_has_the_gradient_of_log_losses() -> None:
    losses = epochs_of_losses(3)
    by_log = run(steelyard.make("log(epsilon=0)", task_names(3)), losses)
    for found, expected in zip(run(steelyard.make("ema(beta=0)", task_names(3)), losses), by_log, strict=True):
        assert found == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_rescaling_one_loss(variant: str, start: str) -> None:
    """``inverse`` is invariant, ``normalised`` and ``to-*`` up to one common factor, ``proportional`` neither."""
    losses = epochs_of_losses(3, epochs=1)
    scaled = [[{task: loss * (1000 if task == "task1" else 1) for task, loss in step.items()} for step in losses[0]]]
    options = {"variant": variant, "start": start}
    before = run(steelyard.make("ema", task_names(3), **options), losses)
    after = run(steelyard.make("ema", task_names(3), **options), scaled)
    for old, new in zip(before, after, strict=True):
        factors = [new[task] * (1000 if task == "task1" else 1) / old[task] for task in old]
        if variant == "inverse":
            assert factors == pytest.approx([1, 1, 1], rel=1e-10)
        elif variant == "proportional":
            assert factors[1] / factors[0] == pytest.approx(1e6, rel=1e-10)
        else:
            assert factors == pytest.approx([factors[0]] * 3, rel=1e-10)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_constant_losses_give_constant_weights(variant: str, start: str) -> None:
    constant = {"task0": 3e-12, "task1": 0.7, "task2": 5e11}
    found = run(steelyard.make("ema", list(constant), variant=variant, start=start), [[constant] * 30])
    for weights in found:
        assert weights == pytest.approx(weights_of(variant, constant), rel=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_loss_that_has_been_zero_so_far_stops_nobody(variant: str) -> None:
    others = {"task0": 1e-12, "task1": 1e12}
    balancer = steelyard.make("ema", [*others, "zero"], variant=variant)
    weights, _ = call(balancer, {**others, "zero": 0.0})
    if variant == "proportional":
        assert weights == pytest.approx({"task0": 3e-24, "task1": 3.0, "zero": 0.0})
    else:
        assert weights == pytest.approx({**weights_of(variant, others), "zero": 1.0})
    everything = call(steelyard.make("ema", ["zero"], variant=variant), {"zero": 0.0})
    assert everything == ({"zero": 1.0}, 0.0)


def test_options_that_cannot_be_meant() -> None:
    with pytest.raises(OptionError, match=r"period is the length of an epoch.*per='epoch'"):
        steelyard.make("ema(period=3)", task_names(2))
    with pytest.raises(OptionError, match=r"beta must lie in \[0, 1\), got 1"):
        steelyard.make("ema(beta=1)", task_names(2))
    with pytest.raises(LossError, match="'task0' is negative"):
        call(steelyard.make("ema", task_names(1)), {"task0": -1.0})
