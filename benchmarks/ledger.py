"""What a ledger costs, and whether the steps that it calls hurting foretell who is hurt by sharing.

    python benchmarks/ledger.py --cost                                     # the table of its price
    python benchmarks/ledger.py digits sarcos credit-default census        # the table of evidence

The price: whole steps (forward, balancer, backward, Adam) of the networks of `networks.py`, with a ledger and without,
in turn, in one process; medians. "A measured step" is what one costs on top, in plain steps.

The evidence: of each problem and seed the plain sum of all tasks is trained, and every task alone with the same start,
rows and steps, both with a ledger at each twentieth step. Of every task, and seed, that gives the change of its test
metric by sharing (of its error, relative, positive is better) and three numbers that are known without any single-task
network, but the last: the share of steps that hurt it, what they put on its loss as a share of all movement, and the
share of hurting steps less that of the task trained alone. Spearman's rank correlation of each with the change; if
hurting steps foretell negative transfer, it is negative. The interval is a bootstrap's, over problems and, within
these, over seeds; within a problem the tasks of a seed stay together.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import TRUNKS, Network
from scipy import stats
from timing import interleaved, machine
from torch.nn.attention import SDPBackend, sdpa_kernel

import steelyard
from steelyard.problems import load_problem
from steelyard.study.analysis.statistics import relative_changes
from steelyard.study.training.train import train
from steelyard.study.trial import Trial

EVERY = 20
PREDICTORS = {"hurt": "hurting steps", "against": "put on the loss", "excess": "hurting steps, beyond those alone"}


# --- the price --------------------------------------------------------------------------------------------------------
def cost(rounds: int) -> None:
    """The attention of the transformer runs by its plain formula; fused, it cannot be differentiated twice."""
    print(f"{'':20s}{'T':>4s}{'a plain step':>14s}{'a measured step':>17s}{'every 20th':>12s}{'every 100th':>13s}")
    networks = [*itertools.product(TRUNKS, (2, 8, 40)), ("transformer, fused", 2), ("transformer, fused", 8)]
    for trunk, tasks in networks:
        steps = {}
        for name in ("plain", "measured"):
            network = Network(tasks, trunk.partition(",")[0])
            optimizer = torch.optim.Adam([*network.trunk.parameters(), *network.heads.parameters()], lr=1e-4)
            balancer = steelyard.Equal(network.names)
            if name == "measured":
                steelyard.Ledger(balancer, optimizer, every=1)

            def step(network: Network = network, optimizer=optimizer, balancer=balancer) -> None:  # type: ignore[no-untyped-def]
                network.zero()
                balancer(network.losses()[0]).backward()
                optimizer.step()

            steps[name] = step
        attention = sdpa_kernel(SDPBackend.MATH) if trunk == "transformer" else nullcontext()
        with attention:
            found = interleaved(steps, "plain", max(4, rounds // 4) if "transformer" in trunk else rounds, warmup=1)
        more = found["measured"].ratio - 1
        print(
            f"{trunk:20s}{tasks:>4d}{found['plain'].median * 1e3:>11.1f} ms{more:>17.2f}{more / 20:>12.1%}"
            f"{more / 100:>13.1%}",
            flush=True,
        )


# --- the evidence -----------------------------------------------------------------------------------------------------
def measured(problem_name: str, tasks: tuple[str, ...], seed: int) -> dict[str, object]:
    """Train the plain sum of some tasks, or one alone."""
    torch.set_num_threads(1)
    problem = load_problem(problem_name)
    fractions = tuple(sorted((task, 1.0) for task in tasks))
    trial = Trial(
        problem.name, "equal", tasks, seed, fractions, problem.epochs, problem.batch_size, scale="sum", ledger=EVERY
    )
    result = train(trial, problem)
    rows = {task: {"hurt": each.hurt, "against": each.against} for task, each in result.ledger.items()}
    return {
        "problem": problem_name,
        "tasks": tasks,
        "seed": seed,
        "test": {task: values[0] for task, values in result.test.items()},
        "ledger": rows,
        "steps": result.steps,
    }


def trained(names: list[str], seeds: int, workers: int, kept: Path | None) -> list[dict[str, object]]:
    """All of them, those that an earlier run kept as they are."""
    found = [json.loads(line) for line in kept.read_text().splitlines()] if kept and kept.exists() else []
    done = {(row["problem"], tuple(row["tasks"]), row["seed"]) for row in found}
    wanted = []
    for name, seed in itertools.product(names, range(seeds)):
        tasks = load_problem(name).task_names
        wanted += [(name, group, seed) for group in (tasks, *((task,) for task in tasks))]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(measured, *each) for each in wanted if each not in done]
        for future in waiting:
            found.append(future.result())
            if kept is not None:
                with kept.open("a") as file:
                    file.write(json.dumps(found[-1]) + "\n")
    return [row for row in found if row["problem"] in names and row["seed"] < seeds]


Table = dict[str, np.ndarray]
"""Of one problem: ``change`` and the predictors, each ``[tasks, seeds]``."""


def tables(rows: Iterable[dict[str, Any]]) -> dict[str, Table]:
    """By problem, over the seeds of which all networks are there."""
    by_network = {(row["problem"], tuple(row["tasks"]), row["seed"]): row for row in rows}
    found: dict[str, Table] = {}
    for name in dict.fromkeys(str(key[0]) for key in by_network):
        problem = load_problem(name)
        seeds = sorted({key[2] for key in by_network if key[0] == name})
        groups = [problem.task_names, *((task,) for task in problem.task_names)]
        seeds = [seed for seed in seeds if all((name, group, seed) in by_network for group in groups)]
        if not seeds:
            continue
        table: dict[str, list[list[float]]] = {key: [] for key in ("change", *PREDICTORS)}
        for task in problem.tasks:
            joint = [by_network[name, problem.task_names, seed] for seed in seeds]
            alone = [by_network[name, (task.name,), seed] for seed in seeds]
            metric = task.metrics[0]
            change = relative_changes(
                [row["test"][task.name] for row in joint],
                [row["test"][task.name] for row in alone],
                higher_is_better=metric.higher_is_better,
                ideal=metric.ideal,
            )
            assert change is not None, f"{name}: {task.name} alone has an error of zero"
            here, there = ([row["ledger"][task.name] for row in part] for part in (joint, alone))
            table["change"].append(list(change))
            table["hurt"].append([row["hurt"] for row in here])
            table["against"].append([row["against"] for row in here])
            table["excess"].append([ours["hurt"] - own["hurt"] for ours, own in zip(here, there, strict=True)])
        found[name] = {key: np.array(values) for key, values in table.items()}
    return found


def correlation(tables: Iterable[Table], predictor: str) -> float:
    """Spearman's, over all tasks of all problems."""
    pairs = [(table[predictor].ravel(), table["change"].ravel()) for table in tables]
    return float(stats.spearmanr(*(np.concatenate(part) for part in zip(*pairs, strict=True))).statistic)


