"""What is trained: tasks, data, a trunk and one head per task. A user's own problem has this same face."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from steelyard.errors import PlanError, ProblemError, UnknownNameError
from steelyard.problems.check_data import check_data
from steelyard.problems.data import Data
from steelyard.problems.network_parameters import Parameters
from steelyard.problems.stream import Stream
from steelyard.problems.task import Inputs, JointMetric, Task

DIVISIONS = 3
"""So many divisions of the rows are kept in memory, where each seed has its own."""


def check_place(shared: str) -> None:
    """Refuse a place to read gradients that is neither the features nor the trunk."""
    if shared not in ("features", "trunk"):
        raise UnknownNameError("place to read gradients, shared =", shared, ["features", "trunk"])


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam with learning rate 1e-3, the default optimizer of a problem."""
    return torch.optim.Adam(parameters, lr=1e-3)


def constant(done: float) -> float:
    """Leave the learning rate as it is, the default schedule of a problem."""
    return 1.0


def as_is(inputs: Inputs) -> Inputs:
    """Give a batch of inputs to the network as it is."""
    return inputs


def temperature_of(sampling: str) -> float:
    """``size`` is a temperature of 1, ``even`` an infinite one.

    Raises:
        ProblemError: none of these, nor ``temperature(…)`` of a positive number.
    """
    if sampling in ("size", "even"):
        return 1.0 if sampling == "size" else math.inf
    found = re.fullmatch(r"temperature\(([0-9.]+)\)", sampling) if isinstance(sampling, str) else None
    with contextlib.suppress(ValueError):
        if found is not None and float(found[1]) > 0:
            return float(found[1])
    raise ProblemError(f"sampling={sampling!r}: give 'size', 'even' or 'temperature(2)' with a number above 0")


