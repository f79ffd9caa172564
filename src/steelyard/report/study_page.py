"""A judgement as one self-contained HTML page: opens offline, light and dark, on a desk and on a phone."""

from __future__ import annotations

import calendar
import functools
import math
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from steelyard.report import numbers
from steelyard.report.charts.labels import text_width
from steelyard.report.device_text import device_text, repeats_text
from steelyard.report.judgement_view import BASELINE, View, recipe_text
from steelyard.report.other_metrics import other_table
from steelyard.report.output_files import PAGE, write_output
from steelyard.report.panels import amounts, differences, histories
from steelyard.report.panels.drawing import Drawing, metric, of_mean
from steelyard.report.short_names import elide, split_method
from steelyard.report.verdict_styles import STYLES, style_of
from steelyard.study.judgement import Interval, Judgement, Setting, TaskInfo

GLANCE_FROM = 7  # tasks from which the table is too wide to take in at a glance


@dataclass(frozen=True)
class Entry:
    """One method on one task in the table, written out."""

    css: str
    value: str
    change: str
    spread: str
    word: str
    title: str
    note: str
    last: str


def write_page(judgement: Judgement, path: str | os.PathLike[str], first: Markup | str = "") -> None:
    """Write the page; a page that was there before is replaced only when the new one is complete.

    Args:
        judgement: of a study.
        path: where to.
        first: a section of its own between the verdict and the study's figures.

    Raises:
        OutputError: it cannot be written, or a file that is no page of Steelyard's is there.
    """
    write_output(Path(path), PAGE, page(judgement, first))


def page(judgement: Judgement, first: Markup | str = "") -> str:
    """The page as text."""
    return templates().get_template("page.html.jinja").render(first=first, **study_context(judgement))


def study_section(judgement: Judgement, prefix: str) -> Markup:
    """The figures of one study, to be put on a page with others; `prefix` keeps their ids apart."""
    return Markup(templates().get_template("study.html.jinja").render(study_context(judgement, prefix)))


@functools.cache  # reading the templates takes longer than filling them in
def templates() -> Environment:
    return Environment(
        loader=PackageLoader("steelyard.report"),
        autoescape=True,  # method, task and problem names are the user's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def study_context(judgement: Judgement, prefix: str = "") -> dict[str, object]:
    """What the templates of a study read."""
    view = View(judgement)
    settings = [setting for setting in view.settings if view.started(setting)]
    return {
        "judgement": judgement,
        "prefix": prefix,
        "view": view,
        "drawing": Drawing(view),
        "amounts": amounts,
        "differences": differences,
        "histories": histories,
        "settings": settings,
        "shown_first": max(settings, key=lambda setting: sum(setting.fractions.values()), default=None),  # most labels
        "waiting": [setting for setting in view.settings if not view.started(setting)],
        "entry": lambda method, setting, task: _entry(view, method, setting, task),
        "others": lambda setting: other_table(view, setting),
        "delta": lambda interval: _delta(view, interval),
        "fixed": numbers.fixed,
        "compact": numbers.compact,
        "count_of": numbers.count,
        "memory": numbers.memory,
        "duration": numbers.duration,
        "metric": metric,
        "elide": elide,
        "recipe_text": recipe_text,
        "styles": STYLES,
        "style_of": style_of,
        "baseline": BASELINE,
        "glance": len(view.tasks) >= GLANCE_FROM and view.judged,
        "created": date(judgement.created),
        "device": device_text(judgement),
        "repeats": repeats_text(judgement),
        "tilt": 26 + round(0.75 * max(text_width(elide(task.label, 22)) for task in view.tasks)),
        "notes": _notes(view),
        "verdicts": _grouped(judgement),
    }


def _entry(view: View, method: str, setting: Setting, task: TaskInfo) -> Entry | None:
    cell = view.cell(method, setting, task)
    if cell is None:
        return None
    decimals, factor = view.decimals(task), numbers.factor(task)
    own = of_mean(cell)
    change, spread = numbers.in_two(cell.difference, decimals, factor)
    if cell.difference is None:
        spread = "" if math.isinf(own.high) else f"±{numbers.fixed(numbers.half(own) * factor, decimals)}"
    seeds = ", ".join(numbers.fixed(value * factor, decimals) for _, value in sorted(cell.values.items()))
    title = [f"{view.readable[method]} on {task.label}: {seeds}"]
    if cell.difference and math.isfinite(cell.difference.high):
        title.append(f"95 % interval of the difference {numbers.brackets(cell.difference, decimals, factor)}")
    if cell.rows_half is not None:
        title.append(f"other test rows would move it by ±{cell.rows_half * factor:.2g}")
    if cell.p_value is not None:
        title.append(f"p = {cell.p_value:.2g} together with all words")
    last = f"{numbers.fixed(cell.last_mean * factor, decimals)} ±{numbers.fixed(cell.last_sd * factor, decimals)}"
    return Entry(
        css=style_of(cell.verdict).css,
        value=numbers.fixed(cell.mean * factor, decimals),
        change=change,
        spread=spread,
        word=cell.verdict or "",
        title=". ".join(title),
        note=cell.note,
        last=last if math.isfinite(cell.last_sd) else last.split(" ")[0],
    )


def _delta(view: View, interval: Interval | None) -> tuple[str, str]:
    return numbers.in_two(interval, view.delta_decimals, 100.0)


@dataclass(frozen=True)
class Sentence:
    """A sentence of the verdict: what is said, and the numbers that show it."""

    claim: str
    evidence: str


def _grouped(judgement: Judgement) -> list[tuple[str, list[Sentence]]]:
    """The verdict by setting: sentences that open with the same setting stand under one heading."""
    groups: list[tuple[str, list[Sentence]]] = []
    for text in judgement.verdict:
        head, _, rest = text.partition(": ")
        if not (rest and len(judgement.settings) > 1 and any(s.label in head for s in judgement.settings)):
            head, rest = "", text
        if not groups or groups[-1][0] != head:
            groups.append((head, []))
        claim, _, evidence = _unbroken(rest).partition(": ")
        groups[-1][1].append(Sentence(_sentence_case(claim, judgement.methods), evidence))
    return groups


def _unbroken(text: str) -> str:
    """Per cent signs stay with their number, intervals in brackets stay on one line."""
    text = text.replace(" %", "\u00a0%").replace(" × ", "\u00a0×\u00a0")
    return re.sub(r"\([^()]{1,24}\)", lambda found: found[0].replace(" ", "\u00a0"), text)


def _sentence_case(text: str, methods: list[str]) -> str:
    """A capital at the start, unless the first word is a method's name."""
    first = text.split(" ", 1)[0].rstrip(",;.")
    names = {name for method in methods for name in (method, split_method(method)[0])}
    return text if first in names else text[:1].upper() + text[1:]


def _notes(view: View) -> list[str]:
    """The remarks on single cells, each once, with the methods and tasks it is about."""
    about: dict[str, list[str]] = {}
    labels = {task.name: task.label for task in view.tasks}
    for cell in view.judgement.cells:
        if cell.note:
            where = f"{view.readable[cell.method]} on {labels[cell.task]}"
            if where not in about.setdefault(cell.note, []):
                about[cell.note].append(where)
    return [f"{', '.join(where[:6])}{' …' if len(where) > 6 else ''}: {note}" for note, where in about.items()]


def date(iso: str) -> str:
    """ "14 March 2026, 15:09 UTC"; anything else is shown as it is."""
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = f" {moment.tzname()}" if moment.tzinfo else ""
    return f"{moment.day} {calendar.month_name[moment.month]} {moment.year}, {moment:%H:%M}{zone}"
