"""What pairing by seed gains and costs: ``python benchmarks/pairing.py [STORE …]``.

First of made-up values: how often three tests of a difference are significant without an effect and with one, in per
cent, by the correlation between the networks alone and together of one seed. Then, of each store that is given, that
correlation over the seeds of its latest study: of single-task learning with the plain sum, and of the plain sum with
the strategies, the median and the range over tasks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from steelyard.study import judge
from steelyard.study.analysis.simulation import PAIRING_EFFECT, pairing
from steelyard.study.trial import SINGLE_TASK

CORRELATIONS = (-0.3, 0.0, 0.3, 0.6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", metavar="STORE")
    stores = parser.parse_args().stores
    tests = list(pairing(3, 0.0, studies=10))
    print(
        f"| seeds | correlation | {' | '.join(tests)} | {', threefold deviation | '.join(tests)}, threefold deviation |"
    )
    print(f"|---|---|{'---|' * 2 * len(tests)}")
    for seeds in PAIRING_EFFECT:
        for correlation in CORRELATIONS:
            cells = [
                f"{100 * size:.1f}; {100 * power:.0f}"
                for ratio in (1.0, 3.0)
                for size, power in pairing(seeds, correlation, ratio).values()
            ]
            print(f"| {seeds} | {correlation:+.1f} | {' | '.join(cells)} |")
    if stores:
        print("\n| problem | seeds | alone with the plain sum | the plain sum with strategies |\n|---|---|---|---|")
    for store in stores:
        print(f"| {' | '.join(measured(store))} |")


def measured(store: str) -> list[str]:
    found = judge(store)
    values = {(cell.method, cell.task, cell.setting): cell.values for cell in found.cells}
    strategies = [method for method in found.methods if method not in (SINGLE_TASK, "equal")]
    alone, among = [], []
    for method, task, setting in values:
        if method == "equal":
            alone.append(correlation(values, [(SINGLE_TASK, task, setting), (method, task, setting)]))
        elif method in strategies:
            among.append(correlation(values, [("equal", task, setting), (method, task, setting)]))
    return [found.problem, str(len(found.seeds)), *map(spread, (alone, among))]


def correlation(values: dict[tuple[str, str, int], dict[int, float]], sides: Sequence[tuple[str, str, int]]) -> float:
    one, other = (values.get(side, {}) for side in sides)
    seeds = sorted(set(one) & set(other))
    if len(seeds) < 3:
        return float("nan")
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef([[side[seed] for seed in seeds] for side in (one, other)])[0, 1])


def spread(found: Sequence[float]) -> str:
    known = np.array([value for value in found if np.isfinite(value)])
    return f"{np.median(known):+.2f} ({known.min():+.2f} to {known.max():+.2f})" if len(known) else "–"


if __name__ == "__main__":
    main()
