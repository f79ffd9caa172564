"""Sharpness-aware optimizers: losses twice a step, one set of weights, one commit."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import steelyard
from loops.test_closures import DIRECTIONS, HELD, OUTSIDE, TASKS, toy_for, weighted
from steelyard.balancing.balancer import Balancer
from steelyard.errors import OptionError
from steelyard.method_registry import method_names
from steelyard.testing.toy import Toy, same_state, snapshot
from testing.test_contract import build


class SAM(torch.optim.Optimizer):
    """As it is written everywhere (Foret et al., 2021): around a base optimizer, whose parameter groups it shares."""

    def __init__(self, params: Any, base_optimizer: Any, rho: float = 0.05, **kwargs: Any) -> None:
        super().__init__(params, {"rho": rho, **kwargs})
        self.base_optimizer = base_optimizer(self.param_groups, **kwargs)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    def _moved(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        norm = torch.norm(torch.stack([p.grad.norm(p=2) for p in self._moved()]), p=2)
        for p in self._moved():
            self.state[p]["old_p"] = p.data.clone()
            p.add_(p.grad * (self.param_groups[0]["rho"] / (norm + 1e-12)))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad: bool = False) -> None:
        for p in self._moved():
            p.data = self.state[p]["old_p"]
        self.base_optimizer.step()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        assert closure is not None
        closure = torch.enable_grad()(closure)
        self.first_step(zero_grad=True)
        closure()
        self.second_step()


def call(toy: Toy, balancer: Balancer, rows: slice = slice(None)) -> Tensor:
    losses, where = toy.losses(rows)
    result: Tensor = balancer(losses, **where)
    return result


def by_hand(toy: Toy, sam: SAM, evaluate: Callable[[], None]) -> None:
    evaluate()
    sam.first_step(zero_grad=True)
    evaluate()
    sam.second_step(zero_grad=True)


def by_closure(toy: Toy, sam: SAM, evaluate: Callable[[], None]) -> None:
    evaluate()
    sam.step(evaluate)
    sam.zero_grad()


WAYS = [by_hand, by_closure]


# Variants of a method hold as it does: test_closures.py runs over them.
@pytest.mark.parametrize(("spec", "place"), [each for each in HELD if each[0] in method_names() or "beta=0" in each[0]])
def test_the_weights_of_the_first_evaluation_hold_and_are_committed_once(spec: str, place: str) -> None:
    first = weighted(spec)
    start = toy_for(first, place)
    start.train(first, 2)
    once = copy.deepcopy(first)
    call(start, once)
    for way in WAYS:
        balancer, toy = copy.deepcopy(first), copy.deepcopy(start)
        sam = SAM(toy.parameters(), torch.optim.SGD, lr=0.05, momentum=0.9)
        balancer.attach(sam)
        seen = []

        def evaluate(toy: Toy = toy, balancer: Balancer = balancer, seen: list[Any] = seen) -> None:
            losses, where = toy.losses()
            result = balancer(losses, **where)
            weights = balancer.last_weights
            function = sum(weight * losses[task] for task, weight in zip(TASKS, weights.tolist(), strict=True))
            expected, found = toy.gradients(function), toy.gradients(result)
            scale = max(float(each.abs().max()) for each in expected.values())
            assert all(torch.allclose(found[n], expected[n], rtol=1e-9, atol=1e-9 * scale) for n in expected)
            result.backward()
            seen.append(weights)

        way(toy, sam, evaluate)
        assert len(seen) == 2
        assert torch.equal(*seen)
        assert same_state(snapshot(once), snapshot(balancer))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("spec", "place"), [*DIRECTIONS, *((spec, "features") for spec in OUTSIDE)])
def test_what_cannot_be_held_is_refused(spec: str, place: str, way: Callable[..., None]) -> None:
    balancer = build(spec, TASKS)
    toy = toy_for(balancer, place)
    sam = SAM(toy.parameters(), torch.optim.SGD, lr=0.05)
    balancer.attach(sam)
    with pytest.raises(OptionError, match=rf"{balancer.name}.*evaluated several times in one step.*(Use|Choose)"):
        way(toy, sam, lambda: call(toy, balancer).backward())
    call(toy, balancer)
    assert balancer.steps == 0


@pytest.mark.parametrize("way", WAYS)
def test_micro_batches_before_and_after_the_first_step(way: Callable[..., None]) -> None:
    balancer = build("ema(start=first-loss)", TASKS)
    toy = toy_for(balancer, "features")
    sam = SAM(toy.parameters(), torch.optim.SGD, lr=0.05)
    balancer.attach(sam)
    whole = copy.deepcopy(balancer)
    call(toy, whole)
    weights = []

    def evaluate() -> None:
        for rows in (slice(0, 6), slice(6, 12)):
            (call(toy, balancer, rows) / 2).backward()
            weights.append(balancer.last_weights)

    way(toy, sam, evaluate)
    assert balancer.steps == 1
    assert torch.allclose(balancer.average, whole.average, rtol=1e-12)
    assert torch.equal(weights[2], weights[3])
    assert torch.allclose(weights[2], whole.last_weights, rtol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_a_skipped_step_moves_nothing(way: Callable[..., None]) -> None:
    balancer = build("ema", TASKS, on_nonfinite="skip_step")
    toy = toy_for(balancer, "features")
    sam = SAM(toy.parameters(), torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1)
    balancer.attach(sam)
    for bad in (False, True, False):
        before = [parameter.detach().clone() for parameter in toy.parameters()]
        toy.rescale = lambda task, loss, bad=bad: loss * float("nan") if bad else loss
        way(toy, sam, lambda: call(toy, balancer).backward())
        moved = any(not torch.equal(a, b) for a, b in zip(before, toy.parameters(), strict=True))
        assert moved is not bad
    assert balancer.steps == 2


def test_its_checkpoint_holds_the_state_and_another_balancer_its_own() -> None:
    balancer, other = build("ema", TASKS), build("uw", TASKS)
    toy = toy_for(balancer, "features")
    sam = SAM(toy.parameters(), torch.optim.SGD, lr=0.05)
    balancer.attach(sam)
    other.attach(sam)

    def evaluate() -> None:
        (call(toy, balancer) + call(toy, other)).backward()

    by_hand(toy, sam, evaluate)
    assert (balancer.steps, other.steps) == (1, 1)
    file = io.BytesIO()
    torch.save(sam.state_dict(), file)
    file.seek(0)
    fresh, twin = build("ema", TASKS), toy_for(balancer, "features")
    again = SAM(twin.parameters(), torch.optim.SGD, lr=0.05)
    fresh.attach(again)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert same_state(snapshot(fresh), snapshot(balancer))
    for each in (balancer, other):  # taken off in the order in which they were put on
        each.attach(toy.optimizer)
    third = build("equal", TASKS)
    by_hand(toy, sam, lambda: call(toy, third).backward())
    assert (balancer.steps, other.steps) == (1, 1)


def test_a_second_evaluation_that_fails_holds_nothing_on() -> None:
    balancer = build("ema", TASKS)
    toy = toy_for(balancer, "features")
    sam = SAM(toy.parameters(), torch.optim.SGD, lr=0.05)
    balancer.attach(sam)
    call(toy, balancer).backward()

    def fails() -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        sam.step(fails)
    held = balancer.last_weights
    toy.rescale = lambda task, loss: loss * (3.0 if task == "left" else 1.0)
    call(toy, balancer)
    assert not torch.equal(held, balancer.last_weights)


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@pytest.mark.parametrize("last", [True, False])
def test_a_task_without_labels_in_one_micro_batch_takes_part_in_the_others_both_times(last: bool) -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = SAM([weight], torch.optim.SGD, lr=0.1)
    balancer = steelyard.make("equal", ["a", "b"]).attach(optimizer)
    for up in (False, True):  # the losses, and those up the hill
        for labelled in (True, False) if last else (False, True):
            b = weight[1].square() if labelled else 0 * weight.sum()
            balancer({"a": weight[0].square(), "b": b}).backward()
        assert weight.grad is not None
        found = weight.grad.clone()
        if not up:
            optimizer.first_step(zero_grad=True)
    assert bool((found != 0).all())
    optimizer.second_step()
    assert balancer.steps == 1
