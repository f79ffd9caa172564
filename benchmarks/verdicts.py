"""How often the words of a study are false, and how much of what is true they find: ``python benchmarks/verdicts.py``.

Studies are made up: differences from single-task learning by seed, method and task, with a baseline that all methods
share. A row is a design and a number of seeds. Of every procedure it has the percentage of studies with a false word,
the largest of several shapes of noise with and without true effects, and of the true effects the percentage that is
said: of the plain sum, and of the strategies (normal noise). The last column is the percentage of false studies where
one network in ten collapses.
"""

from __future__ import annotations

import argparse

from steelyard.study.analysis.simulation import PROCEDURES, Kind, Rates, rates

DESIGNS = ((5, 2), (14, 3), (25, 4), (25, 12), (2, 139))
SEEDS = (3, 5, 10)
NOISE: tuple[Kind, ...] = ("normal", "skewed", "tied", "unequal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=500, help="made up for every design, seeds and noise")
    studies = parser.parse_args().studies
    print(f"| methods × tasks | seeds | {' | '.join(PROCEDURES)} | the last, collapsing |")
    print(f"|---|---|{'---|' * len(PROCEDURES)}---|")
    for methods, tasks in DESIGNS:
        for seeds in SEEDS:
            count = max(50, studies // (1 + methods * tasks // 200))
            found = {
                kind: rates(kind, seeds, methods, tasks, list(PROCEDURES.values()), count)
                for kind in (*NOISE, "collapsing")
            }
            cells = [_cell([found[kind][place] for kind in NOISE]) for place in range(len(PROCEDURES))]
            last = found["collapsing"][-1]
            print(f"| {methods} × {tasks} | {seeds} | {' | '.join(cells)} | {_false(last):.0f} |", flush=True)


def _cell(found: list[Rates]) -> str:
    """``5; 100, 88``: false words (the most of all noises), found of the plain sum and of the others (normal noise)."""
    most = max(map(_false, found))
    return f"{most:.0f}; {100 * found[0].sum_found:.0f}, {100 * found[0].methods_found:.0f}"


def _false(found: Rates) -> float:
    return 100 * max(found.false, found.wrong)


if __name__ == "__main__":
    main()
