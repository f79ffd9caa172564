"""How skewed differences over seeds are in our own studies: ``python benchmarks/skewness.py``.

Of every task, method and amount of labels of the reproductions, by their trials in ``docs/reproductions``: the
difference from training alone by seed, where there are five or more, and the size of its sample skewness ``|g1|``.
Five numbers are skewed by chance, so beside their mean stands what as many draws of normal and of log-normal
differences (σ = 0.5) have, at the same numbers of seeds.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from scipy import stats

from steelyard.reproductions import load_reproduction
from steelyard.reproductions.evidence import beside_alone
from steelyard.reproductions.from_trials import judged_from
from steelyard.study.trial import SINGLE_TASK

TRIALS = Path(__file__).parents[1] / "docs" / "reproductions"
LEAST, DRAWN, SIGMA = 5, 40_000, 0.5


def main() -> None:
    random = np.random.default_rng(1)
    print("| trials of | seeds | differences | skewness | if normal | if log-normal |\n|---|---|---|---|---|---|")
    for file in sorted(TRIALS.glob("*.jsonl.xz")):
        name = file.name.partition(".")[0]
        samples = [
            column
            for outcome in judged_from(load_reproduction(name), "real", file).outcomes
            for arm in (method.name for method in outcome.plan.methods if method.name != SINGLE_TASK)
            for setting in range(len(outcome.plan.settings))
            for column in np.array(list(beside_alone(outcome.findings, arm, setting).values())).T
            if len(column) >= LEAST and np.ptp(column) > 0
        ]
        seeds = Counter(map(len, samples))
        sizes = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
        found = [np.mean([abs(stats.skew(sample)) for sample in samples])]
        normal = {size: random.normal(size=(DRAWN, size)) for size in seeds}
        for drawn in (normal, {size: np.exp(SIGMA * draw) for size, draw in normal.items()}):
            by_size = {size: np.abs(stats.skew(draw, axis=1)).mean() for size, draw in drawn.items()}
            found.append(sum(count * by_size[size] for size, count in seeds.items()) / len(samples))
        print(f"| `{name}` | {sizes} | {len(samples)} | {' | '.join(f'{each:.2f}' for each in found)} |", flush=True)


if __name__ == "__main__":
    main()
