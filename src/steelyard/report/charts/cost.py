"""What a method gains against what it costs: Δm over the training time, single-task in the cross-hair."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from steelyard.report.charts.labels import LINE, Box, text_width
from steelyard.report.charts.scale import AxisScale, fit, labels, spans
from steelyard.report.charts.svg import of_width, tag
from steelyard.report.palette import Ink
from steelyard.study.judgement import Interval

HEIGHT = 300
ORIGIN = "single-task"
CUT = 6.0  # times the middle reach of the points
WIDTHS = (290.0, 700.0)  # px of the plot on a phone and on a desk: labels must be clear of each other on both


@dataclass(frozen=True)
class Point:
    """One method; the gain in per cent."""

    method: int
    label: str
    ink: Ink
    cost: float
    gain: Interval
    title: str


def cost_chart(
    points: Sequence[Point], aria: str, origin: str = ORIGIN, front: Sequence[int] = (), cut: float = CUT
) -> Markup:
    """The scatter plot.

    Args:
        points: what is drawn.
        aria: the chart in words.
        origin: what costs 1 and gains nothing.
        front: the points, by place, through which a line leads from left to right.
        cut: times the middle reach of all points, beyond which one is drawn at the edge.
    """
    costs = [point.cost for point in points]
    reach = spans([*costs, 1.0])
    # Close to 1, a zero would waste the width; far from it, ratios matter more than differences.
    across = fit([*costs, 1.0], pad=0.14, log=reach > 12, zero=2.5 < reach <= 12)
    ends = [_ends(point) for point in points]
    # One method that diverged must not squeeze the others: it is drawn at the edge, with an arrow.
    limit = cut * median(max(abs(end) for end in pair) for pair in ends) or math.inf
    up = fit([0.0, *(min(max(end, -limit), limit) for pair in ends for end in pair)], pad=0.1)
    parts: list[Markup] = []
    ticks = up.ticks(6)
    for tick, text in zip(ticks, labels(ticks, signed=True), strict=True):
        y = _y(up, tick)
        parts.append(tag("line", class_="zero" if tick == 0 else "grid", x1=0, x2="100%", y1=y, y2=y))
        parts.append(tag("text", text, class_="tick", x=0, dx=-6, y=y + 4, text_anchor="end"))
    ticks = across.ticks(6)
    for tick, text in zip(ticks, labels(ticks), strict=True):
        x = of_width(across(tick))
        parts.append(tag("line", class_="stop", x1=x, x2=x, y1=HEIGHT, y2=HEIGHT + 4))
        parts.append(tag("text", text, class_="tick", x=x, y=HEIGHT + 17, text_anchor="middle"))
    one = of_width(across(1.0))
    parts.append(tag("line", class_="zero", x1=one, x2=one, y1=0, y2=HEIGHT))
    parts.append(tag("text", origin, class_="tick", x=one, dx=-text_width(origin) / 2, y=_y(up, 0.0) - 9))
    parts.append(tag("rect", class_="single", x=one, y=_y(up, 0.0) - 4, width=8, height=8, transform="translate(-4 0)"))
    for start, end in itertools.pairwise(sorted((points[place] for place in front), key=lambda point: point.cost)):
        x1, x2 = of_width(across(start.cost)), of_width(across(end.cost))
        y1, y2 = (_y(up, point.gain.mean) for point in (start, end))
        parts.append(tag("line", class_="front", x1=x1, x2=x2, y1=y1, y2=y2))
    places = _labels(points, across, up, origin)
    parts += [_point(point, across, up) for point in points]
    parts += [_label(point, across, up, *place) for point, place in zip(points, places, strict=True) if place]
    return tag("svg", *parts, class_="plot cost", width="100%", height=HEIGHT + 22, role="img", aria_label=aria)


def _ends(point: Point) -> tuple[float, float]:
    """The ends of a point's bar; its mean where it has none."""
    gain = point.gain
    return (gain.low, gain.high) if math.isfinite(gain.low) else (gain.mean, gain.mean)


