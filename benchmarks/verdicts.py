"""How often the words of a study are false, and how much of what is true they find: ``python benchmarks/verdicts.py``.

Studies are made up: differences from single-task learning by seed, method and task, with a baseline that all methods
share. A row is a design and a number of seeds. Of every procedure it has the percentage of studies with a false word,
the largest of several shapes of noise, all alike on both sides, with and without true effects, and of the true effects
the percentage that is said: of the plain sum, and of the strategies (normal noise). "max-T, correlation known" cannot
be had by a study: it shows what knowing how its words hang together would bring (normal noise alone, whose correlation
it knows). The last columns are the percentages of false studies where differences are skewed (log-normal, σ = 0.5), and
where one network in ten collapses. All rows come from one seed.

``--recommendation``: how often the best of several strategies, all of which lie on the edge of what may be recommended,
is recommended by its own 95 % interval, and by the wider one of the best of so many.

``--coverage``: how often a 95 % interval holds the mean of normal, skewed and very skewed differences.

``--looks``: how often a study with nothing there says something at one look or another, where seeds are added while it
says nothing.
"""

from __future__ import annotations

import argparse

from steelyard.study.analysis.earlier_looks import false_after
from steelyard.study.analysis.simulation import PROCEDURES, Kind, Rates, coverage, max_t, rates, recommended

DESIGNS = ((5, 2), (14, 3), (25, 4), (25, 12), (2, 139))
SEEDS = (3, 5, 10)
STRATEGIES = (1, 4, 13, 24)
LOOKS = ((3,), (3, 5), (3, 10), (5, 10), (5, 20), (3, 5, 10), (5, 10, 20), (3, 5, 7, 9, 11))
NOISE: tuple[Kind, ...] = ("normal", "heavy-tailed", "tied", "unequal")
BEYOND: tuple[Kind, ...] = ("skewed", "collapsing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--studies", type=int, default=300, help="made up for every design, seeds and noise; fewer if large"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recommendation", action="store_true")
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--looks", action="store_true")
    given = parser.parse_args()
    if given.coverage:
        coverages()
        return
    if given.looks:
        looks()
        return
    if given.recommendation:
        recommendation(given.seed)
        return
    *others, used = PROCEDURES
    columns = [*others, "max-T, correlation known", used, *BEYOND]
    print(f"| methods × tasks | seeds | studies | {' | '.join(columns)} |\n|---|---|---|{'---|' * len(columns)}")
    for methods, tasks in DESIGNS:
        count = max(50, given.studies // (1 + methods * tasks // 200))
        for seeds in SEEDS:
            known = [*PROCEDURES.values(), max_t(seeds, methods, tasks, seed=given.seed)]
            found = {
                kind: rates(kind, seeds, methods, tasks, known if kind == "normal" else known[:-1], count, given.seed)
                for kind in (*NOISE, *BEYOND)
            }
            cells = [_cell([found[kind][place] for kind in NOISE]) for place in range(len(PROCEDURES))]
            cells.insert(-1, _cell(found["normal"][-1:]))
            cells += [f"{_false(found[kind][-1]):.0f}" for kind in BEYOND]
            print(f"| {methods} × {tasks} | {seeds} | {count} | {' | '.join(cells)} |", flush=True)


def recommendation(seed: int) -> None:
    print("| strategies | seeds | by its own interval, % | by that of the best of so many, % | the same, skewed, % |")
    print("|---|---|---|---|---|")
    for strategies in STRATEGIES:
        for seeds in SEEDS:
            alone, of_all = recommended(strategies, seeds, seed=seed)
            _, skewed = recommended(strategies, seeds, seed=seed, skewed=True)
            print(f"| {strategies} | {seeds} | {100 * alone:.1f} | {100 * of_all:.1f} | {100 * skewed:.1f} |")


def coverages() -> None:
    print(f"| differences | {' | '.join(f'{seeds} seeds' for seeds in SEEDS)} |\n|---|{'---|' * len(SEEDS)}")
    for name, skew in (("normal", 0.0), ("log-normal, σ = 0.5", 0.5), ("log-normal, σ = 1", 1.0)):
        print(f"| {name} | {' | '.join(f'{100 * coverage(skew, seeds):.1f}' for seeds in SEEDS)} |")


def looks() -> None:
    print("| looks at so many seeds | a study of one question, % | of ten, % |\n|---|---|---|")
    for seeds in LOOKS:
        found = [f"{100 * false_after(seeds, questions):.1f}" for questions in (1, 10)]
        print(f"| {', then '.join(map(str, seeds))} | {' | '.join(found)} |")


def _cell(found: list[Rates]) -> str:
    """``5; 100, 88``: false words (the most of all noises), found of the plain sum and of the others (normal noise)."""
    most = max(map(_false, found))
    return f"{most:.0f}; {100 * found[0].sum_found:.0f}, {100 * found[0].methods_found:.0f}"


def _false(found: Rates) -> float:
    return 100 * max(found.false, found.wrong)


if __name__ == "__main__":
    main()
