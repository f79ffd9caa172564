"""The questions that a leaderboard is asked, each answered in a sentence with an interval, or not answered and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from steelyard.io.lists_and_counts import counted, listed
from steelyard.report.numbers import fixed
from steelyard.reproductions import evidence
from steelyard.reproductions.leaderboard.board import Board, OverProblems
from steelyard.reproductions.leaderboard.board_results import BoardProblem
from steelyard.reproductions.leaderboard.gains import row_named, row_of_group
from steelyard.reproductions.leaderboard.over_problems import least_problems, together_over_problems
from steelyard.reproductions.leaderboard.ranks import critical_difference, friedman
from steelyard.reproductions.leaderboard.stability import Stability
from steelyard.study.analysis.statistics import LEVEL, Array, holm, interval
from steelyard.study.judgement import Interval

ALPHA = 1.0 - LEVEL
BASELINE_NAMES = {"single": "single-task learning", "sum": "the tuned plain sum", "fixed": "the best fixed weights"}
MANY_TASKS = 5
SCALES_APART = 10.0
EACH_SIDE = 3
"""Problems that must be on either side of a question that divides them."""
NAMED = 6  # rows that a sentence names


@dataclass(frozen=True)
class BoardAnswer:
    """One question: the sentence that answers it, and what it rests on."""

    question: str
    answer: str
    lines: tuple[str, ...] = ()


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
    ]


# --- over problems ---


def headline(board: Board) -> str:
    """The first answer in a few words."""
    if _too_few(board):
        return f"{counted(len(board.problems), 'problem')}: too few to say which method when"
    family = family_of_methods(board)
    said = []
    for baseline in ("sum", "fixed"):
        better = len(_shown(family[baseline], 1))
        number = f"{better or 'No'} method{'' if better < 2 else 's'}"
        shown = "beat" if better > 1 else "beats" if better else "is shown to beat"
        said.append(f"{number} {shown} {BASELINE_NAMES[baseline]}")
    if said[0].startswith("No ") and said[1].startswith("No "):
        return f"{said[0]} or {BASELINE_NAMES['fixed']}"
    return f"{said[0]}, {said[1][0].lower()}{said[1][1:]}"


def family_of_methods(board: Board) -> dict[str, dict[str, OverProblems]]:
    """By baseline, every method against the plain sum and against the best fixed weights: one family."""
    methods = {"sum": board.named("method", "fixed"), "fixed": board.named("method")}
    tables = {baseline: board.table(baseline, names) for baseline, names in methods.items()}
    together = together_over_problems(np.concatenate(list(tables.values()), axis=1))
    found, start = {}, 0
    for baseline, names in methods.items():
        alone = board.over_problems(tables[baseline], names)
        found[baseline] = {
            name: OverProblems(each.by_problem, each.interval, float(together[start + place]))
            for place, (name, each) in enumerate(alone.items())
        }
        start += len(names)
    return found


def family_of_architectures(board: Board) -> dict[str, OverProblems]:
    """Every architecture under the plain sum against hard sharing under it: one family."""
    names = board.named("architecture")
    return board.over_problems(board.table("sum", names), names)


def beats(board: Board, baseline: str) -> BoardAnswer:
    """Does any method beat the plain sum, or the best fixed weights?"""
    against = BASELINE_NAMES[baseline]
    question = f"Does any method beat {against}?"
    family = family_of_methods(board)
    compared = {name: each for name, each in family[baseline].items() if each.by_problem}
    if not compared:
        return BoardAnswer(question, f"Cannot be said: no problem has both {against} and a method.")
    size = sum(math.isfinite(each.p_value) for tested in family.values() for each in tested.values())
    lines = [_by_problem(board, baseline, list(compared))]
    if too_few := _too_few(board):
        return BoardAnswer(question, too_few, tuple(lines))
    lines.append(
        f"Mean gains over problems, in points of Δm, with plain 95 % intervals over "
        f"{counted(len(board.problems), 'problem')}; "
        f"better and worse are said at 5 % for all {counted(size, 'comparison')} with the plain sum and the best "
        "fixed weights together."
    )  # fmt: skip
    return BoardAnswer(question, _who_beats(compared, "method", against, len(board.problems)), tuple(lines))


def _who_beats(compared: Mapping[str, OverProblems], noun: str, against: str, problems: int) -> str:
    better, worse = (_shown(compared, sign) for sign in (1, -1))
    worse_text = f"{_are(len(worse))} shown to be worse" + (f": {_named(compared, worse)}" if worse else "")
    if better:
        verb = "beats" if len(better) == 1 else "beat"
        return (
            f"{len(better)} of {counted(len(compared), noun)} {verb} {against} over {problems} problems: "
            f"{_named(compared, better)}; {worse_text}."
        )
    most = max(compared, key=lambda name: _mean(compared[name]))
    found = compared[most]
    chance = f", p = {found.p_value:.2g}" if math.isfinite(found.p_value) else ""
    assert found.interval is not None  # it has a problem
    return (
        f"No {noun} of {len(compared)} is shown to beat {against} over {problems} problems: the largest mean gain is "
        "that "
        f"of {most}, {points(found.interval)}{chance}, ahead on {found.better} of {len(found.by_problem)}; "
        f"{worse_text}."
    )


def _shown(compared: Mapping[str, OverProblems], sign: int) -> list[str]:
    """The rows shown to be better (or worse), the clearest mean first."""
    found = [name for name, each in compared.items() if each.p_value <= ALPHA and sign * _mean(each) > 0]
    return sorted(found, key=lambda name: -sign * _mean(compared[name]))


def _named(compared: Mapping[str, OverProblems], names: Sequence[str]) -> str:
    texts = [f"{name} {points(found)}" for name in names[:NAMED] if (found := compared[name].interval) is not None]
    return ", ".join(texts) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _by_problem(board: Board, baseline: str, names: Sequence[str]) -> str:
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


def choosing(board: Board) -> BoardAnswer:
    """What one gains by taking the method that did best elsewhere: on each problem, by all others."""
    question = "What does one gain by taking the method that did best elsewhere?"
    names = board.named("method")
    changes = board.table("sum", names)
    complete = np.flatnonzero(np.isfinite(changes).all(0))
    if too_few := _too_few(board):
        return BoardAnswer(question, too_few)
    if len(complete) == 0:
        return BoardAnswer(question, "Cannot be said: no method has a number on every problem beside the plain sum.")
    gained, chosen = left_out_gains(changes[:, complete])
    taken = [names[place] for place in complete]
    found = interval(gained)
    assert found is not None  # there are problems
    word = "more than the plain sum" if found.low > 0 else "less" if found.high < 0 else "not told from the plain sum"
    which = [taken[place] for place in chosen]
    counts = {name: which.count(name) for name in dict.fromkeys(which)}
    said = listed(f"{name} ({times} ×)" for name, times in sorted(counts.items(), key=lambda each: -each[1]))
    line = (
        f"Chosen: {said}. Each problem is left out once; the interval takes them as independent, which they nearly are."
    )
    return BoardAnswer(
        question,
        "On a problem that had no say in the choice, the method with the best mean on the others gains "
        f"{points(found)} of Δm over the plain sum: {word}.",
        (line,),
    )


def left_out_gains(changes: Array) -> tuple[list[float], list[int]]:
    """By problem, the gain of the column with the best mean over the other problems, and which it is."""
    chosen = [int(np.argmax(np.delete(changes, place, axis=0).mean(0))) for place in range(len(changes))]
    return [float(changes[place, column]) for place, column in enumerate(chosen)], chosen


# --- where ---


@dataclass(frozen=True)
class Divide:
    """A question that divides problems into those where it is so, and the others; None where a problem does not say."""

    name: str
    holds: Callable[[BoardProblem], bool | None]


def _fact(name: str, holds: Callable[[float], bool]) -> Callable[[BoardProblem], bool | None]:
    return lambda problem: holds(problem.facts[name]) if name in problem.facts else None


DIVIDES = (
    Divide(
        f"losses start {SCALES_APART:g} times apart or more",
        _fact("loss_scales", lambda scales: scales >= SCALES_APART),
    ),
    Divide(f"there are {MANY_TASKS} tasks or more", lambda problem: len(problem.tasks) >= MANY_TASKS),
    Divide("labels are missing", _fact("missing_labels", lambda share: share > 0)),
    Divide("a main task has auxiliaries", lambda problem: problem.main is not None),
)


@dataclass(frozen=True)
class Sides:
    """What the middle one of all methods gains over the plain sum, by problem, on both sides of a question."""

    where: list[float]
    elsewhere: list[float]
    unknown: int

    @property
    def decidable(self) -> bool:
        return min(len(self.where), len(self.elsewhere)) >= EACH_SIDE

    def difference(self) -> tuple[Interval, float]:
        """Welch's interval of where − elsewhere, and its two-sided p-value."""
        ours, theirs = np.array(self.where), np.array(self.elsewhere)
        parts = ours.var(ddof=1) / len(ours), theirs.var(ddof=1) / len(theirs)
        error, mean = math.sqrt(sum(parts)), float(ours.mean() - theirs.mean())
        if error == 0.0:
            return Interval(mean, mean, mean), float(mean == 0.0)
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(ours) - 1) + parts[1] ** 2 / (len(theirs) - 1))
        half = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * error
        return Interval(mean, mean - half, mean + half), float(2 * special.stdtr(freedom, -abs(mean) / error))


