"""From a store to a judgement: gather the trials of the latest plan, compare them by seed, and say what follows."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from steelyard.io.lists_and_counts import counted
from steelyard.study.analysis.cautions import cautions, within_other_rows
from steelyard.study.analysis.costs import relative_costs
from steelyard.study.analysis.data_cautions import data_cautions
from steelyard.study.analysis.earlier_looks import earlier_looks, look_note
from steelyard.study.analysis.interval_scope import about_rows, about_test, other_rows
from steelyard.study.analysis.joint_metrics import with_joint
from steelyard.study.analysis.provenance_notes import changed_since, origin_notes
from steelyard.study.analysis.questions import Answers, Question
from steelyard.study.analysis.recipe import recipe
from steelyard.study.analysis.statistics import counted_floor, interval, relative_changes
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.analysis.verdict.write_verdict import write_verdict
from steelyard.study.judgement import Cell, Curve, Failure, Hurt, Interval, Judgement, OtherMetric, Row
from steelyard.study.planning.plan import Plan
from steelyard.study.planning.readable_arms import named_once, readable_methods, renamed
from steelyard.study.storage.short_curves import is_short
from steelyard.study.storage.store import Store
from steelyard.study.trial import SINGLE_TASK, Result


def judge(store: Path | str, salvage: bool = False, plan: int = 0) -> Judgement:
    """Judge a plan in a store, the latest by default; works while a study is writing it.

    Args:
        store: the SQLite file.
        salvage: of a damaged store, judge what is whole; a note says how much that is.
        plan: which one: 0 is the latest, 1 the one before it, and so on.

    Raises:
        DamagedStoreError: something in it is not as it was written (and `salvage` is off).
        StoreError: the file is missing, no store, of another version or empty, or has no such plan.

    Example:
        >>> from steelyard.study import judge
        >>> judge(folder / "digits.sqlite").methods  # a store that `compare` or `steelyard compare` filled
        ['single-task', 'equal']
    """
    with Store(store, salvage=salvage) as opened:
        judgement, damaged = judge_plan(Plan.from_dict(opened.plan(plan)), opened), opened.damaged
    if not damaged:
        return judgement
    return dataclasses.replace(judgement, notes=[*judgement.notes, _salvaged(judgement)], salvaged=True)


def _salvaged(judgement: Judgement) -> str:
    found = judgement.finished + judgement.failed
    return (
        f"salvaged: {found} of {judgement.planned} trials are whole. The others were never finished or are damaged; "
        "a new store trains them anew"
    )


def judge_plan(plan: Plan, store: Store) -> Judgement:
    """Judge a plan by what the store holds of it."""
    found = findings(plan, store)
    judgement = with_joint(judge_findings(found), found)
    return dataclasses.replace(judgement, recipe=recipe(found, judgement.rows, store))


def findings(plan: Plan, store: Store) -> TrialResults:
    """What the store holds of a plan."""
    trials = plan.trials
    trained, results = store.trained(trials, plan.also), store.results(trials, plan.also)
    return TrialResults(
        plan,
        results,
        # A trial that other code has finished (--reuse-any) has not failed.
        {trial: failed for trial, failed in store.failures(trials).items() if trial not in results},
        trained,
        changed_since(plan, store, trained),
        earlier_looks(plan, store),
    )


def judge_findings(found: TrialResults) -> Judgement:
    plan = found.plan
    settings = list(plan.judged_settings())
    pairs = [(method.name, setting.index) for setting in settings for method in plan.methods]
    answers = Answers(found)
    cells = [cell for method, setting in pairs for cell in judge_cells(found, answers, method, setting)]
    rows = [judge_row(found, method, setting) for method, setting in pairs]
    finished, planned = len(found.results), len(plan.trials)
    methods = [method.name for method in plan.methods]
    said = [*data_cautions(found), *cautions(found), *within_other_rows(found, cells)]
    return Judgement(
        problem=plan.problem,
        summary=plan.summary,
        tasks=[task.info for task in plan.tasks],
        methods=methods,
        settings=settings,
        seeds=list(plan.seeds),
        cells=cells,
        rows=rows,
        curves=[curve for method, setting in pairs for curve in _curves(found, method, setting)],
        failures=[failure for method, setting in pairs for failure in _failures(found, method, setting)],
        verdict=named_once(write_verdict(answers, cells, rows), methods),
        command=plan.command,
        versions=dict(plan.versions),
        machine=plan.machine,
        created=plan.created,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        complete=finished == planned,
        planned=planned,
        finished=finished,
        failed=len(found.failed),
        tuning=plan.tuning_text,
        notes=[*origin_notes(found), *look_note(plan, found.looks)],
        others=[other for method, setting in pairs for other in judge_others(found, method, setting)],
        architecture=plan.architecture if plan.program is None else "",
        parameters=plan.parameters,
        about=" ".join(filter(None, (about_rows(found), about_test(found)))),
        cautions=renamed(said, readable_methods(methods)),
        hurt=[hurt for method, setting in pairs for hurt in _hurt(found, method, setting)],
        device="" if plan.program else plan.device,
        precision="" if plan.program else plan.precision,
        hardware=plan.hardware,
        choose=plan.choose,
    )


def judge_cells(found: TrialResults, answers: Answers, method: str, setting: int) -> list[Cell]:
    """The cells of one method in one setting."""
    cells = []
    for task in found.plan.tasks:
        values = {seed: metrics[0] for seed, metrics in found.metrics(method, setting, task.name).items()}
        if not values:
            continue
        last = [metrics[0] for metrics in found.metrics(method, setting, task.name, last=True).values()]
        question = answers.asked(method, setting, task.name)
        difference = relative = verdict = p_value = rows_half = None
        notes = []
        if question is not None:
            ours, theirs = found.paired(task, method, SINGLE_TASK, setting)
            difference = interval(ours - theirs, least=answers.least[question])
            main = task.metrics[0]
            changes = relative_changes(ours, theirs, higher_is_better=main.higher_is_better, ideal=main.ideal)
            if changes is None:
                zero = "single-task" if main.ideal is None else "the error of single-task"
                notes.append(f"{zero} is within 1e-6 of zero: no relative change, and left out of Δm")
            else:
                relative = interval(changes)
            rows_half = other_rows(found, task, method, SINGLE_TASK, setting)
            verdict, p_value = answers.verdict(question)
            notes += _undecided(answers, question)
        mean, sd = _mean_and_sd(list(values.values()))
        last_mean, last_sd = _mean_and_sd(last)
        cells.append(
            Cell(
                method=method,
                setting=setting,
                task=task.name,
                values=values,
                mean=mean,
                sd=sd,
                last_mean=last_mean,
                last_sd=last_sd,
                difference=difference,
                relative=relative,
                p_value=p_value,
                verdict=verdict,
                note="; ".join(notes),
                rows_half=rows_half,
                steps=found.steps(method, setting, task.name),
            )
        )
    return cells


def judge_others(found: TrialResults, method: str, setting: int) -> list[OtherMetric]:
    """The metrics of one method in one setting that are not the main one of their task."""
    judged = []
    for task in found.plan.tasks:
        ours = found.metrics(method, setting, task.name)
        theirs = found.metrics(SINGLE_TASK, setting, task.name) if method != SINGLE_TASK else {}
        for place, metric in list(enumerate(task.metrics))[1:] if ours else []:
            values = {seed: metrics[place] for seed, metrics in ours.items()}
            both = [(values[s], theirs[s][place]) for s in found.plan.seeds if s in ours and s in theirs]
            pairs = np.array([one - other for one, other in both])
            shown = [value for pair in both for value in pair]
            least = counted_floor(pairs, shown, task.test_rows, metric.counts) if both else 0.0
            mean, sd = _mean_and_sd(list(values.values()))
            judged.append(
                OtherMetric(
                    method=method,
                    setting=setting,
                    task=task.name,
                    metric=metric.name,
                    higher_is_better=metric.higher_is_better,
                    percent=metric.percent,
                    values=values,
                    mean=mean,
                    sd=sd,
                    difference=interval(pairs, least=least),
                )
            )
    return judged


def _undecided(answers: Answers, question: Question) -> list[str]:
    """Why a task is undecided, where it is not simply a wide interval."""
    sample = answers.samples[question]
    if gaps := int(np.isnan(sample).sum()):
        return [f"no value on test data in {gaps} of {counted(len(sample), 'seed')}"]
    if len(sample) == 1:
        return ["one seed has no interval: run more seeds"]
    if not answers.has_claim(question):
        return ["all seeds agree exactly, which says nothing about the spread: run more seeds"]
    alone = answers.alone(question)
    return [f"{alone} by itself, but not together with all {answers.size} questions of the study"] if alone else []


def _pace(results: list[Result]) -> float:
    """Steps a second of all networks together, one after another; NaN where one was not counted."""
    paces = [result.steps_per_second for result in results]
    return 1 / sum(1 / pace for pace in paces) if all(pace > 0 for pace in paces) else math.nan


def judge_row(found: TrialResults, method: str, setting: int) -> Row:
    compared = method != SINGLE_TASK and found.has(SINGLE_TASK)
    complete = found.complete(method, setting)
    baseline = found.complete(SINGLE_TASK, setting) if found.has(SINGLE_TASK) else {}

    def mean(figure: Callable[[list[Result]], float], of: dict[int, list[Result]]) -> float:
        return statistics.fmean(figure(results) for results in of.values()) if of else math.nan

    def delta_m(last: bool) -> Interval | None:
        if not compared:
            return None
        least = found.change_floor(method, SINGLE_TASK, setting, last)
        return interval(found.changes(method, SINGLE_TASK, setting, last), least=least)

    costs = relative_costs(complete, baseline)
    work = [sum(result.processor_seconds for result in results) for results in complete.values()]
    return Row(
        method=method,
        setting=setting,
        delta_m=delta_m(last=False),
        delta_m_last=delta_m(last=True),
        steps_per_second=mean(_pace, complete),
        seconds=mean(_seconds, complete),
        peak_memory=mean(lambda results: max(result.peak_memory for result in results), complete),
        seeds=len(complete),
        failed=sum(trial in found.failed for _, trial in found.trials(method, setting)),
        relative_cost=statistics.median(costs) if costs else math.nan,
        chosen=found.plan.chosen_text(method, setting),
        cost_low=min(costs, default=math.nan),
        cost_high=max(costs, default=math.nan),
        processor_seconds=statistics.median(work) if work and all(work) else math.nan,
    )


def _seconds(results: list[Result]) -> float:
    return sum(result.seconds for result in results)


def _mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    # Not statistics.stdev, which fails on NaN: a test metric may have no value where its validation has one.
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _hurt(found: TrialResults, method: str, setting: int) -> list[Hurt]:
    accounts = {task: found.accounts(method, setting, task) for task in found.plan.task_names}
    return [
        Hurt(
            method,
            setting,
            task,
            {seed: account.hurt for seed, account in by_seed.items()},
            statistics.fmean(account.hurt for account in by_seed.values()),
            statistics.fmean(account.against for account in by_seed.values()),
        )
        for task, by_seed in accounts.items()
        if by_seed
    ]


def _curves(found: TrialResults, method: str, setting: int) -> list[Curve]:
    """The mean curve over seeds; none while nothing is finished."""
    finished = [trial for _, trial in found.trials(method, setting) if trial in found.results]
    if not finished:
        return []
    # Where some were shortened, a mean over the others would pass for that of all seeds.
    short = any(is_short(found.results[trial]) for trial in finished)

    def mean(kind: str) -> dict[str, list[float]]:
        if short and kind != "validation":
            return {}
        by_task: dict[str, list[list[float]]] = {}
        for trial in finished:
            of_network = getattr(found.results[trial].curves, kind)
            for task in found.plan.serves(method, trial.tasks):
                if task in of_network:
                    by_task.setdefault(task, []).append(of_network[task])
        curves = {task: by_task[task] for task in found.plan.task_names if task in by_task}
        return {task: _mean_curve(each, found.plan.epochs) for task, each in curves.items()}

    epochs = list(range(1, found.plan.epochs + 1))
    kinds = ("losses", "weights", "validation", "weight_spreads")
    return [Curve(method, setting, epochs, *map(mean, kinds))]


def _mean_curve(curves: list[list[float]], epochs: int) -> list[float]:
    """Mean over seeds; NaN where no seed has a value (a task that no batch of the epoch held), and from where on more
    than half of the trainings have ended for want of a better epoch: the last ones would speak for all."""
    values = np.full((len(curves), epochs), np.nan)
    for row, curve in zip(values, curves, strict=True):
        row[: len(curve)] = curve[:epochs]
    values[:, sorted(map(len, curves), reverse=True)[(len(curves) - 1) // 2] :] = np.nan
    counts = np.maximum((~np.isnan(values)).sum(0), 1)
    mean = np.where(np.isnan(values).all(0), np.nan, np.nansum(values, axis=0) / counts)
    return [float(value) for value in mean]


def _failures(found: TrialResults, method: str, setting: int) -> list[Failure]:
    return [
        Failure(
            method=method,
            setting=setting,
            seed=seed,
            task=trial.tasks[0] if trial.method == SINGLE_TASK else None,
            error=found.failed[trial].error,
            traceback=found.failed[trial].traceback,
        )
        for seed, trial in found.trials(method, setting)
        if trial in found.failed
    ]
