"""A policy that leaves tasks or steps out does so in silence for a while, and says when it goes on and on."""

from __future__ import annotations

import warnings

import pytest
import torch

import steelyard
from cells import every
from loops.loss_kinds import plain
from loops.test_left_out import MODES, TASKS, make, toy_of
from steelyard.balancing import nonfinite_losses
from steelyard.errors import SteelyardWarning
from steelyard.testing.toy import Toy

BATCHES = 4


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said after fewer batches than the ten of a training."""
    assert nonfinite_losses.BATCHES == 10
    monkeypatch.setattr(nonfinite_losses, "BATCHES", BATCHES)


def said(toy: Toy, balancer: steelyard.Balancer, batches: int) -> list[str]:
    """What is said in some steps."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(batches):
            losses, where = toy.losses()
            toy.optimizer.zero_grad()
            balancer(losses, **where).backward()
            toy.optimizer.step()
            balancer.discard()
            if balancer.needs_after and toy.rescale("main", torch.ones(())).isfinite():
                balancer.observe(after=toy.losses()[0])
    return [str(each.message) for each in caught if issubclass(each.category, SteelyardWarning)]


@pytest.mark.parametrize("policy", ["drop_task", "skip_step"])
@every(("name", "place"), MODES)
def test_all_losses_of_all_batches(name: str, place: str, policy: str) -> None:
    toy = toy_of(name, place, lambda output, target: plain(output, target) * float("inf"))
    balancer = make(name, on_nonfinite=policy)
    assert said(toy, balancer, BATCHES - 1) == []
    (text,) = said(toy, balancer, 1)
    assert text.startswith(f"{balancer.name}: 'main', 'bad', 'third' were left out of each of the last {BATCHES} batch")
    assert f"on_nonfinite={policy!r}" in text
    assert "so nothing is trained" in text
    assert said(toy, balancer, BATCHES) == []


@pytest.mark.filterwarnings("ignore::steelyard.errors.AngleWarning")
@pytest.mark.parametrize("policy", ["drop_task", "skip_step"])
@every(("name", "place"), MODES)
def test_one_task_of_all_batches(name: str, place: str, policy: str) -> None:
    toy = toy_of(name, place, plain)
    toy.targets["bad"][3, 1] = float("nan")
    (text,) = said(toy, make(name, on_nonfinite=policy), BATCHES + 2)
    assert text.startswith(f"{name}: 'bad' was left out of each of the last {BATCHES} batches that had it")
    assert ("so it is not trained" if policy == "drop_task" else "so nothing is trained") in text


@every(("name", "place"), [mode for mode in MODES if mode[1] != "losses"])
def test_gradients_of_finite_losses(name: str, place: str) -> None:
    toy = toy_of(name, place, plain)
    toy.loss_of = lambda output, target: (output - output).square().mean().sqrt() + 1  # type: ignore[method-assign]
    try:
        (text,) = said(toy, make(name, on_nonfinite="drop_task"), BATCHES)
    except steelyard.errors.SteelyardError:
        pytest.skip(f"{name} reads probes, which no policy is for")
    assert "'main', 'bad', 'third' were left out" in text


def test_a_good_batch_in_between_starts_the_count_anew() -> None:
    toy = toy_of("uw", "losses", plain)
    whole, holed = toy.targets["bad"].clone(), toy.targets["bad"].clone()
    holed[0] = float("nan")
    balancer = make("uw", on_nonfinite="drop_task")
    for _ in range(3):
        toy.targets["bad"] = holed
        assert said(toy, balancer, BATCHES - 1) == []
        toy.targets["bad"] = whole
        assert said(toy, balancer, 1) == []


def test_a_batch_without_the_task_says_nothing_of_it() -> None:
    toy = toy_of("uw", "losses", plain)
    toy.targets["bad"][0] = float("nan")
    balancer = make("uw", on_nonfinite="drop_task")
    assert said(toy, balancer, BATCHES - 1) == []
    losses, _ = toy.losses(tasks=[task for task in TASKS if task != "bad"])
    balancer(losses).backward()
    (text,) = said(toy, balancer, 1)
    assert text.startswith("uw: 'bad' was left out")
