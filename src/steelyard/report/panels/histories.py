"""The figures over the epochs: validation metrics, training losses, weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from steelyard.report import numbers
from steelyard.report.charts.curves import DIRECT, Series, curves, late_scale, scale_for, thin
from steelyard.report.charts.labels import text_width
from steelyard.report.charts.scale import AxisScale, fit
from steelyard.report.panels.drawing import Drawing, Panel, metric
from steelyard.report.short_names import elide
from steelyard.study.judgement import Curve, Setting, TaskInfo

POINTS = 60_000  # curve points on one page; above that, curves are thinned


def validation_panels(drawing: Drawing, setting: Setting) -> list[Panel]:
    """The main metric on validation data, a panel per task."""
    return _task_panels(drawing, setting, lambda curve: curve.validation, numbers.factor, metric, late_scale)


def loss_panels(drawing: Drawing, setting: Setting) -> list[Panel]:
    """The training loss, a panel per task."""
    return _task_panels(
        drawing, setting, lambda curve: curve.losses, lambda task: 1.0, lambda task: "training loss", scale_for
    )


def weight_panels(drawing: Drawing, setting: Setting) -> list[Panel]:
    """The weights, a panel per method, all on one scale except for methods that would leave it.

    A band shows how far weights move from step to step within an epoch, a line how they drift.
    """
    view, drawn = drawing.view, []
    for method in view.compared:
        curve = view.curve(method, setting)
        if curve is None or not any(any(map(math.isfinite, values)) for values in curve.weights.values()):
            continue
        keep = thin(len(curve.epochs), _point_limit(drawing))
        series = [
            Series(
                elide(task.label, 14),
                drawing.task_inks[task.name],
                [values[i] for i in keep],
                task=place,
                spread=[spreads[i] for i in keep] if (spreads := curve.weight_spreads.get(task.name)) else (),
            )
            for place, task in enumerate(view.tasks)
            if (values := curve.weights.get(task.name))
        ]
        drawn.append((method, [curve.epochs[i] for i in keep], series))
    if not drawn:
        return []
    together = _common_scale([series for _, _, series in drawn])
    return [
        _panel(view.short[method], _weight_note(series), epochs, series, _weight_scale(series, together))
        for method, epochs, series in drawn
    ]


def _weight_note(series: Sequence[Series]) -> str:
    varies = any(spread > 0 for line in series for spread in line.spread)
    return "weight ± deviation from step to step" if varies else "weight"


def _task_panels(
    drawing: Drawing,
    setting: Setting,
    read: Callable[[Curve], dict[str, list[float]]],
    factor: Callable[[TaskInfo], float],
    note: Callable[[TaskInfo], str],
    scale: Callable[[Sequence[Series]], AxisScale],
) -> list[Panel]:
    view, panels = drawing.view, []
    for task in view.tasks:
        epochs: list[int] = []
        series = []
        for method in view.methods:
            curve = view.curve(method, setting)
            values = read(curve).get(task.name) if curve else None
            if curve and values and any(map(math.isfinite, values)):
                keep = thin(len(curve.epochs), _point_limit(drawing))
                epochs = max(epochs, [curve.epochs[i] for i in keep], key=len)
                shown = [values[i] * factor(task) for i in keep]
                ink, index = drawing.method_inks[method], drawing.method_index[method]
                series.append(Series(view.short[method], ink, shown, method=index))
        if series:
            panels.append(_panel(task.label, note(task), epochs, series, scale(series)))
    return panels


def _panel(title: str, note: str, epochs: Sequence[int], series: list[Series], scale: AxisScale) -> Panel:
    padded = [replace(line, values=[*line.values, *[math.nan] * (len(epochs) - len(line.values))]) for line in series]
    said = "; ".join(f"{line.label} ends at {numbers.compact(line.values[-1])}" for line in series[:8])
    note += ", log scale" if scale.log else ""
    svg = curves(epochs, padded, scale, f"{title}, {note}, over {epochs[-1]} epochs. {said}")
    right = max(text_width(line.label) for line in series) + 28 if len(series) <= DIRECT else 12
    return Panel(title, note, svg, 44, round(right))


def _point_limit(drawing: Drawing) -> int:
    lines = 3 * sum(len(curve.losses) for curve in drawing.view.judgement.curves)
    return max(12, min(200, POINTS // max(1, lines)))


def _common_scale(methods: Sequence[Sequence[Series]]) -> AxisScale:
    """The scale of the methods whose weights stay within a few times the usual size."""
    sizes = [max(abs(value) for line in series for value in line.values if math.isfinite(value)) for series in methods]
    usual = [series for series, size in zip(methods, sizes, strict=True) if size <= 5 * median(sizes)]
    lines = [line for series in usual for line in series]
    if any(_moves(line.values) for line in lines):
        return scale_for(lines)
    return fit([0.0, *(2 * value for line in lines for value in line.values)], pad=0.0)  # constant: from zero


def _weight_scale(series: Sequence[Series], together: AxisScale) -> AxisScale:
    """The common scale, so that a method that hardly moves looks it, unless this one leaves that scale."""
    values = [value for line in series for value in (*line.values, *_tops(line)) if math.isfinite(value)]
    shown = [together(value) for value in values if value > 0 or not together.log]
    outside = len(shown) < len(values) or min(shown) < 0 or max(shown) > 1
    return scale_for(series) if outside else together


def _tops(line: Series) -> list[float]:
    return [value + spread for value, spread in zip(line.values, line.spread, strict=False)]


def _moves(values: Sequence[float]) -> bool:
    found = [value for value in values if math.isfinite(value)]
    return bool(found) and max(found) - min(found) > 1e-3 * max(map(abs, found))
