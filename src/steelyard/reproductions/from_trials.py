"""What stored trials say of a reproduction: nothing is trained, and its data need not be there."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from steelyard.errors import DamagedStoreError, StoreError
from steelyard.io.lists_and_counts import listed
from steelyard.io.writing import what_it_is
from steelyard.problems import load_problem
from steelyard.reproductions.reproduction import SIZES, Experiment, Outcome, Reproduction, Size
from steelyard.reproductions.run_reproduction import outcome_of, summarise, work_of
from steelyard.reproductions.summary import Summary
from steelyard.study.planning.arms import parse_arms
from steelyard.study.planning.command_again import is_reproduction
from steelyard.study.planning.merging import merge
from steelyard.study.planning.plan import Plan
from steelyard.study.planning.planned_methods import planned_methods
from steelyard.study.storage.store import Store
from steelyard.study.storage.trials_file import is_trials_file
from steelyard.study.trial import Result, Trial


def judged_from(reproduction: Reproduction, size: Size, source: Path) -> Summary:
    """Judge a reproduction by the trials of a store, or of a file of trials, as the run that trained them did.

    Where a problem has metrics of all tasks together, its test data are read for their labels.

    Raises:
        StoreError: the file is missing, neither of both, or holds no study of this reproduction at this size.
    """
    planned = reproduction.experiments(size)
    with _as_store(source) as store:
        with Store(store) as opened:
            plans, unread = _plans(opened)
        outcomes: list[Outcome] = []
        results: dict[Trial, Result] = {}
        command = ""
        for experiment in planned:
            made = next((plan for plan in plans if fits(plan, reproduction, experiment)), None)
            if made is None:
                continue
            outcome, trained = outcome_of(experiment, made, store)
            results |= trained
            outcomes.append(outcome)
            command = made.command
    if not outcomes:
        if unread is not None:
            raise unread
        raise StoreError(_nothing_of(reproduction, size, source, plans))
    return summarise(reproduction, size, outcomes, planned, work_of(results), command)


def _plans(store: Store) -> tuple[list[Plan], DamagedStoreError | None]:
    """The latest first, and the error of one that cannot be read: another version of Steelyard may have written it."""
    plans, unread = [], None
    for content in store.plans():
        try:
            plans.append(Plan.from_dict(content))
        except DamagedStoreError as error:
            unread = unread or error
    return plans, unread


def _nothing_of(reproduction: Reproduction, size: Size, source: Path, plans: Sequence[Plan]) -> str:
    others = [
        other
        for other in SIZES
        if any(fits(plan, reproduction, experiment) for plan in plans for experiment in reproduction.experiments(other))
    ]
    said = f"{source} holds no study that `steelyard reproduce {reproduction.name}` trains at its {size} size"
    if others:
        options = {"quick": "with --quick", "real": "without --quick or --full", "full": "with --full"}
        return f"{said}; it holds one of its {others[0]} size: ask {options[others[0]]}"
    trained = dict.fromkeys(plan.command or plan.reference for plan in plans)
    return f"{said}; it was filled by {listed(list(trained)) if trained else 'no study at all'}"


def fits(plan: Plan, reproduction: Reproduction, experiment: Experiment) -> bool:
    """Whether a stored plan is this experiment, as this version of Steelyard has it, whatever its seeds."""
    if not is_reproduction(plan.command) or reproduction.name not in shlex.split(plan.command):
        return False
    problem, tuning = load_problem(experiment.problem), plan.tuning
    if plan.reference not in (experiment.problem, problem.reference):  # without options that are at their defaults
        return False
    tasks = experiment.tasks or problem.task_names
    settings = [
        {task: float(each.get(task, 1.0) if isinstance(each, Mapping) else each) for task in tasks}
        for each in experiment.settings
    ]
    place = problem.shared if experiment.shared is None else experiment.shared
    arms = parse_arms(experiment.methods)
    methods, _ = planned_methods(arms, list(tasks), place, experiment.scale, plan.architecture, plan.main)
    rates = tuning.rates if tuning else ()
    pairs = [
        ([replace(method, chosen=()) for method in plan.methods], list(methods)),
        ([setting.fractions for setting in plan.settings], settings),
        (plan.epochs, problem.epochs if experiment.epochs is None else experiment.epochs),
        (plan.batch_size, problem.batch_size if experiment.batch_size is None else experiment.batch_size),
        (plan.epoch_steps, experiment.epoch_steps),
        (plan.patience, experiment.patience),
        (len(rates), experiment.tune),
    ]
    if experiment.learning_rate is not None:
        pairs.append((rates[0] if rates else plan.learning_rate, experiment.learning_rate))
    if tuning is not None and rates:
        pairs.append(((len(tuning.seeds), tuning.beyond), (experiment.tune_seeds, experiment.tune_beyond)))
    return all(found == wanted for found, wanted in pairs)


@contextmanager
def _as_store(source: Path) -> Iterator[Path]:
    try:
        kind = what_it_is(source.stat())
    except OSError as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise StoreError(f"--from {source}: {why}") from error
    if kind != "a file":
        raise StoreError(f"--from {source}: that is {kind}")
    if not is_trials_file(source):
        yield source
        return
    with TemporaryDirectory() as folder:
        store = Path(folder) / "trials.sqlite"
        merge(store, [source])
        yield store
