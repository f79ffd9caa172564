"""A judgement made ready for display: quick look-ups, short names, one number of decimals per column."""

from __future__ import annotations

import math
import statistics
from functools import cached_property

from steelyard.report import numbers
from steelyard.report.short_names import short_methods, split_methods
from steelyard.study.judgement import Cell, Curve, Hurt, Judgement, Recipe, Row, Setting, TaskInfo
from steelyard.study.planning.readable_arms import readable_methods
from steelyard.study.trial import PLAIN_SUM, SINGLE_TASK

BASELINE = SINGLE_TASK
UNEQUAL = 1.1
"""Times the steps of the network with the fewest, beyond which all are told."""


def recipe_text(recipe: Recipe) -> str:
    """Which method it is, why, and what it costs."""
    seeds = f"the mean over {recipe.seeds} seeds" if recipe.seeds > 1 else "of one seed"
    cost = "" if recipe.cost is None else f"; a step took {recipe.cost:.2f} steps of the plain sum"
    return f"In your own loop: {recipe.method}, the smallest validation error, {seeds}{cost}."


class View:
    """Look-ups into a judgement that several renderers share."""

    def __init__(self, judgement: Judgement) -> None:
        self.judgement = judgement
        self.methods = judgement.methods
        self.tasks = judgement.tasks
        self.settings = judgement.settings
        self.short = short_methods(judgement.methods)
        self.readable = readable_methods(judgement.methods)
        self.parts = split_methods(judgement.methods)
        self._cells = {(cell.method, cell.setting, cell.task): cell for cell in judgement.cells}
        self._rows = {(row.method, row.setting): row for row in judgement.rows}
        self._hurt = {(hurt.method, hurt.setting, hurt.task): hurt for hurt in judgement.hurt}
        self._curves = {(curve.method, curve.setting): curve for curve in judgement.curves}

    @property
    def epoch(self) -> str:
        """The one whose test values are shown."""
        return "the last epoch" if self.judgement.choose == "last" else "the epoch chosen on validation data"

    def cell(self, method: str, setting: Setting, task: TaskInfo) -> Cell | None:
        return self._cells.get((method, setting.index, task.name))

    def row(self, method: str, setting: Setting) -> Row | None:
        return self._rows.get((method, setting.index))

    def so_far(self, method: str, setting: Setting) -> str:
        """``2 of 3 seeds``, where all tasks of so many are there and no more; empty before the first."""
        row, seeds = self.row(method, setting), len(self.judgement.seeds)
        return f"{row.seeds} of {seeds} seeds" if row and 0 < row.seeds < seeds else ""

    def steps(self, method: str, setting: Setting) -> tuple[float, float]:
        """The fewest and the most steps of a method's networks, each the median over seeds; NaN if none was counted."""
        cells = [self.cell(method, setting, task) for task in self.tasks]
        taken = [statistics.median(cell.steps.values()) for cell in cells if cell and cell.steps]
        return min(taken, default=math.nan), max(taken, default=math.nan)

    def unequal_steps(self, setting: Setting) -> bool:
        """Whether some networks took over a tenth more steps than others, so that they are told."""
        taken = [count for method in self.methods for count in self.steps(method, setting) if math.isfinite(count)]
        return bool(taken) and max(taken) > UNEQUAL * min(taken)

    def chosen(self, setting: Setting) -> dict[str, str]:
        """What validation data chose, by method; empty where nothing."""
        rows = [(method, self.row(method, setting)) for method in self.methods]
        return {method: row.chosen for method, row in rows if row and row.chosen}

    def hurt(self, method: str, setting: Setting, task: TaskInfo) -> Hurt | None:
        """How often the method's steps hurt the task, where that was measured."""
        return self._hurt.get((method, setting.index, task.name))

    def measured(self, setting: Setting) -> list[str]:
        """The methods whose steps were measured."""
        return [method for method in self.methods if any(self.hurt(method, setting, task) for task in self.tasks)]

    def curve(self, method: str, setting: Setting) -> Curve | None:
        return self._curves.get((method, setting.index))

    @cached_property
    def compared(self) -> list[str]:
        """The methods that are compared with single-task learning."""
        return [method for method in self.methods if method != BASELINE]

    @cached_property
    def judged(self) -> bool:
        """Whether anything was compared with a baseline."""
        return any(cell.difference is not None for cell in self.judgement.cells)

    def started(self, setting: Setting) -> bool:
        """Whether any trial of this setting is finished."""
        return any(cell.setting == setting.index for cell in self.judgement.cells)

    def by_effect(self, setting: Setting) -> list[TaskInfo]:
        """The tasks by the effect that the plain sum (or the first method) has on them, the hurt first."""
        first = PLAIN_SUM if PLAIN_SUM in self.compared else next(iter(self.compared), BASELINE)

        def key(task: TaskInfo) -> tuple[bool, float]:
            cell = self.cell(first, setting, task)
            change = cell.relative.mean if cell and cell.relative else math.nan
            hurt = cell is not None and cell.verdict == "negative transfer"
            return not hurt, -abs(change) if math.isfinite(change) else 0.0

        return sorted(self.tasks, key=key)

    def baseline(self, setting: Setting, task: TaskInfo) -> float:
        cell = self.cell(BASELINE, setting, task)
        return math.nan if cell is None else cell.mean

    def region(self, setting: Setting, task: TaskInfo) -> float:
        """Half-width of the region of practical equivalence, in the metric's units; NaN if unknown."""
        return task.equivalence * abs(self.baseline(setting, task))

    def decimals(self, task: TaskInfo) -> int:
        """Decimals of a task's values after the display factor: equal for all tasks of one metric."""
        return self._decimals[task.metric, task.percent]

    @cached_property
    def _decimals(self) -> dict[tuple[str, bool], int]:
        kinds = {task.name: (task.metric, task.percent) for task in self.tasks}
        found = {}
        for kind in set(kinds.values()):
            scale = 100.0 if kind[1] else 1.0
            cells = [cell for cell in self.judgement.cells if kinds[cell.task] == kind]
            typical = max((abs(cell.mean) for cell in cells if math.isfinite(cell.mean)), default=math.nan)
            halves = [numbers.half(cell.difference) * scale for cell in cells]
            found[kind] = numbers.decimals_for(halves, typical * scale)
        return found

    @cached_property
    def delta_decimals(self) -> int:
        """Decimals of Δm in per cent: one, unless the intervals are finer than that."""
        halves = [numbers.half(row.delta_m) * 100 for row in self.judgement.rows]
        return max(1, min(2, numbers.decimals_for(halves, math.nan)))
