"""Make a plan for a program: it is asked what it trains, and every method is made once."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
from collections.abc import Mapping, Sequence

from steelyard.base.specs import Spec
from steelyard.errors import PlanError
from steelyard.models.architectures import HARD_SHARING
from steelyard.study.planning.arms import Arm, make_arm, parse_arm
from steelyard.study.planning.plan import (
    JOINT,
    Plan,
    PlannedMetric,
    PlannedSetting,
    PlannedTask,
)
from steelyard.study.planning.plan_parts import chosen_seeds, machine, patience_note, resplit_notes, whole
from steelyard.study.planning.planned_methods import planned_methods
from steelyard.study.planning.provenance import Origin
from steelyard.study.planning.tuning import make_tuning
from steelyard.study.program.asking import ask
from steelyard.study.program.command import Program
from steelyard.study.program.declaration import DeclaredTask

EQUIVALENCE = 0.01
"""Changes below this share of the single-task value count as none, as in a problem that says nothing else."""


def plan_program(
    program: Sequence[str],
    methods: Sequence[Arm | Spec | str],
    *,
    folder: str | None = None,
    tasks: Sequence[str] | None = None,
    seeds: int | Sequence[int] = 5,
    settings: Sequence[float | Mapping[str, float]] = (1.0,),
    epochs: int | None = None,
    patience: int = 0,
    resplit: bool = False,
    learning_rate: float | None = None,
    scale: str | None = None,
    tune: int = 0,
    tune_seeds: int = 1,
    tune_beyond: int = 0,
    command: str = "",
) -> Plan:
    """Plan a study of a program that calls `steelyard.trial`; it is run as far as that call.

    Args:
        program: the words of its command, as ``["torchrun", "--nproc-per-node", "2", "train.py"]``.
        methods: as `plan` takes them, but where gradients are read and the architecture are the program's to say.
        folder: in which it is run; the current one by default.
        tasks, seeds, settings, epochs, learning_rate, scale, tune, tune_seeds, tune_beyond: as `plan` has them.
        patience: the same; the program reads ``trial.should_stop``.
        resplit: the program divides its rows by ``trial.division``, which is the seed then.
        command: the one that made the study, shown in the report.

    Raises:
        SteelyardError: the program cannot be asked, or what is asked of it cannot be.

    Example:
        >>> import sys
        >>> from steelyard.study import plan_program
        >>> program = folder / "train.py"
        >>> text = 'import steelyard; trial = steelyard.trial({"a": "rmse", "b": "rmse"}, epochs=9)'
        >>> characters = program.write_text(text)
        >>> made = plan_program([sys.executable, str(program)], ["single-task", "equal"], seeds=1)
        >>> made.problem, made.epochs, len(made.trials)  # two single tasks and one joint network
        ('train', 9, 3)
    """
    found = Program(tuple(program), os.path.abspath(folder or os.getcwd()))
    arms = [_own_alone(method) for method in methods]
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise PlanError(f"learning_rate={learning_rate} must be positive and finite")
    seeds_of_study, among = chosen_seeds(seeds), whole("tune_seeds", tune_seeds)
    if patience:
        whole("patience", patience, " (0 trains all epochs)")
    declared = ask(found)
    if declared.learning_rate is None and (learning_rate is not None or tune):
        raise PlanError(
            "the program declares no learning rate, so that none can be given to it or tuned: give its own to "
            "steelyard.trial(…, learning_rate=0.001), and use trial.learning_rate"
        )
    if tasks is not None and not tasks:
        raise PlanError("no tasks: name at least one, or leave them away for all")
    learnt = declared.only(tasks or declared.task_names)
    names = [task.name for task in learnt]
    main = declared.main if declared.main in names else None
    planned, notes = planned_methods(arms, names, None, scale, HARD_SHARING, main)
    own_rate = learning_rate or declared.learning_rate or math.nan
    tuning = make_tuning(own_rate, tune, planned, seeds_of_study, among, tune_beyond)
    if patience:
        notes.append(patience_note(patience))
    if resplit:
        notes += resplit_notes(tuning)
    made = Plan(
        problem=found.name,
        reference=found.reference,
        identity=found.name,
        summary=found.text,
        tasks=tuple(map(_task, learnt)),
        methods=planned,
        settings=_settings(settings, names),
        seeds=seeds_of_study,
        epochs=whole("epochs", declared.epochs if epochs is None else epochs),
        batch_size=0,
        learning_rate=learning_rate,
        architecture=HARD_SHARING,
        parameters=0,
        command=command,
        notes=tuple(notes),
        versions=declared.versions,
        machine=machine(),
        created=datetime.datetime.now().astimezone().isoformat(timespec="milliseconds"),
        main=main,
        tuning=tuning,
        patience=patience,
        resplit=resplit,
    )
    return dataclasses.replace(made, origin=Origin.of_program(found, declared, made.trials))


def _own_alone(method: Arm | Spec | str) -> Arm:
    """An arm that leaves to the program what is the program's."""
    arm = parse_arm(method) if isinstance(method, str) else method if isinstance(method, Arm) else make_arm(method)
    if arm.architecture is not None:
        raise PlanError(f"{arm}: the program builds its network itself, so leave @{arm.architecture} away")
    if arm.shared is not None:
        raise PlanError(
            f"{arm}: the program says itself where gradients are read, balancer(losses, shared=…): leave "
            f"shared={arm.shared} away"
        )
    return arm


def _task(task: DeclaredTask) -> PlannedTask:
    metrics = tuple(PlannedMetric(m.name, m.higher_is_better, m.ideal, m.percent) for m in task.metrics)
    return PlannedTask(task.name, task.name, EQUIVALENCE, metrics)


def _settings(settings: Sequence[float | Mapping[str, float]], names: Sequence[str]) -> tuple[PlannedSetting, ...]:
    """Fractions, of which the program keeps so many labels; how many steps that makes is not known."""
    if not settings:
        raise PlanError("no fractions: give at least one, e.g. 1.0")
    planned: dict[tuple[float, ...], PlannedSetting] = {}
    for setting in settings:
        given = setting if isinstance(setting, Mapping) else dict.fromkeys(names, setting)
        for task, fraction in given.items():
            if task not in names:
                raise PlanError(f"fraction {fraction} of {task!r}: the study does not learn this task")
            if not 0 < fraction <= 1:
                raise PlanError(f"fraction {fraction} of {task!r}: it must be above 0 and at most 1")
        fractions = {name: float(given.get(name, 1.0)) for name in names}
        planned.setdefault(tuple(fractions.values()), PlannedSetting(fractions, {JOINT: 1}))
    return tuple(planned.values())
