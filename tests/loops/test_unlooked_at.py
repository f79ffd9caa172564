"""`on_nonfinite="ignore"`: what is not finite leaves no trace in the state, and nothing stands in for it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import steelyard
from cells import every
from steelyard.method_registry import method_class, method_names, options_of
from steelyard.testing.toy import Toy, same_state, snapshot

TASKS = ("a", "b", "c")
BAD = {"nan": math.nan, "inf": math.inf}
SPECS = [*method_names(), "log+mgda", "ema-scale+dwa", "initial-scale+equal", "cr-mogm+pcgrad", "cr-mogm+uw-o"]
FURTHER = ["mgda(memory=rows)", "inverse-norm(memory=numbers)", "uw(every=2)", "ema(every=2)", "uw(scale=sum)",
           "equal(max_change=2)", "log+equal", "log+fixed", "ema-scale+equal", "log(scale=sum)",
           "uw-o(max_change=2)"]  # fmt: skip


def made(spec: str) -> steelyard.Balancer:
    options: dict[str, Any] = {}
    method = method_class(spec.rpartition("+")[2].partition("(")[0])
    if "main" in options_of(method):
        options["main"] = "a"
    generator = torch.Generator().manual_seed(0)
    return steelyard.make(spec, list(TASKS), on_nonfinite="ignore", generator=generator, **options)


def trained(balancer: steelyard.Balancer, toy: Toy, steps: int) -> None:
    for _ in range(steps):
        toy.train(balancer, 1, epoch=1)
        if balancer.needs_after and balancer.on_nonfinite == "ignore":
            balancer.observe(after=toy.losses()[0])


def unmoved(before: dict[str, object], balancer: steelyard.Balancer) -> bool:
    """State by element is empty before the first rows, which means zeros."""
    now = declared(balancer)
    for name, value in before.items():
        if isinstance(value, torch.Tensor) and value.numel() == 0:
            before = {**before, name: torch.zeros_like(now[name])}  # type: ignore[call-overload]
    return same_state(before, now)


def toy_for(balancer: steelyard.Balancer, rescale: Any = None) -> Toy:
    at_trunk = "features" not in balancer.where or balancer.memory == "rows"
    return Toy(
        TASKS,
        rescale=rescale,
        at_trunk=at_trunk,
        probing=balancer.reads == "cross_gramian",
        looking=balancer.reads == "lookahead",
    )


def declared(balancer: steelyard.Balancer) -> dict[str, object]:
    """Its state, without the counters of steps and what a generator has drawn."""
    return {name: value for name, value in snapshot(balancer).items() if not name.endswith("_extra_state")}


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@every("bad", BAD)
@pytest.mark.parametrize("spec", [*SPECS, *FURTHER])
def test_the_state_stays_and_no_weight_stands_in(spec: str, bad: str) -> None:
    balancer = made(spec)
    good = toy_for(balancer)
    spoiled = toy_for(balancer, lambda task, loss: loss * BAD[bad] if task == "b" else loss)
    for start in range(2):  # into an empty state, and into one that has seen something
        if start:
            trained(balancer, good, 4)
        before = declared(balancer)
        losses, where = spoiled.losses()
        result = balancer(losses, **where)
        if balancer.needs_after:
            balancer.observe(after=losses)
        if balancer.needs_validation:
            balancer.observe(validation=losses)
        assert unmoved(before, balancer)
        weights = balancer.last_weights
        if not balancer.is_blind:
            assert bool(weights[1].isnan()), weights
            assert balancer.independent or bool(weights.isnan().all()), weights
        gradients = torch.autograd.grad(result, list(spoiled.trunk.parameters()), allow_unused=True)
        assert any(each is not None and not bool(each.isfinite().all()) for each in gradients)
    trained(balancer, good, 3)
    assert bool(balancer.last_weights.isfinite().all())


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@pytest.mark.parametrize("spec", SPECS)
def test_finite_losses_are_weighed_as_by_a_balancer_that_looks(spec: str) -> None:
    unlooked, looking = made(spec), made(spec)
    looking.on_nonfinite = "raise"
    for balancer in (unlooked, looking):
        trained(balancer, toy_for(balancer), 3)
    assert same_state(declared(unlooked), declared(looking))


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@pytest.mark.parametrize("spec", ["ema", "uw", "dwa", "moco", "db-mtl"])
def test_micro_batches_with_one_of_them_spoiled(spec: str) -> None:
    balancer = made(spec)
    toy = toy_for(balancer)
    balancer.attach(toy.optimizer)
    toy.train(balancer, 2)
    before = declared(balancer)
    for factor in (1.0, math.nan):
        toy.rescale = lambda task, loss, factor=factor: loss * factor
        losses, where = toy.losses()
        balancer(losses, **where)
    toy.optimizer.step()
    assert same_state(before, declared(balancer))
