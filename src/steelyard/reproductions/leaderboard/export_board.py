"""Write what a problem of the leaderboard found, once all of its trials are there; rows of other runs stay."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from steelyard.errors import LeaderboardError
from steelyard.problems import load_problem
from steelyard.problems.metrics import auc, pearson, r2
from steelyard.reproductions.leaderboard.board_results import (
    BoardProblem,
    BoardRow,
    BoardSeed,
    BoardTask,
    read,
    write,
)
from steelyard.reproductions.leaderboard.board_rows import WantedRow
from steelyard.reproductions.leaderboard.plan_board import BoardStudy, PlannedProblem
from steelyard.study.analysis.make_judgement import findings
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.planning.plan import JOINT, Plan, PlannedTask
from steelyard.study.planning.tuning import attempts, choose, rounds, tried
from steelyard.study.storage.short_curves import check_whole
from steelyard.study.storage.store import Store
from steelyard.study.trial import Result, Trial

MEBIBYTE = 2**20
AGREES = ("problem", "tasks", "main", "seeds", "epochs", "rates", "tuning_seeds", "beyond")
"""Fields of two files of one problem whose rows may stand beside each other."""
SIZES = ("train_rows", "batch_size")
"""Facts of which the same holds."""
REST = 60
"""Letters of a file's name; systems allow 255 bytes."""

BY_CHANCE = {r2.name: 0.0, auc.name: 0.5, pearson.name: 0.0}
"""What one prediction for all rows reaches, by metrics for which that is the same on all data."""


def file_of(folder: Path, problem: str) -> Path:
    """``FOLDER/gdsc-drugs-20.json`` for ``gdsc(drugs=20)``."""
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', problem).strip('-.')[:REST]}.json"


def export(planned: PlannedProblem, store: Store, folder: Path) -> Path | None:
    """Write the file of a problem; None while trials of it are missing.

    Raises:
        LeaderboardError: a file of other sizes, seeds or rates is there, or one with other results of the same rows.
    """
    measured = _measured(planned, store)
    if measured is None:
        return None
    found, seconds = measured
    path = file_of(folder, found.problem)
    folder.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        found = merged(read(path), found, seconds, path)
    write(found, path)
    return path


def check_folder(planned: PlannedProblem, folder: Path) -> None:
    """Refuse, before anything is trained, a folder whose file of this problem could not take the results."""
    path = file_of(folder, planned.entry.problem)
    if path.is_file():
        check_budget(planned, read(path), path)


def check_budget(planned: PlannedProblem, there: BoardProblem, called: Path | str) -> None:
    """Raise a `LeaderboardError` where rows of the plan could not stand beside those that are there."""
    _check_alike(there, _without_rows(planned), called)


def _measured(planned: PlannedProblem, store: Store) -> tuple[BoardProblem, dict[str, float]] | None:
    """What the store has of a problem, and the seconds that each row's trainings took; None while some are missing."""
    rows: list[BoardRow] = []
    seconds: dict[str, float] = {}
    whole = _without_rows(planned)
    for study in planned.studies:
        plan = _chosen_from(study.plan, store)
        if plan is None or not _ended(plan.trials, store):
            return None
        known = findings(plan, store)
        ended = {**store.results(tried(plan)), **known.results}
        for name, row in study.rows.items():
            of_row = {each.trial for place in rounds(plan) for each in attempts(plan, place) if each.arm == name}
            of_row.update(trial for _, trial in known.trials(name, 0))
            seconds[row.name] = sum(ended[trial].work for trial in of_row if trial in ended)
            rows.append(_row(row, name, known))
        whole = dataclasses.replace(whole, facts={**whole.facts, **_loss_scales(study, known)})
    return dataclasses.replace(whole, rows=tuple(rows), trained_seconds=sum(seconds.values())), seconds


def _chosen_from(plan: Plan, store: Store) -> Plan | None:
    """The plan with what validation chose among the trials that did not fail; None while one is still to come."""
    for place in rounds(plan):
        made = attempts(plan, place)
        trials = list(dict.fromkeys(each.trial for each in made))
        if not _ended(trials, store):
            return None
        plan = choose(plan, made, store.results(trials))
    return plan


