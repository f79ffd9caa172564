"""Learning curves: the test value against the amount of training labels, one line per method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from steelyard.report.charts.labels import dodge, text_width
from steelyard.report.charts.scale import AxisScale, fit, labels
from steelyard.report.charts.svg import of_width, tag
from steelyard.report.palette import Ink
from steelyard.study.judgement import Interval

HEIGHT = 190
WIDE = 1000
NARROW = 240  # px of a plot on a phone
INSET = 0.05  # room at both ends, so that the first and the last interval are not cut
DIRECT = 7


@dataclass(frozen=True)
class Track:
    """One method: an interval (or None) per stop, in display units."""

    method: int
    label: str
    ink: Ink
    points: Sequence[Interval | None]
    titles: Sequence[str]


@dataclass(frozen=True)
class AxisPlace:
    """A place on the horizontal axis."""

    position: float  # 0 to 1
    label: str


def stops(fractions: Sequence[float], names: Sequence[str]) -> list[AxisPlace]:
    """Logarithmic in the fraction where each setting has one of its own; evenly spaced names otherwise."""
    if len(set(fractions)) == len(fractions) and all(value > 0 for value in fractions):
        across = AxisScale(min(fractions), max(fractions), log=True)
        return [
            AxisPlace(INSET + (1 - 2 * INSET) * across(value), f"{100 * value:g} %".replace("e-0", "e-"))
            for value in fractions
        ]
    last = max(1, len(names) - 1)
    return [AxisPlace(INSET + (1 - 2 * INSET) * index / last, name) for index, name in enumerate(names)]


def learning_curves(
    places: Sequence[AxisPlace],
    tracks: Sequence[Track],
    aria: str,
    regions: Sequence[float] | None = None,
    reverse: bool = False,
) -> Markup:
    """One panel: the methods of one task.

    `regions` makes it a panel of differences: zero is drawn, and the region of practical equivalence, given as
    its half-width per stop, is shaded. `reverse` puts smaller values higher.
    """
    ends = [
        end
        for track in tracks
        for point in track.points
        if point
        for end in ((point.low, point.high) if math.isfinite(point.low) else (point.mean,))
    ]
    if regions is not None:
        ends += [0.0, *(sign * region for region in regions for sign in (1, -1))]
    scale = replace(fit(ends), reverse=reverse)
    parts: list[Markup] = []
    if regions is not None:
        parts.append(_region(places, regions, scale))
    ticks = scale.ticks(5)
    for tick, text in zip(ticks, labels(ticks, signed=regions is not None), strict=True):
        y = HEIGHT * (1 - scale(tick))
        line = "zero" if regions is not None and tick == 0 else "grid"
        parts.append(tag("line", class_=line, x1=0, x2="100%", y1=y, y2=y))
        parts.append(tag("text", text, class_="tick", x=0, dx=-6, y=y + 4, text_anchor="end"))
    for place, anchor in zip(places, _anchors(places), strict=True):
        x = of_width(place.position)
        parts.append(tag("line", class_="stop", x1=x, x2=x, y1=HEIGHT, y2=HEIGHT + 4))
        if anchor:
            parts.append(tag("text", place.label, class_="tick", x=x, y=HEIGHT + 17, text_anchor=anchor))
    spread = min(0.014, 0.07 / max(1, len(tracks)))
    lines, marks = [], []
    for rank, track in enumerate(tracks):
        aside = spread * (rank - (len(tracks) - 1) / 2)  # neighbours side by side, not on top of each other
        line, mark = _track(places, track, scale, aside)
        lines.append(line)
        marks.append(mark)
    parts.append(
        tag("svg", *lines, class_="lines", width="100%", height=HEIGHT, viewBox=f"0 0 {WIDE} {HEIGHT}",
            preserveAspectRatio="none")
    )  # fmt: skip
    parts += marks
    if len(tracks) <= DIRECT:
        parts += _direct_labels(places, tracks, scale)
    return tag("svg", *parts, class_="plot", width="100%", height=HEIGHT + 22, role="img", aria_label=aria)


def _anchors(places: Sequence[AxisPlace]) -> list[str]:
    """How each label hangs on its stop; empty for one that would touch a neighbour on a phone.

    Both ends are always labelled, from the end inwards.
    """
    order = sorted(range(len(places)), key=lambda index: places[index].position)
    found = [""] * len(places)
    taken: list[tuple[float, float]] = []
    for index in [*order[-1:], *order[:-1]]:
        place = places[index]
        if not place.label:
            continue
        anchor = "start" if place.position < 0.1 else "end" if place.position > 0.9 else "middle"
        width = text_width(place.label)
        left = NARROW * place.position - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        if all(left > end + 5 or left + width < start - 5 for start, end in taken):
            found[index] = anchor
            taken.append((left, left + width))
    return found


def _region(places: Sequence[AxisPlace], regions: Sequence[float], scale: AxisScale) -> Markup:
    known = sorted((place.position, region) for place, region in zip(places, regions, strict=True)
                   if math.isfinite(region))  # fmt: skip
    edges = [(x, sign * region) for sign, side in ((1, known), (-1, known[::-1])) for x, region in side]
    points = " ".join(f"{WIDE * x:.0f},{HEIGHT * (1 - scale(value)):.1f}" for x, value in edges)
    return tag("svg", tag("polygon", class_="region", points=points), width="100%", height=HEIGHT,
               viewBox=f"0 0 {WIDE} {HEIGHT}", preserveAspectRatio="none")  # fmt: skip


def _track(places: Sequence[AxisPlace], track: Track, scale: AxisScale, aside: float) -> tuple[Markup, Markup]:
    order = sorted(range(len(places)), key=lambda index: places[index].position)
    path: list[str] = []
    marks: list[Markup] = []
    for index in order:
        point = track.points[index]
        if point is None or not math.isfinite(point.mean):
            continue
        x, y = places[index].position + aside, HEIGHT * (1 - scale(point.mean))
        path.append(f"{'L' if path else 'M'}{WIDE * x:.1f} {y:.1f}")
        dot = [tag("title", track.titles[index])]
        if math.isfinite(point.low):
            ends = [HEIGHT * (1 - scale(end)) for end in (point.low, point.high)]
            dot.append(tag("line", class_="whisker", x1=of_width(x), x2=of_width(x), y1=ends[0], y2=ends[1]))
        dot.append(tag("circle", cx=of_width(x), cy=y, r=3.2))
        marks.append(tag("g", *dot, class_=f"dot {track.ink.css}"))
    line = tag(
        "path", class_=f"line {track.ink.css}", d="".join(path), stroke_dasharray=track.ink.dash,
        vector_effect="non-scaling-stroke", data_m=track.method,
    )  # fmt: skip
    return line, tag("g", *marks, data_m=track.method)


def _direct_labels(places: Sequence[AxisPlace], tracks: Sequence[Track], scale: AxisScale) -> list[Markup]:
    last = max(range(len(places)), key=lambda index: places[index].position)
    ends = [
        (track, HEIGHT * (1 - scale(point.mean)))
        for track in tracks
        if track.label and (point := track.points[last]) is not None and math.isfinite(point.mean)
    ]
    parts = []
    for (track, y), place in zip(ends, dodge([y for _, y in ends], 13, 2, HEIGHT), strict=True):
        leader = tag("svg", tag("path", class_=f"leader {track.ink.css}", d=f"M0 {y:.1f}L9 {place:.1f}"), x="100%",
                     overflow="visible")  # fmt: skip
        text = tag("text", track.label, class_="end", x="100%", dx=12, y=place + 4)
        parts.append(tag("g", leader, text, data_m=track.method))
    return parts
