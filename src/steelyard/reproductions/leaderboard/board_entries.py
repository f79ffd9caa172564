"""The problems of the leaderboard, each with the size at which it is trained: what differs from its own is said here.

A whole problem, all rows with their tuning, is to take about an hour on two cores (`nyuv2`: a night), so that budgets
are small and equal: a row is about that budget, not about the best that a method can do with another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from steelyard.errors import PlanError
from steelyard.problems import load_problem
from steelyard.reproductions.leaderboard.board_results import BoardProblem

RATES, TUNING_SEEDS, BEYOND = 3, 3, 2
QUICKER = 5  # times fewer epochs of the quick size


@dataclass(frozen=True)
class BoardEntry:
    """One problem.

    Args:
        problem: as `steelyard compare` takes it.
        kind: of data.
        epochs, batch_size, learning_rate: the problem's own where not given; the rate is the middle of what is tried.
        fraction: of the training labels; by task where not all have the same, of those not named all.
        sgd_rate: the middle of what is tried where SGD steps; ten times the other one where not given.
        epoch_steps: an epoch takes at least so many, for tasks with few labels alone as for all together.
        why: what it is there for.
        quick: a problem of the quick size.
        rates: learning rates tried for every network; 0: the one above.
        tuning_seeds: on so many seeds each.
        beyond: so many more rates past an edge that is the best, for each network by itself.
    """

    problem: str
    kind: str
    epochs: int | None
    why: str
    batch_size: int | None = None
    learning_rate: float | None = None
    fraction: float | Mapping[str, float] = 1.0
    epoch_steps: int = 0
    sgd_rate: float | None = None
    quick: bool = False
    rates: int = RATES
    tuning_seeds: int = TUNING_SEEDS
    beyond: int = BEYOND


ENTRIES = (
    BoardEntry(
        "digits",
        "images",
        20,
        "two equal tasks in too narrow a network",
        batch_size=512,
        learning_rate=0.0253,
        sgd_rate=0.08,
        quick=True,
    ),
    BoardEntry(
        "sarcos",
        "robot",
        15,
        "seven torques whose scales differ 20-fold",
        learning_rate=0.0126,
        sgd_rate=0.00126,  # squares of tens of newton metres: at 0.04 trainings diverge
        quick=True,
    ),
    BoardEntry(
        "gdsc(drugs=20)",
        "drugs",
        10,
        "twenty tasks with few rows and missing labels",
        learning_rate=0.00316,
        sgd_rate=0.01,
    ),
    BoardEntry(
        "credit-default",
        "tables",
        4,
        "a main task with two auxiliaries",
        learning_rate=0.01,
        fraction=0.5,
    ),
    BoardEntry(
        "census",
        "tables",
        4,
        "a main task with two auxiliaries, many rows",
        learning_rate=0.00316,  # at 0.01 two thirds of the rows chose the smallest rate
        sgd_rate=0.316,
        fraction=0.25,
    ),
    BoardEntry(
        "synthetic-auxiliary",
        "synthetic",
        20,
        "a main task with few labels, an auxiliary that loses relevance",
        batch_size=128,
        learning_rate=1e-2,
        sgd_rate=1e-2,  # at 0.1 two of four rows learn little
        fraction={"main": 0.125},
        epoch_steps=32,
        rates=5,  # of three the smallest was best for half of the rows, the largest for a fifth
    ),
    BoardEntry("tox21", "molecules", 4, "twelve assays, a sixth of the labels missing", learning_rate=0.01),
    BoardEntry(
        "qm8",
        "molecules",
        6,
        "twelve related energies and strengths",
        learning_rate=0.01,
        sgd_rate=0.0316,
        fraction=0.25,
    ),
    BoardEntry(
        "multi-target(table=enb)",
        "tables",
        30,
        "two targets that are nearly one",
        learning_rate=0.01,
    ),
    BoardEntry(
        "multi-target(table=jura)",
        "tables",
        30,
        "three targets 26-fold apart, 215 rows",
        learning_rate=0.01,
    ),
    BoardEntry(
        "multi-target(table=oes97)",
        "tables",
        30,
        "sixteen targets 21-fold apart, 200 rows",
        learning_rate=0.01,
        sgd_rate=0.0316,
    ),
    BoardEntry(
        "multi-target",  # of its tables the default one, scm20d
        "tables",
        6,
        "sixteen targets of like scales",
        learning_rate=0.01,
        sgd_rate=0.0316,
    ),
    BoardEntry("mnist-imbalanced", "images", 6, "ten tasks of unequal size", learning_rate=1e-3),
    BoardEntry("office", "photographs", 15, "four tasks that share no rows", learning_rate=0.00316, sgd_rate=0.01),
    BoardEntry(
        "multi-mnist", "images", 6, "two equal tasks, a convolutional network", learning_rate=0.01, fraction=0.1
    ),
    BoardEntry("multi-fashion", "images", 6, "the same, harder images", learning_rate=0.01, fraction=0.1),
    BoardEntry("mnist-fashion", "images", 6, "two tasks of unequal difficulty", learning_rate=0.01, fraction=0.1),
    BoardEntry(
        "digit-reconstruction",
        "dense",
        6,
        "classification beside the painting of an image",
        learning_rate=0.01,
        fraction=0.1,
    ),
    BoardEntry("nyuv2", "dense", 3, "segmentation, depth and normals of photographs", fraction=0.2),
)


def entries(names: Sequence[str] | None, quick: bool) -> list[BoardEntry]:
    """Those of these names, each at its size; all of a size by default.

    What stands in no table (a problem of the user's, one with other options) has its own size.

    Raises:
        UnknownNameError: no problem is called so.
        PlanError: a name is there twice.
    """
    table = {entry.problem: entry for entry in ENTRIES}
    if names is None:
        chosen = [entry for entry in ENTRIES if entry.quick or not quick]
    else:
        if twice := [name for place, name in enumerate(names) if name in names[:place]]:
            raise PlanError(f"--problems names {twice[0]!r} twice: each problem has one file")
        chosen = [table[name] if name in table else BoardEntry(name, "other", None, "added by name") for name in names]
    return [_quicker(entry) if quick else entry for entry in chosen]


def _quicker(entry: BoardEntry) -> BoardEntry:
    epochs = load_problem(entry.problem).epochs if entry.epochs is None else entry.epochs
    return replace(entry, epochs=max(1, epochs // QUICKER), tuning_seeds=1, beyond=0)


def as_exported(found: BoardProblem) -> BoardEntry:
    """The size at which an exported problem was trained, to train another row at the same one."""
    (entry,) = entries([found.problem], quick=False)
    seeds = max(1, len(found.tuning_seeds))
    return replace(entry, epochs=found.epochs, rates=len(found.rates), tuning_seeds=seeds, beyond=found.beyond)
