"""A loss of exactly zero with a gradient of zero, on one rank alone, in a pass beside training: a validation pass, a
probe, a look after the step, an evaluation in frozen() or in eval(). It is absent, as one with no labels behind it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import steelyard
from cells import every
from distributed.launch import launch
from distributed.test_ddp import MODES
from distributed.training import BATCH, Network, build, data, errors, shard
from steelyard.errors import SteelyardError
from steelyard.testing.toy import same_state, snapshot

pytestmark = pytest.mark.takes(
    "ranks are processes, which import torch; the first test of a file waits for all that they train"
)

SAYS = ("zero", "no labels", "zero without a graph")
"""How the second rank says that it has none; the last cannot be told from a loss that is 0, and is weighed."""
WAYS = ("validation", "after", "probes", "evaluated")
"""The last: a pass in `eval()`, then two in `frozen()`."""
STEPS = 2


def ways(spec: str) -> list[str]:
    """The passes beside training that a method has."""
    balancer = build(spec)
    needs = {
        "validation": balancer.needs_validation,
        "after": balancer.needs_after,
        "probes": balancer.reads == "cross_gramian",
    }
    return [way for way in WAYS if needs.get(way, True)]


def said(way: str) -> tuple[str, ...]:
    """Where the pass is differentiated, a zero has a graph."""
    return SAYS if way in ("validation", "after") else SAYS[:2]


FITTING = {spec: ways(spec) for spec in dict(MODES)}
CASES = [(spec, at, way) for spec, at in MODES for way in FITTING[spec]]
FEW = ("uw", "coba", "famo", "gradnorm", "mgda", "mgda(look=last)", "pcgrad", "graddrop", "db-mtl", "modo")
"""Among them each pass, each kind of what is read, and plain and weighted heads; the others by `make slow`."""
SOME, OTHERS = [case for case in CASES if case[0] in FEW], [case for case in CASES if case[0] not in FEW]


class Loop:
    """In its pass beside training, the second rank has no labels for "middle", and says so as one does."""

    def __init__(self, rank: int, spec: str, at: str, way: str, says: str) -> None:
        self.rank, self.at, self.way, self.says = rank, at, way, says
        self.network = Network()
        self.model = DistributedDataParallel(self.network)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.02)
        self.balancer = build(spec)
        self.absent: list[str] = []

    def losses(self, step: int, seed: int, aside: bool) -> tuple[dict[str, Tensor | None], Tensor]:
        rows = shard(self.rank, 2)
        inputs, targets = data(step, seed)
        features, outputs = self.model(inputs[rows])
        each = errors(outputs, targets, rows)
        losses: dict[str, Tensor | None] = {task: error.mean() for task, error in each.items()}
        if aside and self.rank == 1:
            nothing = torch.zeros(BATCH // 2, 1, dtype=torch.bool)
            zero = 0 * outputs["middle"].sum()
            losses["middle"] = zero if self.says != "no labels" else steelyard.masked_mean(each["middle"], nothing)
        return losses, features

    def call(self, losses: Mapping[str, Tensor | None], features: Tensor, **more: Any) -> Tensor:
        shared = self.network.trunk if self.at == "trunk" else features
        return self.balancer(losses, shared=shared, **more)

    def step(self, step: int) -> Tensor:
        self.optimizer.zero_grad()
        more = {}
        if self.balancer.reads == "cross_gramian":
            more["probes"] = [self.losses(step, seed, self.way == "probes")[0] for seed in (2, 3)]
        losses, features = self.losses(step, 1, self.way == "after")
        self.call(losses, features, **more).backward()
        self.optimizer.step()
        graph = torch.no_grad() if self.says == "zero without a graph" else contextlib.nullcontext()
        if self.balancer.needs_after:
            with graph:
                self.balancer.observe(after=self.losses(step, 1, self.way == "after")[0])
        self.beside(step)
        if self.balancer.needs_validation:
            with graph:
                self.balancer.observe(validation=self.losses(step, 4, self.way == "validation")[0])
        if self.way != "evaluated":
            self.absent = sorted(self.balancer._now.idle.tasks)
        self.balancer.end_epoch()
        return self.balancer.last_weights

    def beside(self, step: int) -> None:
        """Passes that train nothing."""
        if self.way != "evaluated":
            return
        self.balancer.eval()
        self.call(*self.losses(step, 5, True))
        self.balancer.train()
        self.absent = sorted(self.balancer._now.idle.tasks)
        with self.balancer.frozen():
            for _ in range(2):
                self.call(*self.losses(step, 5, True)).backward()


def trained(rank: int, spec: str, at: str, way: str, says: str) -> dict[str, Any]:
    loop = Loop(rank, spec, at, way, says)
    weights, said = [], ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for step in range(STEPS):
                weights.append(loop.step(step))
        except SteelyardError as error:
            said = f"{type(error).__name__}: {error}"
    return {
        "weights": weights,
        "parameters": torch.cat([each.detach().flatten() for each in loop.network.parameters()]),
        "state": snapshot(loop.balancer),
        "steps": loop.balancer.steps,
        "absent": loop.absent,
        "warned": sum("exactly 0" in str(each.message) for each in caught),
        "said": said,
    }


def test_the_few_are_of_every_kind() -> None:
    assert set(FEW) <= set(FITTING)
    assert {way for _, _, way in SOME} == set(WAYS)
    assert {build(spec).reads for spec in FEW} == {build(spec).reads for spec in FITTING}


def these(rank: int, ranks: int, cases: list[tuple[str, ...]]) -> dict[tuple[str, ...], dict[str, Any]]:
    return {(*case, says): trained(rank, *case, says) for case in cases for says in said(case[-1])}


@pytest.fixture(scope="module")
def some() -> list[dict]:
    return launch(these, 2, SOME)


@pytest.fixture(scope="module")
def others() -> list[dict]:
    return launch(these, 2, OTHERS)


def same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["said"] == second["said"]
    assert first["steps"] == second["steps"]
    assert len(first["weights"]) == len(second["weights"])
    for a, b in zip(first["weights"], second["weights"], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first["parameters"], second["parameters"])
    assert same_state(first["state"], second["state"])


def absent(two: list[dict], spec: str, at: str, way: str) -> None:
    """On both ranks alike, however the one without labels says so, and nothing is left of it."""
    zeros, counted, *bare = ([found[spec, at, way, says] for found in two] for says in said(way))
    for each in (zeros, counted, *bare):
        same(*each)
    same(zeros[0], counted[0])
    if way in ("validation", "probes", "evaluated"):  # nothing of that pass is left for the next one
        assert [each["absent"] for each in zeros] == [[], []]
    assert [each["warned"] for each in counted] == [0, 0]
    if way in ("validation", "after"):  # on the rank that has it, once
        assert [[each["warned"] for each in ranks] for ranks in (zeros, *bare)] == [[0, 1], [0, 1]]


@every(("spec", "at", "way"), SOME)
def test_the_ranks_stay_one_and_the_task_is_absent(some: list[dict], spec: str, at: str, way: str) -> None:
    absent(some, spec, at, way)


@every(("spec", "at", "way"), OTHERS)
@pytest.mark.slow("two ranks train under every method, three times")
def test_under_every_other_method_too(others: list[dict], spec: str, at: str, way: str) -> None:
    absent(others, spec, at, way)
