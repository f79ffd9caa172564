"""The process that trains one trial. It reads nothing but its problem and writes nothing but its checkpoint."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from steelyard.problems import load_problem
from steelyard.study.errors import StoreError, TrainingError
from steelyard.study.planning import identity
from steelyard.study.store import Failed
from steelyard.study.train import train
from steelyard.study.trial import Result, Trial

PROGRESS_SECONDS = 0.1


@dataclass(frozen=True)
class Warned:
    """A warning that came up while training."""

    text: str


# Sent to the parent: finished epochs and warnings; then one of the others. A text says that the disk is full.
Message = int | Warned | Result | Failed | str


def work(connection: Connection, reference: str, trial: Trial, checkpoint: Path) -> None:
    """Train and send what happened; never raises, never outlives the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with warnings.catch_warnings(record=True) as caught:
        ending = _attempt(connection, reference, trial, checkpoint)
    for warning in caught:
        connection.send(Warned(str(warning.message)))
    connection.send(ending)
    connection.close()


def _attempt(connection: Connection, reference: str, trial: Trial, checkpoint: Path) -> Message:
    sent_at = 0.0

    def on_epoch(epoch: int) -> None:
        nonlocal sent_at
        if time.monotonic() - sent_at >= PROGRESS_SECONDS:
            connection.send(epoch)
            sent_at = time.monotonic()

    try:
        problem = load_problem(reference)
        if identity(problem) != trial.problem:
            raise TrainingError(f"{reference} was changed while the study was running: start the study again")
        return train(trial, problem, checkpoint, on_epoch)
    except StoreError as error:
        return str(error)
    except Exception as error:
        return Failed(traceback.format_exception_only(type(error), error)[-1].strip(), traceback.format_exc())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
