"""Weights of DB-MTL's gradient half at features, against its recursion written out in numbers."""

import statistics

import pytest
import torch

import steelyard

TASKS = ("a", "b", "c", "d")
# By step and task: norm ratios up to 1e6, growing, falling and steady; d has no gradient in the first two steps.
NORMS = [(1.0, 1e3, 1e-3, 0.0), (2.0, 1e-3, 1e-3, 0.0), (4.0, 1.0, 1e-3, 5.0), (8.0, 1e3, 1e-3, 5.0)]
CHOICES = {
    "max": max,
    "min": min,
    "mean": statistics.mean,
    "median": lambda values: sorted(values)[(len(values) - 1) // 2],
}


def steps(spec):
    """The weights that the method gives in each step to tasks whose gradients at features have these norms."""
    balancer = steelyard.make(spec, TASKS, scale="paper")
    found = []
    for norms in NORMS:
        features = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
        losses = {task: norm * features[0, 0] + 1 for task, norm in zip(TASKS, norms, strict=True)}
        balancer(losses, shared=features).backward()
        found.append([float(weight) for weight in balancer.last_weights])
    return found


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(("beta", "decay"), [(0.9, 0.5), (0.5, 0.0), (0.1, 1.0)])
def test_weights_are_the_common_scale_over_averaged_norms(choice, beta, decay):
    found = steps(f"max-norm(beta={beta},common_scale={choice},decay={decay})")
    squares, mass = dict.fromkeys(TASKS, 0.0), 0.0
    for step, norms in enumerate(NORMS, start=1):
        now = beta / step**decay
        mass = now * mass + 1 - now
        squares = {task: now * squares[task] + (1 - now) * norm**2 for task, norm in zip(TASKS, norms, strict=True)}
        averaged = {task: (square / mass) ** 0.5 for task, square in squares.items()}
        scale = CHOICES[choice]([norm for norm in averaged.values() if norm > 0])
        expected = [scale / norm if norm > 0 else 1.0 for norm in averaged.values()]
        assert found[step - 1] == pytest.approx(expected, rel=1e-10)


def test_without_an_average_each_step_stands_for_itself():
    for norms, weights in zip(NORMS, steps("max-norm(beta=0)"), strict=True):
        largest = max(norms)
        assert weights == pytest.approx([largest / norm if norm else 1.0 for norm in norms], rel=1e-10)