def sides(board: Board, divide: Divide) -> Sides:
    changes = board.table("sum", board.named("method"))
    sorted_in: dict[bool, list[float]] = {True: [], False: []}
    unknown = 0
    for problem, row in zip(board.problems, changes, strict=True):
        known = row[np.isfinite(row)]
        holds = divide.holds(problem)
        if holds is None or len(known) == 0:
            unknown += 1
        else:
            sorted_in[holds].append(float(np.median(known)))
    return Sides(sorted_in[True], sorted_in[False], unknown)


def where(board: Board) -> list[BoardAnswer]:
    """Where weighting pays: every division of the problems; Holm-adjusted over those that could be asked."""
    found = {divide.name: sides(board, divide) for divide in DIVIDES}
    asked = {name: each.difference() for name, each in found.items() if each.decidable}
    adjusted = holm({name: p_value for name, (_, p_value) in asked.items()})
    said = []
    for name, each in found.items():
        question = f"Do methods gain more where {name}?"
        if name not in asked:
            unknown = f", {each.unknown} do not say" if each.unknown else ""
            said.append(
                BoardAnswer(
                    question,
                    f"Cannot be said from {counted(len(board.problems), 'problem')}: it is so on {len(each.where)}, "
                    "not on "
                    f"{len(each.elsewhere)}{unknown}; {EACH_SIDE} of each are needed.",
                )
            )
            continue
        difference, p_value = asked[name][0], adjusted[name]
        answer = (
            f"{'More' if difference.mean > 0 else 'Less'}: by {points(difference)} of Δm over the plain sum"
            if p_value <= ALPHA
            else f"Not shown: the difference is {points(difference)} of Δm over the plain sum"
        )
        ours, theirs = (_points_of(interval(side)) for side in (each.where, each.elsewhere))
        line = (
            f"The middle one of all methods gains {ours} in the mean of {len(each.where)} problems where it is so, "
            f"{theirs} in that of {len(each.elsewhere)} others."
        )
        said.append(BoardAnswer(question, f"{answer} (p = {p_value:.2g}, Holm over {len(asked)}).", (line,)))
    return said


