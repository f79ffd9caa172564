"""What a balancer adds to a step of data-parallel training: attach, metrics and synchronisation included.

    python benchmarks/distributed.py [--ranks 2] [--rounds 60] [--width 1024] [--batch 256] [--tasks 4]

Two processes (gloo) train one MLP trunk with a head per task, under DistributedDataParallel. Candidates take turns
within each round and start together; the plain step sums the losses. `metrics()` is read after every step. The
single-process column is the same step on one process without a process group, to show what the ranks add. The floor
is the plain step with one collective of a few numbers in the place where a balancer looks.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from timing import Timing, interleaved, machine
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

import steelyard

PLAIN = "plain sum"
FLOOR = "plain sum, one all-reduce"
CANDIDATES = {
    FLOOR: (None, "collective"),
    "equal": ("equal", "nowhere"),
    "uw": ("uw", "nowhere"),
    "dwa(period=100)": ("dwa(period=100)", "nowhere"),
    "mgda, features": ("mgda", "features"),
    "pcgrad, features": ("pcgrad", "features"),
    "mgda, trunk, local-mean": ("mgda", "trunk local-mean"),
    "mgda, trunk, exact": ("mgda", "trunk exact"),
}


class Network(nn.Module):
    """Three hidden layers and a small head per task."""

    def __init__(self, width: int, tasks: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = [64, width, width, width]
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleList([nn.Linear(width, 8) for _ in range(tasks)])

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        features = self.trunk(inputs)
        return features, [head(features) for head in self.heads]


def step(spec: str | None, at: str, ranks: int, width: int, batch: int, tasks: int) -> Callable[[], object]:
    """One training step of its own network."""
    network = Network(width, tasks)
    model = DistributedDataParallel(network) if ranks > 1 else network
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    names = [f"task{number}" for number in range(tasks)]
    inputs = torch.randn(batch, 64)
    targets = [torch.randn(batch, 8) for _ in names]
    balancer = None
    if spec is not None:
        sync = "local-mean" if at.endswith("local-mean") else "exact"
        balancer = steelyard.make(spec, names, **({"sync": sync} if "trunk" in at else {})).attach(optimizer)

    def run() -> None:
        features, outputs = model(inputs)
        losses = {
            name: (out - target).square().mean() for name, out, target in zip(names, outputs, targets, strict=True)
        }
        optimizer.zero_grad()
        if at == "collective" and ranks > 1:
            dist.all_reduce(torch.zeros(8 * tasks, dtype=torch.float64))
        if balancer is None:
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        else:
            balancer(losses, shared=network.trunk if "trunk" in at else features).backward()
        optimizer.step()
        if balancer is not None:
            balancer.metrics()

    return run


def measure(rank: int, ranks: int, folder: str, arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/rendezvous",
            rank=rank,
            world_size=ranks,
            timeout=datetime.timedelta(minutes=5),
        )
    size = (ranks, arguments.width, arguments.batch, arguments.tasks)
    steps = {PLAIN: step(None, "nowhere", *size)}
    steps.update((name, step(spec, at, *size)) for name, (spec, at) in CANDIDATES.items())

    def together(run: Callable[[], object]) -> Callable[[], object]:
        return run if ranks == 1 else lambda: (run(), dist.barrier())  # the slower rank's time

    found = interleaved({name: together(run) for name, run in steps.items()}, PLAIN, arguments.rounds)
    if rank == 0:
        torch.save(found, Path(folder) / f"{ranks}.pt")
    if ranks > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=256, help="per rank")
    parser.add_argument("--tasks", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for ranks in (1, arguments.ranks):
            spawn(measure, (ranks, folder, arguments), nprocs=ranks)  # type: ignore[no-untyped-call]
        alone, shared = (torch.load(Path(folder) / f"{ranks}.pt", weights_only=False) for ranks in (1, arguments.ranks))
    print(f"{machine()}; {arguments.ranks} ranks, {arguments.tasks} tasks, width {arguments.width}, batch", end=" ")
    print(f"{arguments.batch} per rank; medians of {arguments.rounds}, ratios to the same round's plain step\n")
    many_ranks = f"{arguments.ranks} ranks, ms"
    print(f"{'step':<26}{'1 process, ms':>14}{'x plain':>9}{many_ranks:>14}{'x plain':>9}{'added, ms':>11}")
    for name in alone:
        one, many = (times[name] for times in (alone, shared))
        added = 1e3 * (many.median - shared[PLAIN].median)
        print(f"{name:<26}{_row(one)}{_row(many)}{added:>11.2f}")


def _row(timing: Timing) -> str:
    return f"{1e3 * timing.median:>14.2f}{timing.ratio:>9.3f}"


if __name__ == "__main__":
    main()
