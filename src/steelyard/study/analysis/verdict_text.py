"""The verdict in plain words: whether to share, who is hurt by it, by how much, what repairs it, at what cost."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from steelyard.io.lists_and_counts import counted, listed
from steelyard.study.analysis.advice import Candidate, advice
from steelyard.study.analysis.costs import own_networks
from steelyard.study.analysis.number_phrases import (
    amount_of,
    difference_of,
    lowered,
    method_name,
    relative_of,
    size,
)
from steelyard.study.analysis.questions import SLIGHT, Answers, Question
from steelyard.study.analysis.statistics import LEVEL, Array, Key, claim, counted_floor, holm, interval
from steelyard.study.analysis.trial_results import better_by
from steelyard.study.judgement import Cell, Interval, Row, Verdict
from steelyard.study.planning.arms import parse_arm
from steelyard.study.planning.plan import PlannedTask
from steelyard.study.trial import PLAIN_SUM, SINGLE_TASK

FINE: tuple[Verdict, ...] = ("gain", "no difference")
NAMED = 4  # so many tasks, or strategies, are named one by one; of more the first, and the others are counted


def write_verdict(answers: Answers, cells: Sequence[Cell], rows: Sequence[Row]) -> list[str]:
    """Sentences, setting by setting, the answer first; nothing is said that the cells and rows do not show."""
    found = answers.found
    plan = found.plan
    several = len(plan.settings) > 1
    sentences = []
    missing = len(plan.trials) - len(found.results) - len(found.failed)
    if missing:  # before anything that may change with them
        sentences.append(f"Preliminary: {missing} of {len(plan.trials)} trials are not finished.")
    for index, setting in enumerate(plan.settings):
        here = _SettingText(
            answers, index, [c for c in cells if c.setting == index], [r for r in rows if r.setting == index]
        )
        said = [
            *here.overall(),
            *here.recommendation(),
            *here.sharing(),
            *here.repair(),
            *here.better_than_sum(),
            *here.cost(),
        ]
        sentences += [f"With {setting.label} of the labels: {lowered(text)}" if several else text for text in said]
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


class _SettingText:
    """The words about one setting."""

    def __init__(self, answers: Answers, index: int, cells: Sequence[Cell], rows: Sequence[Row]) -> None:
        self.answers, self.found, self.index = answers, answers.found, index
        self.cells = {(cell.method, cell.task): cell for cell in cells}
        self.rows = {row.method: row for row in rows}
        self.tasks = {task.name: task for task in self.found.plan.tasks}
        self.plain, self.strategies = answers.plain, answers.strategies
        self.lonely = len(self.tasks) == 1

    def judged(self, method: str, verdict: Verdict) -> list[Cell]:
        cells = [self.cells.get((method, task)) for task in self.tasks]
        return [cell for cell in cells if cell is not None and cell.verdict == verdict]

    # --- the answer ---

    def overall(self) -> list[str]:
        """All tasks together: the effect of sharing with its interval, always, decided or not."""
        if self.lonely:
            return ["One task leaves nothing to share: what differs here is how it is trained."]
        return [text for method in self._shared if (text := self._overall(method))]

    @property
    def _shared(self) -> list[str]:
        """The plain sum, or the strategies where it was not run; of many the first few by Δm."""
        if self.plain:
            return [self.plain]
        return sorted(self.strategies, key=self._mean_change, reverse=True)[:NAMED]

    def _overall(self, method: str) -> str:
        question, change = self._effect(method)
        if question is None or change is None:
            return self._no_change(method)
        outside = self._outside(method)
        over = f"Over {self._the_tasks(outside)}" + (f" ({outside})" if outside else "")
        amount = f"Δm {relative_of({'': change}).strip()}"
        word = self.answers.verdict(question)[0]
        name = method_name(method)
        if word == "undecided":
            doubt = " Judged alone it would be decided, but not with the rest of the study." * (
                self.answers.alone(question) is not None
            )
            return (
                f"{over} it is undecided whether {lowered(name)} is better or worse than single-task learning: "
                f"{amount}.{doubt}{self._more_seeds([question])}"
            )
        if word == "no difference":
            return f"{over} {lowered(name)} is within 1 % of single-task learning: {amount}."
        slightly = ", but by less than 1 %" if _slight(change) else ""
        better = "better" if word == "gain" else "worse"
        return f"{over} {lowered(name)} is {better} than single-task learning{slightly}: {amount}."

    def _outside(self, method: str) -> str:
        """Which tasks have no part in Δm, and why; empty where all have."""
        return _no_part(self.found.unchanged(method, SINGLE_TASK, self.index), "Δm", "alone")

    def _the_tasks(self, outside: object) -> str:
        """All of them, or those that are left."""
        if not outside:
            return "all tasks"
        return f"the other {'task' if len(self.tasks) == 2 else 'tasks'}"

    def _no_change(self, method: str) -> str:
        """Why nothing is said of all tasks, where a task has no number; empty where there is nothing to compare yet."""
        without = [
            task
            for task in self.found.plan.tasks
            if any(
                not np.isfinite(values).all()
                for each in (method, SINGLE_TASK)
                for values in self.found.metrics(each, self.index, task.name).values()
            )
        ]
        if not without:
            return ""
        name = lowered(method_name(method))
        return f"Over all tasks nothing is said of {name}: {_first_labels(without)} had no number on test data."

    def _effect(self, method: str) -> tuple[Question | None, Interval | None]:
        """What is asked of a method's Δm against single-task learning, if it is, and Δm."""
        change = self.rows[method].delta_m
        known = change is not None and math.isfinite(change.mean)
        question = self.answers.asked(method, self.index)
        against = question is not None and question.baseline == SINGLE_TASK
        return (question if against else None), (change if known else None)

    def _mean_change(self, method: str) -> float:
        change = self._effect(method)[1]
        return -math.inf if change is None else change.mean

    def recommendation(self) -> list[str]:
        """Share, and under what; or train alone; or that nothing here decides it."""
        best, among = self._best()
        candidate = self._candidate(best, among) if best and not self.lonely else None
        if candidate is None:
            return []
        if outside := self._outside(best):
            return [f"Nothing is advised: {outside}."]
        plain = self._candidate(self.plain, 1) if self.plain and best != self.plain else None
        return [advice(candidate, plain)]

    def _candidate(self, method: str, among: int) -> Candidate | None:
        """What there is to say for and against it; None where its Δm has no interval."""
        change = self._effect(method)[1]
        if change is None or not math.isfinite(change.low):
            return None
        hurt = self.judged(method, "negative transfer")
        # What it trains alone does not lose by sharing because it does not share.
        own = [cell for cell in self._on_their_own(method) if cell not in hurt]
        fine = [cell for word in FINE for cell in self.judged(method, word) if cell not in own]
        return Candidate(
            name=lowered(method_name(method)),
            change=change,
            by_itself=self._clearly(method, 1),
            clearly=self._clearly(method, among),
            among=among,
            tasks=len(self.tasks),
            apart=self._named([*hurt, *own]) if hurt else "",
            on_their_own=len(hurt) + len(own),
            gains=self._named(self.judged(method, "gain")) if self.judged(method, "gain") else "",
            harmless=len(fine) + len(hurt) + len(own) == len(self.tasks),
            cost=self.rows[method].relative_cost + self._cost_of([cell.task for cell in hurt]),
        )

    def _cost_of(self, tasks: list[str]) -> float:
        """Of networks of their own, over that of all single tasks."""
        return own_networks(self.found, tasks, self.index) if tasks else 0.0

    def _on_their_own(self, method: str) -> list[Cell]:
        """Tasks that a method of several networks serves by a network of their own."""
        alone = {each.serves[0] for each in parse_arm(method).networks if each.learns == each.serves[:1]}
        return [cell for task in self.tasks if task in alone and (cell := self.cells.get((method, task))) is not None]

    def _clearly(self, method: str, among: int) -> Interval:
        """Δm of the best of so many by the same numbers, with an interval that would hold those of all of them."""
        changes = self.found.changes(method, SINGLE_TASK, self.index)
        least = self.found.change_floor(method, SINGLE_TASK, self.index)
        if least == 0 and np.ptp(changes) == 0:
            return Interval(float(changes.mean()), -math.inf, math.inf)  # as if each seed were the first
        found = interval(changes, 1.0 - (1.0 - LEVEL) / among, least)
        assert found is not None
        return found

    def _best(self) -> tuple[str, int]:
        """The strategy that is furthest above the plain sum, of those shown to be above it, and of how many strategies
        it was chosen; else the plain sum, which was not."""
        if not self.plain:
            return max(self.strategies, key=self._mean_change, default=""), len(self.strategies)
        shown = {
            method: float(self.answers.samples[question].mean())
            for method in self.strategies
            if (question := self.answers.asked(method, self.index)) is not None
            and self.answers.verdict(question)[0] == "gain"
        }
        if not shown:
            return self.plain, 1
        return max(shown, key=lambda method: shown[method]), len(self.strategies)

    def _named(self, cells: list[Cell]) -> str:
        """Tasks by name, the largest effect first; of many the first few behind their number."""
        names = [self._task(cell.task) for cell in sorted(cells, key=size, reverse=True)]
        if len(names) <= NAMED:
            return listed(names)
        return f"{len(names)} of {len(self.tasks)} tasks ({', '.join(names[:NAMED])}, …)"

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
        found = cell.difference
        if found is None or found.low <= 0 <= found.high:
            return ""
        return "better" if (found.mean > 0) == self.tasks[cell.task].metrics[0].higher_is_better else "worse"

    def _what_would_decide(self, method: str, cells: list[Cell]) -> str:
        """What is known of why these are open: judging a whole study together, or too few seeds."""
        questions = [found for cell in cells if (found := self.answers.asked(method, self.index, cell.task))]
        alone = [question for question in questions if self.answers.alone(question) is not None]
        text = ""
        if alone:
            which = "it" if len(cells) == 1 else f"{len(alone)} of them"
            text += f" Judged alone {which} would be decided, but not with the rest of the study."
        return text + self._more_seeds(questions)

    def _more_seeds(self, questions: Sequence[Question]) -> str:
        """How many seeds are likely to settle all of these; nothing where one of them is not to be settled so."""
        needed = [self.answers.seeds_to_settle(question) for question in questions]
        known = [seeds for seeds in needed if seeds is not None]
        if not known or len(known) < len(needed):
            return ""
        low, high = (max(seeds) for seeds in zip(*known, strict=True))
        which = "it" if len(questions) == 1 else "them"
        count = f"{low} to {high}" if low < high else f"{high}"
        return f" Likely to settle {which}: {count} seeds."

    def _better_by(self, method: str, name: str) -> Array:
        """The improvement over single-task by seed."""
        task = self.tasks[name]
        return better_by(task, *self.found.paired(task, method, SINGLE_TASK, self.index))

    # --- what repairs it ---

    def repair(self) -> list[str]:
        """Which strategies undo the harm of the plain sum."""
        hurt = self.judged(self.plain, "negative transfer") if self.plain else []
        if not hurt or not self.strategies:
            return []
        said, unrepaired, eased = [], [], self._eased(hurt)
        for cell in hurt[:NAMED]:
            mended = [m for m in self.strategies if self._verdict(m, cell.task) in FINE]
            partly = [m for m in self.strategies if m not in mended and (m, cell.task) in eased]
            task = self._task(cell.task)
            if mended:
                said.append(self._mended(task, cell.task, mended))
            if partly:
                best = sorted(partly, key=lambda method: eased[method, cell.task].mean, reverse=True)
                amounts = {method: amount_of(self.tasks[cell.task], eased[method, cell.task]) for method in best}
                by = self._counted(best, "; ".join(f"{method} by {amounts[method]}" for method in best[:NAMED]))
                said.append(f"Not repaired, but by itself better than under the plain sum, is {task} with {by}.")
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
        best = sorted(methods, key=lambda method: float(self._better_by(method, task).mean()), reverse=True)
        named = listed(map(self._with_cost, best[:NAMED]))
        if len(methods) > NAMED:
            return f"{len(methods)} of {len(self.strategies)} strategies repair {label}, above all {named}."
        return f"{named} repair{'s' if len(methods) == 1 else ''} {label}."

    def _verdict(self, method: str, task: str) -> Verdict | None:
        cell = self.cells.get((method, task))
        return cell.verdict if cell else None

    def _eased(self, hurt: list[Cell]) -> dict[tuple[str, str], Interval]:
        """(strategy, task) -> improvement over the plain sum, where it is beyond chance (Holm over all of these)."""
        samples, least = {}, {}
        for method in self.strategies:
            for cell in hurt:
                task = self.tasks[cell.task]
                ours, theirs = self.found.paired(task, method, PLAIN_SUM, self.index)
                sample = better_by(task, ours, theirs)
                samples[method, cell.task] = sample
                least[method, cell.task] = counted_floor(sample, [*ours, *theirs], task.test_rows) if len(ours) else 0.0
        return {key: found for key, found in _beyond_chance(samples, least).items() if found.mean > 0}

    def _with_cost(self, method: str) -> str:
        ratio = self.rows[method].relative_cost / self.rows[self.plain].relative_cost
        return f"{method} (at {ratio:.2f} × the plain sum's training time)" if math.isfinite(ratio) else method

    # --- is anything better than the plain sum ---

    def better_than_sum(self) -> list[str]:
        """All tasks together, against the plain sum."""
        if not self.plain or not self.strategies:
            return []
        asked = {method: self.answers.asked(method, self.index) for method in self.strategies}
        questions = {method: each for method, each in asked.items() if each is not None and each in self.answers.claims}
        if not questions:
            return []
        changes = {method: self.answers.samples[question] for method, question in questions.items()}
        told = self._told(questions)
        slight = {method: found for method, found in told.items() if _slight(found)}
        shown = {method: found for method, found in told.items() if method not in slight}
        better = {method: found for method, found in shown.items() if found.mean > 0}
        worse = {method: found for method, found in shown.items() if found.mean < 0}
        said = []
        without = {each.name for method in questions for each in self.found.unchanged(method, PLAIN_SUM, self.index)}
        left_out = [task for task in self.found.plan.tasks if task.name in without]
        outside = _no_part(left_out, "it", "under the plain sum")
        apart = f"; {outside}" if outside else ""
        over = f"Over {self._the_tasks(outside)} (mean change relative to the plain sum{apart})"
        if better:
            said.append(f"{over}, better than it: {self._first(better)}.")
        else:
            best = max(changes, key=lambda method: float(changes[method].mean()))
            by = f" by {100 * SLIGHT:g} % or more" * any(found.mean > 0 for found in slight.values())
            highest = f": {relative_of({best: interval(changes[best])})}" if best not in told else ""
            among = f" is the highest of {len(changes)}" if highest and len(changes) > 1 else ""
            said.append(f"{over}, nothing is shown to be better than it{by}{highest}{among}.")
        if worse:
            said.append(f"{over}, worse than it: {self._first(worse)}.")
        if slight:
            said.append(f"{over}, told from it, but by less than {100 * SLIGHT:g} %: {self._first(slight)}.")
        return said

    def _told(self, questions: Mapping[str, Question]) -> dict[str, Interval]:
        """The changes that are told from none, by strategy."""
        told = {}
        for method, question in questions.items():
            change = interval(self.answers.samples[question])
            if change is not None and self.answers.verdict(question)[0] in ("gain", "negative transfer"):
                told[method] = change
        return told

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
        if not math.isfinite(cost) or self.lonely:
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
        shown = sorted(cells, key=size, reverse=True)[:NAMED]
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


