"""What the answers of a leaderboard are said with: an answer, gains in points, who is shown to be ahead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steelyard.io.lists_and_counts import counted
from steelyard.report.numbers import fixed
from steelyard.reproductions import evidence
from steelyard.reproductions.leaderboard.board import Board, OverProblems
from steelyard.reproductions.leaderboard.over_problems import least_problems
from steelyard.study.analysis.statistics import LEVEL, interval
from steelyard.study.judgement import Interval

ALPHA = 1.0 - LEVEL
BASELINE_NAMES = {"single": "single-task learning", "sum": "the tuned plain sum", "fixed": "the best fixed weights"}
NAMED = 6  # rows that a sentence names


@dataclass(frozen=True)
class BoardAnswer:
    """One question: the sentence that answers it, and what it rests on."""

    question: str
    answer: str
    lines: tuple[str, ...] = ()


def too_few(board: Board) -> str:
    """Why nothing can be said over problems; empty where it can."""
    least, there = least_problems(), len(board.problems)
    if there >= least:
        return ""
    return (
        f"Cannot be said from {counted(there, 'problem')}: with fewer than {least}, even a row that is ahead on all "
        "of them may be so by chance."
    )


def who_beats(compared: Mapping[str, OverProblems], noun: str, against: str, problems: int) -> str:
    better, worse = (shown_rows(compared, sign) for sign in (1, -1))
    worse_text = f"{are(len(worse))} shown to be worse" + (
        f": {named_rows(compared, worse, problems)}" if worse else ""
    )
    if better:
        verb = "beats" if len(better) == 1 else "beat"
        return (
            f"{len(better)} of {counted(len(compared), noun)} {verb} {against} over {problems} problems: "
            f"{named_rows(compared, better, problems)}; {worse_text}."
        )
    most = max(compared, key=lambda name: mean_gain(compared[name]))
    found = compared[most]
    chance = f", p = {found.p_value:.2g}" if math.isfinite(found.p_value) else ""
    few = sum(len(each.by_problem) < least_problems() for each in compared.values())
    left_out = f" ({few} of them are there on fewer than {least_problems()}, and could not be)" if few else ""
    assert found.interval is not None  # it has a problem
    return (
        f"No {noun} of {len(compared)} is shown to beat {against} over {problems} problems{left_out}: the largest "
        f"mean gain is that of {most}, {points(found.interval)}{chance}, ahead on {found.better} of "
        f"{len(found.by_problem)}; "
        f"{worse_text}."
    )


def shown_rows(compared: Mapping[str, OverProblems], sign: int) -> list[str]:
    """The rows shown to be better (or worse), the clearest mean first."""
    found = [name for name, each in compared.items() if each.p_value <= ALPHA and sign * mean_gain(each) > 0]
    return sorted(found, key=lambda name: -sign * mean_gain(compared[name]))


def named_rows(compared: Mapping[str, OverProblems], names: Sequence[str], problems: int | None = None) -> str:
    """Rows with what they gain; where told how many problems there are, also on how many of them, if not on all."""
    texts = []
    for name in names[:NAMED]:
        found = compared[name]
        if found.interval is not None:
            there = len(found.by_problem)
            some = f", on {there} of them" if problems not in (None, there) else ""
            texts.append(f"{name} {points(found.interval)}{some}")
    return ", ".join(texts) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def problem_by_problem(board: Board, baseline: str, names: Sequence[str]) -> str:
    """How many rows lie above and below on each problem, by their seeds."""
    texts, tested = [], 0
    for problem, samples in zip(board.problems, board.samples(baseline), strict=True):
        found = [interval(samples[name]) for name in names if len(samples.get(name, ())) > 1]
        known = [each for each in found if each is not None]
        tested += len(known)
        above, below = sum(each.low > 0 for each in known), sum(each.high < 0 for each in known)
        texts.append(f"on {problem.problem} {above} above and {below} below of {len(known)}")
    return (
        f"Problem by problem, by 95 % intervals over seeds, each by itself: {'; '.join(texts)}. "
        f"By chance alone about {tested * ALPHA / 2:.1f} of all {tested} would lie above, and as many below."
    )


def mean_gain(found: OverProblems) -> float:
    return -math.inf if found.interval is None else found.interval.mean


def points(found: Interval) -> str:
    """``+1.2 points (+0.3 to +2.1)``; of one problem, which bounds nothing, the number alone."""
    return evidence.points(found) if math.isfinite(found.high) else f"{fixed(100 * found.mean, 1, signed=True)} points"


def points_of(found: Interval | None) -> str:
    return "none" if found is None else points(found)


def are(number: int) -> str:
    return f"{number} is" if number == 1 else f"{number or 'none'} are" if number else "none is"
