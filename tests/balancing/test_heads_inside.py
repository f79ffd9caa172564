"""`shared=` the whole model: said by name, over every method that reads the trunk."""

from __future__ import annotations

import copy
import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from steelyard.errors import SteelyardWarning
from steelyard.method_registry import method_class, method_names, options_of

TASKS = ["a", "b"]


def build(name: str, **options: Any) -> steelyard.Balancer:
    main = {"main": "a"} if "main" in options_of(method_class(name)) else {}
    return steelyard.make(name, TASKS, **main, **options)


READERS = [
    name
    for name in method_names()
    if build(name).needs_shared and "trunk" in build(name).where and not method_class(name).whole_network
]


class Model(nn.Module):
    """A trunk of two modules, heads, and (where asked for) an adapter of one task in the middle."""

    def __init__(self, adapter: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.neck = nn.Linear(3, 4), nn.Linear(4, 4)
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in TASKS})
        if adapter:
            self.neck.adapter = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        middle = self.encoder(x).tanh()
        features = {task: self.neck(middle).tanh() for task in TASKS}
        if hasattr(self.neck, "adapter"):
            features["a"] = features["a"] + self.neck.adapter(middle)
        return {task: (head(features[task]) - 1).square().mean() for task, head in self.heads.items()}


X = torch.linspace(-1, 1, 15).reshape(5, 3)


def warned(
    balancer: steelyard.Balancer, model: Model, shared: Any, steps: int = 12, one_each: bool = False
) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(steps):
            losses = model(X)
            everything = dict(losses)
            if one_each:
                losses = {TASKS[step % 2]: losses[TASKS[step % 2]]}
            given = shared() if callable(shared) and not isinstance(shared, nn.Module) else shared
            balancer(losses, shared=given, probes=[everything, everything], again=lambda *_, **__: losses)  # noqa: B023
            if balancer.needs_after:
                balancer.observe(after=losses)
    return [str(each.message) for each in caught if "heads are inside" in str(each.message)]


@every("name", [*READERS, "uw(heads=plain)"])
def test_the_whole_model_is_said_once_with_the_modules_to_pass(name: str) -> None:
    model = Model()
    (message,) = warned(build(name) if "(" not in name else steelyard.make(name, TASKS), model, model)
    assert "4 of the 8 parameters" in message
    assert "heads.a.weight by 'a', heads.a.bias by 'a', heads.b.weight by 'b', …" in message
    assert "shared=[model.encoder, model.neck]" in message


@every("name", READERS)
def test_what_the_message_says_to_pass_is_taken_in_silence(name: str) -> None:
    model = Model()
    assert warned(build(name), model, [model.encoder, model.neck]) == []
    assert warned(build(name), model, model.encoder) == []


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        (lambda model: lambda: model.parameters(), "reached by one loss alone: task heads.*, and leave these out"),
        (lambda model: list(model.parameters()), "and leave these out"),
        (lambda model: [model.encoder, model.heads], r"4 of the 6.*\[1\]\.a\.weight by 'a'.*and leave these out"),
        (lambda model: nn.Sequential(nn.Sequential(model.encoder, model.heads["a"])), "a submodule that holds no head"),
    ],
)
def test_however_it_is_given(shared: Any, said: str) -> None:
    model = Model()
    (message,) = warned(build("mgda"), model, shared(model))
    assert re.search(said, message)


def test_at_construction_and_in_copies() -> None:
    model = Model()
    assert len(warned(build("mgda", shared=model), model, None)) == 1
    balancer = build("mgda")
    assert warned(balancer, model, model, steps=5) == []
    twin, other = copy.deepcopy((balancer, model))
    assert len(warned(twin, other, other)) == 1


def test_an_adapter_in_the_trunk_is_named_too() -> None:
    model = Model(adapter=True)
    (message,) = warned(build("mgda"), model, [model.encoder, model.neck])
    assert "2 of the 6 parameters" in message
    assert "[1].adapter.weight by 'a'" in message
    assert "may stay" in message


def test_tasks_that_come_one_by_one_are_looked_at_together() -> None:
    """A parameter that one batch's only loss reaches may be everybody's."""
    model = Model()
    assert warned(build("inverse-norm", memory="numbers"), model, [model.encoder, model.neck], one_each=True) == []
    assert len(warned(build("inverse-norm", memory="numbers"), model, model, one_each=True)) == 1


def test_a_first_look_says_it_at_once() -> None:
    model = Model()
    with pytest.warns(SteelyardWarning, match=r"heads\.a\.weight by 'a'.*shared=\[model\.encoder, model\.neck\]"):
        steelyard.diagnose(model(X), shared=model)
