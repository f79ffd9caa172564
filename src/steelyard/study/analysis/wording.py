"""The verdict in plain words: who is hurt by sharing, by how much, what repairs it, at what cost, what stays open."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from steelyard.study.analysis.findings import Findings, better_by
from steelyard.study.analysis.phrases import (
    PLAIN_SUM,
    amount_of,
    counted,
    difference_of,
    listed,
    lowered,
    method_name,
    relative_of,
    size,
)
from steelyard.study.analysis.statistics import LEVEL, Array, Key, claim, holm, interval, seeds_to_settle
from steelyard.study.judgement import Cell, Interval, Row, Verdict
from steelyard.study.trial import SINGLE_TASK

NAMED = 4  # so many tasks, or strategies, are named one by one; of more the first, and the others are counted
SLIGHT = 0.01  # a mean relative change whose interval lies within it may be told from zero, and still not matter


def write_verdict(found: Findings, cells: Sequence[Cell], rows: Sequence[Row]) -> list[str]:
    """Sentences, setting by setting; nothing is said that the cells and rows do not show."""
    plan = found.plan
    several = len(plan.settings) > 1
    sentences = []
    missing = len(plan.trials) - len(found.results) - len(found.failed)
    if missing:  # before anything that may change with them
        sentences.append(f"Preliminary: {missing} of {len(plan.trials)} trials are not finished.")
    for index, setting in enumerate(plan.settings):
        here = _Setting(found, index, [c for c in cells if c.setting == index], [r for r in rows if r.setting == index])
        said = [*here.sharing(), *here.repair(), *here.better_than_sum(), *here.cost()]
        sentences += [f"With {setting.label} of the labels: {lowered(text)}" if several else text for text in said]
    sentences += cautions(found)
    if not found.has(SINGLE_TASK):
        sentences.append("There is no single-task baseline here: add single-task to see who is hurt by sharing.")
    if len(plan.seeds) == 1:
        sentences.append("One seed cannot tell a difference from chance: run at least 3 seeds, better 5.")
    if len(plan.seeds) == 2:
        sentences.append("Two seeds show only what is very large: run at least 3 seeds, better 5.")
    if found.failed:
        sentences.append(
            f"{counted(len(found.failed), 'trial')} failed and {'is' if len(found.failed) == 1 else 'are'} left out: "
            "the same command tries again."
        )
    return sentences


def cautions(found: Findings) -> list[str]:
    """What bears on every verdict of a study: networks that were still learning, rates at the edge of those tried."""
    return [*_still_improving(found), *_at_the_edge(found)]


def _still_improving(found: Findings) -> list[str]:
    """A verdict on networks that had not finished learning is a verdict on the number of epochs."""
    plan, results = found.plan, list(found.results.values())
    epochs = plan.epochs
    last = sum(result.chosen_epoch == epochs for result in results)
    if epochs < 2 or last * 2 < len(results) or not results:
        return []
    return [
        f"Validation chose the last epoch in {last} of {len(results)} trainings: they were still improving. Train "
        f"longer before you rely on this, e.g. steelyard compare {shlex.quote(plan.reference)} --epochs {2 * epochs}."
    ]


def _at_the_edge(found: Findings) -> list[str]:
    """Where most networks want the largest rate that was tried, or the smallest, better ones may lie beyond."""
    plan = found.plan
    if plan.tuning is None or not plan.tuning.rates:
        return []
    choices = [choice for method in plan.methods for choice in method.chosen]
    chosen = [rate for choice in choices for rate in choice.learning_rates.values()]
    said, tried = [], len(plan.tuning.rates)
    for word, edge in (("largest", max(plan.tuning.rates)), ("smallest", min(plan.tuning.rates))):
        here = chosen.count(edge)
        if here * 2 > len(chosen):
            said.append(
                f"Validation chose the {word} of {tried} learning rates ({edge:g}) for {here} of {len(chosen)} "
                f"networks: better ones may lie beyond. Try around it: "
                f"steelyard compare {shlex.quote(plan.reference)} --tune {tried} --learning-rate {edge:g}."
            )
    return said


class _Setting:
    """The words about one setting."""

    def __init__(self, found: Findings, index: int, cells: Sequence[Cell], rows: Sequence[Row]) -> None:
        self.found, self.index = found, index
        self.cells = {(cell.method, cell.task): cell for cell in cells}
        self.rows = {row.method: row for row in rows}
        self.tasks = {task.name: task for task in found.plan.tasks}
        joint = [method.name for method in found.plan.methods if method.name != SINGLE_TASK]
        self.plain = PLAIN_SUM if PLAIN_SUM in joint else ""
        self.strategies = [method for method in joint if method != self.plain]

    def judged(self, method: str, verdict: Verdict) -> list[Cell]:
        cells = [self.cells.get((method, task)) for task in self.tasks]
        return [cell for cell in cells if cell is not None and cell.verdict == verdict]

    # --- who is hurt ---

    def sharing(self) -> list[str]:
        """What sharing does to each task: under the plain sum, or under each method where that was not run."""
        methods = [self.plain] if self.plain else self.strategies
        return [sentence for method in methods for sentence in self._sharing(method)]

    def _sharing(self, method: str) -> list[str]:
        name = method_name(method)
        said = []
        if hurt := self.judged(method, "negative transfer"):
            said.append(f"{name} hurts {self._tasks(hurt)}: {self._differences(hurt)}.")
        if helped := self.judged(method, "gain"):
            said.append(f"{name} helps {self._tasks(helped)}: {self._differences(helped)}.")
        if same := self.judged(method, "no difference"):
            said.append(f"{name} makes no difference that matters for {self._tasks(same)}: {self._differences(same)}.")
        undecided = self.judged(method, "undecided")
        for lean in ("worse", "better", ""):
            if not (cells := [cell for cell in undecided if self._lean(method, cell) == lean]):
                continue
            question = (
                f"{name} seems to make {self._tasks(cells)} {lean}, but whether by enough to matter is undecided"
                if lean
                else f"Whether {lowered(name)} hurts or helps {self._tasks(cells)} is undecided"
            )
            said.append(f"{question}: {self._differences(cells)}.{self._what_would_decide(method, cells)}")
        return said

    def _lean(self, method: str, cell: Cell) -> str:
        """Where the interval that is shown lies wholly on one side of zero, though not beyond what matters."""
        found = interval(self._better_by(method, cell.task)[0])
        if found is None or found.low <= 0 <= found.high:
            return ""
        return "better" if found.mean > 0 else "worse"

    def _what_would_decide(self, method: str, cells: list[Cell]) -> str:
        """What is known of why these are open: judging many tasks together, or too few seeds."""
        samples = [self._better_by(method, cell.task) for cell in cells]
        alone = [made for sample in samples if (made := claim(*sample)) is not None and made.p_value <= 1 - LEVEL]
        text = ""
        if alone:
            which = "it" if len(cells) == 1 else f"{len(alone)} of them"
            text += f" Judged alone {which} would be decided, but not with {len(self.tasks)} tasks judged together."
        needed = [seeds_to_settle(*sample, len(self.tasks)) for sample in samples]
        known = [seeds for seeds in needed if seeds is not None]
        # Not said of few seeds, nor where a mean lies so near an edge that no number of seeds is honest.
        if known and len(known) == len(needed):
            which = "it" if len(cells) == 1 else "them"
            text += f" About {max(known)} seeds would settle {which} if mean and spread stay as they are."
        return text

    def _better_by(self, method: str, name: str) -> tuple[Array, float]:
        """The improvement over single-task by seed, and the region of practical equivalence."""
        task = self.tasks[name]
        ours, theirs = self.found.paired(task, method, SINGLE_TASK, self.index)
        return better_by(task, ours, theirs), task.equivalence * abs(float(theirs.mean()))

    # --- what repairs it ---

    def repair(self) -> list[str]:
        """Which strategies undo the harm of the plain sum."""
        hurt = self.judged(self.plain, "negative transfer") if self.plain else []
        if not hurt or not self.strategies:
            return []
        said, unrepaired, eased = [], [], self._eased(hurt)
        for cell in hurt[:NAMED]:
            mended = [m for m in self.strategies if self._verdict(m, cell.task) in ("gain", "no difference")]
            partly = [m for m in self.strategies if m not in mended and (m, cell.task) in eased]
            task = self._task(cell.task)
            if mended:
                said.append(self._mended(task, cell.task, mended))
            if partly:
                best = sorted(partly, key=lambda method: eased[method, cell.task].mean, reverse=True)
                amounts = {method: amount_of(self.tasks[cell.task], eased[method, cell.task]) for method in best}
                by = self._counted(best, "; ".join(f"{method} by {amounts[method]}" for method in best[:NAMED]))
                said.append(f"Not repaired, but better than under the plain sum, is {task} with {by}.")
            if not mended and not partly:
                unrepaired.append(task)
        if unrepaired:
            said.append(f"No strategy here is shown to repair {listed(unrepaired, 'or')}.")
        if len(hurt) > NAMED:
            counts = ", ".join(
                f"{method} {sum(self._verdict(method, c.task) in ('gain', 'no difference') for c in hurt)}"
                for method in self.strategies
            )
            said = [f"Of the {len(hurt)} tasks that the plain sum hurts, so many are repaired: {counts}."]
        return said

    def _mended(self, label: str, task: str, methods: list[str]) -> str:
        """Who repairs a task, and at what cost; of many the best."""
        best = sorted(methods, key=lambda method: float(self._better_by(method, task)[0].mean()), reverse=True)
        named = listed(map(self._with_cost, best[:NAMED]))
        if len(methods) > NAMED:
            return f"{len(methods)} of {len(self.strategies)} strategies repair {label}, above all {named}."
        return f"{named} repair{'s' if len(methods) == 1 else ''} {label}."

    def _verdict(self, method: str, task: str) -> Verdict | None:
        cell = self.cells.get((method, task))
        return cell.verdict if cell else None

    def _eased(self, hurt: list[Cell]) -> dict[tuple[str, str], Interval]:
        """(strategy, task) -> improvement over the plain sum, where it is beyond chance (Holm over all of these)."""
        samples = {}
        for method in self.strategies:
            for cell in hurt:
                task = self.tasks[cell.task]
                ours, theirs = self.found.paired(task, method, PLAIN_SUM, self.index)
                samples[method, cell.task] = better_by(task, ours, theirs)
        return {key: found for key, found in _beyond_chance(samples).items() if found.mean > 0}

    def _with_cost(self, method: str) -> str:
        ratio = self.rows[method].seconds / self.rows[self.plain].seconds
        return f"{method} (at {ratio:.2f} × the plain sum's training time)" if math.isfinite(ratio) else method

    # --- is anything better than the plain sum ---

    def better_than_sum(self) -> list[str]:
        """All tasks together, paired with the plain sum by seed."""
        if not self.plain or not self.strategies:
            return []
        changes = {m: self.found.changes(m, self.plain, self.index) for m in self.strategies}
        changes = {
            method: change for method, change in changes.items() if len(change) > 1 and np.isfinite(change).all()
        }
        if not changes:
            return []
        told = _beyond_chance(changes)
        slight = {method: found for method, found in told.items() if max(-found.low, found.high) < SLIGHT}
        shown = {method: found for method, found in told.items() if method not in slight}
        better = {method: found for method, found in shown.items() if found.mean > 0}
        worse = {method: found for method, found in shown.items() if found.mean < 0}
        said = []
        over = "Over all tasks (mean change relative to the plain sum)"
        if better:
            said.append(f"{over}, better than it: {self._first(better)}.")
        else:
            best = max(changes, key=lambda method: float(changes[method].mean()))
            highest = f": {relative_of({best: interval(changes[best])})}" if best not in told else ""
            among = f" is the highest of {len(changes)}" if highest and len(changes) > 1 else ""
            said.append(f"{over}, nothing is shown to be better than it{highest}{among}.")
        if worse:
            said.append(f"{over}, worse than it: {self._first(worse)}.")
        if slight:
            said.append(f"{over}, told from it, but by less than {100 * SLIGHT:g} %: {self._first(slight)}.")
        return said

    def _first(self, changes: Mapping[str, Interval]) -> str:
        """Strategies with their changes; of many the largest."""
        largest = sorted(changes, key=lambda method: abs(changes[method].mean), reverse=True)[:NAMED]
        return self._counted(changes, relative_of({method: changes[method] for method in largest}))

    def _counted(self, methods: Collection[str], first: str) -> str:
        """The first `NAMED` of these strategies in words; where there are more, behind their number."""
        if len(methods) <= NAMED:
            return first
        return f"{len(methods)} of {len(self.strategies)} strategies, above all {first}"

    # --- what it costs ---

    def cost(self) -> list[str]:
        reference = self.plain or (self.strategies[0] if self.strategies else "")
        cost = self.rows[reference].relative_cost if reference else math.nan
        if not math.isfinite(cost):
            return []
        return [
            f"One joint network ({lowered(method_name(reference))}) trains in {cost:.2f} × the time of "
            f"the {counted(len(self.tasks), 'single-task network')}."
        ]

    # --- pieces ---

    def _task(self, name: str) -> str:
        return self.tasks[name].label

    def _tasks(self, cells: list[Cell]) -> str:
        """A single task by its name; several by their number, because their differences name them."""
        if len(cells) == 1:
            return self._task(cells[0].task)
        if len(cells) == len(self.tasks):
            return "both tasks" if len(cells) == 2 else f"all {len(cells)} tasks"
        return f"{len(cells)} of {len(self.tasks)} tasks"

    def _differences(self, cells: list[Cell]) -> str:
        """The differences from single-task; of many tasks the largest."""
        shown = sorted(cells, key=size, reverse=True)[:NAMED] if len(cells) > NAMED else cells
        texts = [self._difference(cell) for cell in shown]
        if len(cells) == 1:
            return texts[0]
        named = [f"{self._task(cell.task)} {text}" for cell, text in zip(shown, texts, strict=True)]
        return ("above all " if len(cells) > NAMED else "") + "; ".join(named)

    def _difference(self, cell: Cell) -> str:
        task = self.tasks[cell.task]
        alone = self.cells[SINGLE_TASK, cell.task]
        assert cell.difference is not None
        return difference_of(task, cell.mean, alone.mean, cell.difference)


def _beyond_chance(samples: Mapping[Key, Array]) -> dict[Key, Interval]:
    """The mean differences that two-sided t tests tell from zero, Holm-adjusted over all samples given."""
    claims = {key: made for key, sample in samples.items() if (made := claim(sample, 0.0)) is not None}
    adjusted = holm({key: made.p_value for key, made in claims.items()})
    found = {key: interval(samples[key]) for key in claims if adjusted[key] <= 1 - LEVEL}
    return {key: value for key, value in found.items() if value is not None}
