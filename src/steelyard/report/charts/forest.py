"""Forest plot: one interval per method, the region of practical equivalence shaded, zero = single-task."""

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

ROW = 25  # px per method
NUMBER = 100  # px for the numbers at the right


@dataclass(frozen=True)
class Line:
    """One row: a method's difference from single-task, in display units."""

    method: int
    label: str
    interval: Interval | None
    mark: str  # shape and colour: gain, same, hurt, open, sum
    text: str  # the number, written out; empty where the panel has no room for it
    title: str  # the whole row in words


def common_scale(lines: Sequence[Line], region: float, reverse: bool) -> AxisScale:
    """A scale that shows every typical interval; a diverged one is cut and drawn with an arrow.

    Without the cut, one method that diverged would squeeze all the others into a line.
    """
    reach = [
        abs(line.interval.mean) + (0 if math.isinf(line.interval.high) else _half(line.interval))
        for line in lines
        if line.interval and math.isfinite(line.interval.mean)
    ]
    region = 0.0 if math.isnan(region) else region
    limit = max(6 * median(reach), 2 * region) if reach else max(2 * region, 1.0)
    ends = [0.0, region, -region]
    for line in lines:
        if line.interval and math.isfinite(line.interval.mean):
            ends += [line.interval.mean] if math.isinf(line.interval.high) else [line.interval.low, line.interval.high]
    low, high = (min(max(end, -limit), limit) for end in (min(ends), max(ends)))
    room = (high - low) * 0.05 or 1.0
    return AxisScale(low - room, high + room, reverse=reverse)


def forest(lines: Sequence[Line], scale: AxisScale, region: float, aria: str) -> Markup:
    """The rows of one task."""
    bottom = ROW * len(lines) + 4
    parts: list[Markup] = []
    if math.isfinite(region) and region > 0:
        left, right = sorted((scale(scale.clip(-region)), scale(scale.clip(region))))
        parts.append(tag("rect", class_="region", x=of_width(left), width=of_width(right - left), y=0, height=bottom))
    parts += signed_axis(scale, 4, bottom)
    parts += [_row(line, scale, ROW * index + ROW / 2 + 2) for index, line in enumerate(lines)]
    return tag("svg", *parts, class_="plot", width="100%", height=bottom + 36, role="img", aria_label=aria)


def _row(line: Line, scale: AxisScale, y: float) -> Markup:
    parts = [tag("title", line.title), tag("rect", class_="hit", x=0, width="100%", y=y - ROW / 2, height=ROW)]
    parts.append(tag("text", line.label, class_="name", x=0, dx=-10, y=y + 4, text_anchor="end"))
    if line.text:
        parts.append(tag("text", line.text, class_="number", x="100%", dx=NUMBER - 4, y=y + 4, text_anchor="end"))
    interval = line.interval
    if interval is None:
        parts.append(tag("text", "no result", class_="tick", x="100%", y=y + 4, text_anchor="end"))
    if interval is not None and math.isfinite(interval.mean):
        if math.isfinite(interval.high):
            ends = (scale(scale.clip(interval.low)), scale(scale.clip(interval.high)))
            if ends[0] != ends[1]:
                parts.append(tag("line", class_="whisker", x1=of_width(ends[0]), x2=of_width(ends[1]), y1=y, y2=y))
            for end, outside in zip(ends, (interval.low < scale.low, interval.high > scale.high), strict=True):
                if outside:
                    arrow = "#beyond-left" if end < 0.5 else "#beyond-right"
                    parts.append(tag("use", href=arrow, x=of_width(end), y=y))
        if scale.low <= interval.mean <= scale.high:
            parts.append(tag("use", href=f"#mark-{line.mark}", x=of_width(scale(interval.mean)), y=y))
    return tag("g", *parts, class_=f"row {line.mark}", data_m=line.method)


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2
