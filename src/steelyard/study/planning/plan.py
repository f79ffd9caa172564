"""What a study will train: problem x methods x settings x seeds, and the trials that follow from them."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from steelyard.base.specs import parse_spec
from steelyard.errors import DamagedStoreError
from steelyard.io.lists_and_counts import percent
from steelyard.io.typed import typed
from steelyard.models.architectures import HARD_SHARING
from steelyard.study.judgement import Setting, TaskInfo
from steelyard.study.planning.arm_networks import Network
from steelyard.study.planning.arms import parse_arm
from steelyard.study.planning.command_again import is_reproduction, takes, with_options
from steelyard.study.planning.provenance import Origin
from steelyard.study.program.command import Program
from steelyard.study.training.hardware import CPU, FULL, kind_of_device
from steelyard.study.trial import SINGLE_TASK, SIZE, Trial

JOINT = ""  # stands for all tasks together where others are named
FEW_TEST_ROWS = 100  # test labels of a task, below which a study is best divided anew for every seed
FEW = 4  # tasks of which everything that was chosen is shown


@dataclass(frozen=True)
class PlannedMetric:
    """What judging needs to know of a metric."""

    name: str
    higher_is_better: bool
    ideal: float | None
    percent: bool

    @property
    def counts(self) -> bool:
        """Whether it is known to count rows, on however many a seed tests."""
        return self.percent and self.name in ("accuracy", "error")


@dataclass(frozen=True)
class PlannedTask:
    """What judging needs to know of a task; the first metric is the main one."""

    name: str
    label: str
    equivalence: float
    metrics: tuple[PlannedMetric, ...]
    train_rows: int = 0  # that have a label of it; unknown to plans of Steelyard 0.1
    test_rows: int = 0

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
            test_rows=self.test_rows,
        )


@dataclass(frozen=True)
class Choice:
    """What one arm trains in one setting: a method, and learning rates where they were chosen."""

    method: str
    learning_rates: dict[str, float] = field(default_factory=dict)  # by task of a single-task network, or `JOINT`


@dataclass(frozen=True)
class PlannedMethod:
    """A method as it will be run: canonical text, ``scale=`` and where it reads gradients, if it does."""

    name: str  # in tables; with ``shared=`` and ``@architecture`` where it has its own
    scale: str | None = None
    shared: str | None = None
    architecture: str | None = None  # its own; by default the study's
    networks: tuple[Network, ...] = ()  # none: one for all tasks
    candidates: tuple[str, ...] = ()  # methods among which validation chooses, for an arm that is none itself
    chosen: tuple[Choice, ...] = ()  # by setting, once validation has chosen

    def choice(self, setting: int) -> Choice:
        """What it trains in a setting; before anything is chosen, its first candidate with the study's rate."""
        if self.chosen:
            return self.chosen[setting]
        if self.candidates:
            return Choice(self.candidates[0])
        return Choice(str(parse_arm(self.name).method))


@dataclass(frozen=True)
class Tuning:
    """What validation chooses before a study starts, on seeds that the study itself does not use."""

    rates: tuple[float, ...]  # learning rates tried for every network, the study's own first; none: not tuned
    seed: int
    more: tuple[int, ...] = ()  # further seeds, whose mean decides; unknown to plans of Steelyard 0.1
    beyond: int = 0  # so many more rates past an edge, one after the other, while the outermost is the best

    @property
    def seeds(self) -> tuple[int, ...]:
        return (self.seed, *self.more)


@dataclass(frozen=True)
class PlannedSetting:
    """The fraction of its training labels that each task gets."""

    fractions: dict[str, float]
    steps: dict[str, int]  # per epoch: of a task's own network, of the joint one, and of others by their tasks

    @property
    def label(self) -> str:
        """``10 %``, or ``left 10 %, right 100 %`` where the tasks differ."""
        if len(set(self.fractions.values())) == 1:
            return percent(next(iter(self.fractions.values())))
        return ", ".join(f"{task} {percent(fraction)}" for task, fraction in self.fractions.items())


def network_name(tasks: tuple[str, ...], method: PlannedMethod) -> str:
    """How `Choice` calls a network: by its task or tasks, or `JOINT`."""
    return " ".join(tasks) if method.networks or method.name == SINGLE_TASK else JOINT


