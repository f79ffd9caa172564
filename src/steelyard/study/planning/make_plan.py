"""Make a plan: load the problem, try every method once, and refuse what cannot work before anything is trained."""

from __future__ import annotations

import dataclasses
import datetime
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from steelyard import __version__
from steelyard.base.specs import Spec
from steelyard.errors import PlanError
from steelyard.models.build_network import architecture_spec
from steelyard.problems import load_problem
from steelyard.problems.data import Data
from steelyard.problems.guard import guarded
from steelyard.problems.problem import Problem, temperature_of
from steelyard.problems.stream import Stream
from steelyard.problems.task import Task
from steelyard.study.planning.arms import Arm
from steelyard.study.planning.divisions import check_divisions, choose_divisions
from steelyard.study.planning.method_rehearsal import rehearse_methods
from steelyard.study.planning.plan import (
    JOINT,
    Plan,
    PlannedMethod,
    PlannedMetric,
    PlannedSetting,
    PlannedTask,
    Tuning,
)
from steelyard.study.planning.plan_parts import chosen_seeds, machine, patience_note, resplit_notes, whole
from steelyard.study.planning.planned_methods import planned_methods
from steelyard.study.planning.provenance import Origin
from steelyard.study.planning.tuning import make_tuning
from steelyard.study.training.hardware import (
    AUTO,
    CPU,
    FULL,
    ON_CPU,
    Hardware,
    check_device,
    check_precision,
    devices_here,
    kind_of_device,
)
from steelyard.study.training.problem_rehearsal import rehearse, try_optimizer
from steelyard.study.training.sampling import kept_labels, steps_of, used_rows
from steelyard.study.trial import SIZE

Fractions = float | Mapping[str, float]


