"""Train a random share of the exported trials again, from what their files say, and hold the results to the files."""

from __future__ import annotations

import dataclasses
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.errors import LeaderboardError
from steelyard.reproductions.leaderboard.board_entries import as_exported
from steelyard.reproductions.leaderboard.board_results import BoardProblem, BoardRow
from steelyard.reproductions.leaderboard.board_rows import row_of
from steelyard.reproductions.leaderboard.export_board import check_budget, tested
from steelyard.reproductions.leaderboard.plan_board import BoardStudy, plan_problem
from steelyard.reproductions.leaderboard.time_limit import Deadline, UntilEngine
from steelyard.reproductions.run_reproduction import Where
from steelyard.study.planning.plan import JOINT, Choice, Plan
from steelyard.study.running.run_plan import job_of, train_missing
from steelyard.study.storage.store import Store
from steelyard.study.trial import PLAIN_SUM

ROUNDING = 1e-6
"""Relative: results of one machine are equal bit for bit; other processors and versions round differently, and what
training makes of that may be more, which is then said."""


@dataclass(frozen=True)
class Rechecked:
    """One trial of a file, trained again.

    Args:
        difference: the largest of its test values, relative to that of the file; infinite where it failed.
        said: why there is no result.
    """

    problem: str
    row: str
    seed: int
    difference: float
    said: str = ""

    @property
    def agrees(self) -> bool:
        return self.difference <= ROUNDING

    def __str__(self) -> str:
        which = f"{self.problem}, {self.row}, seed {self.seed}"
        if self.said:
            return f"{which}: failed: {self.said}"
        if self.difference == 0:
            return f"{which}: agrees exactly"
        if self.agrees:
            return f"{which}: agrees within {ROUNDING:g} (by {self.difference:.1e}, relative)"
        return f"{which}: differs by {self.difference:.2g}, relative"


def drawn(problems: Sequence[BoardProblem], share: float, seed: int = 0) -> dict[str, list[tuple[str, int]]]:
    """(row, seed) by problem: so large a share of all judged trials, at least one; the same in every call.

    Raises:
        LeaderboardError: there is no trial to draw from.
    """
    every = [
        (each.problem, row.name, trained)
        for each in sorted(problems, key=lambda each: each.problem)
        for row in each.rows
        for trained in sorted(row.per_seed)
    ]
    if not every:
        raise LeaderboardError("no row of these files has a result to train again")
    chosen = random.Random(seed).sample(every, min(len(every), math.ceil(share * len(every))))
    found: dict[str, list[tuple[str, int]]] = {}
    for problem, row, trained in sorted(chosen):
        found.setdefault(problem, []).append((row, trained))
    return found


def recheck(
    file: BoardProblem, which: Sequence[tuple[str, int]], where: Where, deadline: Deadline
) -> Iterator[Rechecked]:
    """Train these trials of a file once more, in a store of their own that is thrown away.

    Raises:
        LeaderboardError: a file does not say how its rows were trained, or is of another budget than its problem.
    """
    rows = {row.name: row for row in file.rows}
    names = list(dict.fromkeys(name for name, _ in which))
    wanted = []
    for name in names:
        row = rows[name]
        arm = row.chosen.get("arm")
        if not isinstance(arm, str):
            raise LeaderboardError(f"{name!r} of {file.problem} does not say which arm it was: chosen.arm is {arm!r}")
        named = dataclasses.replace(row_of(arm), name=name, optimizer=str(row.chosen.get("optimizer", "")))
        wanted.append(named)
    if all(row.optimizer for row in wanted):
        wanted.append(row_of(PLAIN_SUM))  # by the problem's own optimizer, of which a file says its rates
    planned = plan_problem(as_exported(file), wanted, file.seeds, strict=names)
    check_budget(planned, file, f"the file of {file.problem}")
    for study in planned.studies:
        yield from _trained_again(file.problem, study, rows, which, where, deadline)


def _trained_again(
    problem: str,
    study: BoardStudy,
    rows: dict[str, BoardRow],
    which: Sequence[tuple[str, int]],
    where: Where,
    deadline: Deadline,
) -> Iterator[Rechecked]:
    by_row = {row.name: arm for arm, row in study.rows.items()}
    here = [(name, seed) for name, seed in which if name in by_row]
    if not here:
        return
    plan = _as_chosen(study, rows)
    networks = {(name, seed): plan.trials_of(by_row[name], 0, seed) for name, seed in here}
    trials = list(dict.fromkeys(trial for found in networks.values() for trial in found))
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "again.sqlite", write=True) as store:
        job = job_of(plan, store, where.workers, where.checkpoints)
        train_missing(plan, store, trials, UntilEngine(where.engine, deadline), job, True)
        results, failures = store.results(trials), store.failures(trials)
    for (name, seed), found in networks.items():
        failed = [failures[trial].error for trial in found if trial not in results]
        if failed:
            yield Rechecked(problem, name, seed, math.inf, failed[0])
            continue
        now = tested(plan, by_row[name], {trial: results[trial] for trial in found})
        before = rows[name].per_seed[seed].test
        yield Rechecked(problem, name, seed, max(_relative(before[task], now[task]) for task in before))


def _as_chosen(study: BoardStudy, rows: dict[str, BoardRow]) -> Plan:
    """The plan with what the file says that validation chose."""
    methods = []
    for method in study.plan.methods:
        chosen: dict[str, Any] = rows[study.rows[method.name].name].chosen
        rate = chosen.get("learning_rate")
        rates = rate if isinstance(rate, dict) else {} if rate is None else {JOINT: rate}
        if not isinstance(chosen.get("method"), str) or not all(isinstance(each, float) for each in rates.values()):
            raise LeaderboardError(f"the file does not say how {study.rows[method.name].name!r} was trained: {chosen}")
        methods.append(dataclasses.replace(method, chosen=(Choice(chosen["method"], rates),)))
    return dataclasses.replace(study.plan, methods=tuple(methods))


def _relative(before: float, now: float) -> float:
    if before == now or (math.isnan(before) and math.isnan(now)):
        return 0.0
    found = abs(now - before) / max(abs(before), abs(now))
    return math.inf if math.isnan(found) else found
