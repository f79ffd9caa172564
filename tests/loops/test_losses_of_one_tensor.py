"""Losses cut from one tensor, one of them NaN: what cannot be told apart is dropped together, and said with the fix."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import pytest
import torch
import torch._functorch.config
from torch import Tensor

import steelyard
from cells import every
from loops.loss_kinds import Loss, plain
from loops.test_left_out import MODES, make, toy_of
from steelyard.errors import SteelyardWarning
from steelyard.testing.toy import Toy, same_state, snapshot


def all_at_once(outputs: list[Tensor], targets: list[Tensor]) -> Tensor:
    errors = torch.stack([(output - target).square().mean(1) for output, target in zip(outputs, targets, strict=True)])
    return errors.mean(1)


def cut(toy: Toy, way: str) -> Toy:
    """The toy's losses are elements of one tensor."""

    def losses_of(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        together = all_at_once([outputs[task] for task in targets], list(targets.values()))
        found = together.unbind() if way == "unbind" else [together[k] for k in range(len(targets))]
        return dict(zip(targets, found, strict=True))

    toy.losses_of = losses_of  # type: ignore[method-assign]
    return toy


def called(toy: Toy, balancer: steelyard.Balancer) -> list[str]:
    """One step; what was said in it."""
    losses, where = toy.losses()
    toy.optimizer.zero_grad()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = balancer(losses, **where)
        result.backward()
        toy.optimizer.step()
    assert bool(result.isfinite())
    assert all(bool(parameter.isfinite().all()) for parameter in toy.parameters())
    return [str(each.message) for each in caught if issubclass(each.category, SteelyardWarning)]


def spoil(toy: Toy) -> None:
    toy.targets["bad"][3, 1] = float("nan")


@pytest.mark.parametrize(("way", "attached"), [("select", False), ("unbind", True)])
@every(("name", "place"), MODES)
def test_what_goes_with_the_nan_is_dropped_and_named_once(name: str, place: str, way: str, attached: bool) -> None:
    toy = cut(toy_of(name, place, plain), way)
    whole = toy.targets["bad"].clone()
    spoil(toy)
    balancer = make(name, on_nonfinite="drop_task")
    if attached:
        balancer.attach(toy.optimizer)
    before = snapshot(balancer), [parameter.clone() for parameter in toy.parameters()]
    (said,) = called(toy, balancer)
    assert "the loss of 'bad' is nan" in said
    assert "those of 'main', 'third' are finite with gradients that are not" in said
    assert "loss_fn(output[:, k], target[:, k])" in said
    assert called(toy, balancer) == []
    assert same_state(before[0], snapshot(balancer))
    assert all(torch.equal(a, b) for a, b in zip(before[1], toy.parameters(), strict=True))
    toy.targets["bad"] = whole
    called(toy, balancer)
    assert not all(torch.equal(a, b) for a, b in zip(before[1], toy.parameters(), strict=True))


@pytest.fixture(scope="module")
def compiled() -> Iterator[Loss]:
    with torch._functorch.config.patch(donated_buffer=False):  # for methods that look first
        yield torch.compile(all_at_once, backend="aot_eager")


@pytest.mark.parametrize(
    ("name", "place"), [("uw", "losses"), ("famo", "losses"), ("mgda", "features"), ("pcgrad", "trunk")]
)
def test_a_compiled_function_of_all_losses(name: str, place: str, compiled: Loss) -> None:
    toy = toy_of(name, place, plain)
    toy.losses_of = lambda outputs, targets: dict(  # type: ignore[method-assign]
        zip(targets, compiled([outputs[task] for task in targets], list(targets.values())), strict=True)
    )
    spoil(toy)
    (said,) = called(toy, make(name, on_nonfinite="drop_task"))
    assert "those of 'main', 'third' are finite with gradients that are not" in said


@every(("name", "place"), MODES)
def test_losses_that_are_apart_lose_nothing(name: str, place: str) -> None:
    toy = toy_of(name, place, plain)
    spoil(toy)
    balancer = make(name, on_nonfinite="drop_task")
    before = [parameter.clone() for parameter in toy.parameters()]
    assert called(toy, balancer) == []
    assert not all(torch.equal(a, b) for a, b in zip(before, toy.parameters(), strict=True))
