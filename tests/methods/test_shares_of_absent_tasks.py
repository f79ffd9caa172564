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


def test_excess_mtl_weighs_a_task_that_joins_like_its_twins() -> None:
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    balancer = steelyard.make("excess-mtl", TASKS, shared=[w])
    for step in range(300):
        balancer({task: w.square().sum() for task in ("abc" if step % 4 == 0 and step >= 200 else "ab")})
    balancer({task: w.square().sum() for task in TASKS})
    # It has seen fewer gradients, so that its risk is the larger one, and its weight by 5 %; absence took a third.
    assert balancer.last_weights.tolist() == pytest.approx([1.0] * 3, rel=0.1)


@pytest.mark.parametrize("every", [3, 10])
def test_lagged_famo_weighs_what_falls_as_fast_alike_in_however_few_batches(every: int) -> None:
    balancer = steelyard.make("famo(form=lagged)", TASKS)
    for step in range(400):
        loss = torch.tensor(0.99**step, dtype=torch.float64, requires_grad=True)
        balancer({task: loss.clone() for task in ("abc" if step % every == 0 else "ab")})
    balancer({task: loss.clone() for task in TASKS})
    weights = balancer.last_weights
    # Adam turns epsilon beside the loss into steps, 4 % in all; a fall counted whole took a quarter to three quarters.
    assert weights.tolist() == pytest.approx([float(weights.mean())] * 3, rel=0.1)