def resampled(chosen: list[Table], random: np.random.Generator) -> list[Table]:
    """Problems drawn with replacement, and of each its seeds."""
    found = []
    for place in random.integers(len(chosen), size=len(chosen)):
        table = chosen[place]
        seeds = random.integers(table["change"].shape[1], size=table["change"].shape[1])
        found.append({key: values[:, seeds] for key, values in table.items()})
    return found


def report(found: dict[str, Table], draws: int = 2000) -> None:
    heads = "".join(f" {text} |" for text in PREDICTORS.values())
    print(f"\n| | tasks × seeds | change by sharing | hurting steps, mean |{heads}")
    print("|---|---|---|---|" + "---|" * len(PREDICTORS))
    for name, table in found.items():
        row = "".join(f" {correlation([table], key):+.2f} |" for key in PREDICTORS)
        size = f"{len(table['change'])} × {table['change'].shape[1]}"
        print(f"| {name} | {size} | {table['change'].mean():+.1%} | {table['hurt'].mean():.0%} |{row}")
    chosen = list(found.values())
    random = np.random.default_rng(0)
    samples = [resampled(chosen, random) for _ in range(draws)]
    cells = []
    for key in PREDICTORS:
        low, high = np.nanquantile([correlation(sample, key) for sample in samples], (0.025, 0.975))
        cells.append(f" {correlation(chosen, key):+.2f} ({low:+.2f} to {high:+.2f}) |")
    count = sum(table["change"].size for table in chosen)
    print(f"| all together | {count} | | |{''.join(cells)}")
    within = "".join(f" {statistics.fmean(correlation([table], key) for table in chosen):+.2f} |" for key in PREDICTORS)
    print(f"| mean of the problems' own | | | |{within}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=["digits", "sarcos", "credit-default", "census"])
    parser.add_argument("--cost", action="store_true", help="the table of the price")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kept", type=Path, help="a file of what was trained, to go on from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    if given.cost:
        cost(given.rounds)
    else:
        report(tables(trained(given.problems, given.seeds, given.workers, given.kept)))


if __name__ == "__main__":
    main()
