"""What the sentences about one amount of data are written from, and how tasks and strategies are named in them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from steelyard.io.lists_and_counts import listed
from steelyard.study.analysis.number_phrases import difference_of, size
from steelyard.study.analysis.questions import SLIGHT, Answers, Question
from steelyard.study.judgement import Cell, Interval, Row, Verdict
from steelyard.study.planning.plan import PlannedTask
from steelyard.study.trial import SINGLE_TASK

FINE: tuple[Verdict, ...] = ("gain", "no difference")
NAMED = 4  # so many tasks, or strategies, are named one by one; of more the first, and the others are counted


class SettingFacts:
    """Results, answers and names at one amount of data.

    Args:
        answers: what is asked of the study, and answered.
        index: of the amount.
        cells: of the table, at this amount.
        rows: likewise.
    """

    def __init__(self, answers: Answers, index: int, cells: Sequence[Cell], rows: Sequence[Row]) -> None:
        self.answers, self.found, self.index = answers, answers.found, index
        self.cells = {(cell.method, cell.task): cell for cell in cells}
        self.rows = {row.method: row for row in rows}
        self.tasks = {task.name: task for task in self.found.plan.tasks}
        self.plain, self.strategies = answers.plain[index], answers.strategies
        self.lonely = len(self.tasks) == 1

    def judged(self, method: str, verdict: Verdict) -> list[Cell]:
        """The cells of a method that have this word."""
        cells = [self.cells.get((method, task)) for task in self.tasks]
        return [cell for cell in cells if cell is not None and cell.verdict == verdict]

    def verdict(self, method: str, task: str) -> Verdict | None:
        cell = self.cells.get((method, task))
        return cell.verdict if cell else None

    def effect(self, method: str) -> tuple[Question | None, Interval | None]:
        """What is asked of a method's Δm against single-task learning, if it is, and Δm."""
        change = self.rows[method].delta_m
        known = change is not None and math.isfinite(change.mean)
        question = self.answers.asked(method, self.index)
        against = question is not None and question.baseline == SINGLE_TASK
        return (question if against else None), (change if known else None)

    def mean_change(self, method: str) -> float:
        change = self.effect(method)[1]
        return -math.inf if change is None else change.mean

    def seeds_sentence(self, questions: Sequence[Question]) -> str:
        """How many seeds are likely to settle all of these; nothing where one of them is not to be settled so."""
        needed = [self.answers.seeds_to_settle(question) for question in questions]
        known = [seeds for seeds in needed if seeds is not None]
        if not known or len(known) < len(needed):
            return ""
        low, high = (max(seeds) for seeds in zip(*known, strict=True))
        which = "it" if len(questions) == 1 else "them"
        count = f"{low} to {high}" if low < high else f"{high}"
        return f" Likely to settle {which}: {count} seeds."

    def label(self, name: str) -> str:
        return self.tasks[name].label

    def named(self, cells: list[Cell]) -> str:
        """Tasks by name, the largest effect first; of many the first few behind their number."""
        names = [self.label(cell.task) for cell in sorted(cells, key=size, reverse=True)]
        if len(names) <= NAMED:
            return listed(names)
        return f"{len(names)} of {len(self.tasks)} tasks ({', '.join(names[:NAMED])}, …)"

    def tasks_in_words(self, cells: list[Cell]) -> str:
        """A single task by its name; several by their number, because their differences name them."""
        if len(cells) == 1:
            return self.label(cells[0].task)
        if len(cells) == len(self.tasks):
            return "both tasks" if len(cells) == 2 else f"all {len(cells)} tasks"
        return f"{len(cells)} of {len(self.tasks)} tasks"

    def tasks_but(self, outside: Sequence[PlannedTask]) -> str:
        """All of them, or those that are left without some."""
        if not outside:
            return "all tasks"
        return f"the other {'task' if len(self.tasks) - len(outside) == 1 else 'tasks'}"

    def differences(self, cells: list[Cell]) -> str:
        """The differences from single-task; of many tasks the largest."""
        shown = sorted(cells, key=size, reverse=True)[:NAMED]
        texts = [self._difference(cell) for cell in shown]
        if len(cells) == 1:
            return texts[0]
        named = [f"{self.label(cell.task)} {text}" for cell, text in zip(shown, texts, strict=True)]
        return ("above all " if len(cells) > NAMED else "") + "; ".join(named)

    def _difference(self, cell: Cell) -> str:
        task = self.tasks[cell.task]
        ours, alone = self.found.paired(task, cell.method, SINGLE_TASK, self.index)  # the seeds of the difference
        assert cell.difference is not None
        return difference_of(task, float(ours.mean()), float(alone.mean()), cell.difference)

    def first_of_many(self, methods: Collection[str], first: str) -> str:
        """The first `NAMED` of these strategies in words; where there are more, behind their number."""
        if len(methods) <= NAMED:
            return first
        return f"{len(methods)} of {len(self.strategies)} strategies, above all {first}"


def first_labels(tasks: Sequence[PlannedTask]) -> str:
    more = [f"{len(tasks) - NAMED} more"] * (len(tasks) > NAMED)
    return listed([*(task.label for task in tasks[:NAMED]), *more])


def no_part(outside: Sequence[PlannedTask], change: str, baseline: str) -> str:
    """Which tasks have no part in a change over all, and why; empty where all have."""
    if not outside:
        return ""
    zero = "error" if all(task.metrics[0].ideal is not None for task in outside) else "value"
    have, their = ("has", "its") if len(outside) == 1 else ("have", "their")
    return f"{first_labels(outside)} {have} no part in {change}, as {their} {zero} {baseline} is zero"


def slight(change: Interval) -> bool:
    return max(-change.low, change.high) < SLIGHT
