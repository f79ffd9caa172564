"""How much asymmetric transfer is left after training: the share of the features that outputs rebuild, and its price.

    python benchmarks/transfer.py                                    # the arms of `steelyard reproduce amtfl`
    python benchmarks/transfer.py "gdsc(drugs=100)" --arms "equal@amtfl(alpha=0.01,uncertainty=none)" --rate 0.00316

Where rebuilt features do not move, or a task's rows cost next to nothing beside its loss, an arm is the plain sum with
a penalty: nothing that it wins or loses is due to asymmetry. Of one network each, at the epoch that a study would
choose, on validation rows; seeds on which studies choose learning rates.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable

import torch
from torch import Tensor

from steelyard import study
from steelyard.models import build
from steelyard.models.architectures.amtfl import AMTFL
from steelyard.models.features import flat
from steelyard.problems import load_problem
from steelyard.problems.rows import Split
from steelyard.reproductions.papers import amtfl_claim
from steelyard.study.planning.arms import parse_arms
from steelyard.study.planning.tuning import SEED
from steelyard.study.training.train import train

HEADS = ("problem", "arm", "seed", "var ĥ / var h", "α Σ|A_t|: least", "median", "most", "validation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", nargs="?", help="one of the reproduction's, as it has it; by default all")
    parser.add_argument("--arms", help="by default those of the reproduction with amtfl in them")
    parser.add_argument("--seeds", type=int, default=1, help="so many, of those on which studies choose learning rates")
    parser.add_argument("--epochs", type=int, help="by default the problem's, or the reproduction's")
    parser.add_argument("--rate", type=float, help="likewise")
    given = parser.parse_args()
    torch.set_num_threads(1)
    experiments = {experiment.problem: experiment for experiment in amtfl_claim.experiments("real")}
    if given.problem not in (None, *experiments):
        parser.error(f"{given.problem!r} is none of the reproduction's problems: {', '.join(experiments)}")
    print("| " + " | ".join(HEADS) + " |")
    print("|" + "---|" * len(HEADS))
    for experiment in experiments.values() if given.problem is None else [experiments[given.problem]]:
        arms = [str(arm) for arm in parse_arms(given.arms or experiment.methods)]
        for arm in (arm for arm in arms if "amtfl" in arm):
            for seed in range(SEED, SEED + given.seeds):
                rate = given.rate or experiment.learning_rate
                row = measure(experiment.problem, arm, seed, given.epochs or experiment.epochs, rate)
                print("| " + " | ".join((experiment.problem, f"`{arm}`", str(seed), *row)) + " |", flush=True)


def measure(name: str, arm: str, seed: int, epochs: int | None, rate: float | None) -> Iterable[str]:
    """Train one network, and look at it."""
    problem = load_problem(name)
    (trial,) = study.plan(name, [arm], seeds=[seed], epochs=epochs, learning_rate=rate).trials
    kept: dict[str, Tensor] = {}
    result = train(trial, problem, on_trained=kept.update)
    network = build(problem, trial.tasks, trial.seed, trial.architecture)
    assert isinstance(network, AMTFL)
    network.load_state_dict(kept)
    network.eval()
    rows = problem.data(seed).validation
    assert isinstance(rows, Split)
    with torch.no_grad():
        outputs, shared = network(problem.prepare(rows.inputs))
        features, rebuilt = flat(shared), network.transfer.rebuild(outputs)
        share = float(rebuilt.var(0).sum() / features.var(0).sum())
        price = (network.transfer.alpha * network.transfer.transferred()).tolist()
    reached = [curve[result.chosen_epoch - 1] for curve in result.curves.validation.values()]
    figures = (share, min(price), statistics.median(price), max(price))
    return *(f"{figure:.2g}" for figure in figures), f"{statistics.mean(reached):.4f}"


if __name__ == "__main__":
    main()
