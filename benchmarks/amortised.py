"""Amortised solvers: what a step costs at any number of tasks, and how near its weights come to the exact ones.

    python benchmarks/amortised.py --cost                          # the table of its price, all trunks
    python benchmarks/amortised.py --bias sarcos qm8 "gdsc(drugs=100)" benchmarks/tokens.py
    python benchmarks/amortised.py --trained sarcos --seeds 3      # the trained networks, equal budgets

The price: forward, balancer, backward and a step of SGD of the networks of `networks.py`, in turn with the same step of
the plain sum and of the exact solver at the trunk; medians of the ratios of each round.

The bias: a problem's network is trained by the amortised method, and in every step the exact Gramian of the trunk is
read beside it. Of MGDA, the length of the direction in units of the shortest one of this batch, for the amortised
weights, for equal ones, and for the yardstick of a batch's noise: the exact solution of the Gramians of the *other*
recent steps, a running mean (0.9) that leaves out the batch at hand. Of Nash-MTL and FairGrad, the cosine of the
direction with the exact one. Medians over the second half of the steps.

Trained: the amortised method, the exact one at the trunk and the plain sum from the same starts on the same batches, as
`steelyard compare` trains them; the change of each task's test error over the plain sum, mean over tasks, by seed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from networks import Network
from timing import interleaved, machine
from torch import Tensor, nn

import steelyard
from steelyard.gradients.trunk import trunk_gradients
from steelyard.methods.solvers.bargaining import bargaining_point
from steelyard.methods.solvers.min_norm import min_norm_point
from steelyard.methods.solvers.unit_rows import UnitRows
from steelyard.models import build
from steelyard.problems import load_problem
from steelyard.problems.network_parameters import Parameters
from steelyard.study.analysis.statistics import relative_changes
from steelyard.study.training.batch import Forward, recompute, tell_labels
from steelyard.study.training.hardware import ON_CPU
from steelyard.study.training.sampling import batches
from steelyard.study.training.train import train
from steelyard.study.training.training_rows import Material
from steelyard.study.trial import Trial


# --- the price --------------------------------------------------------------------------------------------------------
class Whole(nn.Module):
    """A network of `networks.py` with its losses behind it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.trunk, self.heads = network, network.trunk, network.heads

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return self.network.losses()[0]


