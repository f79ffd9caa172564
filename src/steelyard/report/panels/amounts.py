"""The figures over the amount of training labels: learning curves, as values and against single-task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from steelyard.report import numbers
from steelyard.report.charts.fractions import DIRECT, Track, learning_curves, stops
from steelyard.report.charts.labels import text_width
from steelyard.report.judgement_view import View
from steelyard.report.panels.drawing import Drawing, Panel, bounds, metric, of_mean, scaled
from steelyard.study.judgement import Cell, Interval, Setting, TaskInfo

AXIS = 220  # px for all labels of an axis side by side, on a phone


def value_panels(drawing: Drawing) -> list[Panel]:
    """Test values, a panel per task; none unless there are several settings."""
    return _panels(drawing, drawing.view.methods, of_mean, relative=False)


def difference_panels(drawing: Drawing) -> list[Panel]:
    """Differences from single-task, a panel per task, with the region of practical equivalence."""
    return _panels(drawing, drawing.view.compared, lambda cell: cell.difference, relative=True)


def letters(view: View) -> list[tuple[str, str]]:
    """Letters that stand for settings whose labels are too long to be side by side on an axis."""
    settings = _started(view)
    if _even(settings) or sum(text_width(setting.label) for setting in settings) <= AXIS:
        return []
    return [(chr(ord("A") + index % 26), setting.label) for index, setting in enumerate(settings)]


def _panels(
    drawing: Drawing, methods: Sequence[str], read: Callable[[Cell], Interval | None], relative: bool
) -> list[Panel]:
    view, panels = drawing.view, []
    settings = _started(view)
    if len(settings) < 2:
        return []
    names = [letter for letter, _ in letters(view)] or [setting.label for setting in settings]
    for task in view.tasks:
        # Where a setting gives tasks different amounts, it has no place on a common axis of amounts.
        amounts = [setting.fractions.get(task.name, math.nan) if _even(settings) else 0.0 for setting in settings]
        tracks = []
        for method in methods:
            cells = [view.cell(method, setting, task) for setting in settings]
            points = [scaled(read(cell), numbers.factor(task)) if cell else None for cell in cells]
            if any(points):
                titles = [
                    _title(view, method, task, setting, point, relative)
                    for setting, point in zip(settings, points, strict=True)
                ]
                ink, index = drawing.method_inks[method], drawing.method_index[method]
                tracks.append(Track(index, view.short[method], ink, points, titles))
        if not tracks:
            continue
        regions = [view.region(setting, task) * numbers.factor(task) for setting in settings]
        svg = learning_curves(
            stops(amounts, names),
            tracks,
            f"{task.label}: {metric(task)} by amount of training labels",
            regions if relative else None,
            reverse=relative and not task.higher_is_better,
        )
        note = f"{metric(task)}, minus single-task" if relative else metric(task)
        panels.append(Panel(task.label, note, svg, 44, drawing.room if len(tracks) <= DIRECT else 12))
    return panels


def _title(view: View, method: str, task: TaskInfo, setting: Setting, point: Interval | None, relative: bool) -> str:
    decimals = view.decimals(task)
    value = numbers.fixed(point.mean, decimals, signed=relative) if point else numbers.MISSING
    return f"{view.readable[method]}, {setting.label}: {value}{numbers.unit(task)}{bounds(point, decimals)}"


def _started(view: View) -> list[Setting]:
    return [setting for setting in view.settings if view.started(setting)]


def _even(settings: Sequence[Setting]) -> bool:
    return all(len(set(setting.fractions.values())) == 1 for setting in settings)