@dataclass(frozen=True)
class Plan:
    """A whole study, as it is kept in the store: enough to run it and, without the problem, to judge it.

    Example:
        >>> from steelyard.study import plan
        >>> made = plan("digits", ["single-task", "equal"], seeds=2, epochs=1)
        >>> len(made.trials)  # two single tasks and one joint network, twice
        6
    """

    problem: str  # the name in tables
    reference: str  # by which the problem is loaded
    identity: str  # by which trials know it, before what `origin` adds
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
    main: str | None = None  # the task that chooses the epoch alone
    tuning: Tuning | None = None
    epoch_steps: int = 0  # at least, in an epoch
    ledger: int = 0  # each so many-th step of a joint network is measured; 0: none
    origin: Origin | None = None  # the code and data; unknown to plans of Steelyard 0.1
    folds: int = 1  # of a cross-validation; unknown to plans of Steelyard 0.1
    final_rate: float = 1.0  # what the schedule leaves of the learning rate at the end
    choose: str = "best"  # the epoch at which networks are judged: best on validation data, or last
    resplit: bool = False  # every seed has its own division of the rows
    redrawable: bool = False  # it could have; unknown to earlier plans
    patience: int = 0  # epochs without a better one after which a training ends
    device: str = CPU  # on which trials train: a kind, or one of a machine's (``cuda:1``)
    precision: str = FULL  # of forward passes
    hardware: str = ""  # what the device of the planning machine is called
    sampling: str = SIZE  # of batches, where tasks have rows of their own
    also: tuple[str, ...] = ()  # other origins whose trials are taken all the same, as trials call their problem

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    @property
    def most_seeds(self) -> int:
        """Beyond which another seed tells nothing new: in a cross-validation, the folds."""
        return self.folds if self.folds > 1 else sys.maxsize

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
        choice = self.method(method).choice(setting)
        trials = [
            self.trial(
                method,
                choice.method,
                tasks,
                setting,
                seed,
                choice.learning_rates.get(network_name(tasks, self.method(method))),
            )
            for tasks in self.networks(method)
        ]
        # Not where something is only chosen, nor of a task that has nobody to be hurt by.
        return [
            trial if trial.method == SINGLE_TASK else dataclasses.replace(trial, ledger=self.ledger) for trial in trials
        ]

    def method(self, name: str) -> PlannedMethod:
        return next(method for method in self.methods if method.name == name)

    def networks(self, method: str) -> list[tuple[str, ...]]:
        """The tasks of each network that a method trains."""
        if method == SINGLE_TASK:
            return [(name,) for name in self.task_names]
        return [network.learns for network in self.method(method).networks] or [self.task_names]

    def serves(self, method: str, tasks: tuple[str, ...]) -> tuple[str, ...]:
        """Those tasks of one network of a method that are read from it."""
        return next((each.serves for each in self.method(method).networks if each.learns == tasks), tasks)

    def trial(
        self, arm: str, method: str, tasks: tuple[str, ...], setting: int, seed: int, learning_rate: float | None = None
    ) -> Trial:
        """One network of an arm that trains `method`, at the study's learning rate unless another one is given."""
        planned, fractions = self.method(arm), self.settings[setting].fractions
        # The study's own rate is left unsaid where nobody asked for it, so that tuned and untuned studies share trials.
        untouched = learning_rate is None or (self.tuning is not None and learning_rate == self.tuning.rates[0])
        # A single-task network is the same under every method and architecture: a store trains it once for all.
        alone = arm == SINGLE_TASK or (bool(planned.networks) and len(tasks) == 1)
        trial = Trial(
            problem=self.identity,
            method=SINGLE_TASK if alone else method,
            tasks=tasks,
            seed=seed,
            fractions=tuple(sorted((task, fractions[task]) for task in tasks)),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate if untouched else learning_rate,
            architecture=HARD_SHARING if alone else planned.architecture or self.architecture,
            shared=None if alone else planned.shared,
            scale=None if alone else planned.scale,
            epoch_steps=self.epoch_steps,
            patience=self.patience,
            resplit=self.resplit,
            device=kind_of_device(self.device),
            precision=self.precision,
            sampling=SIZE if len(tasks) == 1 else self.sampling,
        )
        return dataclasses.replace(trial, problem=self.identity_of(trial))

    def identity_of(self, trial: Trial) -> str:
        """What a trial calls its problem: its name, and a mark of its code, data and versions."""
        return self.identity if self.origin is None else f"{self.identity}@{self.origin.mark(trial)}"

    def steps(self, trial: Trial) -> int:
        """About how many steps a trial takes (the seed decides which labels it keeps)."""
        fractions = dict(trial.fractions)
        for setting in self.settings:
            if all(setting.fractions[task] == fraction for task, fraction in fractions.items()):
                return trial.epochs * setting.steps.get(" ".join(trial.tasks), setting.steps[JOINT])
        raise KeyError(f"no setting of the plan has the fractions {fractions}")

    @property
    def tuning_text(self) -> str:
        """What validation data choose, in words; empty where nothing."""
        if self.tuning is None:
            return ""
        said = []
        if self.tuning.rates:
            rates = ", ".join(f"{rate:g}" for rate in sorted(self.tuning.rates))
            beyond = f", and up to {self.tuning.beyond} more past an edge that is best" if self.tuning.beyond else ""
            said.append(f"{len(self.tuning.rates)} learning rates for every network ({rates}{beyond})")
        weightings = [len(method.candidates) for method in self.methods if method.candidates]
        if weightings:
            said.append(f"{max(weightings)} constant weightings")
        seeds = self.tuning.seeds
        tried_on = f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"
        return f"{' and '.join(said)}, tried on {tried_on}, the best on validation data used"

    def chosen_text(self, method: str, setting: int) -> str:
        """What validation data chose for a method: ``left 1, right 0.3; rate 0.002``; empty where nothing.

        Of many tasks those with a weight of their own: ``gdsc230 3, others 1``; of many rates their range.
        """
        planned = self.method(method)
        if not planned.chosen:
            return ""
        choice, said = planned.chosen[setting], []
        if planned.candidates:
            weights = str(parse_spec(choice.method).options["weights"]).replace(":", "").split(", ")
            said.append(", ".join(_few(weights)))
        rates = choice.learning_rates
        if len(set(rates.values())) == 1:
            said.append(f"rate {next(iter(rates.values())):g}")
        elif len(rates) > FEW:
            said.append(f"rates {min(rates.values()):g} to {max(rates.values()):g}")
        elif rates:
            said.append("rate " + ", ".join(f"{task} {rate:g}" for task, rate in rates.items()))
        return "; ".join(said)

    @property
    def program(self) -> Program | None:
        """What is trained, where it is no problem."""
        return Program.read(self.reference)

    def again(self, **options: float) -> str:
        """What ends a sentence that advises other options: a colon and, on a line of its own, the whole command with
        them; of a study that Python planned, the options alone, ``, e.g. epochs=50.``; of a reproduction nothing."""
        if is_reproduction(self.command):
            return "."
        named = {f"--{name.replace('_', '-')}": f"{value:g}" for name, value in options.items()}
        if command := with_options(self.command, named):
            return f":\n{command}"
        given = ", ".join(f"{name}={value:g}" for name, value in options.items())
        return f", e.g. {given}."

    def hint(self, text: str) -> str:
        """What names an option in a sentence; nothing where the study's own command does not take it.

        A reproduction takes none, and `steelyard group` no --resplit.
        """
        return text if takes(self.command, text) and not is_reproduction(self.command) else ""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """The plan that `to_dict` wrote, also by an earlier version.

        Raises:
            DamagedStoreError: something is missing or has another form.
        """
        try:
            plan: Plan = typed(cls, values)
            plan._check()
        except (TypeError, ValueError, OverflowError) as error:
            raise DamagedStoreError(f"the plan in the store cannot be read: {error}") from error
        return plan

    def _check(self) -> None:
        """Raise a ValueError where its parts do not fit together; the planner makes none such."""
        datetime.fromisoformat(self.created).timestamp()
        names = set(self.task_names)
        learnt = {task for each in self.methods for network in each.networks for task in network.learns}
        wrong = {
            "tasks": not names or not all(task.metrics for task in self.tasks),
            "methods": any(each.chosen and len(each.chosen) != len(self.settings) for each in self.methods),
            "settings": not all(set(each.fractions) == names for each in self.settings),
            "networks": not learnt <= names,
            "seeds": not self.seeds,
            "main": self.main is not None and self.main not in names,
            "origin": self.origin is not None and not self.origin.data,
        }
        for method in self.methods:
            method.choice(0)
        if found := [part for part, is_wrong in wrong.items() if is_wrong]:
            raise ValueError(f"its {found[0]} do not fit together")

    @property
    def most_labels(self) -> int:
        """The setting with the most labels over all tasks: fractions may be given in any order."""
        return max(range(len(self.settings)), key=lambda index: sum(self.settings[index].fractions.values()))

    def judged_settings(self) -> Iterator[Setting]:
        for index, setting in enumerate(self.settings):
            yield Setting(index=index, fractions=dict(setting.fractions), label=setting.label)


def _few(weights: list[str]) -> list[str]:
    """Texts like ``left 3``; of more than `FEW`, the commonest weight is said of "others"."""
    common, count = Counter(text.rpartition(" ")[2] for text in weights).most_common(1)[0]
    if len(weights) <= FEW or count == 1:
        return weights
    others = "all" if count == len(weights) else "others"
    return [*(text for text in weights if text.rpartition(" ")[2] != common), f"{others} {common}"]
