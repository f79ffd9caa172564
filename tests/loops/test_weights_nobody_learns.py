"""Weights that an outside optimizer is to learn, and that were given to none."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import steelyard
from steelyard.balancing.first_steps import LEARN_LOOKS
from steelyard.errors import SteelyardWarning
from steelyard.method_registry import method_class, method_names, options_of
from steelyard.testing.toy import Toy

TASKS = ["a", "b"]
LEARNT = [name for name in method_names() if "learn" in options_of(method_class(name))]


def said(
    name: str, attached: bool, given: bool, accumulate: int = 1, steps: int = 2 * LEARN_LOOKS, **own: Any
) -> list[str]:
    toy = Toy(TASKS)
    balancer = steelyard.make(name, TASKS, learn="external")
    for parameter in balancer.parameters():
        parameter.requires_grad_(not own.get("frozen", False))
    optimizer = torch.optim.Adam([*toy.parameters(), *(balancer.parameters() if given else [])], lr=1e-3)
    if attached:
        balancer.attach(optimizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            optimizer.zero_grad()
            for _ in range(accumulate):
                balancer(toy.losses()[0]).backward()
            optimizer.step()
    return [str(each.message) for each in caught if issubclass(each.category, SteelyardWarning)]


def test_there_are_some() -> None:
    assert {"uw", "uw-revised", "imtl-l"} <= set(LEARNT)


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("name", LEARNT)
def test_it_is_said_once_and_only_then(name: str, attached: bool) -> None:
    (text,) = said(name, attached, given=False)
    assert "did not move in 10 steps" in text
    assert "[*model.parameters(), *balancer.parameters()]" in text
    assert said(name, attached, given=True) == []
    assert said(name, attached, given=False, frozen=True) == []


@pytest.mark.parametrize("name", LEARNT)
def test_many_micro_batches_are_not_steps(name: str) -> None:
    assert said(name, attached=False, given=True, accumulate=3 * LEARN_LOOKS, steps=3) == []
    assert said(name, attached=False, given=False, accumulate=3 * LEARN_LOOKS, steps=3) == []
