"""LDC-MTL: the objective as it stands, differentiated by autograd, its logits under torch's Adam."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

import steelyard
from loss_sequences import call
from steelyard.errors import OptionError

LOSSES = torch.rand(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1


def objective(losses: Tensor, logits: Tensor, penalty: float) -> Tensor:
    """The mean over all orders of the tasks of the authors' sum along the list."""
    v = logits.sigmoid()
    weighted = v * losses
    chains = [(weighted[list(order)].diff()).abs().sum() for order in permutations(range(len(v)))]
    return weighted.sum() / v.sum().detach() + penalty * torch.stack(chains).mean()


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("penalty", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_it_is_its_objective_step_after_step(tasks: int, penalty: float, normalise: bool) -> None:
    names = ["a", "b", "c", "d"][:tasks]
    method = steelyard.LDCMTL(names, penalty=penalty, normalise=normalise, learning_rate=0.1)
    logits = torch.ones(tasks, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    first = LOSSES[0, :tasks] if normalise else torch.ones(tasks, dtype=torch.float64)
    for values in LOSSES[:, :tasks]:
        losses = values.clone().requires_grad_()
        value = objective(losses / first, logits, penalty)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        weights, mine = call(method, dict(zip(names, values.tolist(), strict=True)))
        assert losses.grad is not None
        assert [weights[name] for name in names] == pytest.approx(losses.grad.tolist(), rel=1e-6)
        assert mine == pytest.approx(value.item(), rel=1e-6)


def test_equal_weighted_losses_have_no_discrepancy() -> None:
    weights, _ = call(steelyard.LDCMTL(["a", "b", "c"], penalty=0.7), {"a": 5.0, "b": 1e-9, "c": 1e9})
    assert list(weights.values()) == pytest.approx([1 / 3 / 5, 1 / 3 / 1e-9, 1 / 3 / 1e9])


def test_a_loss_of_zero_is_no_trouble() -> None:
    method = steelyard.LDCMTL(["a", "b"])
    for values in ({"a": 1.0, "b": 2.0}, {"a": 0.0, "b": 1.0}, {"a": 1e-30, "b": 1e30}):
        weights, value = call(method, values)
        assert all(weight == weight and abs(weight) < 10 for weight in weights.values())
        assert value == value


def test_weighted_losses_are_held_together() -> None:
    """Losses of unequal size that nothing moves: under a penalty their weighted sizes meet, without one they do not."""

    def spread(penalty: float) -> float:
        method = steelyard.LDCMTL(["a", "b"], penalty=penalty, normalise=False, learning_rate=0.05)
        for _ in range(200):
            call(method, {"a": 1.0, "b": 3.0})
        v = method.committed("logits").sigmoid()
        return abs(float(v[0] - 3 * v[1])) / float(v.sum())

    assert spread(10.0) < 0.1 < spread(0.0)


def test_the_penalty_is_no_reward() -> None:
    with pytest.raises(OptionError, match="penalty must be at least 0"):
        steelyard.LDCMTL(["a"], penalty=-0.1)
