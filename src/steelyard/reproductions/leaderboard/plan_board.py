"""Plan a problem of the leaderboard: a study of all its rows, and one more for each other optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from steelyard.base.specs import SpecPart, parse_spec
from steelyard.errors import LeaderboardError, SteelyardError
from steelyard.method_registry import BEST_FIXED
from steelyard.problems import load_problem
from steelyard.problems.files import VARIABLE, present
from steelyard.problems.other_optimizer import FASTER, OPTIMIZER
from steelyard.problems.problem import Problem
from steelyard.reproductions.leaderboard.board_entries import BoardEntry
from steelyard.reproductions.leaderboard.board_rows import WantedRow, fitted
from steelyard.study.planning.make_plan import plan
from steelyard.study.planning.plan import Plan
from steelyard.study.planning.tuning import tried
from steelyard.study.trial import Trial


@dataclass(frozen=True)
class BoardStudy:
    """The rows of one optimizer: a plan, and which of its methods is which row."""

    plan: Plan
    rows: dict[str, WantedRow]  # by name in the plan


@dataclass(frozen=True)
class PlannedProblem:
    """One problem, planned.

    Args:
        left_out: rows that cannot be trained there, and why.
    """

    entry: BoardEntry
    studies: tuple[BoardStudy, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """Of the problem's own optimizer, or of the only one that is asked for."""
        own = [study for study in self.studies if not any(row.optimizer for row in study.rows.values())]
        return [*own, *self.studies][0].plan

    @property
    def rows(self) -> list[WantedRow]:
        return [row for study in self.studies for row in study.rows.values()]

    @property
    def trials(self) -> list[Trial]:
        """Those that choose and those that are judged."""
        return list(dict.fromkeys(trial for each in self.studies for trial in (*tried(each.plan), *each.plan.trials)))


def missing_data(problem: str) -> str:
    """What to do where a problem's data are not here; empty where they are."""
    needs = [folder for folder in load_problem(problem).needs if not present(folder)]
    if not needs:
        return ""
    return f"its data ({', '.join(needs)}) are not here: set {VARIABLE} to the folder that holds them"


def plan_problem(
    entry: BoardEntry,
    rows: Sequence[WantedRow],
    seeds: int | Sequence[int],
    command: str = "",
    strict: Iterable[str] = (),
) -> PlannedProblem:
    """Try the problem and every row once; nothing is written.

    What a problem does not admit (a method that needs a main task, an architecture that its trunk has no stages for) is
    left out, with the reason.

    Args:
        strict: names of rows that may not be left out.

    Raises:
        SteelyardError: a row that may not be left out cannot be trained there.
    """
    studies: list[BoardStudy] = []
    left_out: dict[str, str] = {}
    for optimizer in dict.fromkeys(row.optimizer for row in rows):
        of_it = [row for row in rows if row.optimizer == optimizer]
        problem = load_problem(entry.problem)
        if optimizer and problem.fingerprint:
            left_out |= {row.name: "other optimizers are those of registered problems" for row in of_it}
            continue
        defined, why = fitted(of_it, problem)
        left_out |= why
        if defined:
            study, why = _study(entry, optimizer, problem, defined, seeds, command)
            left_out |= why
            studies += [] if study is None else [study]
    for name in (each for each in strict if each in left_out):
        raise LeaderboardError(f"{name} cannot be trained on {entry.problem}: {left_out[name]}")
    if not studies:
        raise LeaderboardError(f"no row can be trained on {entry.problem}: {'; '.join(left_out.values())}")
    return PlannedProblem(entry, tuple(studies), left_out)


def _study(
    entry: BoardEntry,
    optimizer: str,
    problem: Problem,
    rows: Sequence[WantedRow],
    seeds: int | Sequence[int],
    command: str,
) -> tuple[BoardStudy | None, dict[str, str]]:
    """The study of the rows that can be trained; none where there is no such row; and why the others cannot."""
    rate = entry.learning_rate
    if optimizer and entry.sgd_rate is not None:
        rate = entry.sgd_rate
    elif optimizer and rate is not None:
        rate *= FASTER  # it is said of the problem's own optimizer

    def planned(some: Sequence[WantedRow]) -> Plan:
        chooses = entry.rates > 1 or any(row.arm.method.name == BEST_FIXED for row in some)
        return plan(
            stepped_by(problem.reference, optimizer),
            [row.arm for row in some],
            seeds=seeds,
            settings=[entry.fraction],
            epochs=entry.epochs,
            batch_size=entry.batch_size,
            epoch_steps=entry.epoch_steps,
            learning_rate=rate,
            tune=entry.rates if entry.rates > 1 else 0,
            tune_seeds=entry.tuning_seeds if chooses else 1,
            tune_beyond=entry.beyond if entry.rates > 1 else 0,
            resplit=None,
            command=command,
        )

    why: dict[str, str] = {}
    try:
        made = planned(rows)
    except SteelyardError:
        # Which of them it is, the error of all does not say: each by itself.
        for row in rows:
            try:
                planned([row])
            except SteelyardError as error:
                why[row.name] = str(error)
        rows = [row for row in rows if row.name not in why]
        if not why:
            raise
        if not rows:
            return None, why
        made = planned(rows)
    if len(made.methods) < len(rows):
        raise LeaderboardError(f"two of the rows {', '.join(row.name for row in rows)} are one and the same: name one")
    return BoardStudy(made, {method.name: row for method, row in zip(made.methods, rows, strict=True)}), why


def stepped_by(reference: str, optimizer: str) -> str:
    """The problem with this optimizer; its own where that is empty."""
    if not optimizer:
        return reference
    spec = parse_spec(reference).method
    return str(SpecPart(spec.name, {**spec.options, OPTIMIZER: optimizer}))
