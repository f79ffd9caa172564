"""A batch may lack the main task: what each method that serves one does then, by itself, over micro-batches, saved."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from steelyard.balancing.balancer import Balancer
from steelyard.errors import SteelyardWarning
from steelyard.method_registry import method_class, method_names, options_of
from steelyard.methods.bases import ComparingBalancer

TASKS = ["main", "near", "far"]
SERVING = [name for name in method_names() if "main" in options_of(method_class(name))]
FORMS = [*SERVING, "hydalearn(mode=first-order)", "gcs(variant=weighted)"]
JUDGED_ELSEWHERE = ("auto-lambda",)  # by the main loss of a second batch, which has one
COMPARING = [name for name in FORMS if issubclass(method_class(name.split("(")[0]), ComparingBalancer)]


class Loop:
    """A small network and its method, with gradients at the trunk."""

    def __init__(self, spec: str, attached: bool = False) -> None:
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).double()
        self.heads = nn.ModuleDict({task: nn.Linear(6, 1) for task in TASKS}).double()
        self.model = nn.ModuleDict({"trunk": self.trunk, "heads": self.heads})
        self.model.forward = lambda x: {task: head(self.trunk(x)) for task, head in self.heads.items()}
        self.method = steelyard.make(spec, TASKS, main="main", learning_rate=0.1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0)
        if attached:
            self.method.attach(self.optimizer)

    def losses_on(self, call: Any, batch: tuple[Tensor, Tensor, Sequence[str]]) -> dict[str, Tensor]:
        inputs, targets, tasks = batch
        found = call(inputs)
        return {t: (found[t][:, 0] - targets[:, TASKS.index(t)]).square().mean() + 0.5 for t in tasks}

    def see(self, tasks: Sequence[str], seed: int = 0) -> list[float]:
        """The weights of one batch."""
        draws = torch.Generator().manual_seed(seed)
        x = torch.randn(8, 4, generator=draws, dtype=torch.float64)
        y = torch.stack([x[:, 0], 0.7 * x[:, 0] + 0.3 * x[:, 1], x[:, 2]], 1)
        batch = x, y, tasks
        again = steelyard.losses_of(self.model, self.losses_on, batch, held_out=(x, y, TASKS))
        self.method(self.losses_on(self.model, batch), shared=self.trunk, again=again).backward()
        return self.method.last_weights.tolist()


@contextmanager
def said(method: Balancer, times: int) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SteelyardWarning)
        yield
    told = [str(each.message) for each in caught]
    assert len(told) == times, told
    assert all(text.startswith(f"{method.name} compares") and "'main' is not in this batch" in text for text in told)


def test_the_methods_that_serve_a_main_task() -> None:
    """One that is new is tested here by itself."""
    assert {"gcs", "hydalearn", "pcd", "ol-aux", "metabalance", "auto-lambda", "lr-annealing"} <= set(SERVING)
    assert {name.split("(")[0] for name in COMPARING} == {"gcs", "hydalearn", "pcd"}


@pytest.mark.parametrize("spec", FORMS)
def test_weights_hold_where_the_main_task_is_not_in_the_batch(spec: str) -> None:
    loop = Loop(spec)
    comparing = spec in COMPARING
    with said(loop.method, times=comparing):
        first = loop.see(["near", "far"])
        before = loop.see(TASKS)
        held = [loop.see(["near", "far"], seed) for seed in (0, 0)]
        alone = loop.see(["far"])
    assert first[0] == held[0][0] == 0
    if spec not in JUDGED_ELSEWHERE:
        assert held[0] == pytest.approx(held[1]), "the same batch again, and nothing was learnt"
    assert all(torch.tensor([first, before, *held, alone]).isfinite().flatten())
    if comparing:
        assert first == [0, 1, 1]
        assert held[0] == [0, *before[1:]]
        assert alone == [0, 0, before[2]]
        assert before[1:] != [1, 1], "else this shows nothing"


@pytest.mark.parametrize("spec", COMPARING)
def test_a_task_that_was_not_beside_the_main_one_keeps_what_it_had(spec: str) -> None:
    loop = Loop(spec)
    before = loop.see(TASKS)
    now = loop.see(["main", "near"], seed=1)
    with said(loop.method, times=1):
        assert loop.see(["near", "far"]) == [0, now[1], before[2]]


@pytest.mark.parametrize("spec", COMPARING)
def test_micro_batches_without_the_main_task_teach_nothing_and_spoil_nothing(spec: str) -> None:
    """A window's own weights are those of its micro-batches together, which have the main task."""
    loop, whole = Loop(spec, attached=True), Loop(spec)
    with said(loop.method, times=1):
        assert loop.see(["far"]) == [0, 0, 1]
        loop.see(["main", "near"])
        assert loop.see(["near"], seed=1) == [0, 1, 0], "nothing is committed in the middle of a step"
        loop.optimizer.step()
        held = loop.see(["near", "far"])
    if loop.method.reads == "lookahead":  # of gains, the one micro-batch that could measure any
        assert held == [0, pytest.approx(whole.see(["main", "near"])[1]), 1]
    assert torch.tensor(held).isfinite().all()
    assert not any(map(math.isnan, loop.method.summary().means))


@pytest.mark.parametrize("spec", COMPARING)
def test_checkpoints_hold_the_weights_and_older_ones_have_none(spec: str) -> None:
    loop, other, older = Loop(spec), Loop(spec), Loop(spec)
    before = loop.see(TASKS)
    state = loop.method.state_dict()
    other.method.load_state_dict(state)
    older.method.load_state_dict({name: value for name, value in state.items() if name != "weights_beside_main"})
    for each, expected in ((other, [0, *before[1:]]), (older, [0, 1, 1])):
        with said(each.method, times=1):
            assert each.see(["near", "far"]) == expected
    assert "weights_beside_main" in state
