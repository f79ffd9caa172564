"""What a plan would take: trials, time and disk, by timing a few real steps of every method."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from steelyard.base.specs import parse_spec
from steelyard.errors import EmptyStoreError, ProblemError
from steelyard.method_registry import make
from steelyard.models import build
from steelyard.problems import load_problem
from steelyard.problems.data import Data
from steelyard.problems.guard import guarded
from steelyard.problems.problem import Problem
from steelyard.problems.rows import DataRows, Split
from steelyard.problems.task import Metric, Task
from steelyard.study.planning.make_plan import check_workers
from steelyard.study.planning.plan import Plan
from steelyard.study.planning.tuning import settle, tried
from steelyard.study.storage.store import Store
from steelyard.study.training.evaluate import TaskOutputs, asked, measure, predict
from steelyard.study.training.hardware import Hardware
from steelyard.study.training.left_out_rows import PARTS
from steelyard.study.training.rows_on_device import RowsOnDevice
from steelyard.study.training.train import train
from steelyard.study.trial import SINGLE_TASK, Trial

STEPS = 8  # timed per method
EVALUATED = 8  # batches of validation rows
SPREAD = 1.25  # times more or less than a short look says: machines are busier at other times
START = 0.2  # seconds until a worker trains, without loading the data
UNMEASURED = Metric("none", lambda outputs, targets: 0.5, higher_is_better=False, ideal=0.0)
BYTES_PER_NUMBER = 22  # a float as JSON
STILL = 1e-9  # the rate of timed steps: they take as long, and none diverges where a large rate would


@dataclass(frozen=True)
class Estimate:
    """What is planned and what it would still take.

    Example:
        >>> from steelyard.study import Estimate
        >>> Estimate(trials=10, finished=4, failed=0, seconds=60.0, disk=2**20).seconds
        60.0
    """

    trials: int
    finished: int
    failed: int
    seconds: float  # for what is not finished, with so many workers
    disk: int  # bytes: the store's growth, checkpoints while it runs, and the networks that are kept
    networks: int = 0  # bytes of these networks, roughly
    least: float = math.nan  # seconds, if all goes well
    most: float = math.nan


@guarded
def estimate(
    plan: Plan,
    store: Path | str,
    workers: int = 2,
    coarse: bool = False,
    reuse_any: bool = False,
    keep: str = "none",
) -> Estimate:
    """Time a few real steps of each method, an evaluation of a few rows and each metric once, and add up what the store
    does not hold.

    The steps are bounded, whatever the study would take; each metric is taken once on as many rows as there are.
    From `least` to `most` seconds allow for what that misses.

    A program is not timed: it says how long it takes by running, and `seconds` is NaN.

    With `coarse`, methods that read the same at the same place are timed once for all: solvers are taken for free.

    Single-task networks that are trained at once (see `ensemble`) take less than is said here, where each counts alone.

    Rates past an edge (`plan(tune_beyond=)`) count as soon as trials in the store say which edges these are.

    Workers share memory and caches, so that two are not quite twice as fast as one: the time is a rough one.

    Raises:
        StoreError: the store exists and cannot be read.

    Example:
        >>> from steelyard.study import estimate, plan
        >>> made = plan("digits", ["single-task", "equal"], seeds=1, epochs=1)
        >>> found = estimate(made, "digits.sqlite")  # writes nothing
        >>> found.trials, found.finished
        (3, 0)
    """
    check_workers(workers)
    failed = 0
    waiting = trials = list(dict.fromkeys([*tried(plan), *plan.trials]))
    if os.path.isfile(store):
        with suppress(EmptyStoreError), Store(store) as opened:  # which is filled as a new one
            if reuse_any:
                plan = dataclasses.replace(plan, also=tuple(opened.origins(plan.identity)))
            plan = settle(plan, lambda trials: opened.results(trials, plan.also))
            trials = list(dict.fromkeys([*tried(plan), *plan.trials]))
            waiting, failed = opened.unfinished(trials, plan.also), len(opened.failures(trials))
    numbers = sum((3 * trial.epochs + PARTS) * len(trial.tasks) for trial in waiting)
    rows = numbers * BYTES_PER_NUMBER + 1500 * len(waiting)
    if plan.program is not None:
        return Estimate(len(trials), len(trials) - len(waiting), failed, math.nan, rows)
    problem = load_problem(plan.reference)
    started = time.perf_counter()
    dataclasses.replace(problem).data()  # a copy: it has not loaded them yet
    overhead = START + time.perf_counter() - started
    costs: dict[Hashable, _Cost] = {}
    metrics = _time_metrics(problem, waiting) if waiting else {}
    each: list[float] = []
    for trial in waiting:
        kind = _class(trial) if coarse else _kind(trial)
        if kind not in costs:
            costs[kind] = _time(problem, trial)
        looks = len(asked(trial, problem.choose == "last"))
        measured = sum(looks * metrics[name].epoch + metrics[name].test for name in trial.tasks)
        trained = plan.steps(trial) * costs[kind].step + (looks + 2) * costs[kind].evaluation
        each.append(overhead + trained + measured)
    # Network, best network, Adam's two moments; an old and a new checkpoint for a moment.
    checkpoints = min(workers, len(waiting)) * 2 * 4 * 4 * plan.parameters
    networks = 4 * plan.parameters * _kept(plan, waiting, keep)
    seconds = sum(each) / min(workers, max(1, len(waiting)))
    # A training that has patience may end as soon as that is over; the last one of all may have a worker for itself.
    shortest = min(1.0, (plan.patience + 1) / plan.epochs) if plan.patience else 1.0
    alone = max(each, default=0.0) if workers > 1 and len(waiting) > 1 else 0.0
    return Estimate(
        trials=len(trials),
        finished=len(trials) - len(waiting),
        failed=failed,
        seconds=seconds,
        disk=rows + checkpoints + networks,
        networks=networks,
        least=shortest * seconds / SPREAD,
        most=SPREAD * (seconds + alone),
    )


def _kept(plan: Plan, waiting: list[Trial], keep: str) -> int:
    """How many networks stay, each taken to be as large as the joint one: all, or one for the seeds of each."""
    if keep == "none":
        return 0
    new = set(waiting)
    trials = [trial for trial in plan.trials if trial in new]
    return len(trials) if keep == "all" else len({dataclasses.replace(t, seed=0, problem="") for t in trials})


def _kind(trial: Trial) -> Hashable:
    """Trials that take equally long a step; of the single-task networks of one problem, much alike, one is timed."""
    name = trial.method if trial.method == SINGLE_TASK else parse_spec(trial.method).name
    return name if name == "fixed" else trial.method, trial.shared, trial.architecture, len(trial.tasks)


def _class(trial: Trial) -> Hashable:
    """The same by what a method reads and where."""
    if trial.method == SINGLE_TASK:
        return SINGLE_TASK
    balancer = make(trial.method, trial.tasks)
    looks = balancer.reads, balancer.heads, balancer.needs_after, balancer.needs_along
    return *looks, balancer.product, trial.shared, trial.architecture


@dataclass(frozen=True)
class _Cost:
    step: float  # seconds
    evaluation: float  # seconds, of the validation data


@dataclass(frozen=True)
class _MetricCost:
    """Seconds.

    Attributes:
        epoch: on validation data: the main metric, and on either half of the rows.
        test: on test data, at the chosen epoch and at the last: all of them, and the main one without some rows.
    """

    epoch: float
    test: float


def _time_metrics(problem: Problem, trials: Sequence[Trial]) -> dict[str, _MetricCost]:
    """Each task's metrics once on as many rows as there are, by the outputs of an untrained network for a few of them.

    A metric that has no value there, where labels are known by reading alone, counts for nothing.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.tasks))
    tasks = [problem.task(name) for name in names]
    network, data = build(problem, names, trials[0].seed), problem.data(trials[0].seed)
    most = max(trials, key=lambda trial: len(trial.tasks))
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for part, rows in (("validation", data.validation), ("test", data.test)):
        few = RowsOnDevice(rows.some(_some_rows(problem, most, rows, 1)), tasks)
        shown = predict(network, problem, few, most.batch_size)
        for task in tasks:
            there = _as_all(task, shown[task.name], rows)
            found[task.name][part] = [_seconds(task, metric, there, part) for metric in task.metrics]
    return {
        name: _MetricCost(2 * each["validation"][0], 2 * sum(each["test"]) + (PARTS - 1) * each["test"][0])
        for name, each in found.items()
    }