def _first_labels(tasks: Sequence[PlannedTask]) -> str:
    more = [f"{len(tasks) - NAMED} more"] * (len(tasks) > NAMED)
    return listed([*(task.label for task in tasks[:NAMED]), *more])


def _no_part(outside: Sequence[PlannedTask], change: str, baseline: str) -> str:
    """Which tasks have no part in a change over all, and why; empty where all have."""
    if not outside:
        return ""
    zero = "error" if all(task.metrics[0].ideal is not None for task in outside) else "value"
    have, their = ("has", "its") if len(outside) == 1 else ("have", "their")
    return f"{_first_labels(outside)} {have} no part in {change}, as {their} {zero} {baseline} is zero"


def _slight(change: Interval) -> bool:
    return max(-change.low, change.high) < SLIGHT


def _beyond_chance(samples: Mapping[Key, Array], least: Mapping[Key, float]) -> dict[Key, Interval]:
    """The mean differences that two-sided t tests tell from zero, Holm-adjusted over all samples given; each is taken
    to deviate by so much at least."""
    claims = {key: made for key, sample in samples.items() if (made := claim(sample, 0.0, least[key])) is not None}
    adjusted = holm({key: made.p_value for key, made in claims.items()})
    found = {key: interval(samples[key], least=least[key]) for key in claims if adjusted[key] <= 1 - LEVEL}
    return {key: value for key, value in found.items() if value is not None}
