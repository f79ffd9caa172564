"""Lines over epochs with direct labels; the exact values ride along for the read-out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from steelyard.report.charts.labels import dodge
from steelyard.report.charts.scale import AxisScale, fit, labels, spans
from steelyard.report.charts.svg import of_width, tag
from steelyard.report.palette import Ink

HEIGHT = 150
WIDE = 1000  # user units of the stretched inner drawing
DIRECT = 7  # more lines than this are told apart by the legend and the read-out, not by direct labels


@dataclass(frozen=True)
class Series:
    """One line, with a band of ± `spread` where there is one; `method` and `task` are indices that link it to the
    legends."""

    label: str
    ink: Ink
    values: Sequence[float]
    method: int | None = None
    task: int | None = None
    spread: Sequence[float] = ()


def scale_for(series: Sequence[Series], log_from: float = 25.0) -> AxisScale:
    """Logarithmic where the values span more than `log_from` and no band reaches zero, otherwise linear."""
    values = [value for line in series for value in line.values]
    bands = [pair for line in series for pair in zip(line.values, line.spread, strict=False) if pair[1] > 0]
    tops = [value + spread for value, spread in bands]
    return fit([*values, *tops], log=spans(values) > log_from and all(value > spread for value, spread in bands))


def late_scale(series: Sequence[Series]) -> AxisScale:
    """Linear; the first epochs, and a method that diverged, may run off the edge.

    What tells methods apart happens late, and one that diverged would squeeze all the others into a line.
    """
    early = max(len(line.values) for line in series) // 8
    whole = fit([value for line in series for value in line.values])
    kept = [[value for value in line.values[early:] if math.isfinite(value)] for line in series]
    kept = [values for values in kept if values]
    if not kept:
        return whole
    centre = median(values[-1] for values in kept)
    limit = 10 * median(max(abs(value - centre) for value in values) for values in kept)
    late = fit([value for values in kept for value in values if abs(value - centre) <= limit])
    return late if late.high - late.low < 0.85 * (whole.high - whole.low) else whole


def curves(epochs: Sequence[int], series: Sequence[Series], scale: AxisScale, aria: str) -> Markup:
    """One panel."""
    across = AxisScale(epochs[0], epochs[-1]) if epochs[-1] > epochs[0] else AxisScale(epochs[0] - 0.5, epochs[0] + 0.5)
    parts: list[Markup] = []
    ticks = scale.ticks(4)
    for tick, text in zip(ticks, labels(ticks), strict=True):
        y = _y(scale, tick)
        parts.append(tag("line", class_="grid", x1=0, x2="100%", y1=y, y2=y))
        parts.append(tag("text", text, class_="tick", x=0, dx=-6, y=y + 4, text_anchor="end"))
    for index, tick in enumerate(_epoch_ticks(epochs)):
        x, text = of_width(across(tick)), str(tick) if index else f"epoch {tick}"
        parts.append(tag("text", text, class_="tick", x=x, y=HEIGHT + 16, text_anchor="middle"))
    # Stretched to the width of the page; strokes keep their thickness.
    lines = [_band(epochs, line, across, scale) for line in series if any(spread > 0 for spread in line.spread)]
    lines += [_path(epochs, line, across, scale) for line in series]
    parts.append(
        tag("svg", *lines, class_="lines", width="100%", height=HEIGHT, viewBox=f"0 0 {WIDE} {HEIGHT}",
            preserveAspectRatio="none")
    )  # fmt: skip
    if len(epochs) == 1:
        parts += [
            tag("circle", class_=f"dot {line.ink.css}", cx="50%", cy=_y(scale, line.values[0]), r=3.5, **_links(line))
            for line in series
            if _shown(line.values[0], scale)
        ]
    if len(series) <= DIRECT:
        parts += _direct_labels(series, scale)
    return tag(
        "svg", *parts, class_="plot curves", width="100%", height=HEIGHT + 20, role="img", aria_label=aria,
        tabindex=0, data_epochs=" ".join(map(str, epochs)), data_low=f"{scale.low:.6g}",
        data_high=f"{scale.high:.6g}", data_log=int(scale.log), data_height=HEIGHT,
    )  # fmt: skip


def thin(length: int, limit: int) -> list[int]:
    """At most `limit` indices, evenly spread, always with the first and the last."""
    if length <= limit:
        return list(range(length))
    return sorted({round(step * (length - 1) / (limit - 1)) for step in range(limit)})


def _path(epochs: Sequence[int], line: Series, across: AxisScale, scale: AxisScale) -> Markup:
    pieces, pen = [], "M"
    for epoch, value in zip(epochs, line.values, strict=True):
        if not _shown(value, scale):
            pen = "M"  # a gap where a value is missing
            continue
        pieces.append(f"{pen}{WIDE * across(epoch):.0f} {_y(scale, value):.1f}")
        pen = "L"
    return tag(
        "path", class_=f"line {line.ink.css}", d="".join(pieces), stroke_dasharray=line.ink.dash,
        vector_effect="non-scaling-stroke", data_name=line.label,
        data_y=" ".join(f"{value:.4g}" for value in line.values), **_links(line),
    )  # fmt: skip


def _band(epochs: Sequence[int], line: Series, across: AxisScale, scale: AxisScale) -> Markup:
    found = [
        (WIDE * across(epoch), _y(scale, value + spread), _y(scale, value - spread) if lower else HEIGHT)
        for epoch, value, spread in zip(epochs, line.values, line.spread, strict=False)
        if _shown(value, scale) and math.isfinite(spread)
        for lower in [_shown(value - spread, scale)]
    ]
    there = [f"{x:.0f} {top:.1f}" for x, top, _ in found]
    back = [f"{x:.0f} {bottom:.1f}" for x, _, bottom in reversed(found)]
    return tag("path", class_=f"band {line.ink.css}", d=f"M{'L'.join([*there, *back])}Z", **_links(line))


def _links(line: Series) -> dict[str, int | None]:
    return {"data_m": line.method, "data_t": line.task}


def _direct_labels(series: Sequence[Series], scale: AxisScale) -> list[Markup]:
    ends = []
    for line in series:
        last = next((value for value in reversed(line.values) if _shown(value, scale)), None)
        if last is not None:
            ends.append((line, _y(scale, last)))
    places = dodge([min(max(y, 0.0), HEIGHT) for _, y in ends], 13, 2, HEIGHT)
    parts = []
    for (line, y), place in zip(ends, places, strict=True):
        beyond = " ↑" if y < -1 else " ↓" if y > HEIGHT + 1 else ""
        y = min(max(y, 0.0), HEIGHT)
        # The leader starts at the right edge: px offsets from 100 % need a nested drawing.
        leader = tag("svg", tag("path", class_=f"leader {line.ink.css}", d=f"M0 {y:.1f}L9 {place:.1f}"), x="100%",
                     overflow="visible")  # fmt: skip
        text = tag("text", line.label + beyond, class_="end", x="100%", dx=12, y=place + 4)
        parts.append(tag("g", leader, text, **_links(line)))
    return parts


def _epoch_ticks(epochs: Sequence[int]) -> list[int]:
    """First and last epoch, and round numbers between them that stay clear of both."""
    first, last = epochs[0], epochs[-1]
    if first == last:
        return [first]
    room = (last - first) / 6
    between = [int(tick) for tick in AxisScale(first, last).ticks(4) if tick == int(tick)]
    return [first, *[tick for tick in between if first + room < tick < last - room], last]


def _shown(value: float, scale: AxisScale) -> bool:
    return math.isfinite(value) and (value > 0 or not scale.log)


def _y(scale: AxisScale, value: float) -> float:
    return HEIGHT * (1 - scale(value))
