"""CR-MOGM: what any method weighs by, averaged by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import steelyard
from cells import every
from gramian_cases import balancer, random_rows, weigh
from loss_sequences import call
from steelyard.balancing.balancer import Balancer
from steelyard.base.specs import parse_spec
from steelyard.errors import OptionError
from steelyard.method_registry import method_class, options_of
from steelyard.methods import METHODS
from steelyard.testing.toy import Toy

TASKS = ["left", "right", "depth"]
NO_WEIGHTS = {
    "graddrop": "its direction is masked element by element",
    "adatask": "its direction is a step, element by element",
}
LINES = [*(name for name in METHODS if name not in NO_WEIGHTS), "log+mgda", "ema-scale+uw", "mgda(every=2)"]


def reference(given: list[dict[str, float]], alpha: float) -> list[dict[str, float]]:
    """The equation, task by task; it starts from a task's first weight."""
    averages: dict[str, float] = {}
    smoothed = []
    for weights in given:
        for task, weight in weights.items():
            averages[task] = alpha * averages.get(task, weight) + (1 - alpha) * weight
        smoothed.append({task: averages[task] for task in weights})
    return smoothed


def build(line: str) -> Balancer:
    main = {"main": "left"} if "main" in options_of(_class_of(line)) else {}
    return steelyard.make(line, TASKS, generator=torch.Generator().manual_seed(1), learning_rate=0.1, **main)


def _class_of(line: str) -> type[Balancer]:
    return method_class(parse_spec(line).name)


def weights_of(method: Balancer, absent: dict[int, str]) -> list[dict[str, float]]:
    """Six steps along one path, whatever the weights are."""
    toy = Toy(TASKS, at_trunk="features" not in method.where, probing=method.reads == "cross_gramian",
              looking=method.reads == "lookahead")  # fmt: skip
    found = []
    for step in range(6):
        losses, where = toy.losses(tasks=[task for task in TASKS if task != absent.get(step)])
        method(losses, **where)
        found.append({task: float(method.last_weights[TASKS.index(task)]) for task in losses})
        toy.optimizer.zero_grad()
        sum(toy.losses()[0].values(), torch.zeros(())).backward()
        toy.optimizer.step()
        if method.needs_after:
            method.observe(after=toy.losses(tasks=losses)[0])
        if step % 3 == 2:
            if method.needs_validation:
                method.observe(validation=toy.losses()[0])
            method.end_epoch()
    return found


@every("line", LINES)
def test_every_method_is_averaged_over_the_steps(line: str) -> None:
    """From the first step on, with a task that is absent in between."""
    absent = {} if "every" in line else {2: "right", 3: "depth"}
    found = weights_of(build(f"cr-mogm(alpha=0.7)+{line}"), absent)
    for mine, expected in zip(found, reference(weights_of(build(line), absent), 0.7), strict=True):
        assert mine == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("line", NO_WEIGHTS)
def test_a_direction_that_no_weights_describe_is_refused(line: str) -> None:
    with pytest.raises(OptionError, match=f"{line} sends a direction that no weights describe: CRMOGM"):
        steelyard.make(f"cr-mogm+{line}", TASKS)


def test_it_stands_in_front() -> None:
    with pytest.raises(OptionError, match="LogLosses stands in front of it: put CRMOGM first"):
        steelyard.make("log+cr-mogm+mgda", TASKS)
    steelyard.make("cr-mogm+cr-mogm(alpha=0.5)+log+mgda", TASKS)


@pytest.mark.parametrize("alpha", [-0.1, 1.0, math.nan])
def test_alpha_lies_in_its_range(alpha: float) -> None:
    with pytest.raises(OptionError, match=r"alpha (must lie in \[0, 1\)|of CRMOGM must be a finite)"):
        steelyard.CRMOGM(alpha)


def test_alpha_zero_is_the_method() -> None:
    assert weights_of(build("cr-mogm(alpha=0)+mgda"), {}) == weights_of(build("mgda"), {})


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_extreme_gradients(scale: float) -> None:
    method, plain = balancer("cr-mogm(alpha=0.5)+mgda", 4), balancer("mgda", 4)
    steps = [random_rows(4, 30, seed, 1e6) * scale for seed in range(3)]
    given = [dict(enumerate(weigh(plain, rows).tolist())) for rows in steps]
    for rows, expected in zip(steps, reference(given, 0.5), strict=True):
        assert dict(enumerate(weigh(method, rows).tolist())) == pytest.approx(expected, rel=1e-9)


def test_a_weight_that_is_not_finite_does_not_stay() -> None:
    """Only `on_nonfinite="ignore"` lets it through; the next step is as if it had not been."""
    spoiled, clean = (balancer("cr-mogm(alpha=0.5)+mgda", 2, on_nonfinite="ignore") for _ in range(2))
    first, second = (random_rows(2, 10, seed) for seed in range(2))
    for method in (spoiled, clean):
        weigh(method, first)
    assert bool(weigh(spoiled, first * math.nan).isnan().all())
    assert weigh(spoiled, second).tolist() == weigh(clean, second).tolist()


def test_the_value_is_the_sum_that_is_descended() -> None:
    method = steelyard.make("cr-mogm(alpha=0.5)+uw-o", ["a", "b"])
    call(method, {"a": 1.0, "b": 1.0})
    weights, value = call(method, {"a": 2.0, "b": 0.5})
    assert weights == {"a": 0.75, "b": 1.5}
    assert value == pytest.approx(0.75 * 2 + 1.5 * 0.5)


@pytest.mark.parametrize("memory", ["numbers", "rows"])
def test_tasks_that_are_remembered_keep_their_average(memory: str) -> None:
    """Their weights are made anew with those of the batch, and only the batch's averages move."""
    plain = {"numbers": "inverse-norm", "rows": "mgda"}[memory]
    toy = Toy(TASKS, at_trunk=True)
    averaged, alone = (steelyard.make(line, TASKS, memory=memory) for line in (f"cr-mogm(alpha=0.5)+{plain}", plain))
    given = []
    for present in (TASKS, TASKS[:1], TASKS[1:], TASKS):
        found: list[Tensor] = []
        for method in (averaged, alone):
            losses, where = toy.losses(tasks=present)
            method(losses, **where)
            found.append(method.last_weights)
        given.append({task: float(found[1][TASKS.index(task)]) for task in present})
        expected = reference(given, 0.5)[-1]
        assert {task: float(found[0][TASKS.index(task)]) for task in present} == pytest.approx(expected, rel=1e-9)
