"""What a study found: plain data that a report can render and ``dataclasses.asdict`` can turn into JSON.

A cell exists once one of its trials is finished; a row always, with NaN where nothing was measured yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["gain", "no difference", "negative transfer", "undecided"]


@dataclass(frozen=True)
class TaskInfo:
    """A task and its main metric."""

    name: str
    label: str
    metric: str
    higher_is_better: bool
    ideal: float | None  # 1.0 for accuracy and R2, 0.0 for errors, None where nobody knows it
    percent: bool  # show as 97.3 % rather than 0.973
    equivalence: float  # half-width of the region of practical equivalence, relative to the single-task value
    test_rows: int = 0  # that have a label of it; 0 where nobody counted them


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """One method on one task in one setting."""

    method: str
    setting: int
    task: str
    values: dict[int, float]  # seed -> test value at the epoch that counts
    mean: float
    sd: float
    last_mean: float  # the same at the last epoch
    last_sd: float
    difference: Interval | None  # method minus single-task, in the metric's units, paired by seed
    relative: Interval | None  # positive = better; fraction of the single-task error (value, if no ideal)
    p_value: float | None  # of the verdict, or of the one nearest to being given; adjusted over all words of the study
    verdict: Verdict | None  # None for single-task itself and where there is no baseline
    note: str = ""
    rows_half: float | None = None  # of the difference, what as many other test rows would move it by: half of 95 %
    steps: dict[int, int] = field(default_factory=dict)  # seed -> steps that the network took; none where not counted


@dataclass(frozen=True)
class OtherMetric:
    """One method on a metric that carries no verdict: one of a task that is not its main one, or of all tasks together.

    Δm counts those of a task.
    """

    method: str
    setting: int
    task: str | None  # None: of all tasks together
    metric: str
    higher_is_better: bool
    percent: bool
    values: dict[int, float]  # seed -> test value at the epoch that counts
    mean: float
    sd: float
    difference: Interval | None  # method minus single-task, in the metric's units, paired by seed


@dataclass(frozen=True)
class Hurt:
    """How the real steps of one method served one task, where a ledger was kept: means over seeds."""

    method: str
    setting: int
    task: str
    values: dict[int, float]  # seed -> share of the measured steps that raised the task's loss, to first order
    mean: float
    against: float  # what steps put on the loss, as a share of all that they took off and put on


@dataclass(frozen=True)
class Row:
    """One method in one setting, all tasks together.

    The single-task row counts its networks as one model: its seconds are their sum, its steps advance each of
    them once, its memory is the largest. So its figures stand beside those of a joint network.
    """

    method: str
    setting: int
    delta_m: Interval | None  # positive = better than single-task, as a fraction
    delta_m_last: Interval | None
    steps_per_second: float
    seconds: float  # of training, per trial: by a clock on the wall
    peak_memory: float  # MiB
    seeds: int
    failed: int
    relative_cost: float  # training time against all single-task networks together: the median over seeds
    chosen: str = ""  # what validation data chose for it: learning rate, constant weights
    cost_low: float = math.nan  # of the relative cost the smallest over seeds, and the largest
    cost_high: float = math.nan
    processor_seconds: float = math.nan  # per trial, the median over seeds; NaN where it was not counted


@dataclass(frozen=True)
class Setting:
    """How much of the training labels each task was given."""

    index: int
    fractions: dict[str, float]
    label: str


@dataclass(frozen=True)
class Curve:
    """One method in one setting over the epochs: means over seeds."""

    method: str
    setting: int
    epochs: list[int]
    losses: dict[str, list[float]]
    weights: dict[str, list[float]]
    validation: dict[str, list[float]]  # the main metric
    # of the weight, from step to step within an epoch; empty in what earlier versions stored
    weight_spreads: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A trial that ended in an error."""

    method: str
    setting: int
    seed: int
    task: str | None  # the task of a single-task trial
    error: str
    traceback: str


@dataclass(frozen=True)
class Recipe:
    """What one would take away: the method with the smallest validation error, as it was trained."""

    method: str
    seeds: int  # over which the error is a mean
    loop: list[str]  # lines for one's own training loop
    cost: float | None  # of a step, in steps of the plain sum; None for the plain sum itself, or without it
    network: list[str]  # lines that take its trained network out; empty where none was kept


@dataclass(frozen=True)
class Judgement:
    """Everything that a study says, ready to be shown.

    Example:
        >>> from steelyard.report import from_json, to_json
        >>> from steelyard.study import Judgement, judge
        >>> judgement: Judgement = judge(folder / "digits.sqlite")
        >>> to_json(from_json(to_json(judgement))) == to_json(judgement)  # plain data: nothing is lost on the way
        True
    """

    problem: str
    summary: str
    tasks: list[TaskInfo]
    methods: list[str]
    settings: list[Setting]
    seeds: list[int]
    cells: list[Cell]
    rows: list[Row]
    curves: list[Curve]
    failures: list[Failure]
    verdict: list[str]
    command: str
    versions: dict[str, str]
    machine: str
    created: str
    epochs: int
    batch_size: int
    complete: bool  # every planned trial is finished
    planned: int
    finished: int
    failed: int = 0  # trials, each once, where `failures` has one for each arm that needs it
    tuning: str = ""  # what was tried to choose on validation data, in words
    notes: list[str] = field(default_factory=list)  # where the results come from: reused, salvaged
    others: list[OtherMetric] = field(default_factory=list)
    architecture: str = ""  # of joint networks, where a method names none of its own
    parameters: int = 0  # of such a network
    about: str = ""  # what the intervals are about (other seeds, or other rows too), and which test was made
    cautions: list[str] = field(default_factory=list)  # what bears on every verdict, and is to be read before it
    recipe: Recipe | None = None
    hurt: list[Hurt] = field(default_factory=list)  # empty where no ledger was kept
    device: str = "cpu"  # on which trials trained; empty, like the next, where a program of the user's sees to that
    precision: str = "float32"  # of forward passes
    hardware: str = ""  # what that device is called, where the study was planned; empty for the CPU
    choose: str = "best"  # the epoch that counts: best on validation data, or last
    salvaged: bool = False  # from a damaged store, which no command goes on with
