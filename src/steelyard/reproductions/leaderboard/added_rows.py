"""What rows that were added gain, problem by problem: what whoever added one wants to read first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_answer import BASELINE_NAMES, points
from steelyard.reproductions.leaderboard.board_results import read_folder
from steelyard.reproductions.leaderboard.board_rows import rows_of_arms
from steelyard.reproductions.leaderboard.gains import row_named, why_not_judged
from steelyard.study.analysis.statistics import interval


def added_lines(folder: Path, added: Sequence[str]) -> list[str]:
    """Of every row on every problem that has it, the gains over the baselines with intervals over seeds."""
    board, lines = Board(read_folder(folder)), []
    samples = {baseline: board.samples(baseline) for baseline in BASELINE_NAMES}
    for name in (row.name for row in rows_of_arms(added)):
        for place, problem in enumerate(board.problems):
            row = row_named(problem, name)
            if row is None:
                continue
            against = [
                f"{points(found)} over {said}"
                for baseline, said in BASELINE_NAMES.items()
                if (found := interval(samples[baseline][place][name])) is not None
            ]
            said = why_not_judged(problem, row) or ", ".join(against) or "there is nothing to compare it with"
            lines.append(f"{name} on {problem.problem}: {said}")
    return lines
