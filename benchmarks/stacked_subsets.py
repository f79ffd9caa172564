"""What it would bring to train the networks of a search's subsets in one stack, as single tasks are.

    STEELYARD_DATA=... python benchmarks/stacked_subsets.py --subsets 9

The subsets are those that `steelyard group` tries on landmine. Printed are how many of them share a shape, the steps
that each makes per epoch, and the processor time of a step of all, one network after another and in a stack: every
network filled up to the heads of all tasks, losses of tasks and rows that are not its own masked, the plain sum. Steps
of both alternate in one process; reading batches is left out of both.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import torch
from group_problems import landmine
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import binary_cross_entropy_with_logits

from steelyard.grouping.proposals import propose
from steelyard.grouping.train_subset import SEED
from steelyard.method_registry import make
from steelyard.models import build
from steelyard.problems.network_parameters import Parameters
from steelyard.problems.rows import Split
from steelyard.study.training.batch import Forward
from steelyard.study.training.hardware import ON_CPU
from steelyard.study.training.rows_on_device import rows_of
from steelyard.study.training.training_rows import Material

NAMES = tuple(task.name for task in landmine.tasks)
Step = Callable[[int], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subsets", type=int, default=9)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    proposals = islice(propose(NAMES, np.random.default_rng(SEED), None), arguments.subsets)
    subsets = [tuple(name for name in NAMES if name in subset) for subset in proposals]
    data = landmine.data(SEED)
    assert isinstance(data.train, Split)
    materials = []
    for subset in subsets:
        tasks = [landmine.task(name) for name in subset]
        rows = rows_of(data, tasks, ON_CPU)["train"]
        materials.append(Material.of(landmine, tasks, SEED, dict.fromkeys(subset, 1.0), rows))
    orders = [material.order(landmine.batch_size, 1) for material in materials]
    shapes = Counter((len(subset), len(order)) for subset, order in zip(subsets, orders, strict=True))
    print("tasks and steps per epoch:", ", ".join(f"{tasks}: {steps}" for tasks, steps in sorted(shapes)))
    print(f"{sum(count for count in shapes.values() if count > 1)} of {len(subsets)} share both with another")
    apart = [_apart(*each) for each in zip(subsets, materials, orders, strict=True)]
    together = _stacked(subsets, data.train, orders)
    times = [(_time(apart, step), _time([together], step)) for step in range(arguments.steps)]
    alone, stacked = 1e3 * np.median(times, axis=0)
    print(f"a step of all: {alone:.1f} ms one after another, {stacked:.1f} ms in a stack: {alone / stacked:.1f} times")


def _time(steps: Sequence[Step], number: int) -> float:
    began = time.process_time()
    for step in steps:
        step(number)
    return time.process_time() - began


def _apart(subset: tuple[str, ...], material: Material, order: Sequence[Tensor]) -> Step:
    network = build(landmine, subset, SEED).train()
    optimizer = landmine.optimizer(Parameters.of(network))
    balancer = make("equal", subset)
    balancer.attach(optimizer)
    tasks, batches = [landmine.task(name) for name in subset], list(material.read(order, 1))

    def step(number: int) -> None:
        forward = Forward(network, tasks, *batches[number % len(batches)])
        forward.step(optimizer, balancer(forward.balanced(), shared=forward.shared(None)))

    return step


def _stacked(subsets: Sequence[tuple[str, ...]], train: Split, orders: Sequence[Sequence[Tensor]]) -> Step:
    networks = [build(landmine, NAMES, SEED).train() for _ in subsets]
    weights, buffers = stack_module_state(networks)
    first = landmine.optimizer(Parameters.of(networks[0]))
    optimizer = type(first)(list(weights.values()), lr=first.param_groups[0]["lr"])  # type: ignore[call-arg]
    inputs = train.inputs
    assert isinstance(inputs, Tensor)
    labels = torch.stack([torch.as_tensor(train.targets[name]) for name in NAMES])
    own = torch.tensor([[name in subset for name in NAMES] for subset in subsets])[:, :, None]

    def batch(number: int) -> tuple[Tensor, Tensor, Tensor]:
        rows = [order[number % len(order)] for order in orders]
        longest = max(map(len, rows))
        places = torch.stack([torch.cat([each, each[:1].expand(longest - len(each))]) for each in rows])
        full = torch.arange(longest) < torch.tensor([[len(each)] for each in rows])
        targets = labels[:, places].transpose(0, 1)
        return inputs[places], targets.nan_to_num(0.0), ~targets.isnan() & full[:, None, :] & own

    def outputs(weights: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
        by_task: dict[str, Tensor] = functional_call(networks[0], (weights, buffers), (inputs,))[0]
        return torch.stack([output.squeeze(-1) for output in by_task.values()])

    batches = [batch(number) for number in range(max(map(len, orders)))]

    def step(number: int) -> None:
        inputs, targets, there = batches[number % len(batches)]
        predicted = vmap(outputs)(weights, buffers, inputs)
        rows = binary_cross_entropy_with_logits(predicted, targets, reduction="none").where(there, 0.0)
        optimizer.zero_grad()
        (rows.sum(-1) / there.sum(-1).clamp(min=1)).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
