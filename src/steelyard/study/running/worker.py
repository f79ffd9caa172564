"""The process that trains one trial, or several at once. It reads only its problem and writes only checkpoints."""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from steelyard.errors import SteelyardWarning, StoreError, TrainingError
from steelyard.problems import Problem, load_problem
from steelyard.problems.sources import data_digest
from steelyard.study.planning.origin import Origin
from steelyard.study.running.kinship import end_with_parent
from steelyard.study.texts import LONGEST_WARNING, plain
from steelyard.study.training.ensemble import train_together
from steelyard.study.training.train import train
from steelyard.study.trial import Failed, Result, Trial

PROGRESS_SECONDS = 0.1


@dataclass(frozen=True)
class Warned:
    """A warning that came up while training."""

    text: str


@dataclass(frozen=True)
class Alone:
    """A trial that cannot be trained together with the others of its group."""


# Sent to the parent with the trial's place in its group: finished epochs and warnings; then one of the others, or
# `Alone`. A text says that the disk is full.
Message = int | Warned | Result | Failed | str


def work(
    connection: Connection, reference: str, trials: Sequence[Trial], checkpoints: Path, origin: Origin | None = None
) -> None:
    """Train and send what happened; never raises, never outlives the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    end_with_parent()
    torch.set_num_threads(1)
    with warnings.catch_warnings(record=True) as caught:
        for place, ending in _attempt(connection, reference, trials, checkpoints, origin):
            for warning in caught:
                connection.send((place, Warned(plain(str(warning.message), LONGEST_WARNING))))
            caught.clear()
            connection.send((place, ending))
    connection.close()


def _attempt(
    connection: Connection, reference: str, trials: Sequence[Trial], checkpoints: Path, origin: Origin | None
) -> Iterator[tuple[int, Message | Alone]]:
    """The ending of every trial."""
    waiting = {trial: place for place, trial in enumerate(trials)}
    sent_at = dict.fromkeys(trials, 0.0)

    def on_epoch(trial: Trial, epoch: int) -> None:
        if time.monotonic() - sent_at[trial] >= PROGRESS_SECONDS * len(trials):
            connection.send((waiting[trial], epoch))
            sent_at[trial] = time.monotonic()

    try:
        problem = load_problem(reference)
        if origin is not None:
            _check_origin(origin, problem, trials[0].seed)
        if len(trials) == 1:
            (trial,) = trials
            checkpoint = checkpoints / f"{trial.key}.pt"
            yield 0, train(trial, problem, checkpoint, lambda epoch: on_epoch(trial, epoch))
            return
        for trial, ending in train_together(trials, problem, checkpoints, on_epoch):
            yield waiting.pop(trial), Alone() if ending is None else ending
    except StoreError as error:
        yield 0, str(error)
    except (Exception, SystemExit) as error:
        failed = Failed.of(error)
        yield from ((place, failed) for place in waiting.values())


def _check_origin(origin: Origin, problem: Problem, seed: int) -> None:
    """Is this what the study was planned with?

    Data may differ from process to process by rounding (threads add up in another order): that is only told.
    """
    if not origin.code_is_unchanged():
        raise TrainingError(f"{problem.reference} was changed while the study was running: start the study again")
    if data_digest(problem.data(seed)) != origin.data_of(seed):
        warnings.warn(
            f"the data of {problem.name} are not those that the study was planned with: they were changed since, or "
            "load() gives other numbers in every process. Give whatever it draws from a seed",
            SteelyardWarning,
            stacklevel=2,
        )
