"""Whether an interval over seeds holds what sharing does on average over divisions: ``python benchmarks/divisions.py``.

A small real problem (the 442 patients of scikit-learn's diabetes data, of which few are kept) is divided anew again and
again. Of each study (some seeds on one division, or every seed on its own) it is asked whether the 95 % interval of Δm
of the plain sum holds the mean over all divisions and seeds, and which word it gives. Training is what takes the time:
every network is trained once, and studies are drawn from them.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from torch import nn

from steelyard.problems import Data, Problem, Task, regression, split
from steelyard.study.analysis.statistics import interval, relative_changes
from steelyard.study.training.train import train
from steelyard.study.trial import SINGLE_TASK, Trial

TASKS = ("progression", "bmi", "pressure")
INPUTS = ("age", "sex", "s1", "s2", "s3", "s4", "s5", "s6")


def problem(rows: int) -> Problem:
    patients = load_diabetes()
    table = dict(zip(patients.feature_names, patients.data.T, strict=True))
    inputs = np.stack([table[name] for name in INPUTS], axis=1)[:rows]
    targets = {"progression": patients.target, "bmi": table["bmi"], "pressure": table["bp"]}

    def load(seed: int = 0) -> Data:
        kept = {name: values[:rows] for name, values in targets.items()}
        return split(inputs, kept, seed=seed, standardise=True, standardise_targets=TASKS)

    def trunk() -> nn.Module:
        return nn.Sequential(nn.Linear(len(INPUTS), 32), nn.ReLU())

    def head(task: Task) -> nn.Module:
        return nn.Linear(32, task.outputs)

    return Problem(f"patients-{rows}", [regression(name) for name in TASKS], load, trunk, head, batch_size=16)


def errors(made: Problem, division: int, seed: int, epochs: int) -> NDArray[np.float64]:
    """1 − R² on test data, ``[alone or together, T]``."""
    whole = dict.fromkeys(TASKS, 1.0)
    found = np.empty((2, len(TASKS)))
    here = Problem(made.name, made.tasks, lambda: made.redrawn().data(division), made.trunk, made.head, batch_size=16)
    for place, name in enumerate(TASKS):
        alone = Trial(made.name, SINGLE_TASK, (name,), seed, ((name, 1.0),), epochs, 16)
        found[0, place] = 1.0 - train(alone, here).test[name][0]
    joint = Trial(made.name, "equal", TASKS, seed, tuple(sorted(whole.items())), epochs, 16)
    found[1] = [1.0 - train(joint, here).test[name][0] for name in TASKS]
    return found


def delta_m(of_seeds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Δm by seed of errors ``[seeds, 2, T]``."""
    changes = [
        relative_changes(of_seeds[:, 1, place], of_seeds[:, 0, place], higher_is_better=False, ideal=None)
        for place in range(of_seeds.shape[2])
    ]
    mean: NDArray[np.float64] = np.stack([change for change in changes if change is not None]).mean(0)
    return mean


def correlations(found: NDArray[np.float64]) -> tuple[float, float]:
    """Of the errors alone and together, ``[divisions, seeds, 2, T]``: by seed within a division, and of their means."""
    means = found.mean(1, keepdims=True)

    def between(alone: NDArray[np.float64], joint: NDArray[np.float64]) -> float:
        return float(np.corrcoef(alone.ravel(), joint.ravel())[0, 1])

    tasks = range(found.shape[3])
    within = [between((found - means)[:, :, 0, task], (found - means)[:, :, 1, task]) for task in tasks]
    return float(np.mean(within)), float(np.mean([between(means[..., 0, task], means[..., 1, task]) for task in tasks]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--divisions", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--studies", type=int, default=2000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    made = problem(given.rows)
    found = np.array(
        [
            [errors(made, division, seed, given.epochs) for seed in range(given.seeds)]
            for division in range(given.divisions)
        ]
    )
    truth = float(delta_m(found.reshape(-1, *found.shape[2:])).mean())
    random = np.random.default_rng(1)
    by_seed, by_division = correlations(found)
    print(
        "Correlation of alone and together, mean over tasks: "
        f"by seed within a division {by_seed:+.2f}, from division to division {by_division:+.2f}"
    )
    print(f"{made.name}: Δm of the plain sum over all divisions and seeds {100 * truth:+.2f} %")
    print("| seeds | rows | interval holds it, % | half-width, points | better, worse, open: % |")
    print("|---|---|---|---|---|")
    for seeds in (3, given.seeds):
        for name in ("one division", "a division each"):
            held, half, words = 0, [], np.zeros(3)
            for _ in range(given.studies):
                divisions = random.permutation(given.divisions)[: 1 if name == "one division" else seeds]
                drawn = random.permutation(given.seeds)[:seeds]
                shown = interval(delta_m(found[np.resize(divisions, seeds), drawn]))
                assert shown is not None
                held += shown.low <= truth <= shown.high
                half.append((shown.high - shown.low) / 2)
                words += [shown.low > 0, shown.high < 0, shown.low <= 0 <= shown.high]
            shares = ", ".join(f"{100 * share:.0f}" for share in words / given.studies)
            print(f"| {seeds} | {name} | {100 * held / given.studies:.0f} | {100 * np.median(half):.1f} | {shares} |")


if __name__ == "__main__":
    main()