def a_step(tasks: int, trunk: str, spec: str, device: str) -> Any:
    """One step of a loop with SGD."""
    network = Network(tasks, trunk, device)
    whole = Whole(network)
    optimizer = torch.optim.SGD(whole.parameters(), lr=1e-4)
    balancer = steelyard.make(spec, network.names, shared=network.trunk).attach(optimizer)
    again = steelyard.losses_of(whole, lambda call, inputs: call(inputs), network.inputs)

    def step() -> None:
        network.zero()
        balancer(network.losses()[0], again=again).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def cost(trunks: list[str], tasks: list[int], rounds: int, device: str) -> None:
    specs = {
        "plain": "equal",
        "difference": "mgda(solver=amortised,product=difference)",
        "forward": "mgda(solver=amortised,product=forward)",
        "backward": "mgda(solver=amortised,product=backward)",
    }
    print(f"{'':14s}{'T':>5s}{'plain':>12s}" + "".join(f"{name:>13s}" for name in list(specs)[1:]))
    for trunk, number in itertools.product(trunks, tasks):
        steps = {name: a_step(number, trunk, spec, device) for name, spec in specs.items()}
        if trunk == "transformer":  # its fused attention cannot be differentiated twice
            del steps["backward"]
        few = max(4, rounds // 3) if trunk == "transformer" else rounds
        found = interleaved(steps, "plain", few, warmup=1)
        line = f"{trunk:14s}{number:>5d}{found['plain'].median * 1e3:>9.1f} ms"
        print(line + "".join(f"{found[name].ratio:>13.2f}" for name in list(steps)[1:]), flush=True)


# --- the bias ---------------------------------------------------------------------------------------------------------
def steps_of(name: str, spec: str, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Train a problem's network by a method; of every step the exact Gramian of the trunk, and the weights."""
    problem = load_problem(name)
    tasks = list(problem.tasks)
    material = Material.of(problem, tasks, 0)
    network = build(problem, problem.task_names, 0, "hard-sharing")
    tell_labels(network, tasks, material.rows.split, material.labels)
    network.train()
    optimizer = problem.optimizer(Parameters.of(network))
    balancer = steelyard.make(spec, list(problem.task_names)).attach(optimizer)
    torch.manual_seed(0)
    order = itertools.chain.from_iterable(
        batches(material.used, problem.batch_size, 0, epoch) for epoch in itertools.count(1)
    )
    assert isinstance(network.trunk, nn.Module)
    trunk = tuple(network.trunk.parameters())
    for rows in itertools.islice(order, steps):
        inputs, targets = material.batch(rows)
        before = ON_CPU.random_state()
        forward = Forward(network, tasks, inputs, targets)
        losses = forward.balanced()
        again = recompute(network, tasks, inputs, targets, before)
        with torch.enable_grad():
            gramian = trunk_gradients(list(losses), list(losses.values()), trunk, False, False).gramian
        loss = balancer(losses, shared=network.trunk, again=again)
        present = torch.tensor([task in losses for task in problem.task_names])
        weights = balancer.last_weights
        forward.step(optimizer, loss)
        if bool(present.all()):
            yield gramian.double(), weights


def lengths(gramian: Tensor, weights: Tensor) -> float:
    """Of a direction, in units of the least one of this batch; weights summing to one."""
    best = min_norm_point(gramian)
    weights = weights / weights.sum()
    return float(((weights @ gramian @ weights) / (best @ gramian @ best)).sqrt())


def cosine(gramian: Tensor, weights: Tensor, alpha: float) -> float:
    best = bargaining_point(UnitRows.of(gramian), torch.ones(len(gramian), dtype=torch.float64), alpha)
    return float((best @ gramian @ weights) / ((best @ gramian @ best) * (weights @ gramian @ weights)).sqrt())


def show(title: str, tasks: int, amortised: float, equal: float, others: float) -> None:
    print(f"{title:34s}{tasks:>5d}{amortised:>11.3f}{equal:>9.2f}{others:>13.3f}", flush=True)


def bias(names: list[str], steps: int) -> None:
    print(f"{'':34s}{'T':>5s}{'amortised':>11s}{'equal':>9s}{'other steps':>13s}")
    for name in names:
        measured: dict[str, list[float]] = {"amortised": [], "equal": [], "others": []}
        mean: Tensor | None = None
        for gramian, weights in steps_of(name, "mgda(solver=amortised)", steps):
            measured["amortised"].append(lengths(gramian, weights))
            measured["equal"].append(lengths(gramian, torch.ones_like(weights)))
            other = torch.ones_like(weights) if mean is None else min_norm_point(mean)
            measured["others"].append(lengths(gramian, other))
            mean = gramian if mean is None else 0.9 * mean + 0.1 * gramian
        row = {key: statistics.median(values[len(values) // 2 :]) for key, values in measured.items()}
        show(f"{name}, mgda", len(weights), row["amortised"], row["equal"], row["others"])
        for spec, alpha in (("nash-mtl", 1.0), ("fairgrad(alpha=2)", 2.0)):
            here: list[tuple[float, ...]] = []
            mean = None
            inner = spec.removesuffix(")") + (",solver=amortised)" if "(" in spec else "(solver=amortised)")
            for gramian, weights in steps_of(name, inner, steps):
                ones = torch.ones_like(weights)
                other = ones if mean is None else bargaining_point(UnitRows.of(mean), ones, alpha)
                here.append(tuple(cosine(gramian, each, alpha) for each in (weights, ones, other)))
                mean = gramian if mean is None else 0.9 * mean + 0.1 * gramian
            values = [statistics.median(column) for column in zip(*here[len(here) // 2 :], strict=True)]
            show(f"{name}, {spec}", len(weights), *values)


# --- the trained networks ---------------------------------------------------------------------------------------------
def trained(names: list[str], methods: list[str], seeds: int, epochs: int | None) -> None:
    print(f"{'':20s}{'method':36s}{'change over the plain sum, by seed':>40s}{'ms a step':>12s}")
    for name in names:
        problem = load_problem(name)
        scores: dict[str, list[dict[str, float]]] = {}
        for method in ["equal", *methods]:
            scores[method], took = [], []
            for seed in range(seeds):
                tasks = problem.task_names
                trial = Trial(
                    problem.name, method, tasks, seed, tuple(sorted((task, 1.0) for task in tasks)),
                    epochs or problem.epochs, problem.batch_size, scale="sum", shared="trunk",
                )  # fmt: skip
                started = time.process_time()
                result = train(trial, problem)
                took.append((time.process_time() - started) / result.steps)
                scores[method].append({task: values[0] for task, values in result.test.items()})
            changes = []
            for task in problem.tasks:
                metric = task.metrics[0]
                change = relative_changes(
                    [row[task.name] for row in scores[method]], [row[task.name] for row in scores["equal"]],
                    higher_is_better=metric.higher_is_better, ideal=metric.ideal,
                )  # fmt: skip
                assert change is not None
                changes.append(list(change))
            by_seed = [statistics.fmean(column) for column in zip(*changes, strict=True)]
            shown = " ".join(f"{value:+.1%}" for value in by_seed)
            print(f"{name:20s}{method:36s}{shown:>40s}{statistics.median(took) * 1e3:>12.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=["sarcos"])
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--bias", action="store_true")
    parser.add_argument("--trained", action="store_true")
    parser.add_argument("--trunks", default="mlp,convnet,transformer")
    parser.add_argument("--tasks", default="2,8,40,100")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--methods", default="mgda mgda(solver=amortised)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    tasks = [int(number) for number in given.tasks.split(",")]
    for asked, run in (
        (given.cost, partial(cost, given.trunks.split(","), tasks, given.rounds, given.device)),
        (given.bias, partial(bias, given.problems, given.steps)),
        (given.trained, partial(trained, given.problems, given.methods.split(), given.seeds, given.epochs)),
    ):
        if asked:
            run()


if __name__ == "__main__":
    main()
