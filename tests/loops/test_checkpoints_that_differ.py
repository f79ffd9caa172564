"""Checkpoints that fit, though not as they lie: the same tasks in another order, and one loaded before `attach`."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

import steelyard
from cells import every
from loops.resuming import SPECS
from steelyard.base.specs import parse_spec
from steelyard.errors import StateError, SteelyardWarning
from steelyard.method_registry import method_class, options_of
from steelyard.testing.toy import Toy, same_state, snapshot

TASKS = ["a", "b", "c"]
OTHER_ORDER = ["c", "a", "b"]
ORDER = [TASKS.index(task) for task in OTHER_ORDER]
BY_PLACE = {"uw(learn=external)": "an outside optimizer keeps numbers by place"}
ALSO = [
    "mgda(memory=rows)",
    "ema(memory=numbers)",
    "ema-scale+inverse-norm(memory=numbers)",
    "coba(window=3)",
    "softadapt(order=3)",
]
ALL = [spec for spec in [*SPECS, *ALSO] if spec not in BY_PLACE]


def build(spec: str, tasks: list[str], toy: Toy) -> steelyard.Balancer:
    options: dict[str, Any] = {"main": "a"} if "main" in options_of(method_class(parse_spec(spec).name)) else {}
    generator = torch.Generator().manual_seed(3)
    return steelyard.make(spec, tasks, shared=toy.trunk, generator=generator, **options)


def toy_for(spec: str, tasks: list[str]) -> Toy:
    method = build(spec, tasks, Toy(tasks))
    return Toy(
        tasks,
        at_trunk=method.memory == "rows" or "features" not in method.where or "db-mtl" in spec,
        probing=method.reads == "cross_gramian",
        looking=method.reads == "lookahead",
    )


def saved(balancer: steelyard.Balancer) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


@every("spec", ALL)
def test_the_same_tasks_in_another_order_go_on_as_they_were(spec: str) -> None:
    toy = toy_for(spec, TASKS)
    straight = build(spec, TASKS, toy)
    toy.train(straight, 5)
    other = toy_for(spec, OTHER_ORDER)
    other.network.load_state_dict(toy.network.state_dict())
    turned = build(spec, OTHER_ORDER, other)
    held = saved(straight)
    before = copy.deepcopy(held)
    turned.load_state_dict(held)
    assert same_state(held, before), "what is loaded is the caller's"
    for mine, theirs in zip((turned, *turned.loss_stages()), (straight, *straight.loss_stages()), strict=True):
        for declaration in mine.declarations():
            expected = theirs.committed(declaration.name)
            for axis in declaration.task_axes:
                expected = expected.index_select(axis, torch.tensor(ORDER))
            assert torch.equal(mine.committed(declaration.name).nan_to_num(7), expected.nan_to_num(7)), declaration.name
    assert turned.steps == straight.steps
    if turned.draws:
        return  # drawn for each place: what is drawn next goes to the tasks in the new order
    expected, weights = toy.train(straight, 5, epoch=3), other.train(turned, 5, epoch=3)
    assert torch.allclose(weights, expected[:, ORDER], rtol=1e-7, atol=0)


def test_an_order_that_says_nothing_would_be_seen() -> None:
    """The weights of the tasks differ, so that a state left in its old order shows."""
    toy = Toy(TASKS)
    balancer = steelyard.make("uw", TASKS)
    toy.train(balancer, 5)
    assert len({round(value, 9) for value in balancer.log_variance.tolist()}) == 3


@pytest.mark.parametrize("prefix", ["", "balancer."])
def test_within_a_model_too(prefix: str) -> None:
    balancers = [steelyard.make("log+ema", tasks) for tasks in (TASKS, OTHER_ORDER)]
    Toy(TASKS).train(balancers[0], 3)
    if prefix:
        models = [nn.ModuleDict({"balancer": each}) for each in balancers]
        models[1].load_state_dict(models[0].state_dict())
    else:
        balancers[1].load_state_dict(balancers[0].state_dict())
    assert torch.equal(balancers[1].average, balancers[0].average[ORDER])


@every("spec", [spec for spec in ALL if "memory=rows" not in spec])
@pytest.mark.parametrize("alike", [1, 2])
def test_from_the_optimizers_checkpoint_too(spec: str, alike: int) -> None:
    """Two balancers alike on one optimizer keep their places."""
    toy = toy_for(spec, TASKS)
    balancers = [build(spec, TASKS, toy).attach(toy.optimizer) for _ in range(alike)]
    for number in range(alike):
        toy.train(balancers[number], number + 1)
    held = toy.optimizer.state_dict()
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.01)
    turned = [build(spec, OTHER_ORDER, toy).attach(optimizer) for _ in range(alike)]
    optimizer.load_state_dict(held)
    for mine, theirs in zip(turned, balancers, strict=True):
        fresh = build(spec, OTHER_ORDER, toy)
        fresh.load_state_dict(theirs.state_dict())
        assert same_state(snapshot(mine), snapshot(fresh))


@pytest.mark.parametrize("tasks", [TASKS, OTHER_ORDER], ids=["order", "other order"])
@every("spec", [spec for spec in ALL if "memory=rows" not in spec])
def test_one_that_took_the_place_of_another_on_the_same_optimizer(spec: str, tasks: list[str]) -> None:
    """A cell that makes and attaches the balancer is run twice: the first one's state is nobody's any more."""
    toy = toy_for(spec, TASKS)
    toy.train(build(spec, TASKS, toy).attach(toy.optimizer), 3)
    second = build(spec, TASKS, toy).attach(toy.optimizer)
    toy.train(second, 2)
    held = toy.optimizer.state_dict()
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.01)
    fresh = build(spec, tasks, toy).attach(optimizer)
    with pytest.raises(StateError, match="the states of 2 balancers") as refused:
        optimizer.load_state_dict(held)
    assert fresh.steps == 0
    written = str(refused.value).rpartition(", checkpoint[")[2]
    exec(f"checkpoint[{written}", {"checkpoint": held})  # as the message says
    optimizer.load_state_dict(held)
    expected = build(spec, tasks, toy)
    expected.load_state_dict(second.state_dict())
    assert same_state(snapshot(fresh), snapshot(expected))
    assert fresh.steps == 2


def test_a_parameter_of_an_outside_optimizer_keeps_its_order() -> None:
    balancers = [steelyard.make("uw", tasks, learn="external") for tasks in (TASKS, OTHER_ORDER)]
    before = snapshot(balancers[1])
    with pytest.raises(StateError, match="order must be the checkpoint's where log_variance is a Parameter"):
        balancers[1].load_state_dict(balancers[0].state_dict())
    assert same_state(before, snapshot(balancers[1]))


class TestLoadedBeforeAttach:
    """torch drops what an optimizer's checkpoint holds for others."""

    def saved(self, spec: str, kind: Any, steps: int = 40) -> tuple[Toy, dict[str, Any], dict[str, Any]]:
        toy = Toy(TASKS)
        toy.optimizer = kind(toy.parameters())
        balancer = steelyard.make(spec, TASKS).attach(toy.optimizer)
        for _ in range(steps):
            toy.step(balancer)
        fresh = Toy(TASKS)
        fresh.network.load_state_dict(toy.network.state_dict())
        fresh.optimizer = kind(fresh.parameters())
        return fresh, toy.optimizer.state_dict(), balancer.state_dict()

    KINDS = pytest.mark.parametrize(
        "kind",
        [
            lambda p: torch.optim.Adam(p, lr=1e-3),
            lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
            lambda p: torch.optim.Adagrad(p, lr=1e-3),
        ],
        ids=["adam", "momentum", "adagrad"],
    )

    @KINDS
    @pytest.mark.parametrize("spec", ["uw", "ema-scale+equal", "random", "dwa"])
    def test_is_said_once(self, spec: str, kind: Any) -> None:
        toy, held, _ = self.saved(spec, kind)
        toy.optimizer.load_state_dict(held)
        balancer = steelyard.make(spec, TASKS).attach(toy.optimizer)
        with pytest.warns(SteelyardWarning, match=r"goes on from a checkpoint, and starts afresh.*attach\(optimizer\)"):
            toy.step(balancer)
        toy.step(balancer)

    @KINDS
    def test_the_right_orders_are_not_warned_of(self, kind: Any) -> None:
        toy, held, state = self.saved("uw", kind)
        toy.optimizer.load_state_dict(held)
        balancer = steelyard.make("uw", TASKS).attach(toy.optimizer)
        balancer.load_state_dict(state)
        toy.step(balancer)
        toy, held, _ = self.saved("uw", kind)
        balancer = steelyard.make("uw", TASKS).attach(toy.optimizer)
        toy.optimizer.load_state_dict(held)
        assert balancer.steps == 40
        toy.step(balancer)

    @KINDS
    def test_nor_is_what_keeps_no_state_or_comes_after_a_warm_up(self, kind: Any) -> None:
        toy, held, _ = self.saved("equal", kind)
        toy.optimizer.load_state_dict(held)
        toy.step(steelyard.make("equal", TASKS).attach(toy.optimizer))
        toy = Toy(TASKS)
        toy.optimizer = kind(toy.parameters())
        toy.step(steelyard.make("uw", TASKS).attach(toy.optimizer))  # a fresh optimizer
        for _ in range(40):
            toy.step(steelyard.make("equal", TASKS))
        toy.step(steelyard.make("uw", TASKS).attach(toy.optimizer))
