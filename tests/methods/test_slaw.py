"""SLAW."""

from __future__ import annotations

import math

import pytest

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, run, task_names, tie
from steelyard.errors import OptionError


class Reference:
    """w = T (1/s)/Σ(1/s), s² = EMA(L²) - EMA(L)²; plain means over the first 1/(1-β) steps."""

    def __init__(self, beta: float) -> None:
        self.beta, self.n, self.a, self.b = beta, {}, {}, {}

    def step(self, losses):
        s = {}
        for task, loss in losses.items():
            n = self.n[task] = self.n.get(task, 0) + 1
            keep = (n - 1) / n if n <= round(1 / (1 - self.beta)) else self.beta
            self.a[task] = keep * self.a.get(task, 0.0) + (1 - keep) * loss**2
            self.b[task] = keep * self.b.get(task, 0.0) + (1 - keep) * loss
            if n > 1:
                s[task] = math.sqrt(self.a[task] - self.b[task] ** 2)
        inverse = {task: 1 / value for task, value in s.items()}
        return {task: len(s) * inverse[task] / sum(inverse.values()) if task in s else 1.0 for task in losses}


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("beta", [0.99, 0.75])
def test_it_is_its_reference(beta: float, size: int, absent: bool) -> None:
    tie(steelyard.make("slaw", task_names(size), beta=beta), Reference(beta), epochs_of_losses(size, absent=absent))


def test_the_variance_neither_cancels_nor_underflows() -> None:
    """Losses that vary by one part in 1e9 of their size: EMA(L²) - EMA(L)² would be rounding error alone."""
    wiggles = [(1 + 1e-9 * (-1) ** step) for step in range(40)]
    balancer = steelyard.make("slaw", task_names(2))
    found = run(balancer, [[{"task0": 1e-12 * wiggle, "task1": 1e12 * wiggle} for wiggle in wiggles]])
    assert found[-1]["task0"] / found[-1]["task1"] == pytest.approx(1e24, rel=1e-6)


def test_a_loss_that_has_not_varied_weighs_one() -> None:
    balancer = steelyard.make("slaw", task_names(3))
    assert call(balancer, {"task0": 0.3, "task1": 1.0, "task2": 1.0})[0] == dict.fromkeys(task_names(3), 1.0)
    weights, _ = call(balancer, {"task0": 0.3, "task1": 2.0, "task2": 4.0})
    assert weights == pytest.approx({"task0": 1.0, "task1": 1.5, "task2": 0.5})


def test_a_memory_of_nothing_is_refused() -> None:
    """With it no loss has varied, and every weight would be 1 for ever."""
    with pytest.raises(OptionError, match="beta"):
        steelyard.make("slaw(beta=0)", ["a", "b"])
