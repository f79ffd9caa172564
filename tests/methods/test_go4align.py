"""GO4Align."""

from __future__ import annotations

import itertools
import math

import pytest

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, mean, run, task_names, tie


def best_grouping(values: list[float], groups: int) -> list[float]:
    """Every way to colour the values with all colours, by brute force; each becomes its group's mean."""
    best, result = math.inf, values
    for colours in itertools.product(range(groups), repeat=len(values)):
        if len(set(colours)) < groups:
            continue
        means = {c: mean([v for v, k in zip(values, colours, strict=True) if k == c]) for c in colours}
        error = sum((v - means[k]) ** 2 for v, k in zip(values, colours, strict=True))
        if error < best:
            best, result = error, [means[k] for k in colours]
    return result


class Reference:
    """p ← p e^{-ηL} / Σ over those at hand; γ = p ΣL / L; one weight per group of γ.

    What is kept of p is a part of what those at hand held together: absent tasks lose and gain nothing.
    """

    def __init__(self, groups: int, step_size: float) -> None:
        self.groups, self.step_size, self.p = groups, step_size, {}

    def step(self, losses):
        held = sum(self.p.get(task, 1.0) for task in losses)
        raised = {task: self.p.get(task, 1.0) * math.exp(-self.step_size * loss) for task, loss in losses.items()}
        shares = {task: value / sum(raised.values()) for task, value in raised.items()}
        self.p |= {task: held * share for task, share in shares.items()}
        total = sum(losses.values())
        indicator = [shares[task] * total / loss for task, loss in losses.items()]
        return dict(zip(losses, best_grouping(indicator, min(self.groups, len(losses))), strict=True))


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("groups", "step_size"), [(1, 1e-4), (2, 0.05), (3, 0.0)])
def test_it_is_its_reference(groups: int, step_size: float, size: int, absent: bool) -> None:
    balancer = steelyard.make("go4align", task_names(size), groups=groups, step_size=step_size)
    tie(balancer, Reference(groups, step_size), epochs_of_losses(size, epochs=3, steps=4, absent=absent))


def test_there_are_as_many_weights_as_groups() -> None:
    for groups in (1, 2, 4):
        for weights in run(steelyard.make("go4align", task_names(12), groups=groups), epochs_of_losses(12, epochs=1)):
            assert len(set(weights.values())) == groups


def test_huge_losses_do_not_wipe_out_the_memory() -> None:
    balancer = steelyard.make("go4align(groups=1)", task_names(2))
    for _ in range(50):
        weights, _ = call(balancer, {"task0": 1e12, "task1": 1e12})
    assert weights == pytest.approx({"task0": 1.0, "task1": 1.0})


def test_a_loss_of_zero_stays_out_of_the_groups() -> None:
    weights, _ = call(steelyard.make("go4align", task_names(3)), {"task0": 0.0, "task1": 1.0, "task2": 1.0})
    assert weights["task0"] == 1.0
    assert weights["task1"] == weights["task2"] == pytest.approx(2 / 3, rel=1e-3)