# --- variants and architectures ---


def variants(board: Board, group: str, question: str) -> BoardAnswer:
    """Rows that differ from another in one thing alone: pooled by what that is, and each."""
    names = board.named(group)
    changes = board.against_own(names)
    kept = [place for place in range(len(names)) if np.isfinite(changes[:, place]).any()]
    names, changes = [names[place] for place in kept], changes[:, kept]
    if not names:
        return BoardAnswer(question, "Cannot be said: no problem has a row that differs in this alone.")
    if too_few := _too_few(board):
        means = "; ".join(
            f"{name} {_points_of(interval(_finite(changes[:, place])))}" for place, name in enumerate(names)
        )
        return BoardAnswer(question, too_few, (f"Mean gains over the same method as it is by default: {means}.",))
    pooled = {kind: _pooled(changes[:, places]) for kind, places in _kinds(board, names).items()}
    stacked = np.stack(list(pooled.values()), axis=1)
    found = board.over_problems(stacked, list(pooled))
    texts = []
    for kind, each in found.items():
        word = "shown to matter" if each.p_value <= ALPHA else "not shown to matter"
        texts.append(f"{kind}: {_points_of(each.interval)} over {counted(len(each.by_problem), 'problem')}, {word}")
    alone = board.over_problems(changes, names)
    told = [name for name, each in alone.items() if each.p_value <= ALPHA]
    singly = f"Row by row, all {len(names)} judged together, {_are(len(told))} shown to differ"
    return BoardAnswer(
        question,
        f"Gain over the same method as it is by default, in the mean of methods: {'; '.join(texts)}.",
        (f"{singly}: {_named(alone, told)}." if told else f"{singly}.",),
    )