def _ended(trials: Sequence[Trial], store: Store) -> bool:
    """Whether each of them is finished or has failed."""
    return not {*trials} - {*store.results(trials), *store.failures(trials)}


def _without_rows(planned: PlannedProblem) -> BoardProblem:
    """What is known of a problem before it is trained."""
    plan = planned.plan
    problem = load_problem(plan.reference)
    train = problem.data().train
    shares = plan.settings[0].fractions
    most = max(shares.values())  # of the rows, so many keep a label
    labels = [task.train_rows * (shares[task.name] / most) for task in plan.tasks]
    # Of tasks with rows of their own no label is missing: nobody would have asked for it.
    apart = int(torch.stack([train.labelled(problem.task(name)) for name in plan.task_names]).sum(0).max()) < 2
    return BoardProblem(
        problem=planned.entry.problem,
        kind=planned.entry.kind,
        tasks=tuple(_task(task) for task in plan.tasks),
        main=plan.main,
        command=plan.command,
        seeds=plan.seeds,
        epochs=plan.epochs,
        rates=_rates(plan),
        tuning_seeds=() if plan.tuning is None else plan.tuning.seeds,
        beyond=0 if plan.tuning is None else plan.tuning.beyond,
        machine={"description": plan.machine, "device": plan.device, "hardware": plan.hardware},
        versions=plan.versions,
        trained_seconds=0.0,
        rows=(),
        facts={
            "train_rows": float(round(len(train) * most)),
            "batch_size": float(plan.batch_size),
            "missing_labels": 0.0 if apart else 1 - sum(labels) / (len(labels) * len(train)),
        },
    )


def _loss_scales(study: BoardStudy, known: TrialResults) -> dict[str, float]:
    """How far the tasks' losses are apart in the first epoch of the plain sum, where it was trained."""
    plain = [name for name, row in study.rows.items() if row.group == "sum"]
    results = [result for name in plain for found in known.complete(name, 0).values() for result in found]
    if not results:
        return {}
    for each in results:
        check_whole(each, "how far losses are apart is told by their first epoch")
    firsts = [statistics.fmean(each.curves.losses[task][0] for each in results) for task in study.plan.task_names]
    return {"loss_scales": max(firsts) / min(firsts)} if min(firsts) > 0 else {}


def _rates(plan: Plan) -> tuple[float, ...]:
    if plan.tuning is not None and plan.tuning.rates:
        return plan.tuning.rates
    return () if plan.learning_rate is None else (plan.learning_rate,)


def _task(task: PlannedTask) -> BoardTask:
    main = task.metrics[0]
    return BoardTask(task.name, main.name, main.higher_is_better, main.ideal, BY_CHANCE.get(main.name))


def _row(row: WantedRow, name: str, known: TrialResults) -> BoardRow:
    complete = known.complete(name, 0)
    trials = [trial for _, trial in known.trials(name, 0)]
    failed = [known.failed[trial].error for trial in trials if trial in known.failed and trial not in known.results]
    results = [result for found in complete.values() for result in found]
    memory = max((result.peak_memory for result in results), default=0.0)
    return BoardRow(
        name=row.name,
        group=row.group,
        reads=row.reads,
        chosen=_chosen(row, name, known.plan),
        failed=f"{len(failed)} of {len(trials)} trainings: {failed[0]}" if failed else None,
        # As one model: a step advances each of the row's networks once.
        seconds_per_step=statistics.median(
            sum(result.work / max(1, result.steps) for result in found) for found in complete.values()
        )
        if complete
        else 0.0,
        peak_memory=round(memory * MEBIBYTE) or None,
        per_seed={seed: _seed(known.plan, name, seed, found) for seed, found in complete.items()},
        of=row.of,
    )


