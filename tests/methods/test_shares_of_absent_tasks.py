"""Shares that sum to 1 over all tasks: in which batches a task stood does not show in them."""

from __future__ import annotations

import pytest
import torch

import steelyard

TASKS = ("a", "b", "c")


@pytest.mark.parametrize("spec", ["go4align(step_size=0)", "modo(gamma=0)", "sdmgrad(eta=1e-9)", "moco(gamma=0)"])
def test_tasks_that_are_alike_weigh_alike_however_they_were_batched(spec: str) -> None:
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    options = {} if spec.startswith("go4align") else {"shared": [w]}
    balancer = steelyard.make(spec, TASKS, **options)

    def call(tasks: str) -> None:
        def losses() -> dict[str, torch.Tensor]:
            return {task: w.square().sum() for task in tasks}

        probes = {"probes": [losses(), losses()]} if balancer.reads == "cross_gramian" else {}
        balancer(losses(), **probes)

    for batch in (["ab", "c"] if balancer.reads == "losses" else ["ab", "bc"]) * 2:
        call(batch)
    call("abc")
    weights = balancer.last_weights
    assert weights.tolist() == pytest.approx([float(weights.mean())] * 3, rel=1e-6)
