"""How much of a rank is chance: other problems, other seeds, half of them, half of the budget, another base of Δm."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.gains import gains_reached, row_named, row_of_group
from steelyard.reproductions.leaderboard.over_problems import least_problems
from steelyard.reproductions.leaderboard.ranks import ranks
from steelyard.study.analysis.statistics import LEVEL, Array

DRAWS = 1000
HALVES = 100


@dataclass(frozen=True)
class PlaceRange:
    """The places (1 is the best average rank) that a row may well have."""

    low: int
    high: int

    @property
    def text(self) -> str:
        """A rank that is stable, else a range."""
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"


@dataclass(frozen=True)
class Stability:
    """Ranges of places, and how ranks agree: mean rank correlations; NaN where there is nothing to halve."""

    ranges: dict[str, PlaceRange]  # empty with too few problems
    half_problems: float  # between both halves
    half_seeds: float  # between both halves
    half_epochs: float  # of the first half of the epochs with all, on validation data
    other_base: float  # of errors with values

    @property
    def stable(self) -> list[str]:
        return [name for name, found in self.ranges.items() if found.low == found.high]


def places(average: Array) -> Array:
    """By average ranks, of which equal ones share their mean place."""
    return ranks(-average)


def stability(board: Board, draws: int = DRAWS, halves: int = HALVES, seed: int = 1) -> Stability:
    """A row's range holds the middle 95 % of its places when problems, and seeds within each, are drawn anew with
    replacement; its own place; and the one by the other base."""
    random = np.random.default_rng([seed, len(board.problems), len(board.ranked)])
    own = places(board.ranks.mean(0))
    other_ranks = ranks(board.table(board.reference, board.ranked, "values"))
    other = places(other_ranks.mean(0))
    ranges = {}
    if len(board.problems) >= least_problems():
        drawn = places(_redrawn(board, random, draws))
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        low, high = np.minimum(low, np.minimum(own, other)), np.maximum(high, np.maximum(own, other))
        ranges = {
            name: PlaceRange(math.floor(low[place]), math.ceil(high[place])) for place, name in enumerate(board.ranked)
        }
    return Stability(
        ranges=ranges,
        half_problems=_mean_correlation(lambda: _by_half_problems(board.ranks, random), halves, len(board.problems)),
        half_seeds=_mean_correlation(
            lambda: _by_half_seeds(board, random), halves, min(len(each.seeds) for each in board.problems)
        ),
        half_epochs=_half_epochs(board),
        other_base=correlation(board.ranks.mean(0), other_ranks.mean(0)),
    )


def correlation(ours: Array, theirs: Array) -> float:
    """Spearman's, of two lists of numbers; NaN where one of them does not vary."""
    ours, theirs = ranks(ours), ranks(theirs)
    if len(ours) < 3 or ours.std() == 0 or theirs.std() == 0:
        return math.nan
    return float(np.corrcoef(ours, theirs)[0, 1])


def _redrawn(board: Board, random: np.random.Generator, draws: int) -> Array:
    """Average ranks ``[draws, rows]``."""
    problems = len(board.problems)
    by_problem = np.array([
        _ranks_of_drawn(samples, _drawn_counts(random, samples.shape[0], draws)) for samples in _stacked(board)
    ])  # fmt: skip
    counts = _drawn_counts(random, problems, draws)
    found: Array = np.einsum("dp,pdr->dr", counts, by_problem) / problems
    return found


def _ranks_of_drawn(samples: Array, counts: Array) -> Array:
    means = counts @ samples / counts.sum(1, keepdims=True)
    return np.concatenate([ranks(part) for part in np.array_split(means, max(1, len(means) // 50))])


def _drawn_counts(random: np.random.Generator, size: int, draws: int) -> Array:
    """How often each of so many is drawn, with replacement."""
    return random.multinomial(size, np.full(size, 1.0 / size), size=draws).astype(np.float64)


def _stacked(board: Board) -> list[Array]:
    """By problem ``[seeds, rows]``: rows without a number below all others."""
    found = []
    for problem, samples in zip(board.problems, board.samples(board.reference), strict=True):
        table = np.full((len(problem.seeds), len(board.ranked)), -1e300)
        for column, name in enumerate(board.ranked):
            if len(samples[name]):
                table[:, column] = samples[name]
        found.append(table)
    return found


def _by_half_problems(by_problem: Array, random: np.random.Generator) -> tuple[Array, Array]:
    order = random.permutation(len(by_problem))
    half = len(order) // 2
    return by_problem[order[:half]].mean(0), by_problem[order[half:]].mean(0)


def _by_half_seeds(board: Board, random: np.random.Generator) -> tuple[Array, Array]:
    halves: tuple[list[Array], list[Array]] = ([], [])
    for samples in _stacked(board):
        order = random.permutation(len(samples))
        half = len(order) // 2
        for side, taken in zip(halves, (order[:half], order[half:]), strict=True):
            side.append(ranks(samples[taken].mean(0)))
    first, second = (np.mean(side, axis=0) for side in halves)
    return first, second


def _half_epochs(board: Board) -> float:
    """Of rows that know on all problems what they had reached by then."""
    reached = {
        name: [
            [gains_reached(problem, row, row_of_group(problem, board.reference), epochs) for epochs in ("half", "all")]
            for problem in board.problems
            if (row := row_named(problem, name)) is not None
        ]
        for name in board.ranked
    }
    known = {
        name: found
        for name, found in reached.items()
        if all(len(gain) and np.isfinite(gain).all() for pair in found for gain in pair)
    }
    means = np.array([[[gain.mean() for gain in pair] for pair in found] for found in known.values()])
    if not len(means):
        return math.nan
    half, whole = (ranks(means[:, :, place].T).mean(0) for place in (0, 1))
    return correlation(half, whole)


def _mean_correlation(drawn: Callable[[], tuple[Array, Array]], halves: int, parts: int) -> float:
    if parts < 2:
        return math.nan
    found = [correlation(*drawn()) for _ in range(halves)]
    known = [value for value in found if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan
