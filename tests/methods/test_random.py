"""Random weights."""

from __future__ import annotations

import pytest
import torch

import steelyard
from loss_sequences import epochs_of_losses, run, task_names


def test_normal_weights_are_the_softmax_of_the_generators_draws() -> None:
    balancer = steelyard.make("random", task_names(5), generator=torch.Generator().manual_seed(7))
    found = run(balancer, epochs_of_losses(5))
    draws = torch.Generator().manual_seed(7)
    for weights in found:
        expected = torch.randn(5, dtype=torch.float64, generator=draws).softmax(0).tolist()
        assert list(weights.values()) == pytest.approx(expected, rel=1e-12)


def test_dirichlet_weights_have_the_moments_of_dirichlet_one() -> None:
    """Dirichlet(1) over T tasks: mean 1/T, variance (T-1)/(T²(T+1))."""
    size, steps = 4, 1000
    balancer = steelyard.make(
        "random", task_names(size), distribution="dirichlet", generator=torch.Generator().manual_seed(1)
    )
    ones = {task: torch.ones((), requires_grad=True) for task in task_names(size)}
    rows = []
    for _ in range(steps):
        balancer(ones)
        rows.append(balancer.last_weights)
    weights = torch.stack(rows)
    assert torch.allclose(weights.sum(1), torch.ones(steps, dtype=torch.float64))
    deviation = ((size - 1) / (size**2 * (size + 1))) ** 0.5
    assert (weights.mean(0) - 1 / size).abs().max() < 5 * deviation / steps**0.5
    assert weights.std(0) == pytest.approx(deviation, rel=0.1)


def test_weights_follow_torchs_seed_and_go_on_from_a_checkpoint() -> None:
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        balancer = steelyard.make("random", task_names(3))
        runs.append(run(balancer, epochs_of_losses(3, epochs=1)))
    assert runs[0] == runs[1]

    saved = balancer.state_dict()
    expected = run(balancer, epochs_of_losses(3, epochs=1))
    resumed = steelyard.make("random", task_names(3))
    resumed.load_state_dict(saved)
    assert run(resumed, epochs_of_losses(3, epochs=1)) == expected
