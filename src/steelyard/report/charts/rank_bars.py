"""A critical-difference diagram for many rows: average ranks, each with half the critical difference on both sides.

Rows whose bars do not overlap are told apart. Lines under the axis (Demšar 2006) show that for ten rows, not for fifty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from steelyard.report.charts.scale import AxisScale, labels
from steelyard.report.charts.svg import of_width, tag

LINE = 19  # px per row


@dataclass(frozen=True)
class Ranked:
    """One row: its average rank, and the places that it may have."""

    row: int
    label: str
    average: float
    text: str  # at the right: the place, or a range
    title: str
    css: str = "open"


def rank_bars(rows: Sequence[Ranked], difference: float, count: int, aria: str) -> Markup:
    """Rows as they are given, best first.

    Args:
        rows: in the order in which they are drawn.
        difference: the critical difference between two average ranks.
        count: of all rows that were ranked: the axis runs from 1 to it.
    """
    scale = AxisScale(1.0, float(max(count, 2)))
    bottom = LINE * len(rows) + 4
    best = min(row.average for row in rows)
    left, right = (of_width(scale(scale.clip(best + side * difference / 2))) for side in (-1, 1))
    parts = [
        tag("rect", class_="region", x=left, width=of_width(_span(scale, best, difference)), y=0, height=bottom),
        tag("line", class_="zero", x1=right, x2=right, y1=0, y2=bottom),
    ]
    ticks = [tick for tick in scale.ticks(5) if tick == int(tick)]
    ticks = ticks if 1.0 in ticks else [1.0, *(tick for tick in ticks if tick - 1.0 > (count - 1) / 12)]
    for tick, text in zip(ticks, labels(ticks), strict=True):
        x = of_width(scale(tick))
        parts.append(tag("line", class_="grid", x1=x, x2=x, y1=0, y2=bottom))
        parts.append(tag("text", text, class_="tick", x=x, y=bottom + 15, text_anchor="middle"))
    parts += [_bar(row, scale, difference, LINE * place + LINE / 2 + 2) for place, row in enumerate(rows)]
    parts.append(tag("text", "← better", class_="side", x=0, y=bottom + 31))
    parts.append(tag("text", "average rank", class_="side", x="100%", y=bottom + 31, text_anchor="end"))
    return tag("svg", *parts, class_="plot ranks", width="100%", height=bottom + 36, role="img", aria_label=aria)


def _span(scale: AxisScale, best: float, difference: float) -> float:
    low, high = (scale(scale.clip(best + side * difference / 2)) for side in (-1, 1))
    return high - low


def _bar(row: Ranked, scale: AxisScale, difference: float, y: float) -> Markup:
    low, high = (of_width(scale(scale.clip(row.average + side * difference / 2))) for side in (-1, 1))
    return tag(
        "g",
        tag("title", row.title),
        tag("rect", class_="hit", x=0, width="100%", y=y - LINE / 2, height=LINE),
        tag("text", row.label, class_="name", x=0, dx=-10, y=y + 4, text_anchor="end"),
        tag("line", class_="whisker", x1=low, x2=high, y1=y, y2=y),
        tag("use", href=f"#mark-{row.css}", x=of_width(scale(row.average)), y=y),
        tag("text", row.text, class_="number", x="100%", dx=10, y=y + 4),
        class_=f"row {row.css}",
        data_m=row.row,
    )
