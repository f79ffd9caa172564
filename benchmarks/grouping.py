"""What a search finds on published tables of trained subsets, against the best there is and against what needs no
search.

    STEELYARD_DATA=... python benchmarks/grouping.py            # 200 seeds
    STEELYARD_DATA=... python benchmarks/grouping.py --seeds 20

Each table (Taskonomy, ETTm1: Song et al., "Efficient and Effective Multi-task Grouping via Meta Learning on Task
Combinations", NeurIPS 2022) has the gain over single-task learning of every subset of its tasks. A search may look up
as many subsets as its budget allows and chooses by validation; printed are mean test gains over the tasks, in %, their
standard error over seeds, and how many tasks end up worse than alone. Of the search two more numbers: how many tasks
its choice is worse for by validation data too, which could have been seen, and the fewest that any choice among the
same subsets makes worse by test data, which nothing but other subsets could save. The last budget is all subsets.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.grouping import Grouping, choose, search
from steelyard.grouping.search import Measure

Table = dict[frozenset[str], dict[str, float]]
TABLES = ("taskonomy", "ettm1")
NETWORKS = (2, 3, 5)


def load(path: Path) -> tuple[list[str], dict[str, Table]]:
    """The tasks, and the columns of the table: measured gains, and two published predictions of them."""
    found = np.load(path)
    inside = found["subsets"].astype(bool)
    tasks = [f"task {number}" for number in range(inside.shape[1])]
    columns = {}
    for name in ("gain_validation", "gain_test", "hoa", "tag"):
        rows = [
            {tasks[task]: float(value) for task, value in enumerate(values) if held[task]}
            for held, values in zip(inside, found[name], strict=True)
        ]
        columns[name] = {frozenset(row): row for row in rows}
    return tasks, columns


def looked_up(table: Table) -> Measure:
    def measure(subsets: Sequence[frozenset[str]], effort: float = 1.0) -> Table:
        return {subset: table[subset] for subset in subsets}

    return measure


def by_surrogate(
    tasks: Sequence[str], measured: Mapping[frozenset[str], Mapping[str, float]], all_of_it: Table
) -> Table:
    """Ridge regression on who is there, for each task; its predictions for every subset."""
    predicted: Table = {subset: {} for subset in all_of_it}
    for task in tasks:
        held = [subset for subset in measured if task in subset]
        rows = np.array([[other in subset for other in tasks] for subset in held], dtype=float)
        values = np.array([measured[subset][task] for subset in held])
        centre, mean = rows.mean(0), values.mean()
        inverse = np.linalg.inv((rows - centre).T @ (rows - centre) + np.eye(len(tasks)))
        slopes = inverse @ (rows - centre).T @ (values - mean)
        for subset in all_of_it:
            if task in subset:
                inside = np.array([other in subset for other in tasks], dtype=float)
                predicted[subset][task] = float(mean + (inside - centre) @ slopes)
    return predicted


def tested(
    tasks: Sequence[str],
    columns: dict[str, Table],
    chosen_by: Mapping[frozenset[str], Mapping[str, float]],
    networks: int,
) -> NDArray[np.float64]:
    """Test gains, by task, of what is chosen by these values."""
    grouping = choose(tasks, {subset: values for subset, values in chosen_by.items() if len(subset) > 1}, networks)
    gains = [columns["gain_test"][grouping.network_of(task)][task] for task in tasks]
    return np.array(
        [0.0 if len(grouping.network_of(task)) == 1 else gain for task, gain in zip(tasks, gains, strict=True)]
    )


def worse(gains: NDArray[np.float64]) -> int:
    """How many tasks are worse than alone; what rounding makes is no difference."""
    return int((gains < -1e-9).sum())


def seen_worse(grouping: Grouping) -> int:
    """How many tasks the choice is worse for by the values that it was made with."""
    return worse(np.array(list(grouping.gains.values())))


def fewest_worse(
    tasks: Sequence[str], columns: dict[str, Table], measured: Iterable[frozenset[str]], networks: int
) -> int:
    """How few tasks end up worse than alone with these subsets, where test data choose and one more costs any gain."""
    test = columns["gain_test"]
    priced = {subset: {task: gain - 1e3 * (gain < -1e-9) for task, gain in test[subset].items()} for subset in measured}
    return worse(tested(tasks, columns, priced, networks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    arguments = parser.parse_args()
    folder = os.environ.get("STEELYARD_DATA")
    if not folder:
        sys.exit("STEELYARD_DATA names no folder of data sets: the tables lie in its grouping_tables")
    for name in TABLES:
        tasks, columns = load(Path(folder) / "grouping_tables" / f"{name}.npz")
        everything = frozenset(tasks)
        validation = columns["gain_validation"]
        one = {everything: validation[everything]}
        print(f"\n{name}: {len(tasks)} tasks, {len(validation)} subsets; mean test gain in % (tasks worse than alone)")
        print(
            f"{'networks':>8} {'budget':>6} {'search (by validation / fewest)':>32} {'surrogate':>12} "
            f"{'all in one':>12} {'own, if hurt':>12} {'HOA':>12} {'TAG':>12} {'oracle':>8}"
        )
        for networks in (count for count in NETWORKS if count <= len(tasks)):
            fixed = [
                tested(tasks, columns, one, 1),
                tested(tasks, columns, one, networks),
                tested(tasks, columns, columns["hoa"], networks),
                tested(tasks, columns, columns["tag"], networks),
            ]
            oracle = tested(tasks, columns, columns["gain_test"], networks)
            every = len(validation) - len(tasks)
            for budget in (len(tasks) / 2, len(tasks), 2 * len(tasks), every):
                found, surrogate, seen, fewest = [], [], [], []
                for seed in range(1 if budget == every else arguments.seeds):
                    grouping = search(
                        tasks, looked_up(validation), budget=budget, networks=networks, seed=seed, candidates=validation
                    )
                    found.append(tested(tasks, columns, grouping.measured, networks))
                    seen.append(seen_worse(grouping))
                    fewest.append(fewest_worse(tasks, columns, grouping.measured, networks))
                    surrogate.append(
                        tested(tasks, columns, by_surrogate(tasks, grouping.measured, validation), networks)
                    )
                gains = np.array(found)
                error = f" ± {100 * gains.mean(1).std(ddof=1) / len(gains) ** 0.5:.2f}" if len(gains) > 1 else ""
                counts = [np.mean([worse(each) for each in found]), np.mean(seen), np.mean(fewest)]
                cells = [f"{100 * gains.mean():6.2f}{error} ({' / '.join(f'{count:.1f}' for count in counts)})"]
                cells += [f"{100 * np.mean(surrogate):6.2f} ({np.mean([worse(each) for each in surrogate]):.1f})"]
                cells += [f"{100 * values.mean():6.2f} ({worse(values)})" for values in fixed]
                print(
                    f"{networks:8} {budget:6.1f} {cells[0]:>32} "
                    + " ".join(f"{cell:>12}" for cell in cells[1:])
                    + f" {100 * oracle.mean():8.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
