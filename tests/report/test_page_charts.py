"""Every mark of every chart of the page says what the judgement says, read by the ticks of its own axes."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from report import judgements
from report.reading import (  # fmt: skip
    Amounts,
    Axis,
    Cost,
    Element,
    Panel,
    amounts,
    by_setting,
    cost,
    curves,
    forest,
    number,
    panels,
    parse,
    says,
    says_interval,
)
from report.test_page_tables import READ, WORDS, factor, opened, own_half, started
from steelyard.report.charts.labels import text_width
from steelyard.report.judgement_view import View
from steelyard.report.panels.drawing import Drawing
from steelyard.report.panels.histories import validation_panels
from steelyard.report.study_page import page
from steelyard.study.judgement import Cell, Curve, Interval, Judgement, Setting, TaskInfo

NEAR = 0.06  # of positions in px or per cent: they are written with two digits, ticks as well
CHARTED = [name for name in READ if name not in ("nothing",)]


def scaled(interval: Interval, times: float) -> Interval:
    return Interval(*(times * value for value in (interval.mean, interval.low, interval.high)))


def near(position: float, expected: float) -> bool:
    return abs(position - expected) <= NEAR


def inks(root: Element, kind: str) -> dict[int, tuple[str, str | None]]:
    """Colour and dash of each method or task in the legend of the page."""
    chips = root.all("button", class_="chip", data_light=kind)
    paths = {int(chip["data-value"]): chip.one("path") for chip in chips}
    found = {index: (path.classes[1], path.get("stroke-dasharray")) for index, path in paths.items()}
    for chip in chips:
        dashed = found[int(chip["data-value"])] == ("ref", "5 3")
        assert dashed == (chip["title"] == "single-task"), "the dashed line is single-task"
    return found


def cells_of(judgement: Judgement, setting: int) -> dict[tuple[str, str], Cell]:
    return {(cell.method, cell.task): cell for cell in judgement.cells if cell.setting == setting}


def note_of(task: TaskInfo) -> str:
    return f"{task.metric}{', %' * task.percent} {'↑' if task.higher_is_better else '↓'}"


# --- intervals ---


@pytest.mark.parametrize("name", CHARTED)
def test_the_forest_plots(name: str) -> None:
    judgement, root = opened(name)
    sections = root.all("section", id="intervals")
    assert len(sections) == any(cell.difference for cell in judgement.cells)
    for section in sections:
        parts = by_setting(section)
        assert sorted(parts) == started(judgement)
        for setting, part in parts.items():
            found = panels(part)
            rows = {row.method: row for row in judgement.rows if row.setting == setting}
            methods = [method for method in judgement.methods if method != "single-task"]
            delta = [rows[method].delta_m for method in methods]
            assert [panel.title for panel in found] == ["All tasks"] * any(delta) + [t.label for t in judgement.tasks]
            if any(delta):
                check_delta_panel(found.pop(0), methods, delta, judgement)
            for task, panel in zip(judgement.tasks, found, strict=True):
                check_task_panel(panel, methods, cells_of(judgement, setting), task, judgement)


def check_delta_panel(panel: Panel, methods: list[str], delta: list[Interval | None], judgement: Judgement) -> None:
    assert panel.note == "Δm: mean relative gain, %"
    plot = forest(panel.chart)
    assert plot.region is None
    assert plot.across.slope > 0
    for method, found, row in zip(methods, delta, plot.rows, strict=True):
        interval = found and scaled(found, 100)
        assert (row.method, row.css) == (judgement.methods.index(method), "sum")
        check_row(row, interval, plot.across, "sum", judgement)
        check_title(row.title, f"{method}: Δm ", interval, " %", "")


def check_task_panel(
    panel: Panel, methods: list[str], cells: dict[tuple[str, str], Cell], task: TaskInfo, judgement: Judgement
) -> None:
    alone = cells.get(("single-task", task.name))
    baseline = alone.mean * factor(task) if alone else math.nan
    head, _, shown = panel.note.rpartition(", single-task ")
    assert head == note_of(task)
    assert says(shown.removesuffix(" %"), baseline)
    assert shown.endswith(" %") == task.percent
    plot = forest(panel.chart)
    assert (plot.across.slope > 0) == task.higher_is_better, "to the right is better"
    region = task.equivalence * abs(baseline)
    if math.isnan(region):
        assert plot.region is None
    else:
        assert plot.region is not None
        edges = sorted(min(max(plot.across.place(side * region), 0), 100) for side in (1, -1))
        assert near(plot.region[0], edges[0])
        assert near(plot.region[1], edges[1])
    for method, row in zip(methods, plot.rows, strict=True):
        cell = cells.get((method, task.name))
        interval = scaled(cell.difference, factor(task)) if cell and cell.difference else None
        verdict = cell.verdict if cell else None
        css = WORDS[verdict] if verdict else "none"
        assert (row.method, row.css) == (judgement.methods.index(method), css)
        check_row(row, interval, plot.across, css, judgement)
        check_title(
            row.title, f"{method}: ", interval, "", f", {verdict}" if verdict else "" if cell else ", no result"
        )


def check_row(row, interval: Interval | None, across: Axis, shape: str, judgement: Judgement) -> None:
    assert judgement.methods[row.method].startswith(re.split(r"[(…#]", row.label)[0].strip())
    assert row.no_result == (interval is None)
    told = len(judgement.tasks) <= 4 and interval is not None
    assert bool(row.number) == told
    if interval is None or math.isnan(interval.mean):
        assert (row.mark, row.whisker, row.arrows) == (None, None, {})
        assert row.number in ("", "–")
        return
    assert not told or says_interval(row.number, interval.mean, interval.low, interval.high)
    middle = across.place(interval.mean)
    if -NEAR < middle < 100 + NEAR:
        assert row.mark is not None
        assert row.mark[0] == shape
        assert near(row.mark[1], middle)
    else:
        assert row.mark is None
    if math.isinf(interval.high):
        assert (row.whisker, row.arrows) == (None, {})
        return
    ends = [across.place(end) for end in (interval.low, interval.high)]
    arrows = {side: at for side, at, gone in (("left", 0.0, min(ends) < 0), ("right", 100.0, max(ends) > 100)) if gone}
    assert row.arrows == arrows
    drawn = [min(max(end, 0.0), 100.0) for end in ends]
    if drawn[0] == drawn[1]:
        assert row.whisker is None
    else:
        assert row.whisker is not None
        assert near(row.whisker[0], drawn[0])
        assert near(row.whisker[1], drawn[1])


def check_title(title: str, head: str, interval: Interval | None, unit: str, tail: str) -> None:
    """ "equal: −2.1 ±0.4 (−2.5 to −1.7), negative transfer"."""
    assert title.startswith(head)
    assert title.endswith(tail)
    said = title.removeprefix(head).removesuffix(tail)
    number, _, bounds = said.partition(" (")
    number = number.removesuffix(unit)
    if interval is None or math.isnan(interval.mean):
        assert (number, bounds) == ("–", "")
        return
    assert says_interval(number, interval.mean, interval.low, interval.high)
    if math.isfinite(interval.high):
        low, high = re.fullmatch(r"(\S+) to (\S+)\)", bounds).groups()
        assert says(low, interval.low)
        assert says(high, interval.high)
    else:
        assert bounds == ""


@pytest.mark.parametrize("name", ["seven", "digits", "twelve"])
def test_tasks_of_one_metric_and_size_share_an_axis(name: str) -> None:
    """So that their panels can be compared by eye; others have their own."""
    judgement, root = opened(name)
    for setting, part in by_setting(root.one("section", id="intervals")).items():
        cells = cells_of(judgement, setting)
        size = [abs(cells["single-task", task.name].mean) for task in judgement.tasks]
        found = panels(part)[1:]
        axes = {(plot.across.origin, plot.across.slope) for plot in (forest(panel.chart) for panel in found)}
        assert len(axes) == 1 if max(size) <= 5 * min(size) else len(axes) == len(found)


# --- gain against cost ---


@pytest.mark.parametrize("name", CHARTED)
def test_gain_against_cost(name: str) -> None:
    judgement, root = opened(name)
    sections = root.all("section", id="cost")
    drawn = {
        setting: [row for row in judgement.rows if row.setting == setting and row.delta_m
                  and math.isfinite(row.delta_m.mean) and row.relative_cost > 0]
        for setting in started(judgement)
    }  # fmt: skip
    drawn = {setting: rows for setting, rows in drawn.items() if rows}
    assert len(sections) == bool(drawn)
    for section in sections:
        parts = by_setting(section)
        assert list(parts) == list(drawn)
        assert [part.text for part in section.all("figcaption")] == ["training time, single-task\u00a0=\u00a01"] * len(
            parts
        )
        for setting, part in parts.items():
            (chart,) = part.all("svg", class_="plot")
            check_scatter(chart, drawn[setting], judgement, root)


def check_scatter(chart: Element, rows: list, judgement: Judgement, root: Element) -> None:
    plot, legend = cost(chart), inks(root, "m")
    assert near(plot.single[0], plot.across.place(1.0)), "single-task is at 1 and 0"
    assert near(plot.single[1], plot.up.place(0.0))
    assert plot.across.slope > 0 > plot.up.slope
    assert [judgement.methods[dot.method] for dot in plot.dots] == [row.method for row in rows]
    for row, dot in zip(rows, plot.dots, strict=True):
        gain = scaled(row.delta_m, 100)
        assert near(dot.x, plot.across.place(row.relative_cost))
        assert dot.ink == (legend[dot.method][0], legend[dot.method][1] is not None)
        y = plot.up.place(gain.mean)
        assert near(dot.y, y) if dot.y is not None else not 0 < y < plot.height
        bounded = math.isfinite(gain.high)
        ends = [plot.up.place(end) for end in ((gain.low, gain.high) if bounded else (gain.mean, gain.mean))]
        arrows = {}
        if ends[0] >= plot.height - NEAR:
            arrows["down"] = plot.height
        if ends[1] <= NEAR:
            arrows["up"] = 0.0
        assert dot.arrows == arrows
        clipped = [min(max(end, 0.0), plot.height) for end in ends]
        if clipped[0] == clipped[1]:
            assert dot.whisker is None
        else:
            assert near(dot.whisker[0], clipped[0])
            assert near(dot.whisker[1], clipped[1])
        said = re.fullmatch(r"(.*): Δm (.*) % at (\S+) × the training time", dot.title)
        assert said[1] == row.method
        assert says_interval(said[2], gain.mean, gain.low, gain.high)
        assert says(said[3], row.relative_cost)
        assert dot.title in chart["aria-label"]
        if dot.method in plot.labels:  # beside its dot, or at an end of its bar
            label, x, height = plot.labels[dot.method]
            assert row.method.startswith(re.split(r"[(…#]", label)[0].strip())
            assert (x, height) == (dot.x, pytest.approx(min(max(y, 0), plot.height), abs=NEAR))
    assert plot.labels, "not one label"
    for width in (290, 700):  # a phone's and a desk's plot
        check_labels(plot, width)


def check_labels(plot: Cost, width: float) -> None:
    """No label leaves the plot or covers another one, a dot, a bar or what stands beside single-task."""
    x, y = plot.single[0] / 100 * width, plot.single[1]
    half = text_width("single-task") / 2
    taken = [(x - 6, y - 6, x + 6, y + 6), (x - half, y - 22, x + half, y - 5)]
    for dot in plot.dots:
        x = dot.x / 100 * width
        if dot.y is not None:
            taken.append((x - 6, dot.y - 6, x + 6, dot.y + 6))
        if dot.whisker:
            taken.append((x - 1, dot.whisker[1], x + 1, dot.whisker[0]))
    for method, (dx, dy, anchor, text) in plot.boxes.items():
        _, share_, height = plot.labels[method]
        wide, x, y = text_width(text), share_ / 100 * width + dx, height + dy
        left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
        box = (left, y - 7, left + wide, y + 7)
        assert box[0] >= -8.1
        assert box[2] <= width + 12.1
        assert box[1] >= -0.1
        assert box[3] <= plot.height + 0.1
        for other in taken:
            across = min(box[2], other[2]) - max(box[0], other[0])
            down = min(box[3], other[3]) - max(box[1], other[1])
            assert across < 0.2 or down < 0.2, f"{text} covers something"
        taken.append(box)


# --- learning curves ---


@pytest.mark.parametrize("name", CHARTED)
def test_learning_curves(name: str) -> None:
    judgement, root = opened(name)
    settings = [setting for setting in judgement.settings if setting.index in started(judgement)]
    sections = root.all("section", id="fractions")
    assert len(sections) == (len(settings) > 1)
    for section in sections:
        kinds = {part["data-amount"]: part for part in section.all("div") if "data-amount" in part.attributes}
        assert set(kinds) == {"value", "difference"}
        for kind, part in kinds.items():
            found = panels(part)
            assert [panel.title for panel in found] == [task.label for task in judgement.tasks]
            for task, panel in zip(judgement.tasks, found, strict=True):
                assert panel.note == note_of(task) + (", minus single-task" if kind == "difference" else "")
                check_amounts(amounts(panel.chart), task, settings, kind == "difference", judgement, root, section)


def check_amounts(
    plot: Amounts, task: TaskInfo, settings: list[Setting], relative: bool, judgement: Judgement, root: Element,
    section: Element,
) -> None:  # fmt: skip
    cells = {setting.index: cells_of(judgement, setting.index) for setting in settings}

    def interval(method: str, setting: int) -> Interval | None:
        cell = cells[setting].get((method, task.name))
        if cell is None or relative:
            return cell.difference if cell else None
        half = own_half(cell)
        return Interval(cell.mean, cell.mean - half, cell.mean + half)

    methods = [m for m in judgement.methods if any(interval(m, setting.index) for setting in settings)]
    assert [judgement.methods[method] for method in plot.tracks] == methods, "every method has its line"
    assert ("single-task" in methods) != relative
    assert list(plot.lines) == list(plot.tracks)
    assert (plot.up.slope < 0) == (task.higher_is_better or not relative), "up is better for differences"
    order = check_stops(plot, settings, task, section)
    places = sorted(plot.stops)
    for index in plot.tracks:
        method = judgement.methods[index]
        wanted = [(place, found) for place, setting in zip(places, order, strict=True)
                  if (found := interval(method, setting.index)) and math.isfinite(found.mean)]  # fmt: skip
        here = [s for s in order if (found := interval(method, s.index)) and math.isfinite(found.mean)]
        assert plot.inks[index] == inks(root, "m")[index]
        assert len(plot.tracks[index]) == len(plot.lines[index]) == len(wanted)
        asides = []
        for (x, y, whisker, title), (line_x, line_y), (place, found), setting in zip(
            plot.tracks[index], plot.lines[index], wanted, here, strict=True
        ):
            asides.append(round(x - place, 1))
            assert near(line_x, x)
            assert near(line_y, y)
            shown = scaled(found, factor(task))
            assert near(y, plot.up.place(shown.mean))
            assert (whisker is not None) == math.isfinite(shown.low)
            if whisker:
                assert near(whisker[0], plot.up.place(shown.low))
                assert near(whisker[1], plot.up.place(shown.high))
            check_stop_title(title, f"{method}, {setting.label}: ", shown, task, relative)
        assert len(set(asides)) <= 1, "beside its stop, always alike"
        assert all(abs(aside) <= 3.6 for aside in asides)
        if len(methods) <= 7 and wanted and wanted[-1][0] == places[-1]:
            assert method.startswith(re.split(r"[(…#]", plot.ends[index])[0].strip())
    check_region(plot, task, order, places, cells) if relative else None
    assert relative or plot.region == []


def check_stops(plot: Amounts, settings: list[Setting], task: TaskInfo, section: Element) -> list[Setting]:
    """The settings in the order of the axis. Where each gives all tasks one amount of its own, it is logarithmic."""
    even = all(len(set(setting.fractions.values())) == 1 for setting in settings)
    order = sorted(settings, key=lambda setting: setting.fractions[task.name]) if even else settings
    places = sorted(plot.stops)
    assert len(places) == len(order)
    spans = [math.log(s.fractions[task.name]) if even else float(i) for i, s in enumerate(order)]
    for place, span in zip(places, spans, strict=True):
        assert near(place, 5 + 90 * (span - spans[0]) / (spans[-1] - spans[0]))
    keys = dict(entry.text.split(" ", 1) for entry in section.all("span") if entry.all("b"))
    for place, text in plot.labels.items():
        setting = order[places.index(place)]
        if even:
            assert float(text.removesuffix(" %")) == pytest.approx(100 * setting.fractions[task.name])
        else:
            assert keys.get(text, text) == setting.label
    assert {places[0], places[-1]} <= set(plot.labels), "both ends are labelled"
    return order


def check_stop_title(title: str, head: str, shown: Interval, task: TaskInfo, relative: bool) -> None:
    assert title.startswith(head)
    text, _, bounds = title.removeprefix(head).partition(" (")
    assert text.endswith(" %") == task.percent
    assert says(text.removesuffix(" %"), shown.mean, signed=relative)
    if math.isfinite(shown.high):
        low, high = re.fullmatch(r"(\S+) to (\S+)\)", bounds).groups()
        assert says(low, shown.low)
        assert says(high, shown.high)
    else:
        assert bounds == ""


def check_region(plot: Amounts, task: TaskInfo, order: list[Setting], places: list[float], cells: dict) -> None:
    """Up along the better edge, back along the worse one."""
    corners = []
    for side in (1, -1):
        found = []
        for place, setting in zip(places, order, strict=True):
            region = task.equivalence * abs(cells[setting.index]["single-task", task.name].mean) * factor(task)
            found.append((place, plot.up.place(side * region)))
        corners += found[::side]
    assert len(corners) == len(plot.region)
    for (x, y), (found_x, found_y) in zip(corners, plot.region, strict=True):
        assert abs(found_x - x) < 0.06
        assert abs(found_y - y) < 0.1


# --- over the epochs ---


@pytest.mark.parametrize("kind", ["validation", "loss"])
@pytest.mark.parametrize("name", CHARTED)
def test_curves_over_the_epochs(name: str, kind: str) -> None:
    judgement, root = opened(name)
    for setting, part in by_setting(root.one("section", id="curves")).items():
        known = {curve.method: curve for curve in judgement.curves if curve.setting == setting}
        found = panels(part.one("div", data_curve=kind))
        drawn = []
        for task in judgement.tasks:
            times = factor(task) if kind == "validation" else 1.0
            lines = {}
            for index, method in enumerate(judgement.methods):
                values = curve_of(known.get(method), task, kind)
                if any(map(math.isfinite, values)):
                    lines[index] = [value * times for value in values]
            if lines:
                drawn.append((task, lines))
        assert [panel.title for panel in found] == [task.label for task, _ in drawn]
        for panel, (task, lines) in zip(found, drawn, strict=True):
            plot = curves(panel.chart, "data-m")
            log = ", log scale" if plot.up.log else ""
            assert panel.note == (note_of(task) if kind == "validation" else "training loss") + log
            names = {index: method for index, method in enumerate(judgement.methods) if index in lines}
            check_lines(plot, lines, {}, names, inks(root, "m"), judgement)


def curve_of(curve: Curve | None, task: TaskInfo, kind: str) -> list[float]:
    if curve is None:
        return []
    return (curve.validation if kind == "validation" else curve.losses).get(task.name, [])


@pytest.mark.parametrize("name", CHARTED)
def test_how_the_weights_moved(name: str) -> None:
    judgement, root = opened(name)
    for setting, part in by_setting(root.one("section", id="weights")).items():
        known = {curve.method: curve for curve in judgement.curves if curve.setting == setting}
        methods = [m for m in judgement.methods if m in known and m != "single-task" and known[m].weights]
        found = panels(part)
        assert len(found) == len(methods)
        for method, panel in zip(methods, found, strict=True):
            assert method.startswith(re.split(r"[(…#]", panel.title)[0].strip())
            curve = known[method]
            lines = {i: curve.weights[task.name] for i, task in enumerate(judgement.tasks)}
            spreads = {i: curve.weight_spreads.get(task.name, []) for i, task in enumerate(judgement.tasks)}
            spreads = {i: spread for i, spread in spreads.items() if any(value > 0 for value in spread)}
            plot = curves(panel.chart, "data-t")
            varies = "weight ± deviation from step to step" if spreads else "weight"
            assert panel.note == varies + ", log scale" * plot.up.log
            names = {index: task.label for index, task in enumerate(judgement.tasks)}
            check_lines(plot, lines, spreads, names, {}, judgement)
            if len(judgement.tasks) > 7:
                legend = inks(root, "t")
                assert {index: line.ink for index, line in plot.lines.items()} == legend
                assert len(set(legend.values())) == len(legend)


def check_lines(plot, lines: dict, spreads: dict, names: dict, legend: dict, judgement: Judgement) -> None:
    assert list(plot.lines) == list(lines)
    assert plot.epochs == list(range(1, judgement.epochs + 1))
    low, high, log, height = plot.read_out
    assert (log, height) == (plot.up.log, 150)
    assert near(plot.up.place(low), 150)
    assert near(plot.up.place(high), 0)
    far = max(abs(plot.up.place(low) - plot.up.place(high)), 1)
    assert far == pytest.approx(150, abs=0.1)
    for index, values in lines.items():
        line = plot.lines[index]
        assert names[index].startswith(re.split(r"[(…#]", line.name)[0].strip())
        assert not legend or line.ink == legend[index]
        assert all(
            (text == "nan" and math.isnan(value)) or float(text) == pytest.approx(value, rel=6e-4)
            for text, value in zip(line.values, values, strict=True)
        )
        wanted: list[list[tuple[float, float]]] = [[]]
        for epoch, value in zip(plot.epochs, values, strict=True):
            if math.isfinite(value) and (value > 0 or not log):
                x = plot.across.place(epoch) * 10 if plot.across else 500.0
                wanted[-1].append((x, plot.up.place(value)))
            elif wanted[-1]:
                wanted.append([])
        check_path(line.pieces, [piece for piece in wanted if piece])
    assert list(plot.bands) == list(spreads)
    for index, spread in spreads.items():
        check_band(plot, plot.bands[index], lines[index], spread)
    assert (len(plot.dots) == 0) if plot.across else list(plot.dots) == list(lines)
    if len(lines) <= 7:
        assert list(plot.ends) == [index for index, values in lines.items() if any(map(math.isfinite, values))]
        for index, text in plot.ends.items():
            shown, _, arrow = text.partition(" ")
            assert names[index].startswith(re.split(r"[(…#]", shown)[0].strip())
            last = next(value for value in reversed(lines[index]) if math.isfinite(value))
            y = plot.up.place(last)
            assert (arrow == "↑") == (y < -1), "a curve that ran off the edge says so"
            assert (arrow == "↓") == (y > 151) or " " in names[index]


def check_path(pieces: list, wanted: list) -> None:
    assert [len(piece) for piece in pieces] == [len(piece) for piece in wanted], "gaps where a value is missing"
    for piece, expected in zip(pieces, wanted, strict=True):
        for (x, y), (there, up) in zip(piece, expected, strict=True):
            assert abs(x - there) < 0.8
            assert y == pytest.approx(up, abs=0.12, rel=1e-3)


def check_band(plot, corners: list, values: list[float], spread: list[float]) -> None:
    over = [plot.up.place(value + wide) for value, wide in zip(values, spread, strict=True)]
    under = [plot.up.place(value - wide) if value > wide or not plot.up.log else 150.0
             for value, wide in zip(values, spread, strict=True)]  # fmt: skip
    assert [y for _, y in corners] == pytest.approx([*over, *under[::-1]], abs=0.12)


def test_the_curve_of_a_method_is_called_by_its_name_to_those_who_listen() -> None:
    """The label for a screen reader has the last value of each line."""
    judgement, root = opened("digits")
    for setting, part in by_setting(root.one("section", id="curves")).items():
        known = {curve.method: curve for curve in judgement.curves if curve.setting == setting}
        for task, panel in zip(judgement.tasks, panels(part.one("div", data_curve="validation")), strict=True):
            said = re.findall(
                r"([^;.]+(?:\.\d+)?[^;.]*) ends at (\S+?)(?:;|$)", panel.chart["aria-label"].split("epochs. ")[1]
            )
            assert [method.startswith(name.strip()) for method, (name, _) in zip(judgement.methods, said, strict=True)]
            for method, (_, text) in zip(judgement.methods, said, strict=True):
                assert number(text) == pytest.approx(100 * known[method].validation[task.name][-1], rel=0.005)


def test_those_who_listen_hear_the_ends_of_eight_lines() -> None:
    base = judgements.digits()
    copies = [
        replace(curve, method=f"m{copy}") for copy in range(9) for curve in base.curves if curve.method == "equal"
    ]
    judgement = replace(base, methods=[f"m{copy}" for copy in range(9)], curves=copies, cells=[], rows=[])
    for panel in validation_panels(Drawing(View(judgement)), judgement.settings[0]):
        assert re.findall(r"(m\d) ends at", str(panel.svg)) == [f"m{copy}" for copy in range(8)]


def test_amounts_that_differ_by_task_and_are_long_to_say_are_called_by_letters() -> None:
    base = judgements.unequal()
    labels = [f"{setting.label}, and a long label that no axis has room for" for setting in base.settings]
    settings = [replace(setting, label=label) for setting, label in zip(base.settings, labels, strict=True)]
    section = parse(page(replace(base, settings=settings))).one("section", id="fractions")
    key = section.one("p", class_="key")
    assert [entry.text for entry in key.all("span")] == [f"A {labels[0]}", f"B {labels[1]}"]
    for panel in panels(section):
        plot = amounts(panel.chart)
        assert [plot.labels[place] for place in sorted(plot.labels)] == ["A", "B"]