def _kinds(board: Board, names: Sequence[str]) -> dict[str, list[int]]:
    """The columns by what they differ in: what their name says beyond that of their own row."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        own = next((row.of for problem in board.problems if (row := row_named(problem, name)) and row.of), "")
        if not own:
            own = max((other for other in board.names if other != name and name.startswith(other)), key=len, default="")
        rest = name.removeprefix(own).strip(" ,@()") if own else name
        found.setdefault(rest or name, []).append(place)
    return found


def _pooled(changes: Array) -> Array:
    """The mean over columns, by problem, of those that have a number."""
    known = np.isfinite(changes)
    total = np.where(known, changes, 0.0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), math.nan)


def architectures(board: Board) -> BoardAnswer:
    """Does an architecture under the plain sum beat hard sharing under the plain sum?"""
    question = "Does an architecture under the plain sum beat hard sharing under it?"
    compared = {name: each for name, each in family_of_architectures(board).items() if each.by_problem}
    if not compared:
        return BoardAnswer(question, "Cannot be said: no problem has both an architecture and the plain sum.")
    lines = (_by_problem(board, "sum", list(compared)),)
    if too_few := _too_few(board):
        return BoardAnswer(question, too_few, lines)
    return BoardAnswer(
        question, _who_beats(compared, "architecture", BASELINE_NAMES["sum"], len(board.problems)), lines
    )


def equal_cost(board: Board) -> BoardAnswer:
    """Architectures against the methods that cost no more time per step, problem by problem."""
    question = "Architecture against weighting, at equal cost in time?"
    names = board.named("architecture")
    changes = at_equal_cost(board, names)
    found = board.over_problems(changes, names)
    compared = {name: each for name, each in found.items() if each.by_problem}
    if not compared:
        return BoardAnswer(
            question, "Cannot be said: on no problem does an architecture stand beside a method that costs no more."
        )
    if too_few := _too_few(board):
        return BoardAnswer(question, too_few)
    texts = []
    for name, each in compared.items():
        word = ("better" if _mean(each) > 0 else "worse") if each.p_value <= ALPHA else "not told apart"
        texts.append(f"{name} {_points_of(each.interval)}, {word}")
    return BoardAnswer(
        question,
        f"Against the middle one of the methods that cost at most as much per step, over problems: {'; '.join(texts)}.",
    )


def at_equal_cost(board: Board, names: Sequence[str]) -> Array:
    """``[problems, names]``: gain over the plain sum, less that of the middle method that takes no longer."""
    methods = board.named("method")
    ours, theirs = board.table("sum", names), board.table("sum", methods)
    found = np.full(ours.shape, math.nan)
    for place, problem in enumerate(board.problems):
        times = np.array([_seconds_per_step(problem, name) for name in methods])
        for column, name in enumerate(names):
            kept = np.isfinite(theirs[place]) & (times <= _seconds_per_step(problem, name))
            if kept.any():
                found[place, column] = ours[place, column] - np.median(theirs[place, kept])
    return found


def _seconds_per_step(problem: BoardProblem, name: str) -> float:
    row = row_named(problem, name)
    return math.nan if row is None else row.seconds_per_step


# --- cost ---


@dataclass(frozen=True)
class FrontRow:
    """A row by what it costs and gains, against the plain sum."""

    name: str
    time: float
    memory: float
    gain: Interval
    on_front: bool


def front(board: Board) -> list[FrontRow]:
    """Rows with a number on every problem; on the front are those ahead that no other beats in time at no less gain."""
    if not any(row_of_group(problem, "sum") for problem in board.problems):
        return []
    names = board.named("method", "architecture", "sum", "fixed")
    changes = board.table("sum", names)
    rows = []
    for column, name in enumerate(names):
        time, memory = board.costs(name)
        gain = interval(changes[:, column])
        if np.isfinite(changes[:, column]).all() and math.isfinite(time) and gain is not None:
            rows.append((name, time, memory, gain))
    return [
        FrontRow(
            *row,
            on_front=row[3].mean > 0  # what is cheaper than the plain sum and behind it has no gain to pay for
            and not any(
                (other[1] <= row[1] and other[3].mean >= row[3].mean)
                and (other[1] < row[1] or other[3].mean > row[3].mean)
                for other in rows
            ),
        )
        for row in rows
    ]


def cost_front(board: Board) -> BoardAnswer:
    """Which rows are worth their time."""
    question = "What does a gain cost?"
    found = sorted((row for row in front(board) if row.on_front), key=lambda row: row.time)
    if not front(board):
        return BoardAnswer(question, "Cannot be said: no row has a number and a time on every problem.")
    texts = [f"{row.name} {row.time:.2f} ×, {points(row.gain)}" for row in found]
    memory = [row for row in front(board) if math.isfinite(row.memory)]
    most = max(memory, key=lambda row: row.memory, default=None)
    lines = [] if most is None else [f"The most memory takes {most.name}, {most.memory:.2f} × that of the plain sum."]
    if too_few := _too_few(board):
        lines.append(f"Which rows are better than others: {too_few[0].lower()}{too_few[1:]}")
    if not found:
        return BoardAnswer(question, "No row that has a number everywhere gains over the plain sum.", tuple(lines))
    return BoardAnswer(
        question,
        "Ahead of the plain sum in mean Δm, and such that none gains as much in less time per step (× the plain "
        f"sum's): {'; '.join(texts)}.",
        tuple(lines),
    )


# --- ranks ---


def rank_differences(board: Board) -> BoardAnswer:
    """Friedman and Nemenyi."""
    question = "Do rows differ in rank?"
    problems, rows = board.ranks.shape
    if too_few := _too_few(board):
        return BoardAnswer(question, too_few)
    if rows < 2:
        return BoardAnswer(question, "Cannot be said: fewer than two rows were run on every problem.")
    test, difference = friedman(board.ranks), critical_difference(rows, problems)
    average = board.ranks.mean(0)
    best = int(np.argmin(average))
    apart = int((average - average[best] > difference).sum())
    line = (
        f"The best average rank is that of {board.ranked[best]}, {average[best]:.1f}; "
        f"{apart} of the other {rows - 1} rows are told from it."
    )
    word = "They do" if test.p_value <= ALPHA else "Not shown"
    return BoardAnswer(
        question,
        f"{word} (Friedman's test in the form of Iman and Davenport: F = {test.statistic:.2f} of {test.freedoms[0]} "
        "and "
        f"{test.freedoms[1]} degrees of freedom, p = {test.p_value:.2g}); two rows are told apart where their average "
        "ranks "
        f"differ by more than {difference:.1f} of {rows} (Nemenyi, 5 %).",
        (line,),
    )


def rank_stability(board: Board, found: Stability) -> BoardAnswer:
    question = "Would ranks be the same with other problems, other seeds, half the budget, another base?"
    halves = {
        "between halves of the problems": found.half_problems,
        "between halves of the seeds": found.half_seeds,
        "between half of the epochs and all, on validation data": found.half_epochs,
        "between errors and values as the base of Δm": found.other_base,
    }
    said = [f"{value:.2f} {name}" for name, value in halves.items() if math.isfinite(value)]
    lines = (f"Rank correlations: {', '.join(said)}.",) if said else ()
    if too_few := _too_few(board):
        return BoardAnswer(question, too_few, lines)
    stable, rows = found.stable, len(found.ranges)
    widest = sorted(each.high - each.low for each in found.ranges.values())
    names = f": {listed(stable[:NAMED])}" if stable and len(stable) <= NAMED else ""
    middle = f"half of the ranges span {widest[rows // 2]} places or more" if rows else "there is no row"
    return BoardAnswer(
        question, f"{len(stable)} of {rows} ranks are stable{names}; the others are printed as ranges, {middle}.", lines
    )


def _too_few(board: Board) -> str:
    """Why nothing can be said over problems; empty where it can."""
    least, there = least_problems(), len(board.problems)
    if there >= least:
        return ""
    return (
        f"Cannot be said from {counted(there, 'problem')}: with fewer than {least}, even a row that is ahead on all "
        "of them "
        "may be so by chance."
    )


def _mean(found: OverProblems) -> float:
    return -math.inf if found.interval is None else found.interval.mean


def points(found: Interval) -> str:
    """``+1.2 points (+0.3 to +2.1)``; of one problem, which bounds nothing, the number alone."""
    return evidence.points(found) if math.isfinite(found.high) else f"{fixed(100 * found.mean, 1, signed=True)} points"


def _points_of(found: Interval | None) -> str:
    return "none" if found is None else points(found)


def _finite(values: Array) -> Array:
    kept: Array = values[np.isfinite(values)]
    return kept


def _are(number: int) -> str:
    return f"{number} is" if number == 1 else f"{number or 'none'} are" if number else "none is"
