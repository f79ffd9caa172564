"""Whether an interval over divisions is about other rows: ``python benchmarks/new_rows.py``.

Divisions of one data set share most of their rows, so that what they give is correlated, and the mean of some of them
varies by more from data set to data set than their own spread says. Nadeau and Bengio (2003) widen the interval for
that, by ``√(1 + J n_test / n_train)``. Whether it is needed for what a study asks, the *difference* of networks trained
alone and together, is measured here: data sets of few rows are drawn from a large real one (SARCOS, three torques),
each is studied by J seeds, and the 95 % interval should hold the mean over all data sets.

Many small networks are trained side by side, as one batched product, which is all that a study of each would do: the
start of the trunk is one of the division, alone and together, and validation rows choose the step.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.problems.builtin.arrays import load_arrays
from steelyard.problems.builtin.sarcos import ARRAYS, FILE
from steelyard.study.analysis.statistics import interval, relative_changes

TORQUES, STEPS, EVERY, AT_ONCE = (0, 2, 4), 200, 10, 50
PARTS = ("training", "validation", "test")
Rows = dict[str, Tensor]  # of each part, [studies, rows]


def divided(kind: str, rows: Tensor, seeds: int, generator: torch.Generator) -> list[list[Tensor]]:
    """By seed the training, validation and test rows (3 : 1 : 1) of one data set."""

    def shuffled(of: Tensor) -> Tensor:
        return of[torch.randperm(len(of), generator=generator)]

    fifth, order = len(rows) // 5, shuffled(rows)
    found = []
    for seed in range(seeds):
        if kind == "a fold each":
            test = order[seed * fifth : (seed + 1) * fifth]
            rest = shuffled(torch.cat([order[: seed * fifth], order[(seed + 1) * fifth :]]))
        else:
            here = order if kind == "one division" else shuffled(rows)
            test, rest = here[:fifth], here[fifth:]
        found.append([rest[fifth:], rest[:fifth], test])
    return found


def errors(
    inputs: Tensor, targets: Tensor, rows: Rows, tasks: Sequence[int], width: int, start: int
) -> NDArray[np.float64]:
    """RMSE on test rows ``[networks, tasks]``, at the step that is best on validation rows."""
    generator = torch.Generator().manual_seed(start)
    networks, wide = len(rows["test"]), inputs.shape[1]
    trunk = torch.randn(networks, wide, width, generator=generator) / wide**0.5  # alone and together alike
    generator.manual_seed(start + 1 + sum(4**task for task in tasks))
    head = torch.randn(networks, width, len(tasks), generator=generator) / width**0.5
    parameters = [trunk, torch.zeros(networks, 1, width), head, torch.zeros(networks, 1, len(tasks))]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(parameters, lr=1e-2)

    def squared(part: str) -> Tensor:
        hidden = torch.relu(inputs[rows[part]] @ parameters[0] + parameters[1])
        outputs: Tensor = hidden @ parameters[2] + parameters[3]
        return (outputs - targets[rows[part]][:, :, list(tasks)]).square().mean(1)

    best = torch.full((networks,), torch.inf)
    tested = torch.zeros(networks, len(tasks))
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        torch.autograd.backward(squared("training").mean(1).sum())
        optimizer.step()
        if step % EVERY == 0:
            with torch.no_grad():
                score, shown = squared("validation").log().sum(1), squared("test")
            better = score < best
            best[better], tested[better] = score[better], shown[better]
    return tested.sqrt().double().numpy()


def studies(kind: str, rows: int, seeds: int, count: int, width: int) -> NDArray[np.float64]:
    """Test errors ``[studies, seeds, alone or together, tasks]``."""
    arrays = load_arrays(FILE, ("X", "Y"), ARRAYS)
    inputs, targets = (torch.as_tensor(arrays[name]).float() for name in ("X", "Y"))
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    targets = ((targets - targets.mean(0)) / targets.std(0))[:, list(TORQUES)]
    generator, tasks = torch.Generator().manual_seed(0), range(len(TORQUES))
    found = []
    for begun in range(0, count, AT_ONCE):
        sets = [torch.randperm(len(inputs), generator=generator)[:rows] for _ in range(min(AT_ONCE, count - begun))]
        parts = [each for drawn in sets for each in divided(kind, drawn, seeds, generator)]
        of = {name: torch.stack([each[place] for each in parts]) for place, name in enumerate(PARTS)}
        alone = np.concatenate([errors(inputs, targets, of, [task], width, 100 * begun) for task in tasks], axis=1)
        joint = errors(inputs, targets, of, list(tasks), width, 100 * begun)
        found.append(np.stack([alone, joint], axis=1).reshape(len(sets), seeds, 2, len(TORQUES)))
    return np.concatenate(found)


def report(name: str, samples: NDArray[np.float64], ratio: float) -> str:
    """How often an interval over seeds holds the mean over all studies, plain and widened; and how wide it is."""
    truth, seeds = float(samples.mean()), samples.shape[1]
    wider = (1 + seeds * ratio) ** 0.5
    held, held_wider, halves = 0, 0, []
    for sample in samples:
        shown = interval(list(sample))
        assert shown is not None
        half = (shown.high - shown.low) / 2
        held += abs(shown.mean - truth) <= half
        held_wider += abs(shown.mean - truth) <= wider * half
        halves.append(half)
    needed = samples.mean(1).std(ddof=1) / (samples.var(axis=1, ddof=1).mean() / seeds) ** 0.5
    shares = " | ".join(f"{100 * each / len(samples):.0f}" for each in (held, held_wider))
    return f"| {name} | {shares} | {100 * np.median(halves):.1f} | {needed:.2f} | {wider:.2f} |"


def change(of: NDArray[np.float64], task: int) -> NDArray[np.float64]:
    """By seed, of one task's errors ``[seeds, alone or together, tasks]``."""
    found = relative_changes(of[:, 1, task], of[:, 0, task], higher_is_better=False, ideal=None)
    assert found is not None  # no error is zero
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--width", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| rows, and what is asked | holds it, % | widened, % | half-width, points | would need | widened by |")
    print("|---|---|---|---|---|---|")
    for kind in ("a division each", *(["a fold each"] if given.seeds == 5 else []), "one division"):
        found = studies(kind, given.rows, given.seeds, given.studies, given.width)
        changes = np.array([[change(of, task) for task in range(len(TORQUES))] for of in found])
        print(report(f"{kind}: Δm", changes.mean(1), 1 / 3))
        print(report(f"{kind}: one task's change", changes[:, 0], 1 / 3))
        print(report(f"{kind}: its error alone", found[:, :, 0, 0], 1 / 3), flush=True)


if __name__ == "__main__":
    main()
