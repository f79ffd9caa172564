"""The metrics that carry no verdict, written out: further ones of a task, and those of all tasks together."""

from __future__ import annotations

import math
from dataclasses import dataclass

from steelyard.report import numbers
from steelyard.report.judgement_view import View
from steelyard.study.judgement import OtherMetric, Setting

TOGETHER = "all tasks together"


@dataclass(frozen=True)
class OtherTable:
    """A column for each metric, a row for every method that has one."""

    heads: list[tuple[str, str]]  # task, metric
    rows: list[tuple[str, list[tuple[str, str, str] | None]]]  # method; value, difference, half-width


def other_table(view: View, setting: Setting) -> OtherTable | None:
    """None where every task has one metric only, and all together none."""
    labels: dict[str | None, str] = {None: TOGETHER, **{task.name: task.label for task in view.tasks}}
    columns = other_columns(view, setting)
    written = {key: in_texts(column) for key, column in columns.items()}
    heads = [(labels[task], heading(column)) for (task, _), column in columns.items()]
    rows = [(method, [column.get(method) for column in written.values()]) for method in view.methods]
    return OtherTable(heads, [(method, cells) for method, cells in rows if any(cells)]) if columns else None


def other_columns(view: View, setting: Setting) -> dict[tuple[str | None, str], dict[str, OtherMetric]]:
    """(task, metric) -> method -> what there is of it."""
    columns: dict[tuple[str | None, str], dict[str, OtherMetric]] = {}
    for other in view.judgement.others:
        if other.setting == setting.index:
            columns.setdefault((other.task, other.metric), {})[other.method] = other
    return columns


def heading(column: dict[str, OtherMetric]) -> str:
    """ "test error, % ↓"."""
    one = next(iter(column.values()))
    return f"{one.metric}{', %' if one.percent else ''} {'↑' if one.higher_is_better else '↓'}"


def in_texts(column: dict[str, OtherMetric]) -> dict[str, tuple[str, str, str]]:
    """Value, difference and half-width by method, all to the same decimals."""
    factor = 100.0 if next(iter(column.values())).percent else 1.0
    typical = max((abs(other.mean) for other in column.values() if math.isfinite(other.mean)), default=math.nan)
    halves = [numbers.half(other.difference) * factor for other in column.values()]
    decimals = numbers.decimals_for(halves, typical * factor)
    return {
        method: (numbers.fixed(other.mean * factor, decimals), *numbers.in_two(other.difference, decimals, factor))
        for method, other in column.items()
    }