def _point(point: Point, across: AxisScale, up: AxisScale) -> Markup:
    x, y = of_width(across(point.cost)), _y(up, point.gain.mean)
    parts = [tag("title", point.title)]
    low, high = (_y(up, end) for end in _ends(point))
    if low != high:
        parts.append(tag("line", class_="whisker", x1=x, x2=x, y1=low, y2=high, stroke_dasharray=point.ink.dash))
    for end, arrow, outside in ((low, "#beyond-down", low >= HEIGHT), (high, "#beyond-up", high <= 0)):
        if outside:
            parts.append(tag("use", href=arrow, x=x, y=end))
    parts.append(tag("circle", class_="halo", cx=x, cy=y, r=10))
    if up.low <= point.gain.mean <= up.high:
        hollow = "hollow" if point.ink.dash else None  # the colours come around again: a dot has no dashes to show it
        parts.append(tag("circle", class_=hollow, cx=x, cy=y, r=5))
    return tag("g", *parts, class_=f"dot {point.ink.css}", data_m=point.method)


def _label(point: Point, across: AxisScale, up: AxisScale, dx: float, dy: float, anchor: str) -> Markup:
    x, y = of_width(across(point.cost)), _y(up, point.gain.mean)
    return tag("text", point.label, class_="name", x=x, y=y, dx=dx, dy=dy + 4, text_anchor=anchor, data_m=point.method)


def _labels(
    points: Sequence[Point], across: AxisScale, up: AxisScale, origin: str = ORIGIN
) -> list[tuple[float, float, str] | None]:
    """For each point, where its label goes relative to it; None where there is no room on any side.

    Greedy over candidates; a label may cover no dot, no bar and no other label, at the narrowest and at the
    widest page. What finds no room is still in the legend, the table and the tooltip.
    """
    taken: list[list[Box]] = []
    for width in WIDTHS:
        spots = [(across(point.cost) * width, _y(up, point.gain.mean)) for point in points]
        spots.append((across(1.0) * width, _y(up, 0.0)))
        taken.append([Box(x - 6, y - 6, x + 6, y + 6) for x, y in spots])
        for point, (x, _) in zip(points, spots, strict=False):
            low, high = (_y(up, end) for end in _ends(point))
            taken[-1].append(Box(x - 1, high, x + 1, low))
        single = across(1.0) * width, _y(up, 0.0)
        half = text_width(origin) / 2
        taken[-1].append(Box(single[0] - half, single[1] - 22, single[0] + half, single[1] - 5))
    found: list[tuple[float, float, str] | None] = []
    for point in points:
        wide = text_width(point.label)
        choice = None
        for dx, dy, anchor in _candidates(point, up):
            boxes = [_box(across(point.cost) * width + dx, _y(up, point.gain.mean) + dy, wide, anchor)
                     for width in WIDTHS]  # fmt: skip
            inside = all(
                box.left >= -8 and box.right <= width + 12 and box.top >= 0 and box.bottom <= HEIGHT
                for box, width in zip(boxes, WIDTHS, strict=True)
            )
            if inside and not any(box.overlap(other) for box, all_ in zip(boxes, taken, strict=True) for other in all_):
                choice = (dx, dy, anchor)
                for box, all_ in zip(boxes, taken, strict=True):
                    all_.append(box)
                break
        found.append(choice)
    return found


def _candidates(point: Point, up: AxisScale) -> list[tuple[float, float, str]]:
    """Beside the dot, then at the ends of its bar; further off only straight above or below.

    Aside from its bar's end and off it as well, a label may lie nearer to the bar of another.
    """
    steps = (0.0, -9.0, 9.0, -18.0, 18.0)
    beside = [(side * 10.0, dy, "start" if side > 0 else "end") for dy in steps for side in (1, -1)]
    below, above = (_y(up, end) - _y(up, point.gain.mean) for end in _ends(point))
    places = ((0.0, "middle"), (-4.0, "start"), (4.0, "end"))
    ends = [(dx, y, anchor) for y in (above - 9.0, below + 9.0) for dx, anchor in places]
    return [*beside, *ends, (0.0, above - 22.0, "middle"), (0.0, below + 22.0, "middle")]


def _box(x: float, y: float, width: float, anchor: str) -> Box:
    left = {"start": x, "end": x - width, "middle": x - width / 2}[anchor]
    return Box(left, y - LINE / 2, left + width, y + LINE / 2)


def _y(scale: AxisScale, value: float) -> float:
    return HEIGHT * (1 - scale(scale.clip(value)))