@dataclass
class Problem:
    """Tasks, data and how to build the network; single-task learning is the same problem with one task.

    Args:
        name: shown in tables and pages.
        tasks: in the order of the tables.
        load: returns the data; called through :meth:`data`, once per process (and fold). Where it takes a ``seed``, as
            in ``load=lambda seed=0: split(inputs, targets, seed=seed)``, a study may give every seed a division of the
            rows of its own (``--resplit``).
        trunk: builds the shared network; inputs -> features.
        head: builds the network of one task; features -> outputs.
        summary: one line for ``steelyard problems``.
        optimizer: ``optimizer(parameters) -> torch.optim.Optimizer``. The parameters are a list, ``parameters.trunk``
            and ``parameters.heads`` its two parts. Of groups with rates of their own a study's rate is the first one's,
            and the others keep their ratios to it.
        schedule: ``schedule(done) -> factor`` of the optimizer's learning rates, asked before each epoch with the
            share of epochs that is done, 0 ≤ done < 1.
        batch_size: rows per step.
        epochs: passes over the training rows.
        prepare: turns a batch of stored inputs into what the trunk takes; images may stay uint8 in memory.
        main: the task that the others are there to help, if there is one. Methods that serve a main task serve this one
            unless told otherwise, and its validation metric alone chooses the epoch of a network that learns it.
        joint: figures of merit of all tasks together. With any, test outputs are kept with each trial, so that they
            can be had of single-task networks too.
        shared: where methods read gradients unless told otherwise: ``"features"``, or ``"trunk"`` where tasks share no
            rows, because features then show no angles.
        folds: of a cross-validation: ``load(fold)`` returns the data that test on that fold, 0 … folds - 1, and a trial
            of seed s gets fold s mod folds, so that as many seeds test on every row once. With 1, it is ``load()``.
        choose: the epoch at which a network is judged: the ``"best"`` on validation data, or the ``"last"``, whatever
            validation data say, where an experiment is to be repeated that chooses none.
        sampling: where tasks have rows of their own, each batch of a joint network is of one task: ``"size"`` draws
            every task's rows once an epoch, ``"even"`` equally many batches of each, ``"temperature(2)"`` as many as
            its number of batches to the power of 1/2; as many in all whichever it is.
        source: where the data come from and on what terms.
        needs: folders of data files; empty for embedded data.
        reference: by which :func:`steelyard.problems.load_problem` finds it again; set by that function.
        fingerprint: of a problem file, changes when it or a module of the user's that it imports does; set by that
            function.
        sources: the files that the problem is written in, by module; set by that function.

    Raises:
        ProblemError: no tasks, repeated task names, a batch size or number of epochs or folds below one.
        UnknownNameError: ``main`` is no task, ``shared`` no place, ``choose`` no epoch.

    Example:
        >>> from steelyard.problems import Problem, regression, split
        >>> x = torch.arange(40.0).reshape(20, 2)
        >>> problem = Problem(
        ...     "lines",
        ...     tasks=[regression("sum"), regression("difference")],
        ...     load=lambda: split(x, {"sum": x.sum(1), "difference": x[:, 0] - 2 * x[:, 1]}),
        ...     trunk=lambda: nn.Linear(2, 4),
        ...     head=lambda task: nn.Linear(4, task.outputs),
        ... )
        >>> problem.task_names, len(problem.data().train)
        (('sum', 'difference'), 12)
    """

    name: str
    tasks: Sequence[Task]
    load: Callable[..., Data]
    trunk: Callable[[], nn.Module]
    head: Callable[[Task], nn.Module]
    summary: str = ""
    optimizer: Callable[[Parameters], torch.optim.Optimizer] = adam
    schedule: Callable[[float], float] = constant
    batch_size: int = 256
    epochs: int = 20
    prepare: Callable[[Inputs], Inputs] = as_is
    main: str | None = None
    joint: tuple[JointMetric, ...] = ()
    shared: str = "features"
    folds: int = 1
    sampling: str = "size"
    choose: str = "best"
    source: str = ""
    needs: tuple[str, ...] = ()
    reference: str = ""
    fingerprint: str = ""
    sources: dict[str, Path] = field(default_factory=dict, repr=False, compare=False)
    _data: dict[int, Data] = field(default_factory=dict, init=False, repr=False, compare=False)
    _redrawn: bool = field(default=False, init=False, repr=False, compare=False)
    _twin: Problem | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for text in ("name", "summary", "source"):
            if not isinstance(getattr(self, text), str) or (text == "name" and not self.name.strip()):
                raise ProblemError(f"a problem's {text} is {getattr(self, text)!r}: give it as text")
        self.tasks = (self.tasks,) if isinstance(self.tasks, Task) else tuple(self.tasks)
        if not self.tasks:
            raise ProblemError(f"problem {self.name!r} has no tasks")
        for place, task in enumerate(self.tasks):
            if not isinstance(task, Task):
                raise ProblemError(f"problem {self.name!r}: tasks[{place}] is {task!r}, not a steelyard.problems.Task")
        self._check_builders()
        for kind, names in (("names", self.task_names), ("labels", [task.label for task in self.tasks])):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                which = f"{'labelled ' * (kind == 'labels')}{repeated[0]!r}"
                raise ProblemError(f"problem {self.name!r} has two tasks {which}: {kind} must be unique")
        if self.main is not None:
            self.task(self.main)
        check_place(self.shared)
        temperature_of(self.sampling)
        if self.choose not in ("best", "last"):
            raise UnknownNameError("epoch at which networks are judged, choose =", str(self.choose), ["best", "last"])
        for name, value in (("batch_size", self.batch_size), ("epochs", self.epochs), ("folds", self.folds)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ProblemError(f"problem {self.name!r}: {name}={value!r} must be a whole number >= 1")

    def _check_builders(self) -> None:
        """Networks are made by functions: one for every trial, from a seed of its own."""
        for name, line in (("trunk", "lambda: nn.Sequential(…)"), ("head", "lambda task: nn.Linear(32, task.outputs)")):
            value = getattr(self, name)
            if isinstance(value, nn.Module) or not callable(value):
                raise ProblemError(
                    f"problem {self.name!r}: {name} is a {type(value).__name__}, not a function that makes one: "
                    f"write {name}={line}"
                )
        for name, line in (
            ("optimizer", "lambda parameters: torch.optim.Adam(parameters, lr=1e-3)"),
            ("schedule", "lambda done: 1 - done"),
            ("prepare", "lambda inputs: inputs / 255"),
        ):
            value = getattr(self, name)
            if not callable(value):
                raise ProblemError(
                    f"problem {self.name!r}: {name} is a {type(value).__name__}, not a function: write {name}={line}"
                )

    def _check_use(self, data: Data) -> None:
        """What else is asked of the data must be possible with rows that are not in memory."""
        for task in self.tasks if self.joint else ():
            if data.test.labels(task, data.test.labelled(task)) is None:
                raise ProblemError(
                    f"problem {self.name!r}: joint metrics need the test data in memory: give Data(test=Split(…)), or "
                    "leave joint= away"
                )
        train = data.train
        own = None if not isinstance(train, Stream) or train.loader is None else train.loader.batch_size
        if own is not None and own != self.batch_size:
            raise ProblemError(
                f"problem {self.name!r}: the DataLoader makes batches of {own} rows, the problem of {self.batch_size}: "
                f"write Problem(batch_size={own}), or DataLoader(…, batch_size={self.batch_size})"
            )

    def rate_factor(self, done: float) -> float:
        """What the schedule makes of the learning rates once this share of the training is done.

        Raises:
            ProblemError: it is no number, below zero, or not finite.
        """
        factor = self.schedule(done)
        try:
            number = float(factor)
        except (TypeError, ValueError):
            number = math.nan
        if not -1e-9 <= number < math.inf:  # a sum that ends at zero may end beside it, by rounding
            raise ProblemError(
                f"problem {self.name!r}: schedule({done:g}) is {factor!r}: it is to return what the learning rate is "
                "multiplied by once that share of the training is done, a number >= 0, e.g. "
                "schedule=lambda done: 1 - done"
            )
        return max(0.0, number)

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    def task(self, name: str) -> Task:
        """The task of that name, or an error that suggests the nearest."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise UnknownNameError(f"task of problem {self.name!r}:", name, self.task_names)

    def chosen(self, names: Sequence[str] | None) -> list[Task]:
        """The tasks of these names, in the problem's order; all where none are named."""
        if names is not None and not names:
            raise PlanError("no tasks: name at least one, or leave them away for all")
        chosen = [self.task(name) for name in names or self.task_names]
        return [task for task in self.tasks if task in chosen]

    @property
    def redrawable(self) -> bool:
        """Whether :meth:`redrawn` can divide the rows anew: ``load`` takes a seed, and no folds are dealt."""
        try:
            return self.folds == 1 and "seed" in inspect.signature(self.load).parameters
        except (TypeError, ValueError):  # not callable, which `data` says; or written in C
            return False

    def redrawn(self) -> Problem:
        """The same problem with a division of the rows of its own for every seed: its data are ``load(seed=seed)``.

        Raises:
            ProblemError: ``load`` takes no seed, or the problem is cross-validated.
        """
        if self.folds > 1:
            raise ProblemError(
                f"problem {self.name!r} is cross-validated: each seed tests on a fold of its own already, so leave "
                "--resplit (resplit=True) away"
            )
        if not self.redrawable:
            raise ProblemError(
                f"problem {self.name!r} cannot be divided anew: its load() takes no seed. Write "
                "load=lambda seed=0: split(inputs, targets, seed=seed)"
            )
        if self._twin is None:
            self._twin = dataclasses.replace(self)
            self._twin._redrawn = True
        return self._twin

    def division(self, seed: int) -> int:
        """The number of the division of the rows that a trial of this seed has."""
        return seed if self._redrawn else seed % self.folds

    def data(self, seed: int = 0) -> Data:
        """Load the data (of the seed's division), check that they fit the tasks, and keep them for the next call."""
        if not callable(self.load):
            raise ProblemError(
                f"problem {self.name!r}: load is a {type(self.load).__name__}, not a function that returns a Data: "
                "write load=lambda: split(inputs, targets)"
            )
        number = self.division(seed)
        if number not in self._data:
            data = self._load(number)
            check_data(self.name, self.tasks, data)
            self._check_use(data)
            self._data[number] = data
            if self._redrawn and len(self._data) > DIVISIONS:
                del self._data[next(iter(self._data))]
        return self._data[number]

    def _load(self, number: int) -> Data:
        if self._redrawn:
            return self.load(seed=number)
        return self.load(number) if self.folds > 1 else self.load()