def _as_all(task: Task, few: TaskOutputs, rows: DataRows) -> TaskOutputs:
    """Few outputs over and over, beside all labels where they are in memory, else beside their own."""
    labelled = rows.labelled(task)
    labels = None if task.statistics is not None else rows.labels(task, labelled)
    places = torch.arange(int(labelled.sum())) % len(few.outputs)
    return TaskOutputs(few.outputs[places], few.targets[places] if labels is None else labels, None)


def _seconds(task: Task, metric: Metric, shown: TaskOutputs, part: str) -> float:
    """By the clock on the wall: a metric may leave its work to others, and is waited for."""
    started = time.perf_counter()
    try:
        measure(dataclasses.replace(task, metrics=(metric,)), shown, part)
    except ProblemError:
        return 0.0
    return time.perf_counter() - started


def _time(problem: Problem, trial: Trial) -> _Cost:
    """Train one epoch of a few steps, by the very loop of a study, with one thread as there."""
    data = problem.data(trial.seed)
    rows = _some_rows(problem, trial, data.train)
    few = data.train.some(rows)
    shown = data.validation.some(_some_rows(problem, trial, data.validation, EVALUATED * 2))
    # Metrics have a time of their own: of a few rows, some have no value.
    tasks = [dataclasses.replace(task, metrics=(UNMEASURED,)) for task in problem.tasks]
    small = dataclasses.replace(problem, tasks=tasks, joint=(), folds=1, load=lambda: Data(few, shown, shown))
    # Few steps whatever an epoch of the study takes: as many as are timed, where rows are few.
    fractions = tuple((task, 1.0) for task, _ in trial.fractions)
    short = dataclasses.replace(
        trial,
        epochs=1,
        fractions=fractions,
        epoch_steps=min(trial.epoch_steps, STEPS),
        learning_rate=STILL,
        resplit=False,
    )
    hardware = Hardware.of(trial.device, trial.precision)
    clock = time.process_time if hardware.is_cpu else time.perf_counter  # as `Result.work` has it
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(short, small, hardware=hardware)  # the first run imports and allocates
        started, worked = time.perf_counter(), clock()
        result = train(short, small, hardware=hardware)
    finally:
        torch.set_num_threads(threads)
    times = _rows_for(trial, data.validation) / _rows_for(trial, shown) / 3  # there were three passes over those few
    if not isinstance(data.train, Split):  # reading is waited for, and done by other processes
        waited = max(0.0, time.perf_counter() - started - result.seconds)
        return _Cost(result.seconds / result.steps, times * waited)
    return _Cost(result.work / result.steps, times * max(0.0, clock() - worked - result.work))


def _rows_for(trial: Trial, rows: DataRows) -> int:
    """How many rows a network of the trial is evaluated on."""
    own = [here for name, here in rows.sections.items() if name in trial.tasks]
    return sum(here.stop - here.start for here in own) if own else len(rows)


def _some_rows(problem: Problem, trial: Trial, split: DataRows, count: int = STEPS) -> torch.Tensor:
    """Rows for a few batches of a trial; the data are only complete with a label of every task, so one of each."""
    labels = {task.name: split.labelled(task) for task in problem.tasks}
    used = torch.stack([labels[name] for name in trial.tasks]).any(0).nonzero().squeeze(1)
    drawn = torch.randperm(len(used), generator=torch.Generator().manual_seed(0))[: count * trial.batch_size]
    firsts = torch.stack([mask.nonzero()[0, 0] for mask in labels.values()])
    chosen = torch.zeros(len(split), dtype=torch.bool)
    chosen[torch.cat([used[drawn], firsts])] = True
    return chosen.nonzero().squeeze(1)
