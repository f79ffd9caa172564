"""Every mark of the leaderboard's charts, read back through the axis that is printed beside it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from report import reading
from report.reading import number, says
from reproductions.leaderboard.made_up_board import planted
from steelyard.report.charts.strips import Strip, strip_scale
from steelyard.reproductions.leaderboard.answer_architectures import family_of_architectures
from steelyard.reproductions.leaderboard.answer_cost import front
from steelyard.reproductions.leaderboard.answer_methods import family_of_methods
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_page import cost_panel, rank_panel, strips_panel
from steelyard.reproductions.leaderboard.ranks import critical_difference
from steelyard.reproductions.leaderboard.stability import stability
from steelyard.study.analysis.statistics import interval
from steelyard.study.judgement import Interval


@pytest.fixture(scope="module")
def board():
    return Board(planted())


@pytest.fixture(scope="module")
def places(board):
    return stability(board, draws=100, halves=5)


def chart(panel):
    (found,) = reading.parse(str(panel.svg)).elements
    return found


def test_average_ranks_and_the_critical_difference(board, places):
    drawn = chart(rank_panel(board, places))
    ticks = [text for text in drawn.elements if text.tag == "text" and "tick" in text.classes]
    across = reading.axis([(reading.share(text["x"]), number(text.text)) for text in ticks])
    difference = critical_difference(len(board.ranked), 8)
    average = dict(zip(board.ranked, board.ranks.mean(0), strict=True))
    best = min(average.values())
    rows = drawn.all("g", class_="row")
    names = [row.one("text", class_="name").text for row in rows]
    assert names == sorted(average, key=lambda name: average[name])
    last = float(len(average))
    for row, name in zip(rows, names, strict=True):
        (mark,) = row.all("use")
        assert across.at(reading.share(mark["x"])) == pytest.approx(average[name], abs=0.01)
        bar = row.one("line", class_="whisker")
        low, high = (across.at(reading.share(bar[end])) for end in ("x1", "x2"))
        assert low == pytest.approx(max(1.0, average[name] - difference / 2), abs=0.01)
        assert high == pytest.approx(min(last, average[name] + difference / 2), abs=0.01)
        told = average[name] - best > difference
        assert (mark["href"], row.classes) == (
            ("#mark-hurt", ["row", "hurt"]) if told else ("#mark-open", ["row", "open"])
        )
        assert row.one("text", class_="number").text == places.ranges[name].text
        assert reading.tooltip(row) == (
            f"{name}: average rank {average[name]:.1f}, place {places.ranges[name].text}, "
            f"{'' if told else 'not '}told from the best"
        )
    band = drawn.one("rect", class_="region")
    start = across.at(reading.share(band["x"]))
    end = across.at(reading.share(band["x"]) + reading.share(band["width"]))
    assert (start, end) == pytest.approx((max(1.0, best - difference / 2), best + difference / 2), abs=0.02)
    edge = drawn.one("line", class_="zero")
    assert across.at(reading.share(edge["x1"])) == pytest.approx(best + difference / 2, abs=0.01)


def test_without_enough_problems_there_are_no_ranks_to_draw(places):
    few = Board(planted()[:5])
    assert rank_panel(few, stability(few, draws=10, halves=2)) is None


def test_gains_with_a_dot_for_every_problem(board):
    panel = strips_panel(board)
    drawn = chart(panel)
    found = reading.forest(drawn)
    family = family_of_methods(board)["sum"] | family_of_architectures(board)
    assert [row.label for row in found.rows] == sorted(family, key=lambda name: -family[name].interval.mean)
    groups = drawn.all("g", class_="row")
    for row, group in zip(found.rows, groups, strict=True):
        known = family[row.label]
        mean, low, high = (100 * end for end in (known.interval.mean, known.interval.low, known.interval.high))
        assert says(row.number, mean, signed=True)
        word = "open" if known.p_value > 0.05 else "gain" if mean > 0 else "hurt"
        assert row.css == word
        if row.label == "lost":  # its mean is off the edge
            assert row.mark is None
        else:
            assert row.mark[0] == word
            assert found.across.at(row.mark[1]) == pytest.approx(mean, abs=0.05)
        at = sorted(found.across.at(reading.share(dot["cx"])) for dot in group.all("circle", class_="tree"))
        values = sorted(100 * value for value in known.by_problem.values())
        inside = [value for value in values if 0 <= found.across.place(value) <= 100]
        assert at == pytest.approx(inside, abs=0.05)
        ends = [found.across.at(end) for end in row.whisker]
        left = found.across.at(0.0)
        assert ends == pytest.approx([max(low, left), high], abs=0.05) or row.arrows
        assert ("right" in row.arrows) == (max(high, *values) > found.across.at(100.0) + 1e-6)
        assert ("left" in row.arrows) == (min(low, *values) < left - 1e-6)
        for dot in group.all("circle", class_="tree"):
            problem, text = re.fullmatch(rf"{re.escape(row.label)} on (p\d): (\S+)", reading.tooltip(dot)).groups()
            assert says(text, 100 * known.by_problem[problem], signed=True)
            assert found.across.at(reading.share(dot["cx"])) == pytest.approx(100 * known.by_problem[problem], abs=0.05)
    assert sum("left" in row.arrows for row in found.rows) == 1  # the one that learnt nothing on one problem


def test_one_that_collapsed_does_not_squeeze_the_others():
    usual = [Strip(0, "a", Interval(1.0, -1.0, 3.0), [("p", 2.0)], "", "", "open") for _ in range(4)]
    lost = Strip(0, "b", Interval(-90.0, -200.0, 20.0), [("p", -400.0)], "", "", "open")
    scale = strip_scale([*usual, lost])
    assert -10 < scale.low < -9
    assert 9 < scale.high < 10


def test_costs_and_the_front(board):
    drawn = chart(cost_panel(board))
    found = reading.cost(drawn, "plain sum")
    rows = [row for row in front(board) if row.name != "equal"]
    assert len(found.dots) == len(rows)
    for dot, row in zip(found.dots, rows, strict=True):
        assert dot.title.startswith(f"{row.name}: {row.time:.2f} × the time per step, {row.memory:.2f} × the memory, ")
        assert found.across.at(dot.x) == pytest.approx(row.time, abs=0.01)
        if row.name != "lost":
            assert found.up.at(dot.y) == pytest.approx(100 * row.gain.mean, abs=0.2)
            ends = sorted(found.up.at(end) for end in dot.whisker)
            assert ends == pytest.approx([100 * row.gain.low, 100 * row.gain.high], abs=0.2)
    assert found.across.at(found.single[0]) == pytest.approx(1.0)
    assert found.up.at(found.single[1]) == pytest.approx(0.0, abs=0.05)
    on_front = sorted((row for row in rows if row.on_front), key=lambda row: row.time)
    lines = drawn.all("line", class_="front")
    assert len(lines) == len(on_front) - 1
    for line, start, end in zip(lines, on_front, on_front[1:], strict=False):
        for side, row in (("1", start), ("2", end)):
            assert found.across.at(reading.share(line[f"x{side}"])) == pytest.approx(row.time, abs=0.01)
            assert found.up.at(float(line[f"y{side}"])) == pytest.approx(100 * row.gain.mean, abs=0.2)


def test_a_chart_of_three_problems_says_nothing_is_shown():
    few = Board(planted()[:3])
    found = reading.forest(chart(strips_panel(few)))
    assert {row.css for row in found.rows} == {"open"}
    means = {row.label: row.number for row in found.rows}
    assert says(means["good"], 100 * interval(few.table("sum", ["good"])[:, 0]).mean, signed=True)
    assert np.isfinite(number(means["good"]))
