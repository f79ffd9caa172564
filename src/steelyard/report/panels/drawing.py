"""What all charts of one page share: inks, room for labels, numbers in display units."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from steelyard.report import numbers, palette
from steelyard.report.charts.labels import text_width
from steelyard.report.judgement_view import BASELINE, View
from steelyard.study.analysis.statistics import around
from steelyard.study.judgement import Cell, Interval, TaskInfo


@dataclass(frozen=True)
class Panel:
    """One small multiple: a heading, what it shows, the drawing, room for labels at both sides in px."""

    title: str
    note: str
    svg: Markup
    left: int = 44
    right: int = 12


class Drawing:
    """A study with the looks of its methods and tasks."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.method_inks = palette.inks(view.methods, BASELINE)
        self.task_inks = palette.inks([task.name for task in view.tasks])
        self.method_index = {method: index for index, method in enumerate(view.methods)}
        self.room = round(max([text_width(view.short[method]) for method in view.methods] + [30])) + 16


def metric(task: TaskInfo) -> str:
    """ "accuracy, % ↑": the arrow points to where better is."""
    return f"{task.metric}{', %' if task.percent else ''} {'↑' if task.higher_is_better else '↓'}"


def scaled(interval: Interval | None, factor: float) -> Interval | None:
    return interval and Interval(interval.mean * factor, interval.low * factor, interval.high * factor)


def of_mean(cell: Cell) -> Interval:
    """Student-t interval of a method's own mean over seeds; unbounded with one seed."""
    return around(cell.mean, cell.sd, len(cell.values))


def bounds(interval: Interval | None, decimals: int) -> str:
    """ " (0.9 to 1.7)", or nothing where there is no interval."""
    if interval is None or not math.isfinite(interval.high):
        return ""
    return f" ({numbers.brackets(interval, decimals)})"
