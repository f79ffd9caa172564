"""Scales, label placement and charts keep their promises."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.reading import cost, parse
from steelyard.report.charts.cost import Point, _labels, cost_chart
from steelyard.report.charts.curves import Series, curves, late_scale, scale_for, thin
from steelyard.report.charts.forest import Line, common_scale, forest
from steelyard.report.charts.labels import dodge
from steelyard.report.charts.scale import AxisScale, fit, labels
from steelyard.report.charts.svg import of_width, tag
from steelyard.report.palette import Ink, inks
from steelyard.study.judgement import Interval

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: float(f"{value:.9f}"))


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_a_scale_shows_every_value_with_a_few_round_ticks(values: list[float]) -> None:
    scale = fit(values)
    assert all(0 <= scale(value) <= 1 for value in values)
    ticks = scale.ticks(5)
    assert 1 <= len(ticks) <= 11
    assert all(-1e-6 <= scale(tick) <= 1 + 1e-6 for tick in ticks)


@given(st.floats(1e-6, 1e6), st.floats(1.5, 1e9))
def test_logarithmic_ticks(low: float, span: float) -> None:
    scale = fit([low, low * span], log=True)
    assert 1 <= len(scale.ticks(5)) <= 11
    assert math.isclose(scale(low * math.sqrt(span)), 0.5, abs_tol=1e-9)


def test_tick_labels() -> None:
    assert labels([-0.5, 0.0, 0.5], signed=True) == ["−0.5", "0.0", "+0.5"]
    assert labels([0.0, 20.0, 40.0]) == ["0", "20", "40"]
    assert labels([0.001, 0.01, 0.1, 1.0]) == ["0.001", "0.01", "0.1", "1"]
    assert labels([0.0, 0.00002]) == ["0.00000", "2e−5"]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_dodged_labels_keep_order_distance_and_room(wanted: list[float]) -> None:
    places = dodge(wanted, 10, 0, 100)
    gap = min(10, 100 / max(1, len(wanted) - 1))
    order = sorted(places)
    assert all(b - a >= gap - 1e-6 for a, b in itertools.pairwise(order))
    assert order[0] >= -1e-6
    assert order[-1] <= 100 + 1e-6
    ranks = sorted(range(len(wanted)), key=lambda index: wanted[index])
    assert [places[index] for index in ranks] == order


def test_labels_with_room_stay_where_they_are() -> None:
    assert dodge([10, 50, 90], 13, 0, 100) == [10, 50, 90]
    assert dodge([50, 50], 10, 0, 100) == [45, 55]


def test_a_diverged_method_does_not_squeeze_the_others() -> None:
    lines = [Line(i, "m", Interval(0.1 * i, 0.1 * i - 0.2, 0.1 * i + 0.2), "open", "", "") for i in range(5)]
    diverged = Line(5, "uw", Interval(-85.0, -86.0, -84.0), "hurt", "", "uw diverged")
    scale = common_scale([*lines, diverged], 0.3, reverse=False)
    assert scale.low > -5
    svg = forest([*lines, diverged], scale, 0.3, "test")
    assert svg.count("#beyond-left") == 1
    assert svg.count("#mark-hurt") == 0
    assert svg.count("#mark-open") == 5


def test_the_scale_of_intervals_shows_all_that_are_not_far_off() -> None:
    """With a twentieth of room on both sides; beyond six times the usual reach, or twice the region, it is cut."""

    def scale(*intervals: Interval, region: float = 0.5) -> AxisScale:
        return common_scale([Line(0, "m", interval, "open", "", "") for interval in intervals], region, reverse=False)

    near = scale(Interval(-1.0, -2.0, 0.0))
    assert (near.low, near.high) == pytest.approx((-2 - 0.125, 0.5 + 0.125))
    usual = [Interval(0.0, -1.0, 1.0)] * 3
    assert scale(*usual, Interval(5.0, 4.2, 5.8)).high == pytest.approx(5.8 + 0.05 * 6.8)
    assert scale(*usual, Interval(6.0, 5.0, 7.0)).high == pytest.approx(6 + 0.05 * 7)
    assert scale(*usual, Interval(-90.0, -91.0, -89.0), region=4.0).low == pytest.approx(-8 - 0.05 * 12)
    alone = scale(Interval(3.0, -math.inf, math.inf))
    assert (alone.low, alone.high) == pytest.approx((-0.5 - 0.175, 3.175))
    empty = scale(region=math.nan)
    assert (empty.low, empty.high) == (-1, 1)


def test_a_diverged_curve_runs_off_the_edge_and_says_so() -> None:
    usual = [Series(f"m{i}", Ink("c0", None), [0.5, 0.8, 0.9 + 0.01 * i]) for i in range(4)]
    diverged = Series("uw", Ink("c1", None), [0.1, -40.0, -9000.0])
    scale = late_scale([*usual, diverged])
    assert -1 < scale.low < 0.5
    svg = curves([1, 2, 3], [*usual, diverged], scale, "test")
    assert "uw ↓" in svg
    assert "m0 " not in svg


def test_a_diverged_method_is_an_arrow_at_the_edge_of_the_scatter() -> None:
    points = [Point(i, f"m{i}", Ink("c0", None), 0.5 + i / 10, Interval(i, i - 1, i + 1), "") for i in range(4)]
    diverged = Point(4, "uw", Ink("c1", None), 0.7, Interval(-2000, -4000, -300), "")
    assert "#beyond" not in cost_chart(points, "test")
    svg = cost_chart([*points, diverged], "test")
    assert svg.count("#beyond-down") == 1
    assert "−1000" not in svg


def test_smaller_is_better_puts_improvement_on_the_right() -> None:
    line = Line(1, "ema", Interval(-0.5, -0.6, -0.4), "gain", "", "")
    scale = common_scale([line], 0.1, reverse=True)
    assert scale(-0.5) > scale(0) > scale(0.1)


def test_gaps_in_a_curve_stay_gaps() -> None:
    line = Series("a", Ink("c0", None), [1.0, math.nan, 2.0, 3.0])
    svg = curves([1, 2, 3, 4], [line], scale_for([line]), "test")
    path = svg.split(' d="')[1].split('"')[0]
    assert path.count("M") == 2
    assert path.count("L") == 1
    assert 'data-y="1 nan 2 3"' in svg


def test_a_band_spans_the_deviation_and_widens_the_scale() -> None:
    line = Series("a", Ink("c0", None), [1.0, 2.0, 2.0], spread=[0.5, math.nan, 1.0])
    scale = scale_for([line])
    assert scale.high >= 3.0
    svg = curves([1, 2, 3], [line], scale, "test")
    points = svg.split('class="band c0" d="M')[1].split('Z"')[0].split("L")
    assert [point.split()[0] for point in points] == ["0", "1000", "1000", "0"], "there and back, the gap left out"
    heights = [float(point.split()[1]) for point in points]
    expected = [150 * (1 - scale(value)) for value in (1.5, 3.0, 1.0, 0.5)]
    assert heights == pytest.approx(expected, abs=0.06)
    wide = Series("a", Ink("c0", None), [0.01, 1.0, 1.0], spread=[0.0, 0.2, 0.2])
    assert scale_for([wide]).log
    assert not scale_for([replace(wide, spread=[0.0, 0.2, 1.5])]).log, "zero is on no logarithmic scale"
    assert "band" not in curves([1, 2, 3], [replace(line, spread=[0.0] * 3)], scale, "test")
    assert "band" not in curves([1, 2, 3], [replace(line, spread=())], scale, "test")


@given(st.integers(1, 5000), st.integers(2, 300))
def test_thinning_keeps_both_ends(length: int, limit: int) -> None:
    kept = thin(length, limit)
    assert kept[0] == 0
    assert kept[-1] == length - 1
    assert len(kept) <= max(limit, 2)


def test_scatter_labels_do_not_cover_each_other() -> None:
    across, up = AxisScale(0.0, 1.1), AxisScale(-10.0, 10.0)
    points = [
        Point(i, f"method {i}", Ink("c0", None), 0.4 + 0.02 * (i % 5), Interval(i / 3, i / 3 - 1, i / 3 + 1), "")
        for i in range(12)
    ]
    places = _labels(points, across, up)
    boxes = [
        ((1 if anchor == "start" else -1), across(point.cost) * 290 + dx, 300 * (1 - up(point.gain.mean)) + dy)
        for point, place in zip(points, places, strict=True)
        if place
        for dx, dy, anchor in [place]
    ]
    assert len(boxes) >= 6
    for side in (1, -1):
        heights = sorted(y for where, _, y in boxes if where == side)
        assert all(b - a >= 10 for a, b in itertools.pairwise(heights))


def test_a_method_whose_colour_came_before_is_dashed_and_hollow() -> None:
    found = inks([f"m{index}" for index in range(8)])
    points = [
        Point(i, name, ink, 0.5 + i / 10, Interval(0.0, -1.0, 1.0), "") for i, (name, ink) in enumerate(found.items())
    ]
    svg = cost_chart(points, "test")
    assert found["m0"].css == found["m7"].css
    assert svg.count('class="hollow"') == 1
    assert svg.count("stroke-dasharray") == 1


def test_thirty_methods_look_different() -> None:
    found = inks(["single-task", *[f"m{index}" for index in range(30)]], "single-task")
    assert len(set(found.values())) == 31


def test_svg_escapes() -> None:
    assert tag("text", '<b>&"', x=1.0, aria_label='"><script>') == (
        '<text x="1" aria-label="&#34;&gt;&lt;script&gt;">&lt;b&gt;&amp;&#34;</text>'
    )


def test_svg_numbers_are_as_short_as_two_decimals_allow() -> None:
    written = {value: str(tag("a", x=value))[6:-3] for value in (1.0, 1.5, 1.256, 100.0, 10, 0.0, -0.001, -0.0, "100%")}
    assert list(written.values()) == ["1", "1.5", "1.26", "100", "10", "0", "0", "100%"]
    assert of_width(0.1234) == "12.34%"
    assert tag("a", x=None) == "<a/>"


def test_the_scatter_fills_its_height() -> None:
    """A tenth of what is shown is room, above and below; zero is always shown."""
    points = [Point(i, f"m{i}", Ink("c0", None), 0.5 + i / 10, Interval(i, i - 1, i + 1), "") for i in range(4)]
    found = cost(parse(str(cost_chart(points, "test"))).elements[0])
    assert (found.up.at(0.0), found.up.at(found.height)) == pytest.approx((4 + 0.5, -1 - 0.5), abs=0.01)
