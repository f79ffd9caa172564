"""Uncertainty weighting."""

from __future__ import annotations

import math

import pytest
import torch

import steelyard
from learned_references import LearnedReference, external_weights
from loss_sequences import SIZES, call, epochs_of_losses, task_names, tie
from steelyard.errors import LossError

OBJECTIVES = {
    "half": lambda s, loss: 0.5 * (torch.exp(-s) * loss + s),
    # As printed in the paper, with σ² = e^s.
    "regression": lambda s, loss: loss / (2 * torch.exp(s)) + torch.log(torch.exp(s).sqrt()),
    "classification": lambda s, loss: loss / torch.exp(s) + torch.log(torch.exp(s).sqrt()),
}


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", OBJECTIVES)
def test_it_is_its_reference(form: str, size: int, absent: bool) -> None:
    balancer = steelyard.make("uw", task_names(size), form=form, initial=0.3, learning_rate=0.05)
    tie(balancer, LearnedReference(OBJECTIVES[form], 0.3, 0.05), epochs_of_losses(size, absent=absent))


def test_a_parameter_that_you_train_gets_the_gradient_of_the_objective() -> None:
    tasks, rate = task_names(2), 0.1
    epochs = epochs_of_losses(2, absent=True, low=-1, high=1)
    balancer = steelyard.make("uw", tasks, learn="external", learning_rate=5.0)
    # Nothing but the outside optimizer moves it: s ← s - rate · ½ (1 - e^{-s} L).
    s, expected = dict.fromkeys(tasks, 0.0), []
    for losses in [losses for epoch in epochs for losses in epoch]:
        expected.append({task: 0.5 * math.exp(-s[task]) for task in losses})
        for task, loss in losses.items():
            s[task] -= rate * 0.5 * (1 - math.exp(-s[task]) * loss)
    found = external_weights(balancer, "log_variance", epochs, rate)
    for weights, reference in zip(found, expected, strict=True):
        assert weights == pytest.approx(reference, rel=1e-4)  # the Parameter is float32, as the model's
    assert [name for name, _ in balancer.named_parameters()] == ["log_variance"]


def test_at_the_learnt_optimum_the_weight_is_half_the_inverse_loss() -> None:
    balancer = steelyard.make("uw", task_names(2), learning_rate=0.05)
    for _ in range(500):
        weights, _ = call(balancer, {"task0": 0.2, "task1": 5.0})
    assert weights == pytest.approx({"task0": 0.5 / 0.2, "task1": 0.5 / 5.0}, rel=1e-3)


def test_negative_losses_are_refused() -> None:
    with pytest.raises(LossError, match="'task0' is negative"):
        call(steelyard.make("uw", task_names(1)), {"task0": -1.0})