def _seed(plan: Plan, arm: str, seed: int, results: Sequence[Result]) -> BoardSeed:
    """Of the networks of one seed together."""
    trained = dict(zip(plan.trials_of(arm, 0, seed), results, strict=True))
    test = tested(plan, arm, trained)
    served = [(result, plan.serves(arm, trial.tasks)) for trial, result in trained.items()]
    validation = {
        task: result.curves.validation[task][result.chosen_epoch - 1] for result, tasks in served for task in tasks
    }
    higher = {task.name: task.metrics[0].higher_is_better for task in plan.tasks}
    reached = {
        task: (best(values[: len(values) // 2]), best(values))
        for result, tasks in served
        for task in tasks
        for values in (result.curves.validation[task],)
        for best in (max if higher[task] else min,)
        if len(values) > 1
    }
    work, steps = sum(each.work for each in results), sum(each.steps for each in results)
    return BoardSeed(test, validation, work, steps, reached)


def tested(plan: Plan, arm: str, trained: Mapping[Trial, Result]) -> dict[str, float]:
    """The main metric of each task on test data, by the network that serves it, not where it only helps another."""
    return {task: found.test[task][0] for trial, found in trained.items() for task in plan.serves(arm, trial.tasks)}


def _chosen(row: WantedRow, name: str, plan: Plan) -> dict[str, Any]:
    """What it takes to train the row once more."""
    choice = plan.method(name).choice(0)
    own = _rates(plan)[0] if _rates(plan) else None
    rates = choice.learning_rates
    rate: object = own if not rates else rates[JOINT] if set(rates) == {JOINT} else dict(rates)
    chosen: dict[str, Any] = {"arm": name, "method": choice.method, "learning_rate": rate}
    return {**chosen, "optimizer": row.optimizer} if row.optimizer else chosen


def merged(there: BoardProblem, new: BoardProblem, seconds: dict[str, float], path: Path) -> BoardProblem:
    """The rows of a file and those of this run.

    Args:
        seconds: that each of this run's rows took.

    Raises:
        LeaderboardError: they are not of one budget, or one row has two results.
    """
    _check_alike(there, new, path)
    rows = {row.name: row for row in there.rows}
    added = [row.name for row in new.rows if row.name not in rows]
    for row in new.rows:
        old = rows.get(row.name)
        if old is not None and old.failed is None and _values(old) != _values(row):
            raise LeaderboardError(
                f"{path} has other results of {row.name!r} (another machine, other code or versions): it is not "
                "overwritten. Move it away, or export to another folder"
            )
        rows[row.name] = row if old is not None else _marked(row, there, new)
    if set(rows) == {row.name for row in new.rows}:
        return new
    trained = there.trained_seconds + sum(seconds[name] for name in added)
    return dataclasses.replace(
        there, rows=tuple(rows.values()), trained_seconds=trained, facts={**new.facts, **there.facts}
    )


def _values(row: BoardRow) -> dict[int, dict[str, str]]:
    """As text: a test value that is no number is the same one again."""
    return {seed: {task: repr(value) for task, value in found.test.items()} for seed, found in row.per_seed.items()}


def _marked(row: BoardRow, there: BoardProblem, new: BoardProblem) -> BoardRow:
    """With its machine and versions, where the file's are others: times do not compare then."""
    other = {name: getattr(new, name) for name in ("machine", "versions") if getattr(new, name) != getattr(there, name)}
    return dataclasses.replace(row, chosen={**row.chosen, **other})


def _check_alike(there: BoardProblem, new: BoardProblem, path: Path | str) -> None:
    other = [
        f"{name} {_said(getattr(there, name))} in place of {_said(getattr(new, name))}"
        for name in AGREES
        if getattr(there, name) != getattr(new, name)
    ]
    other += [
        f"{name} {there.facts[name]:g} in place of {new.facts[name]:g}"
        for name in SIZES
        if name in there.facts and there.facts[name] != new.facts.get(name)
    ]
    if other:
        raise LeaderboardError(
            f"{path} is of another budget ({'; '.join(other)}), so that its rows do not stand beside these: it is not "
            "overwritten. Give the same sizes and seeds, or export to another folder"
        )


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(each.name if isinstance(each, BoardTask) else str(each) for each in value)})"
    return str(value)
