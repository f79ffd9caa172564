"""The axis under rows of differences: a line at zero, worse to the left and better to the right."""

from __future__ import annotations

from markupsafe import Markup

from steelyard.report.charts.scale import AxisScale, labels
from steelyard.report.charts.svg import of_width, tag


def signed_axis(scale: AxisScale, ticks: int, bottom: float) -> list[Markup]:
    """About so many ticks, with lines up from them, and what the two sides mean."""
    parts: list[Markup] = []
    places = scale.ticks(ticks)
    for tick, text in zip(places, labels(places, signed=True), strict=True):
        x = of_width(scale(tick))
        parts.append(tag("line", class_="zero" if tick == 0 else "grid", x1=x, x2=x, y1=0, y2=bottom))
        parts.append(tag("text", text, class_="tick", x=x, y=bottom + 15, text_anchor="middle"))
    parts.append(tag("text", "← worse", class_="side", x=0, y=bottom + 31))
    parts.append(tag("text", "better →", class_="side", x="100%", y=bottom + 31, text_anchor="end"))
    return parts
