"""A ledger on every rank has the progress of the global batch, as one process with the whole batch has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import steelyard
from distributed.launch import launch
from distributed.training import BATCH, SCALES, TASKS, Network, data, shard

pytestmark = pytest.mark.takes(
    "ranks are processes, which import torch; the first test of a file waits for all that they train"
)

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "find unused": {"find_unused_parameters": True},
    "static graph": {"static_graph": True},
    "micro-batches": {},
    "off": {},
}


def means(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    """Of those rows that have labels: "middle" has none in the first eight of the batch."""
    labelled = {task: torch.arange(BATCH)[rows] >= (8 if task == "middle" else 0) for task in TASKS}
    return {
        task: steelyard.masked_mean(
            SCALES[task] * (outputs[task] - targets[task][rows]).square().mean(1), labelled[task]
        )
        for task in TASKS
    }


def progress(rank: int, ranks: int, name: str = "plain") -> list[dict[str, float]]:
    network = Network()
    model = DistributedDataParallel(network, **OPTIONS[name]) if ranks > 1 else network
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    balancer = steelyard.make("equal", list(TASKS), sync="off" if name == "off" else "exact").attach(optimizer)
    ledger = steelyard.Ledger(balancer, optimizer, every=1 if name == "plain" else 2)
    found = []
    for step in range(4):
        inputs, targets = data(step)
        parts = [list(range(BATCH))[shard(rank, ranks)]]
        if name == "micro-batches":  # of each of two ranks the first two rows, then the others
            parts = [[row for row in parts[0] if (row % 6 < 2) == first] for first in (True, False)]
        for part in parts:
            balancer(means(model(inputs[part])[1], targets, part)).backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(ledger.metrics())
    return found


def all_of_it(rank: int, ranks: int) -> dict[str, list[dict[str, float]]]:
    return {name: progress(rank, ranks, name) for name in OPTIONS}


@pytest.fixture(scope="module")
def two() -> list[dict[str, list[dict[str, float]]]]:
    return launch(all_of_it, 2)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "off"])
def test_two_ranks_have_the_progress_of_the_global_batch(name: str, two: list[Any]) -> None:
    assert two[0][name] == two[1][name]
    alone = progress(0, 1, name)
    for here, there in zip(two[0][name], alone, strict=True):
        assert here.keys() == there.keys()
        for key, value in here.items():
            assert value == pytest.approx(there[key], rel=1e-6, abs=1e-12), key
    assert f"progress/{TASKS[1]}" in two[0][name][1]


def test_ranks_for_themselves_have_their_own(two: list[Any]) -> None:
    assert two[0]["off"][1]["progress/left"] != two[1]["off"][1]["progress/left"]
    assert "progress/middle" not in two[0]["off"][1]
