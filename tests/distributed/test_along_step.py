"""Over ranks, amortised methods hear of the step of the global batch, and learn what one process learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import steelyard
from distributed.launch import launch
from distributed.training import BATCH, TASKS, Network, data, errors, shard
from steelyard.errors import OptionError

pytestmark = pytest.mark.takes("ranks are processes, which import torch")

SPECS = (
    "mgda(solver=amortised,product=forward)",
    "nash-mtl(solver=amortised,product=forward)",
    "famo(form=before,product=forward)",
    "mgda(solver=amortised,product=difference)",
)


def labels(step: int, task: str) -> Tensor:
    """Labels that the ranks hold different numbers of; the first has none for "middle"."""
    there = torch.ones(BATCH, dtype=torch.bool)
    if task == "middle":
        there[:7] = False
    return there


def weights_of(spec: str, rank: int, ranks: int, steps: int = 6) -> Tensor:
    network = Network()
    model = DistributedDataParallel(network) if ranks > 1 else network
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    balancer = steelyard.make(spec, list(TASKS)).attach(optimizer)
    rows, found = shard(rank, ranks), []
    for step in range(steps):

        def losses_on(call: Callable[..., Any], step: int) -> dict[str, Tensor]:
            inputs, targets = data(step)
            each = errors(call(inputs[rows])[1], targets, rows)
            there = {task: labels(step, task)[rows][:, None] for task in TASKS}
            return {task: steelyard.masked_mean(error, there[task]) for task, error in each.items()}

        optimizer.zero_grad()
        again = steelyard.losses_of(network, losses_on, step)
        balancer(losses_on(model, step), shared=network.trunk, again=again).backward()
        optimizer.step()
        found.append(balancer.last_weights)
    return torch.stack(found)


def on_ranks(rank: int, ranks: int) -> dict[str, Any]:
    found: dict[str, Any] = {spec: weights_of(spec, rank, ranks) for spec in SPECS}
    network = Network()
    inputs, targets = data(0)
    balancer = steelyard.make("mgda(solver=amortised)", list(TASKS))
    losses = {task: error.mean() for task, error in errors(network(inputs)[1], targets, slice(0, BATCH)).items()}
    try:
        balancer(losses, shared=network.trunk)
    except OptionError as error:
        found["refused"] = str(error)
    return found


@pytest.fixture(scope="module")
def two() -> list[dict[str, Any]]:
    return launch(on_ranks, 2)


@pytest.mark.parametrize("spec", SPECS)
def test_ranks_learn_what_one_process_learns(two: list[dict[str, Any]], spec: str) -> None:
    alone = weights_of(spec, 0, 1)
    assert not torch.allclose(alone[-1], alone[0], rtol=0.01)
    for rank in two:
        assert torch.allclose(rank[spec], alone, rtol=1e-4 if "difference" in spec else 1e-9)


def test_without_the_second_forward_pass_it_is_refused_on_all(two: list[dict[str, Any]]) -> None:
    assert all("losses_of(model, losses_on, batch)" in rank["refused"] for rank in two)
