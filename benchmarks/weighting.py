"""What weighting alone costs: from a Gramian to weights, for every method that reads norms or the Gramian.

    python benchmarks/weighting.py                       # the table of the README
    python benchmarks/weighting.py --methods upgrad,cagrad --tasks 40,100

Gramians of random gradients with a common part of random sign: norms equal, or spread by 1e6; one of float32 gradients
that are linearly dependent. Milliseconds per call, the median over the Gramians; the slowest Gramian's in brackets.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from timing import machine
from torch import Tensor

import steelyard
from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.method_registry import method_class, method_names, options_of

TARGETS = {"upgrad": {40: 15.0, 100: 150.0}}
TARGET = {40: 5.0, 100: 50.0}


def rows(tasks: int, size: int, conflict: float, ratio: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    gradients = normal(tasks, size) + conflict * normal(tasks, 1).sign() * normal(1, size)
    return gradients * ratio ** torch.rand(tasks, 1, generator=generator, dtype=torch.float64)


def observations(tasks: int) -> list[Seen]:
    kinds = [(conflict, ratio) for conflict in (0.0, 0.5, 2.0) for ratio in (1.0, 1e6)]
    gradients = [rows(tasks, 4 * tasks, *kind, seed) for seed, kind in enumerate(kinds)]
    gradients.append(rows(tasks, max(2, tasks // 4), 0.5, 1e3, 0).float())
    ones = torch.ones(tasks, dtype=torch.float64)
    names = tuple(str(task) for task in range(tasks))
    gramians = [(each @ each.T).double() for each in gradients]
    return [Seen(names, ones, ones, gramian.diagonal(), gramian) for gramian in gramians]


def build(name: str, tasks: int) -> Balancer:
    options = {"main": "0"} if "main" in options_of(method_class(name)) else {}
    return steelyard.make(name, [str(task) for task in range(tasks)], **options)


def milliseconds(balancer: Balancer, seen: Seen, rounds: int) -> float:
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        balancer.weigh(seen, balancer.working_state())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", help="comma-separated names (default: all that read norms or the Gramian)")
    parser.add_argument("--tasks", default="2,10,40,100")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = (
        arguments.methods.split(",")
        if arguments.methods
        else [name for name in method_names() if method_class(name).reads in ("norms", "gramian")]
    )
    sizes = [int(size) for size in arguments.tasks.split(",")]
    print(machine())
    print(f"  {'':14s}" + "".join(f"{f'T = {size}':>18s}" for size in sizes))
    seen = {size: observations(size) for size in sizes}
    missed = []
    with torch.no_grad():
        for name in names:
            line = f"  {name:14s}"
            for size in sizes:
                balancer = build(name, size)
                times = [milliseconds(balancer, one, arguments.rounds) for one in seen[size]]
                line += f"{statistics.median(times):>9.2f} ({max(times):6.2f})"
                limit = TARGETS.get(name, TARGET).get(size)
                if limit is not None and max(times) > limit:
                    missed.append(f"{name} at T = {size}: {max(times):.1f} ms, target {limit:g}")
            print(line, flush=True)
    print("  target: T = 40 in 5 ms (upgrad 15), T = 100 in 50 ms (upgrad 150)" + ("" if missed else ": met by all"))
    for line in missed:
        print(f"  missed: {line}")


if __name__ == "__main__":
    main()
