"""What a study will train: problem x methods x settings x seeds, and the trials that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from steelyard.models.building import HARD_SHARING
from steelyard.study.judgement import Setting, TaskInfo
from steelyard.study.trial import SINGLE_TASK, Trial

JOINT = ""  # stands for all tasks together where others are named


@dataclass(frozen=True)
class PlannedMetric:
    """What judging needs to know of a metric."""

    name: str
    higher_is_better: bool
    ideal: float | None
    percent: bool


@dataclass(frozen=True)
class PlannedTask:
    """What judging needs to know of a task; the first metric is the main one."""

    name: str
    label: str
    equivalence: float
    metrics: tuple[PlannedMetric, ...]

    @property
    def info(self) -> TaskInfo:
        main = self.metrics[0]
        return TaskInfo(
            name=self.name,
            label=self.label,
            metric=main.name,
            higher_is_better=main.higher_is_better,
            ideal=main.ideal,
            percent=main.percent,
            equivalence=self.equivalence,
        )


@dataclass(frozen=True)
class PlannedMethod:
    """A method as it will be run: canonical text, ``scale=`` and where it reads gradients, if it does."""

    name: str
    scale: str | None = None
    shared: str | None = None


@dataclass(frozen=True)
class PlannedSetting:
    """The fraction of its training labels that each task gets."""

    fractions: dict[str, float]
    steps: dict[str, int]  # per epoch: of a task's own network, and of the joint one

    @property
    def label(self) -> str:
        """``10 %``, or ``left 10 %, right 100 %`` where the tasks differ."""
        if len(set(self.fractions.values())) == 1:
            return _percent(next(iter(self.fractions.values())))
        return ", ".join(f"{task} {_percent(fraction)}" for task, fraction in self.fractions.items())


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g} %"


@dataclass(frozen=True)
class Plan:
    """A whole study, as it is kept in the store: enough to run it and, without the problem, to judge it."""

    problem: str  # the name in tables
    reference: str  # by which the problem is loaded
    identity: str  # by which trials know it; changes when a problem file does
    summary: str
    tasks: tuple[PlannedTask, ...]
    methods: tuple[PlannedMethod, ...]
    settings: tuple[PlannedSetting, ...]
    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float | None
    architecture: str
    parameters: int  # of the joint network
    command: str
    notes: tuple[str, ...]
    versions: dict[str, str]
    machine: str
    created: str  # ISO 8601

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    @property
    def trials(self) -> list[Trial]:
        """All trials, each once, seed by seed: whatever is finished early is already paired."""
        found: dict[Trial, None] = {}
        for seed in self.seeds:
            for setting in range(len(self.settings)):
                for method in self.methods:
                    found.update(dict.fromkeys(self.trials_of(method.name, setting, seed)))
        return list(found)

    def trials_of(self, method: str, setting: int, seed: int) -> list[Trial]:
        """The trials of one method: one network, or for single-task one per task."""
        planned = next(m for m in self.methods if m.name == method)
        groups = [(name,) for name in self.task_names] if method == SINGLE_TASK else [self.task_names]
        fractions = self.settings[setting].fractions
        return [
            Trial(
                problem=self.identity,
                method=method,
                tasks=tasks,
                seed=seed,
                fractions=tuple(sorted((task, fractions[task]) for task in tasks)),
                epochs=self.epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                # A single-task network is the same in every architecture: a store trains it once for all.
                architecture=HARD_SHARING if method == SINGLE_TASK else self.architecture,
                shared=planned.shared,
                scale=planned.scale,
            )
            for tasks in groups
        ]

    def steps(self, trial: Trial) -> int:
        """About how many steps a trial takes (the seed decides which labels it keeps)."""
        fractions = dict(trial.fractions)
        for setting in self.settings:
            if all(setting.fractions[task] == fraction for task, fraction in fractions.items()):
                return trial.epochs * setting.steps[trial.tasks[0] if trial.method == SINGLE_TASK else JOINT]
        raise KeyError(f"no setting of the plan has the fractions {fractions}")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        tasks = [
            PlannedTask(**{**task, "metrics": tuple(PlannedMetric(**metric) for metric in task["metrics"])})
            for task in values["tasks"]
        ]
        return cls(
            **{
                **values,
                "tasks": tuple(tasks),
                "methods": tuple(PlannedMethod(**method) for method in values["methods"]),
                "settings": tuple(PlannedSetting(**setting) for setting in values["settings"]),
                "seeds": tuple(values["seeds"]),
                "notes": tuple(values["notes"]),
            }
        )

    def judged_settings(self) -> Iterator[Setting]:
        for index, setting in enumerate(self.settings):
            yield Setting(index=index, fractions=dict(setting.fractions), label=setting.label)
