"""The questions that a leaderboard is asked, each answered in a sentence with an interval, or not answered and why."""

from __future__ import annotations

from steelyard.reproductions.leaderboard.answer_architectures import architectures, equal_cost
from steelyard.reproductions.leaderboard.answer_cost import cost_front
from steelyard.reproductions.leaderboard.answer_methods import beats, choosing
from steelyard.reproductions.leaderboard.answer_ranks import rank_differences, rank_stability
from steelyard.reproductions.leaderboard.answer_same import same_trainings
from steelyard.reproductions.leaderboard.answer_variants import variants
from steelyard.reproductions.leaderboard.answer_where import where
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_answer import BoardAnswer
from steelyard.reproductions.leaderboard.stability import Stability


def answers(board: Board, stability: Stability) -> list[BoardAnswer]:
    """All questions, in the order in which a reader asks them."""
    return [
        *(beats(board, baseline) for baseline in ("sum", "fixed")),
        choosing(board),
        *where(board),
        variants(board, "place", "Does it matter where gradients are read?"),
        variants(board, "optimizer", "Does it matter which optimizer steps?"),
        architectures(board),
        equal_cost(board),
        cost_front(board),
        rank_differences(board),
        rank_stability(board, stability),
        same_trainings(board),
    ]
