"""CoV-Weighting."""

from __future__ import annotations

import math

import pytest
import torch

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, mean, run, task_names, tie


class Reference:
    """Straight from the definitions: keep every loss ratio; deviation over mean, as they stood before this step."""

    def __init__(self, epsilon: float = 1e-8) -> None:
        self.epsilon, self.L, self.l = epsilon, {}, {}

    def coefficient(self, task):
        l = self.l[task]  # noqa: E741
        mu = mean(l)
        return math.sqrt(mean([(x - mu) ** 2 for x in l]) + self.epsilon) / mu

    def step(self, losses):
        count = len(losses)
        known = [task for task in losses if len(self.l.get(task, [])) >= 2]
        weights = dict.fromkeys(losses, 1 / count)
        for task in known:
            total = sum(self.coefficient(other) for other in known)
            weights[task] = len(known) / count * self.coefficient(task) / total
        for task, loss in losses.items():
            past = self.L.setdefault(task, [])
            self.l.setdefault(task, []).append(loss / mean(past) if past else 1.0)
            past.append(loss)
        return weights


class Decaying(Reference):
    """Means that decay; the variance stays Welford's sum over all steps, as in the authors' code."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay, self.state = decay, {}

    def coefficient(self, task):
        n, _, mean_l, S = self.state[task]
        return math.sqrt(S / n + self.epsilon) / mean_l

    def step(self, losses):
        self.l = {task: [0] * state[0] for task, state in self.state.items()}
        weights = super().step(losses)
        for task, L in losses.items():
            n, mean_L, mean_l, S = self.state.get(task, (0, L, 0.0, 0.0))
            keep = self.decay if n else 0.0
            l = L / mean_L  # noqa: E741
            new_mean = keep * mean_l + (1 - keep) * l
            S += (l - mean_l) * (l - new_mean)
            self.state[task] = (n + 1, keep * mean_L + (1 - keep) * L, new_mean, S)
        return weights


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("epsilon", [1e-8, 0.1])
def test_it_is_its_reference(epsilon: float, size: int, absent: bool) -> None:
    balancer = steelyard.make("cov", task_names(size), epsilon=epsilon)
    tie(balancer, Reference(epsilon), epochs_of_losses(size, absent=absent))


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_with_decaying_means_it_is_its_reference(size: int, absent: bool) -> None:
    tie(steelyard.make("cov(decay=0.9)", task_names(size)), Decaying(0.9), epochs_of_losses(size, absent=absent))


def test_weights_are_even_in_the_first_two_steps() -> None:
    found = run(steelyard.make("cov", task_names(4)), epochs_of_losses(4, epochs=1))
    assert found[0] == found[1] == dict.fromkeys(task_names(4), 0.25)
    assert found[2] != pytest.approx(found[0], rel=1e-3)


@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
def test_losses_that_do_not_vary_weigh_alike(epsilon: float) -> None:
    balancer = steelyard.make("cov", task_names(3), epsilon=epsilon)
    for weights in run(balancer, [[{"task0": 1e-12, "task1": 1.0, "task2": 1e12}] * 6]):
        assert list(weights.values()) == pytest.approx([1 / 3] * 3)


def test_a_loss_that_stays_zero_counts_as_one_that_does_not_vary() -> None:
    balancer = steelyard.make("cov(epsilon=0)", task_names(2))
    for loss in (1.0, 2.0, 3.0):
        weights, _ = call(balancer, {"task0": 0.0, "task1": loss})
    assert weights == {"task0": 0.0, "task1": 1.0}


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_loss_that_stays_zero_does_not_vary(decay: float) -> None:
    """Its ratios fade to nothing, by which nothing is divided."""
    balancer = steelyard.make(f"cov(decay={decay})", ["a", "b"])
    for step in range(1200):
        x = torch.tensor(1.0, requires_grad=True)
        balancer({"a": x * (1 + step % 3), "b": x - 1 if step else x})  # zero, with a gradient
        assert bool(balancer.last_weights.isfinite().all()), step
