"""A forest with its trees: each row's mean over problems with its interval, and a dot for every problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from steelyard.report.charts.scale import AxisScale
from steelyard.report.charts.signed_axis import signed_axis
from steelyard.report.charts.svg import of_width, tag
from steelyard.study.judgement import Interval

LINE = 22  # px per row
CUT = 3.0  # times the middle reach of the rows: what lies beyond is drawn at the edge, with an arrow


@dataclass(frozen=True)
class Strip:
    """One row, in display units."""

    row: int
    label: str
    interval: Interval
    dots: Sequence[tuple[str, float]]  # problem and value
    text: str
    title: str
    css: str  # gain, hurt, open


def strip_scale(strips: Sequence[Strip]) -> AxisScale:
    """Shows every typical interval and dot; what collapsed must not squeeze all others into a line."""
    reach = [max(abs(end) for end in _values(strip)) for strip in strips]
    limit = CUT * median(reach) or 1.0
    ends = [0.0, *(min(max(value, -limit), limit) for strip in strips for value in _values(strip))]
    room = (max(ends) - min(ends)) * 0.04 or 1.0
    return AxisScale(min(ends) - room, max(ends) + room)


def strips_chart(strips: Sequence[Strip], scale: AxisScale, aria: str) -> Markup:
    """The rows as they are given."""
    bottom = LINE * len(strips) + 4
    parts: list[Markup] = []
    parts += signed_axis(scale, 5, bottom)
    parts += [_strip(strip, scale, LINE * place + LINE / 2 + 2) for place, strip in enumerate(strips)]
    return tag("svg", *parts, class_="plot strips", width="100%", height=bottom + 36, role="img", aria_label=aria)


def _values(strip: Strip) -> list[float]:
    ends = [strip.interval.low, strip.interval.high] if math.isfinite(strip.interval.low) else []
    return [strip.interval.mean, *ends, *(value for _, value in strip.dots)]


def _strip(strip: Strip, scale: AxisScale, y: float) -> Markup:
    found = strip.interval
    parts = [tag("title", strip.title), tag("rect", class_="hit", x=0, width="100%", y=y - LINE / 2, height=LINE)]
    parts.append(tag("text", strip.label, class_="name", x=0, dx=-10, y=y + 4, text_anchor="end"))
    for problem, value in strip.dots:
        if scale.low <= value <= scale.high:
            inside = tag("title", f"{strip.label} on {problem}: {value:+.1f}".replace("-", "−"))
            parts.append(tag("circle", inside, class_="tree", cx=of_width(scale(value)), cy=y, r=2.6))
    beyond = [value for _, value in strip.dots if not scale.low <= value <= scale.high]
    ends = [found.low, found.high] if math.isfinite(found.low) else []
    if ends:
        low, high = (of_width(scale(scale.clip(end))) for end in ends)
        if low != high:
            parts.append(tag("line", class_="whisker", x1=low, x2=high, y1=y, y2=y))
    if any(value < scale.low for value in [*beyond, *ends]):
        parts.append(tag("use", href="#beyond-left", x="0", y=y))
    if any(value > scale.high for value in [*beyond, *ends]):
        parts.append(tag("use", href="#beyond-right", x="100%", y=y))
    if scale.low <= found.mean <= scale.high:
        parts.append(tag("use", href=f"#mark-{strip.css}", x=of_width(scale(found.mean)), y=y))
    parts.append(tag("text", strip.text, class_="number", x="100%", dx=10, y=y + 4))
    return tag("g", *parts, class_=f"row {strip.css}", data_m=strip.row)
