"""Data throughput: the study's training loop against a plain DataLoader loop on the same network and images.

    python benchmarks/throughput.py

60,000 images of 28 x 28 bytes (noise: speed does not depend on what they show), the LeNet of multi-mnist, two tasks,
batch 256, Adam. The loops take turns; images per second, median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from timing import machine
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from steelyard.models import build
from steelyard.problems import load_problem
from steelyard.problems.data import Data
from steelyard.problems.network_parameters import Parameters
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Split
from steelyard.study.training.train import train
from steelyard.study.trial import Trial

ROWS, BATCH, TASKS = 60_000, 256, ("left", "right")


def images(rows: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (rows, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return Split(pixels, {task: torch.randint(10, (rows,), generator=generator) for task in TASKS})


def noise(lenet: Problem) -> Problem:
    data = Data(images(ROWS), images(256), images(256))
    return Problem("noise", lenet.tasks, lambda: data, lenet.trunk, lenet.head, batch_size=BATCH, prepare=lenet.prepare)


def study_loop(problem: Problem) -> float:
    trial = Trial(
        problem=problem.name,
        method="equal",
        tasks=TASKS,
        seed=0,
        fractions=tuple((task, 1.0) for task in TASKS),
        epochs=1,
        batch_size=BATCH,
    )
    return train(trial, problem).seconds


def loader_loop(problem: Problem, workers: int) -> float:
    split = problem.data().train
    assert isinstance(split, Split)
    assert isinstance(split.inputs, torch.Tensor)
    dataset = TensorDataset(split.inputs, *(split.targets[task] for task in TASKS))
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers)
    network = build(problem, TASKS, 0)
    optimizer = problem.optimizer(Parameters.of(network))
    start = time.perf_counter()
    for pixels, left, right in loader:
        outputs, _ = network(pixels.float() / 255)
        loss = F.cross_entropy(outputs["left"], left) + F.cross_entropy(outputs["right"], right)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine())
    problem = noise(load_problem("multi-mnist"))
    loops: dict[str, Callable[[], float]] = {
        "study's loop, balancer attached": lambda: study_loop(problem),
        "plain loop, DataLoader": lambda: loader_loop(problem, 0),
        "plain loop, DataLoader with 2 workers": lambda: loader_loop(problem, 2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(arguments.rounds):
        for name, loop in loops.items():
            seconds[name].append(loop())
    print(f"\n{'':40s}{'images/s':>10s}{'s/epoch':>9s}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:40s}{ROWS / median:>10,.0f}{median:>9.1f}")


if __name__ == "__main__":
    main()
