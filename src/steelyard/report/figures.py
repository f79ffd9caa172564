"""From a judgement to the charts of the page: which numbers go where, in display units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup
from scipy import stats

from steelyard.report import numbers, palette
from steelyard.report.charts.cost import Point, cost_chart
from steelyard.report.charts.curves import Series, curves, late_scale, scale_for, thin
from steelyard.report.charts.forest import NUMBER, Line, common_scale, forest
from steelyard.report.charts.fractions import Track, learning_curves, stops
from steelyard.report.charts.place import text_width
from steelyard.report.charts.scale import Scale, fit, spans
from steelyard.report.names import elide
from steelyard.report.verdicts import look
from steelyard.report.view import BASELINE, View
from steelyard.study.judgement import Cell, Curve, Interval, Setting, TaskInfo

ROOMY = 4  # up to so many tasks, the forest plots are wide enough to write the numbers beside them
POINTS = 60_000  # curve points on one page; above that, curves are thinned


@dataclass(frozen=True)
class Panel:
    """One small multiple: a heading, what it shows, the drawing, room for labels at both sides in px."""

    title: str
    note: str
    svg: Markup
    left: int = 44
    right: int = 12


class Figures:
    """All charts of one study."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.method_inks = palette.inks(view.methods, BASELINE)
        self.task_inks = palette.inks([task.name for task in view.tasks])
        self.method_index = {method: index for index, method in enumerate(view.methods)}
        lines = 3 * sum(len(curve.losses) for curve in view.judgement.curves)
        self.point_limit = max(12, min(200, POINTS // max(1, lines)))
        self.number_room = NUMBER if len(view.tasks) <= ROOMY else 12
        self.room = round(max([text_width(view.short[method]) for method in view.methods] + [30])) + 16

    # --- differences from single-task -------------------------------------------------------------------

    def intervals(self, setting: Setting) -> list[Panel]:
        """One forest plot for Δm and one per task; tasks with the same metric share a scale."""
        view = self.view
        groups: dict[object, list[TaskInfo]] = {}
        for task in view.tasks:
            groups.setdefault((task.metric, task.percent, task.higher_is_better), []).append(task)
        found: dict[str, Panel] = {}
        for tasks in groups.values():
            rows = {task.name: [self._line(method, setting, task) for method in view.compared] for task in tasks}
            regions = [view.region(setting, task) * numbers.factor(task) for task in tasks]
            known = [region for region in regions if math.isfinite(region)]
            lines = [line for task in tasks for line in rows[task.name]]
            shared = common_scale(lines, max(known, default=math.nan), not tasks[0].higher_is_better)
            if spans([view.baseline(setting, task) for task in tasks]) > 5:
                shared = None  # type: ignore[assignment]  # one unit, but values of very different size
            for task, region in zip(tasks, regions, strict=True):
                scale = shared or common_scale(rows[task.name], region, not task.higher_is_better)
                found[task.name] = self._forest_panel(setting, task, rows[task.name], scale, region)
        return [*self._delta_panel(setting), *(found[task.name] for task in view.tasks)]

    def _forest_panel(self, setting: Setting, task: TaskInfo, lines: list[Line], scale: Scale, region: float) -> Panel:
        factor, decimals = numbers.factor(task), self.view.decimals(task)
        baseline = numbers.fixed(self.view.baseline(setting, task) * factor, decimals)
        said = "; ".join(line.title for line in lines)
        svg = forest(lines, scale, region, f"{task.label}: difference from single-task. {said}")
        note = f"{metric(task)}, single-task {baseline}{numbers.unit(task)}"
        return Panel(task.label, note, svg, self.room, self.number_room)

    def _delta_panel(self, setting: Setting) -> list[Panel]:
        lines = []
        for method in self.view.compared:
            row = self.view.row(method, setting)
            delta = scaled(row.delta_m, 100) if row else None
            text = numbers.plus_minus(delta, self.view.delta_decimals)
            title = f"{method}: Δm {text} %{_range(delta, self.view.delta_decimals)}"
            number = text if self.number_room == NUMBER else ""
            lines.append(Line(self.method_index[method], self.view.short[method], delta, "sum", number, title))
        if not any(line.interval for line in lines):
            return []
        scale = common_scale(lines, math.nan, reverse=False)
        said = "; ".join(line.title for line in lines)
        svg = forest(lines, scale, math.nan, f"All tasks together. {said}")
        return [Panel("All tasks", "Δm: mean relative gain, %", svg, self.room, self.number_room)]

    def _line(self, method: str, setting: Setting, task: TaskInfo) -> Line:
        cell = self.view.cell(method, setting, task)
        decimals = self.view.decimals(task)
        difference = scaled(cell.difference, numbers.factor(task)) if cell else None
        text = numbers.plus_minus(difference, decimals)
        verdict = cell.verdict if cell else None
        word = f", {verdict}" if verdict else ", no result" if cell is None else ""
        return Line(
            self.method_index[method], self.view.short[method], difference, look(verdict).css,
            text if self.number_room == NUMBER and difference else "",
            f"{method}: {text}{_range(difference, decimals)}{word}",
        )  # fmt: skip

    # --- over the epochs ---------------------------------------------------------------------------------

    def losses(self, setting: Setting) -> list[Panel]:
        return self._per_task(
            setting, lambda curve: curve.losses, lambda task: 1.0, lambda task: "training loss", scale_for
        )

    def validation(self, setting: Setting) -> list[Panel]:
        return self._per_task(setting, lambda curve: curve.validation, numbers.factor, metric, late_scale)

    def _per_task(
        self,
        setting: Setting,
        read: Callable[[Curve], dict[str, list[float]]],
        factor: Callable[[TaskInfo], float],
        note: Callable[[TaskInfo], str],
        scale: Callable[[Sequence[Series]], Scale],
    ) -> list[Panel]:
        panels = []
        for task in self.view.tasks:
            epochs: list[int] = []
            series = []
            for method in self.view.methods:
                curve = self.view.curve(method, setting)
                values = read(curve).get(task.name) if curve else None
                if curve and values and any(map(math.isfinite, values)):
                    keep = thin(len(curve.epochs), self.point_limit)
                    epochs = max(epochs, [curve.epochs[index] for index in keep], key=len)
                    shown = [values[index] * factor(task) for index in keep]
                    series.append(Series(self.view.short[method], self.method_inks[method], shown,
                                         method=self.method_index[method]))  # fmt: skip
            if series:
                panels.append(self._curve_panel(task.label, note(task), epochs, series, scale(series)))
        return panels

    def weights(self, setting: Setting) -> list[Panel]:
        """One panel per method; one scale for all where their ranges are alike."""
        drawn = []
        for method in self.view.compared:
            curve = self.view.curve(method, setting)
            if curve is None or not any(any(map(math.isfinite, values)) for values in curve.weights.values()):
                continue
            keep = thin(len(curve.epochs), self.point_limit)
            series = [
                Series(elide(task.label, 14), self.task_inks[task.name], [values[index] for index in keep], task=index_)
                for index_, task in enumerate(self.view.tasks)
                if (values := curve.weights.get(task.name))
            ]
            drawn.append((method, [curve.epochs[index] for index in keep], series))
        everything = [line for _, _, series in drawn for line in series]
        if not everything:
            return []
        together = scale_for(everything)
        if not any(_moves(line.values) for line in everything):  # constant weights, drawn from zero
            together = fit([0.0, *(2 * value for line in everything for value in line.values)], pad=0.0)
        return [
            self._curve_panel(self.view.short[method], "weight", epochs, series, _weight_scale(series, together))
            for method, epochs, series in drawn
        ]

    def _curve_panel(self, title: str, note: str, epochs: Sequence[int], series: list[Series], scale: Scale) -> Panel:
        longest = max(len(line.values) for line in series)
        padded = [replace(line, values=[*line.values, *[math.nan] * (longest - len(line.values))]) for line in series]
        said = "; ".join(f"{line.label} ends at {numbers.compact(line.values[-1])}" for line in series[:8])
        note += ", log scale" if scale.log else ""
        svg = curves(epochs, padded, scale, f"{title}, {note}, over {epochs[-1]} epochs. {said}")
        right = max(text_width(line.label) for line in series) + 16 if len(series) <= 7 else 12
        return Panel(title, note, svg, 44, round(right))

    # --- over the amount of training labels ----------------------------------------------------------------

    def values_by_amount(self) -> list[Panel]:
        """Test values, one panel per task; none unless there are several settings."""
        return self._by_amount(self.view.methods, of_mean, False)

    def differences_by_amount(self) -> list[Panel]:
        """Differences from single-task, one panel per task, with the region of practical equivalence."""
        return self._by_amount(self.view.compared, lambda cell: cell.difference, True)

    def _by_amount(
        self, methods: Sequence[str], read: Callable[[Cell], Interval | None], relative: bool
    ) -> list[Panel]:
        view = self.view
        settings = [setting for setting in view.settings if view.started(setting)]
        if len(settings) < 2:
            return []
        even = all(len(set(setting.fractions.values())) == 1 for setting in settings)
        panels = []
        for task in view.tasks:
            amounts = [setting.fractions.get(task.name, math.nan) if even else 0.0 for setting in settings]
            places = stops(amounts, [setting.label for setting in settings])
            tracks = []
            for method in methods:
                cells = [view.cell(method, setting, task) for setting in settings]
                points = [scaled(read(cell), numbers.factor(task)) if cell else None for cell in cells]
                if any(points):
                    titles = [
                        self._title(method, task, setting, point, relative)
                        for setting, point in zip(settings, points, strict=True)
                    ]
                    ink, index = self.method_inks[method], self.method_index[method]
                    tracks.append(Track(index, view.short[method], ink, points, titles))
            if not tracks:
                continue
            regions = [view.region(setting, task) * numbers.factor(task) for setting in settings]
            reverse = relative and not task.higher_is_better
            said = f"{task.label}: {metric(task)} by amount of training labels"
            svg = learning_curves(places, tracks, said, regions if relative else None, reverse)
            note = f"{metric(task)}, minus single-task" if relative else metric(task)
            panels.append(Panel(task.label, note, svg, 44, self.room if len(tracks) <= 7 else 12))
        return panels

    def _title(self, method: str, task: TaskInfo, setting: Setting, point: Interval | None, relative: bool) -> str:
        decimals = self.view.decimals(task)
        value = numbers.fixed(point.mean, decimals, signed=relative) if point else numbers.MISSING
        return f"{method}, {setting.label}: {value}{numbers.unit(task)}{_range(point, decimals)}"

    # --- gain against cost ---------------------------------------------------------------------------------

    def cost(self, setting: Setting) -> Markup | None:
        points = []
        for method in self.view.compared:
            row = self.view.row(method, setting)
            if row and row.delta_m and math.isfinite(row.delta_m.mean) and row.relative_cost > 0:
                gain = scaled(row.delta_m, 100)
                assert gain is not None
                text = numbers.plus_minus(gain, self.view.delta_decimals)
                title = f"{method}: Δm {text} % at {numbers.fixed(row.relative_cost, 2)} × the training time"
                points.append(Point(self.method_index[method], self.view.short[method],
                                    self.method_inks[method], row.relative_cost, gain, title))  # fmt: skip
        said = "; ".join(point.title for point in points)
        return cost_chart(points, f"Gain against cost. {said}") if points else None


def metric(task: TaskInfo) -> str:
    """ "accuracy, %, higher is better"."""
    return f"{task.metric}{', %' if task.percent else ''} {'↑' if task.higher_is_better else '↓'}"


def scaled(interval: Interval | None, factor: float) -> Interval | None:
    return interval and Interval(interval.mean * factor, interval.low * factor, interval.high * factor)


def of_mean(cell: Cell) -> Interval:
    """Student-t interval of a method's own mean over seeds."""
    count = len(cell.values)
    if count < 2 or not math.isfinite(cell.sd):
        return Interval(cell.mean, -math.inf, math.inf)
    half = float(stats.t.ppf(0.975, count - 1)) * cell.sd / math.sqrt(count)
    return Interval(cell.mean, cell.mean - half, cell.mean + half)


def _range(interval: Interval | None, decimals: int) -> str:
    if interval is None or not math.isfinite(interval.high):
        return ""
    return f" ({numbers.brackets(interval, decimals)})"


def _weight_scale(series: Sequence[Series], together: Scale) -> Scale:
    """The common scale, so that methods compare, unless this method moves and would look flat on it."""
    values = [value for line in series for value in line.values if math.isfinite(value)]
    shown = [together(value) for value in values if value > 0 or not together.log]
    flat = bool(shown) and max(shown) - min(shown) < 0.06
    return scale_for(series) if flat and any(_moves(line.values) for line in series) else together


def _moves(values: Sequence[float]) -> bool:
    found = [value for value in values if math.isfinite(value)]
    return bool(found) and max(found) - min(found) > 1e-3 * max(map(abs, found))
