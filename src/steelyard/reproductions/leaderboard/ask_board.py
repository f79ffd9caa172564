"""From what was asked for to planned problems: which rows on which problems, at which size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steelyard.errors import LeaderboardError
from steelyard.reproductions.leaderboard import board_entries
from steelyard.reproductions.leaderboard.board_entries import BoardEntry, as_exported
from steelyard.reproductions.leaderboard.board_results import BoardProblem, read_folder
from steelyard.reproductions.leaderboard.board_rows import BASELINES, every_row, rows_of_arms
from steelyard.reproductions.leaderboard.export_board import check_folder
from steelyard.reproductions.leaderboard.plan_board import PlannedProblem, missing_data, plan_problem
from steelyard.reproductions.run_reproduction import watched


@dataclass(frozen=True)
class AskedBoard:
    """What the command line says.

    Args:
        problems, methods: all where None.
        add: rows beside those that are there.
        seeds: for problems that have no file yet, or, where they were `given`, for all.
    """

    problems: Sequence[str] | None
    methods: Sequence[str] | None
    add: Sequence[str]
    seeds: int | Sequence[int]
    quick: bool
    given: bool


def planned_problems(asked: AskedBoard, folder: Path, command: str) -> tuple[list[PlannedProblem], list[str]]:
    """The problems in order, and in words those whose data are not here.

    Rows that are only added are trained at the size, seeds and rates of the file that they are added to; where there is
    none, single tasks, the plain sum and the best fixed weights are trained beside them.

    Raises:
        LeaderboardError: no problem's data are here, or a file is of another budget.
        SteelyardError: what was asked for by name cannot be trained.
    """
    only_added = bool(asked.add) and asked.methods is None
    files = {each.problem: each for each in read_folder(folder)} if only_added and any(folder.glob("*.json")) else {}
    names = asked.problems if asked.problems is not None or not files else list(files)
    chosen = board_entries.entries(names, asked.quick)
    planned, missing = [], []
    for entry in watched(chosen, "trying every row once"):
        if said := missing_data(entry.problem):
            missing.append(f"{entry.problem}: {said}")
            continue
        made = _planned(entry, asked, files.get(entry.problem), command)
        check_folder(made, folder)
        planned.append(made)
    if not planned:
        raise LeaderboardError(f"there is nothing to train: {'; '.join(missing)}")
    return planned, missing


def _planned(entry: BoardEntry, asked: AskedBoard, file: BoardProblem | None, command: str) -> PlannedProblem:
    if asked.methods is None and not asked.add:
        return plan_problem(entry, every_row(), asked.seeds, command)
    named = [*(asked.methods or ()), *asked.add]
    if file is None or asked.methods is not None:
        rows = rows_of_arms([*BASELINES, *named])
        return plan_problem(entry, rows, asked.seeds, command, strict=[row.name for row in rows])
    rows = rows_of_arms(named)
    seeds = asked.seeds if asked.given else file.seeds
    return plan_problem(as_exported(file), rows, seeds, command, strict=[row.name for row in rows])
