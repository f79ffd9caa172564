"""The leaderboard as one self-contained HTML page: answers, ranks, gains, costs, and every number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steelyard.report import numbers
from steelyard.report.charts.cost import Point, cost_chart
from steelyard.report.charts.labels import text_width
from steelyard.report.charts.rank_bars import Ranked, rank_bars
from steelyard.report.charts.strips import Strip, strip_scale, strips_chart
from steelyard.report.palette import inks
from steelyard.report.panels.drawing import Panel
from steelyard.report.short_names import elide
from steelyard.report.study_page import templates
from steelyard.reproductions.leaderboard.answer_architectures import family_of_architectures
from steelyard.reproductions.leaderboard.answer_cost import front
from steelyard.reproductions.leaderboard.answer_methods import family_of_methods, headline
from steelyard.reproductions.leaderboard.board import Board, OverProblems
from steelyard.reproductions.leaderboard.board_answer import ALPHA, BoardAnswer
from steelyard.reproductions.leaderboard.board_markdown import commands, machines, scope
from steelyard.reproductions.leaderboard.board_tables import (
    TextTable,
    all_tables,
    gain_table,
    in_order,
    points_text,
)
from steelyard.reproductions.leaderboard.over_problems import least_problems
from steelyard.reproductions.leaderboard.ranks import critical_difference
from steelyard.reproductions.leaderboard.stability import Stability
from steelyard.study.judgement import Interval

LABEL = 18  # letters of a row's name beside a chart
COST_CUT = 2.0
"""Times the middle reach of all rows: how far up and down the chart of costs reaches, whatever collapsed."""
STRONGEST = 0.9
"""The share of all numbers of the table that are not beyond the strongest colour."""


@dataclass(frozen=True)
class HeatCell:
    """A number with the strength of its colour."""

    text: str
    css: str
    share: float


@dataclass(frozen=True)
class HeatTable:
    """Rows by problem."""

    title: str
    note: str
    heads: tuple[str, ...]
    rows: list[tuple[str, list[HeatCell]]]


def board_page(board: Board, stability: Stability, answers: Sequence[BoardAnswer]) -> str:
    """The page as text."""
    gains = gain_table(board)
    return templates().get_template("leaderboard.html.jinja").render(
        scope=scope(board),
        answers=answers,
        headline=headline(board),
        ranks=rank_panel(board, stability),
        strips=strips_panel(board),
        cost=cost_panel(board),
        heat=heat_table(board, gains),
        tables=[table for table in all_tables(board, stability) if table.title != gains.title],
        commands=commands(board),
        machines=machines(board),
    )  # fmt: skip


def rank_panel(board: Board, stability: Stability) -> Panel | None:
    """Average ranks with the critical difference; none where nothing can be said of ranks."""
    problems, count = board.ranks.shape
    if problems < least_problems() or count < 2:
        return None
    difference = critical_difference(count, problems)
    average = dict(zip(board.ranked, board.ranks.mean(0), strict=True))
    names = sorted(average, key=lambda name: average[name])
    best = average[names[0]]
    rows = []
    for place, name in enumerate(names):
        told = average[name] - best > difference
        text = stability.ranges[name].text
        said = f"{name}: average rank {average[name]:.1f}, place {text}, {'' if told else 'not '}told from the best"
        rows.append(Ranked(place, elide(name, LABEL), float(average[name]), text, said, "hurt" if told else "open"))
    svg = rank_bars(rows, difference, count, f"Average ranks of {count} rows over {problems} problems")
    note = (
        f"Each bar is the critical difference wide ({difference:.1f} ranks, Nemenyi at 5 %): rows whose bars do not "
        "overlap are told apart. The shaded band is the best row's. At the right the place, as a range where it is "
        "not stable."
    )  # fmt: skip
    return Panel("Average rank", note, svg, _left([row.label for row in rows]), 52)


def strips_panel(board: Board) -> Panel | None:
    """Δm over the plain sum, each problem a dot; none where nothing was compared."""
    family = family_of_methods(board)["sum"]
    family = family | family_of_architectures(board)
    known = {name: found for name, found in family.items() if found.interval is not None}
    if not known:
        return None
    ordered = sorted(known, key=lambda name: -_mean(known[name]))
    strips = []
    for place, name in enumerate(ordered):
        found = known[name]
        assert found.interval is not None  # as those that are known
        shown = Interval(*(100 * end for end in (found.interval.mean, found.interval.low, found.interval.high)))
        css = "open" if not found.p_value <= ALPHA else "gain" if shown.mean > 0 else "hurt"
        word = {"gain": "shown to be better", "hurt": "shown to be worse", "open": "not told apart"}[css]
        text = numbers.fixed(shown.mean, 1, signed=True)
        title = (
            f"{name}: {points_text(found.interval)} points, ahead on {found.better} of {len(found.by_problem)}, {word}"
        )
        dots = [(problem, 100 * change) for problem, change in found.by_problem.items()]
        strips.append(Strip(place, elide(name, LABEL), shown, dots, text, title, css))
    svg = strips_chart(
        strips, strip_scale(strips), "Gain of every row over the plain sum, by problem and over problems"
    )
    note = (
        "Points of Δm over the tuned plain sum: a dot for each problem, the mean over problems with its plain 95 % "
        "interval. Coloured where the row is shown to be better or worse together with all others, hollow where it "
        "is not."
    )
    return Panel("Δm over the plain sum", note, svg, _left([strip.label for strip in strips]), 52)


def cost_panel(board: Board) -> Panel | None:
    """Time per step against gain; none where nobody measured both."""
    rows = [row for row in front(board) if board.groups[row.name] != "sum"]
    if not rows:
        return None
    colours = inks([row.name for row in rows])
    points = []
    for place, row in enumerate(rows):
        gain = Interval(*(100 * end for end in (row.gain.mean, row.gain.low, row.gain.high)))
        memory = f", {row.memory:.2f} × the memory" if math.isfinite(row.memory) else ""
        title = f"{row.name}: {row.time:.2f} × the time per step{memory}, {points_text(row.gain)} points of Δm"
        points.append(Point(place, elide(row.name, LABEL), colours[row.name], row.time, gain, title))
    on_front = [place for place, row in enumerate(rows) if row.on_front]
    svg = cost_chart(points, "Gain over the plain sum against time per step", "plain sum", on_front, COST_CUT)
    note = (
        "Points of Δm over the plain sum with the 95 % interval over problems, against time per step (× the plain "
        "sum's). The line is the front: no other row gains as much in less time. Names without room stand in the "
        "table."
    )
    return Panel("Δm, points", note, svg, 44, 16)


def heat_table(board: Board, gains: TextTable) -> HeatTable:
    """The table of gains with colours."""
    table = board.table(board.reference, in_order(board))
    finite = np.abs(table[np.isfinite(table)])
    strongest = float(np.quantile(finite, STRONGEST)) if len(finite) else 0.0
    rows = []
    for place, (name, *cells) in enumerate(gains.rows):
        row = []
        for problem, text in enumerate(cells):
            value = float(table[problem, place])
            if not math.isfinite(value):
                row.append(HeatCell(text, "", 0.0))
                continue
            share = min(1.0, abs(value) / strongest) if strongest else 0.0
            row.append(HeatCell(text, "gain" if value >= 0 else "hurt", round(share, 2)))
        rows.append((name, row))
    return HeatTable(gains.title, gains.note, gains.heads, rows)


def _left(texts: Sequence[str]) -> int:
    return round(max(text_width(text) for text in texts)) + 12


def _mean(found: OverProblems) -> float:
    return -math.inf if found.interval is None else found.interval.mean