@guarded
def plan(
    problem: str,
    methods: Sequence[Arm | Spec | str],
    *,
    tasks: Sequence[str] | None = None,
    seeds: int | Sequence[int] = 5,
    settings: Sequence[Fractions] = (1.0,),
    epochs: int | None = None,
    batch_size: int | None = None,
    epoch_steps: int = 0,
    patience: int = 0,
    sampling: str | None = None,
    resplit: bool | None = False,
    learning_rate: float | None = None,
    architecture: str = "hard-sharing",
    shared: str | None = None,
    scale: str | None = None,
    tune: int = 0,
    tune_seeds: int = 1,
    tune_beyond: int = 0,
    ledger: int = 0,
    device: str = CPU,
    precision: str = FULL,
    command: str = "",
) -> Plan:
    """Plan a study; every method is made and takes one step on one batch, so that errors come now.

    Args:
        problem: a name, or a file ``my_problem.py`` (``my_problem.py:variable``).
        methods: ``single-task`` (the baseline) and methods as `steelyard.make` takes them; ``main=`` is the problem's
            where it has one. Each may end in ``@architecture`` to have its own, and say ``(shared=trunk)``, where it
            reads gradients. ``best-fixed``: the best of a few constant weightings on validation data.
        tasks: names of those to learn; all by default.
        seeds: a number of seeds, counted from 0, or the seeds themselves.
        settings: fractions of the training labels: 0.1 for every task, ``{"left": 0.1}`` for some (others keep all).
        epochs, batch_size, learning_rate: the problem's own where not given.
        epoch_steps: an epoch takes at least so many steps: where fractions leave fewer, it goes through their rows
            several times, so that little data are not little training.
        resplit: every seed has its own division of the rows, the same for single tasks and joint networks: intervals
            are then about other rows as well. For problems whose ``load`` takes a seed. None: where a task has fewer
            than 100 test labels, and the seed divides these.
        sampling: of batches, where tasks have rows of their own: ``"size"``, ``"even"`` or ``"temperature(2)"``; the
            problem's where not given.
        patience: a training ends once so many epochs in a row were no better on validation data, in every arm alike; 0
            trains all epochs.
        architecture: of the network, one of `steelyard.models.architecture_names`, options in parentheses.
        shared: where methods read gradients: ``"features"`` or ``"trunk"``; the problem's where not given.
        scale: ``"sum"`` or ``"paper"`` for all methods; by default ``"sum"`` wherever it is defined.
        tune: so many learning rates are tried for every network on a seed of their own, and the best on validation data
            is used; 0 leaves the rate as it is.
        tune_seeds: on so many seeds (folds, of a cross-validation) each of them is tried, and the smallest mean error
            chosen.
        tune_beyond: where the best of these rates is the largest or the smallest, the next one past it is tried, and so
            on while the outermost is the best, up to so many: a network whose rate lies elsewhere is not judged at one
            that merely is the nearest.
        ledger: each so many-th step of a joint network is measured, whom it helps and whom it hurts
            (`steelyard.Ledger`); 0 measures none.
        device: where trials train: ``"cpu"``, ``"cuda"`` (any of a machine's), ``"cuda:1"``, ``"mps"``, or
            ``"auto"``, what this machine has. The kind is part of what a trial is known by.
        precision: of networks' forward passes: ``"float32"``, or autocast to ``"bf16"`` or ``"fp16"`` (with gradient
            scaling). Losses, balancing and metrics are in float32. Part of what a trial is known by.
        command: shown in the report.

    Raises:
        SteelyardError: anything unknown, ill-defined or broken, by name.

    Example:
        >>> from steelyard.study import plan
        >>> made = plan("digits", ["single-task", "equal", "uw"], seeds=[0], epochs=1)
        >>> [method.name for method in made.methods]
        ['single-task', 'equal', 'uw']
    """
    hardware = _hardware(device, precision)
    found = load_problem(problem)
    as_loaded = found
    chosen_epochs = whole("epochs", found.epochs if epochs is None else epochs)
    chosen_batch = whole("batch_size", found.batch_size if batch_size is None else batch_size)
    _check_epochs(found, epoch_steps, patience)
    if ledger:
        whole("ledger", ledger, " (0 measures no steps)")
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise PlanError(f"learning_rate={learning_rate} must be positive and finite")
    learnt = found.chosen(tasks)
    main = found.main if found.main in {task.name for task in learnt} else None
    architecture = str(architecture_spec(architecture))
    place = found.shared if shared is None else shared
    planned, notes = planned_methods(methods, [task.name for task in learnt], place, scale, architecture, main)
    on_seeds = chosen_seeds(seeds)
    notes += _epoch_notes(found, epoch_steps, patience)
    rate = _own_rate(found) if learning_rate is None else learning_rate
    tuning = make_tuning(rate, tune, planned, on_seeds, whole("tune_seeds", tune_seeds), tune_beyond)
    # After what is quick to check: the data may take a while to load.
    divisions = choose_divisions(found, learnt, resplit)
    found = found.redrawn() if divisions.resplit else found
    for each in dict.fromkeys([architecture, *(method.architecture or architecture for method in planned)]):
        with divisions.explained():
            rehearse(found, each, on_seeds)
    drawn = _sampling(found, sampling)
    if drawn != SIZE:
        notes.append(f"batches of one task each, drawn by {drawn}")
    _check_own_order(found, settings, batch_size)
    if divisions.resplit:
        check_divisions(found, on_seeds)
        notes += resplit_notes(tuning, divisions.reason)
    if found.folds > 1:
        notes += _fold_notes(found.folds, on_seeds, tuning)
    made = Plan(
        problem=found.name,
        reference=found.reference,
        identity=identity(found),
        summary=found.summary,
        tasks=tuple(_task(task, found.data()) for task in learnt),
        methods=planned,
        settings=_settings(settings, found, learnt, chosen_batch, epoch_steps, planned),
        seeds=on_seeds,
        epochs=chosen_epochs,
        batch_size=chosen_batch,
        epoch_steps=epoch_steps,
        patience=patience,
        sampling=drawn,
        resplit=divisions.resplit,
        redrawable=as_loaded.redrawable,
        ledger=ledger,
        learning_rate=learning_rate,
        architecture=architecture,
        parameters=0,
        command=command,
        notes=tuple(notes),
        versions={"steelyard": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        machine=machine(),
        created=datetime.datetime.now().astimezone().isoformat(timespec="milliseconds"),
        main=main,
        tuning=tuning,
        folds=found.folds,
        final_rate=_final_rate(found),
        choose=found.choose,
        device=device if device != AUTO else hardware.device.type,
        precision=precision,
        hardware="" if hardware.is_cpu else hardware.name,
    )
    tried_on = [*on_seeds, *([] if tuning is None else tuning.seeds)]
    made = dataclasses.replace(made, origin=Origin.of(as_loaded, tried_on, made.trials))
    return dataclasses.replace(made, parameters=rehearse_methods(made, found, hardware))


def identity(problem: Problem) -> str:
    """What the keys of trials call a problem before its origin: its name, or that of its file."""
    return Path(problem.reference).name if problem.fingerprint else problem.reference


def _hardware(device: str, precision: str) -> Hardware:
    """To try methods on: the device, or the CPU where only other machines have it."""
    check_precision(precision)
    kind = kind_of_device(check_device(device))
    if kind in (AUTO, *map(kind_of_device, devices_here())):
        return Hardware.of(device, precision)
    return ON_CPU


def _task(task: Task, data: Data) -> PlannedTask:
    metrics = [PlannedMetric(m.name, m.higher_is_better, m.ideal, m.percent) for m in task.metrics]
    train, test = (int(split.labelled(task).sum()) for split in (data.train, data.test))
    return PlannedTask(task.name, task.label, task.equivalence, tuple(metrics), train, test)


def _sampling(problem: Problem, asked: str | None) -> str:
    """How the tasks' batches are drawn, where they have rows of their own."""
    chosen = problem.sampling if asked is None else asked
    temperature_of(chosen)
    if chosen != SIZE and not problem.data().train.sections:
        raise PlanError(
            f"sampling={chosen!r}: the tasks of {problem.name} share their rows, so that a batch is of all of them: "
            "give each rows of its own, Data(train={task: Split(…), …}, …), or leave sampling away"
        )
    return chosen


def _check_own_order(problem: Problem, settings: Sequence[Fractions], batch_size: int | None) -> None:
    """A DataLoader's own sampler decides which rows there are, and how many at once."""
    train = problem.data().train
    if not isinstance(train, Stream) or not train.has_own_order:
        return
    whole_rows = all(
        fraction == 1 for each in settings for fraction in (each.values() if isinstance(each, Mapping) else [each])
    )
    if not whole_rows or batch_size is not None:
        away = "fractions" if not whole_rows else "batch_size"
        raise PlanError(
            f"{problem.name}: the training DataLoader has a sampler of its own (or drop_last=True), which decides "
            f"which rows are drawn: leave {away} away, or the sampler: the study then draws each row once"
        )


def _check_epochs(problem: Problem, epoch_steps: int, patience: int) -> None:
    if epoch_steps:
        whole("epoch_steps", epoch_steps, " (0 leaves epochs as long as their rows make them)")
    if patience:
        whole("patience", patience, " (0 trains all epochs)")
    if patience and problem.choose == "last":
        raise PlanError(
            f"patience={patience}: {problem.name} judges networks at their last epoch, so that there is no better "
            "one to wait for: leave patience away"
        )


def _epoch_notes(problem: Problem, epoch_steps: int, patience: int) -> list[str]:
    """How long epochs are, which one counts, and when a training ends."""
    notes = []
    if epoch_steps:
        notes.append(f"an epoch takes at least {epoch_steps} steps, in as many passes over the rows as they need")
    if problem.choose == "last":
        notes.append("networks are judged at their last epoch, whatever validation data say")
    if patience:
        notes.append(patience_note(patience))
    return notes


def _final_rate(problem: Problem) -> float:
    """What the problem's schedule leaves of the learning rate when all epochs are done."""
    return problem.rate_factor(1.0)


def _own_rate(problem: Problem) -> float:
    """The learning rate of the problem's optimizer."""
    small = nn.ModuleDict({"trunk": nn.Linear(1, 1), "head": nn.Linear(1, 1)})
    return float(try_optimizer(problem, small).param_groups[0]["lr"])


def _fold_notes(folds: int, seeds: Sequence[int], tuning: Tuning | None) -> list[str]:
    """How a cross-validation is dealt, and where rows serve twice."""
    notes = [f"{folds}-fold cross-validation: a trial of seed s tests on fold s mod {folds}"]
    if len({seed % folds for seed in seeds}) < len(seeds):
        notes.append(f"more seeds than the {folds} folds: some test on the same rows, and intervals are too narrow")
    if tuning is not None:
        dealt = sorted({seed % folds for seed in tuning.seeds})
        where = f"fold{'' if len(dealt) == 1 else 's'} {', '.join(map(str, dealt))}"
        notes.append(f"learning rates and constant weights are chosen once, on {where}: other folds test on its rows")
    return notes


def _settings(
    settings: Sequence[Fractions],
    problem: Problem,
    tasks: Sequence[Task],
    batch_size: int,
    least: int,
    methods: Sequence[PlannedMethod],
) -> tuple[PlannedSetting, ...]:
    if not settings:
        raise PlanError("no fractions: give at least one, e.g. 1.0")
    planned: list[PlannedSetting] = []
    names = [task.name for task in tasks]
    for setting in settings:
        given = setting if isinstance(setting, Mapping) else dict.fromkeys(names, setting)
        for task, fraction in given.items():
            problem.task(task)
            if task not in names:
                raise PlanError(f"fraction {fraction} of {task!r}: the study does not learn this task")
            if not 0 < fraction <= 1:
                raise PlanError(f"fraction {fraction} of {task!r}: it must be above 0 and at most 1")
        fractions = {name: float(given.get(name, 1.0)) for name in names}
        if all(fractions != earlier.fractions for earlier in planned):
            groups = [network.learns for method in methods for network in method.networks]
            planned.append(PlannedSetting(fractions, _steps(problem, tasks, fractions, batch_size, least, groups)))
    return tuple(planned)


def _steps(
    problem: Problem,
    tasks: Sequence[Task],
    fractions: Mapping[str, float],
    batch_size: int,
    least: int,
    groups: Sequence[tuple[str, ...]],
) -> dict[str, int]:
    train = problem.data().train
    labels = {task.name: kept_labels(task, train, fractions[task.name], seed=0) for task in tasks}
    masks = {JOINT: used_rows(labels), **labels}
    masks |= {" ".join(group): used_rows({name: labels[name] for name in group}) for group in groups}
    return {name: steps_of(train, mask, batch_size, least) for name, mask in masks.items()}


def check_workers(workers: int | None) -> None:
    """Raise a `PlanError` unless there is a worker; None leaves their number open."""
    if workers is not None:
        whole("workers", workers)


def check_per_device(per_device: int) -> None:
    """Raise a `PlanError` unless a device has room for a trial."""
    whole("per_device", per_device)
