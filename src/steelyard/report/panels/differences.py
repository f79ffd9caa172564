"""The figures of differences from single-task: the forest plots, and gain against cost."""

from __future__ import annotations

import math

from markupsafe import Markup

from steelyard.report import numbers
from steelyard.report.charts.cost import Point, cost_chart
from steelyard.report.charts.forest import NUMBER, Line, common_scale, forest
from steelyard.report.charts.scale import AxisScale, spans
from steelyard.report.panels.drawing import Drawing, Panel, bounds, metric, scaled
from steelyard.report.verdict_styles import style_of
from steelyard.study.judgement import Setting, TaskInfo

AT_ONCE = 12  # tasks that a page shows before one asks for the others
ROOMY = 4  # up to so many tasks, the panels are wide enough to write the numbers beside the intervals


def interval_panels(drawing: Drawing, setting: Setting) -> list[Panel]:
    """A panel for Δm and one per task; tasks of the same metric and size share a scale.

    Where a page does not show all at once, those with the largest effects come first, the hurt before the others.
    """
    view = drawing.view
    groups: dict[object, list[TaskInfo]] = {}
    for task in view.tasks:
        groups.setdefault((task.metric, task.percent, task.higher_is_better), []).append(task)
    panels: dict[str, Panel] = {}
    for tasks in groups.values():
        rows = {task.name: [_line(drawing, method, setting, task) for method in view.compared] for task in tasks}
        regions = {task.name: view.region(setting, task) * numbers.factor(task) for task in tasks}
        alike = spans([view.baseline(setting, task) for task in tasks]) <= 5
        for task in tasks:
            kin = tasks if alike else [task]
            scale = common_scale(
                [line for other in kin for line in rows[other.name]],
                max((regions[other.name] for other in kin if math.isfinite(regions[other.name])), default=math.nan),
                reverse=not task.higher_is_better,
            )
            panels[task.name] = _panel(drawing, setting, task, rows[task.name], scale, regions[task.name])
    order = view.by_effect(setting) if len(view.tasks) > AT_ONCE else view.tasks
    return [*_delta_panel(drawing, setting), *(panels[task.name] for task in order)]


def cost_panel(drawing: Drawing, setting: Setting) -> Markup | None:
    """Δm against training time; None where no method has both."""
    view, points = drawing.view, []
    for method in view.compared:
        row = view.row(method, setting)
        gain = scaled(row.delta_m, 100) if row else None
        if row and gain and math.isfinite(gain.mean) and row.relative_cost > 0:
            text = numbers.plus_minus(gain, view.delta_decimals)
            title = f"{view.readable[method]}: Δm {text} % at {numbers.fixed(row.relative_cost, 2)} × the training time"
            ink, index = drawing.method_inks[method], drawing.method_index[method]
            points.append(Point(index, view.short[method], ink, row.relative_cost, gain, title))
    said = "; ".join(point.title for point in points)
    return cost_chart(points, f"Gain against cost. {said}") if points else None


def _panel(
    drawing: Drawing, setting: Setting, task: TaskInfo, lines: list[Line], scale: AxisScale, region: float
) -> Panel:
    view = drawing.view
    baseline = numbers.fixed(view.baseline(setting, task) * numbers.factor(task), view.decimals(task))
    said = "; ".join(line.title for line in lines)
    svg = forest(lines, scale, region, f"{task.label}: difference from single-task. {said}")
    note = f"{metric(task)}, single-task {baseline}{numbers.unit(task)}"
    return Panel(task.label, note, svg, drawing.room, _number_room(drawing))


def _delta_panel(drawing: Drawing, setting: Setting) -> list[Panel]:
    view, lines = drawing.view, []
    for method in view.compared:
        row = view.row(method, setting)
        delta = scaled(row.delta_m, 100) if row else None
        text = numbers.plus_minus(delta, view.delta_decimals)
        title = f"{view.readable[method]}: Δm {text} %{bounds(delta, view.delta_decimals)}"
        number = text if len(view.tasks) <= ROOMY and delta else ""
        lines.append(Line(drawing.method_index[method], view.short[method], delta, "sum", number, title))
    if not any(line.interval for line in lines):
        return []
    scale = common_scale(lines, math.nan, reverse=False)
    said = "; ".join(line.title for line in lines)
    svg = forest(lines, scale, math.nan, f"All tasks together. {said}")
    return [Panel("All tasks", "Δm: mean relative gain, %", svg, drawing.room, _number_room(drawing))]


def _line(drawing: Drawing, method: str, setting: Setting, task: TaskInfo) -> Line:
    view = drawing.view
    cell = view.cell(method, setting, task)
    difference = scaled(cell.difference, numbers.factor(task)) if cell else None
    text = numbers.plus_minus(difference, view.decimals(task))
    verdict = cell.verdict if cell else None
    word = f", {verdict}" if verdict else ", no result" if cell is None else ""
    title = f"{view.readable[method]}: {text}{bounds(difference, view.decimals(task))}{word}"
    number = text if len(view.tasks) <= ROOMY and difference else ""
    return Line(drawing.method_index[method], view.short[method], difference, style_of(verdict).css, number, title)


def _number_room(drawing: Drawing) -> int:
    return NUMBER if len(drawing.view.tasks) <= ROOMY else 12
