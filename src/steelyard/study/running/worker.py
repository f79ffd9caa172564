"""The process that trains one trial, or several at once. It reads only its problem and writes only checkpoints."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from steelyard.errors import StoreError, TrainingError
from steelyard.problems import load_problem
from steelyard.study.planning.planner import identity
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


def work(connection: Connection, reference: str, trials: Sequence[Trial], checkpoints: Path) -> None:
    """Train and send what happened; never raises, never outlives the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with warnings.catch_warnings(record=True) as caught:
        for place, ending in _attempt(connection, reference, trials, checkpoints):
            for warning in caught:
                connection.send((place, Warned(str(warning.message))))
            caught.clear()
            connection.send((place, ending))
    connection.close()


def _attempt(
    connection: Connection, reference: str, trials: Sequence[Trial], checkpoints: Path
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
        if identity(problem) != trials[0].problem:
            raise TrainingError(f"{reference} was changed while the study was running: start the study again")
        if len(trials) == 1:
            (trial,) = trials
            checkpoint = checkpoints / f"{trial.key}.pt"
            yield 0, train(trial, problem, checkpoint, lambda epoch: on_epoch(trial, epoch))
            return
        for trial, ending in train_together(trials, problem, checkpoints, on_epoch):
            yield waiting.pop(trial), Alone() if ending is None else ending
    except StoreError as error:
        yield 0, str(error)
    except Exception as error:
        failed = Failed.of(error)
        yield from ((place, failed) for place in waiting.values())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
