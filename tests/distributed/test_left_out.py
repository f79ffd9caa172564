"""A loss that one rank leaves out is out of its graph, and the ranks' wrappers wait for nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from cells import every
from distributed.launch import launch
from distributed.training import TASKS, Network, build, data, shard
from loops.loss_kinds import fused, plain

pytestmark = pytest.mark.takes(
    "ranks are processes, which import torch; the first test of a file waits for all that they train"
)

COLUMNS = [("uw", "losses"), ("mgda", "features"), ("mgda", "trunk"), ("upgrad", "features"), ("moco", "trunk")]
KINDS = ["plain", "fused", "hidden"]  # hidden: the heads lie in reentrant checkpoints, which nobody looks through
CASES = [(kind, *column) for kind in KINDS for column in COLUMNS if kind != "hidden" or column[1] == "losses"]
WAYS = ["nan", "no labels", "zero", "skipped"]


def gradients(rank: int, ranks: int, kind: str, spec: str, at: str, way: str) -> list[Tensor]:
    """Two steps' gradients; the second rank's targets of "middle" are NaN."""
    network, rows = Network(), shard(rank, ranks)
    policy = "skip_step" if way == "skipped" else "drop_task"
    balancer = build(spec, on_nonfinite=policy)
    if kind == "hidden":
        for head in network.heads.values():
            forward = head.forward
            head.forward = lambda x, forward=forward: checkpoint(forward, x, use_reentrant=True)  # type: ignore
    model = DistributedDataParallel(network) if ranks > 1 else network
    arrived = []
    for step in range(2):
        inputs, targets = data(step)
        features, outputs = model(inputs[rows])
        bad = shard(1, 2)
        targets["middle"][bad] = float("nan")
        loss = plain if kind == "plain" else fused
        losses = {task: loss(outputs[task], targets[task][rows]) for task in TASKS}
        counts = None
        if way in ("no labels", "zero"):
            counts = {"middle": 6 * (rank == 0)} if way == "no labels" else None
            if way == "zero" and rank == 1:
                losses["middle"] = 0 * outputs["middle"].sum()
            if ranks == 1:  # the whole batch has the first rank's labels
                losses["middle"] = loss(outputs["middle"][shard(0, 2)], targets["middle"][shard(0, 2)])
        shared = {"losses": None, "features": features, "trunk": network.trunk}[at]
        network.zero_grad()
        balancer(losses, shared=shared, counts=counts).backward()
        arrived += [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            for parameter in network.parameters()
        ]
    return arrived


def all_of_it(rank: int, ranks: int) -> dict[Any, list[Tensor]]:
    return {(*case, way): gradients(rank, ranks, *case, way) for case in CASES for way in WAYS}


@pytest.fixture(scope="module")
def two() -> list[dict[Any, list[Tensor]]]:
    return launch(all_of_it, 2)


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@pytest.mark.parametrize("way", WAYS)
@every(("kind", "spec", "at"), CASES)
def test_what_arrives_is_that_of_one_process(two: list[dict], kind: str, spec: str, at: str, way: str) -> None:
    alone = gradients(0, 1, kind, spec, at, way)
    assert any(bool(each.any()) for each in alone) == (way != "skipped")
    for found in two:
        for gradient, expected in zip(found[kind, spec, at, way], alone, strict=True):
            assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-12)
