"""One trial: everything that decides its outcome, and the key under which the outcome is stored."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import traceback
from dataclasses import dataclass, field

from steelyard.io.printable_text import LONGEST_MESSAGE, printable

SINGLE_TASK = "single-task"
PLAIN_SUM = "equal"
SIZE = "size"  # how the batches of tasks with rows of their own are shared out, unless told otherwise
KEY_VERSION = 1
LONGEST_TRACEBACK = 20_000  # characters


@dataclass(frozen=True)
class Trial:
    """One network to be trained.

    A single-task baseline is one trial per task, which knows the fraction of its own task only: settings
    that differ in the other tasks' fractions share it.

    Args:
        problem: the name of a problem; for a file ``name.py@hash``, so that an edited file is a new problem.
        method: the canonical text of a method, or ``single-task``.
        tasks: the tasks that the network learns, in the problem's order.
        seed: decides the start of trunk and heads, the labels kept, the order of batches and all dropout.
        fractions: ((task, fraction of its training labels), …) for the trial's own tasks, sorted.
        learning_rate: None = as the problem's optimizer has it.
        shared: where gradients are read, for the methods that read them.
        epoch_steps: an epoch takes at least so many steps, in as many passes over the rows as they need.
        resplit: the seed decides the division of the rows into training, validation and test as well.
        patience: training ends once so many epochs in a row were no better on validation data; 0: after all epochs.
        scale: the balancer's ``scale``; None for a single task, and where the method's own text says it.
        ledger: each so many-th step is measured, whom it helps and whom it hurts (`steelyard.Ledger`); 0: none.
        device: the kind of device that it trains on: results of ``cuda`` and ``cpu`` are those of different trials,
            since dropout draws other numbers there and times and memory do not compare.
        precision: of the network's forward passes.
        sampling: of the tasks' batches, where they have rows of their own; ``size`` for a single task.
    """

    problem: str
    method: str
    tasks: tuple[str, ...]
    seed: int
    fractions: tuple[tuple[str, float], ...]
    epochs: int
    batch_size: int
    learning_rate: float | None = None
    architecture: str = "hard-sharing"
    shared: str | None = None
    scale: str | None = None
    epoch_steps: int = 0
    patience: int = 0
    resplit: bool = False
    ledger: int = 0
    device: str = "cpu"
    precision: str = "float32"
    sampling: str = SIZE

    def canonical(self) -> str:
        """Canonical JSON. Options at their default are left out, so that a new option keeps the old keys."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        kept = {
            f.name: values[f.name]
            for f in dataclasses.fields(self)
            if f.default is dataclasses.MISSING or values[f.name] != f.default
        }
        return json.dumps({"version": KEY_VERSION, **kept}, sort_keys=True, separators=(",", ":"))

    @property
    def key(self) -> str:
        return hashlib.sha256(self.canonical().encode()).hexdigest()


def derive_seed(seed: int, *purpose: str | int) -> int:
    """An independent seed for one purpose, below 2⁶³: neighbouring seeds and purposes share nothing."""
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Curves:
    """What happened epoch by epoch, for each of the trial's tasks.

    Where a problem judges the last epoch (``choose="last"``), what is measured on validation data is so a hundred times
    at most, and each value stands for the epochs behind it too.
    """

    losses: dict[str, list[float]]  # mean training loss over the epoch's steps
    weights: dict[str, list[float]]  # mean multiplier over the steps in which the task was present
    validation: dict[str, list[float]]  # the main metric
    # standard deviation of the multiplier over the same steps; empty in what earlier versions stored
    weight_spreads: dict[str, list[float]] = field(default_factory=dict)
    # the main metric on either half of the validation rows; only of tasks where that has a value in every epoch
    halves: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Account:
    """What a ledger kept of one task, as `LedgerSummary` has it."""

    steps: int  # that were measured
    hurt: float  # share of them that raised the loss to first order
    progress: float  # mean of what they took off the loss
    against: float  # what was put on the loss, as a share of all that was taken off and put on


@dataclass(frozen=True)
class Result:
    """What a finished trial found."""

    test: dict[str, list[float]]  # task -> its metrics on test data, at the epoch chosen on validation data
    last: dict[str, list[float]]  # the same after the last epoch
    chosen_epoch: int  # counted from 1
    steps: int
    seconds: float  # of training: evaluation and loading are not in it; of networks trained at once, an equal share
    steps_per_second: float  # of processor time where it was counted: the median over epochs
    peak_memory: float  # MiB, of all networks that were trained at once
    curves: Curves = field(repr=False)
    left_out: dict[str, list[float]] = field(
        default_factory=dict, repr=False
    )  # the main metric without parts of the rows
    processor_seconds: float = 0.0  # of training, that a processor worked; 0 where nobody counted (0.2, other devices)
    outputs: dict[str, str] = field(default_factory=dict, repr=False)  # of the test data, for joint metrics: `kept`
    # what a program's network started from, a digest by parameter and shape; only where the program shows it
    start: dict[str, str] = field(default_factory=dict, repr=False)
    ledger: dict[str, Account] = field(default_factory=dict, repr=False)  # by task; empty where none was kept
    # which of its data were not those that the study was planned with, in words; mostly none
    other_data: str = field(default="", repr=False)

    @property
    def work(self) -> float:
        """Seconds of processor time, which other programs do not lengthen by keeping it waiting; else of a clock."""
        return self.processor_seconds or self.seconds


@dataclass(frozen=True)
class Failed:
    """Why a trial has no result."""

    error: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """What an exception that is being handled says."""
        what = traceback.format_exception_only(type(error), error)[-1].strip()
        return cls(printable(what, LONGEST_MESSAGE), printable(traceback.format_exc(), LONGEST_TRACEBACK))
