"""Finite losses whose gradients are not: what `on_nonfinite` promises with an attached optimizer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import steelyard
from cells import every
from loops.test_left_out import MODES, make, toy_of
from steelyard.testing.toy import Toy, same_state, snapshot

LOSS_ONLY = [name for name, place in MODES if place == "losses" and make(name).reads == "losses"]


def root(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean().sqrt()


def toy_with(name: str) -> Toy:
    return toy_of(name, "losses", root)


def steep(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The task "bad" keeps its value; its gradient is NaN."""
    return {**losses, "bad": losses["bad"] + 0 * (losses["bad"] - losses["bad"].detach()).sqrt()}


@pytest.mark.parametrize("policy", ["drop_task", "skip_step"])
@every("name", LOSS_ONLY)
def test_an_attached_step_is_left_out_and_said_once(name: str, policy: str) -> None:
    toy = toy_with(name)
    balancer = make(name, on_nonfinite=policy).attach(toy.optimizer)
    before = snapshot(balancer), [parameter.clone() for parameter in toy.parameters()]
    for number in range(2):
        toy.optimizer.zero_grad()
        losses, where = toy.losses()
        balancer(steep(losses), **where).backward()
        if number == 0:
            with pytest.warns(steelyard.SteelyardWarning, match="finite and their gradients were not"):
                toy.optimizer.step()
        else:
            toy.optimizer.step()
    assert same_state(before[0], snapshot(balancer))
    assert all(torch.equal(a, b) for a, b in zip(before[1], toy.parameters(), strict=True))
    toy.step(balancer)
    assert balancer.steps == 1
    assert not all(torch.equal(a, b) for a, b in zip(before[1], toy.parameters(), strict=True))


@every("name", LOSS_ONLY)
def test_otherwise_the_next_losses_raise(name: str) -> None:
    toy = toy_with(name)
    balancer = make(name)
    losses, where = toy.losses()
    balancer(steep(losses), **where).backward()
    toy.optimizer.step()
    spoiled = toy.losses()[0]
    with pytest.raises(steelyard.errors.NonFiniteLossError, match="is nan"):
        balancer.observe(after=spoiled) if balancer.needs_after else balancer(spoiled)


def test_large_gradients_are_finite() -> None:
    x = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([x], lr=1e-38)
    balancer = steelyard.make("equal", ["a"], on_nonfinite="skip_step").attach(optimizer)
    balancer({"a": 1e30 * x.sum()}).backward()
    optimizer.step()
    assert balancer.steps == 1
