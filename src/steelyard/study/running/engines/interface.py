"""What runs trials somewhere: the face that every engine shows to a study.

A study plans, writes its store and judges; an engine trains, and only tells. Processes, machines, signals and what
becomes of them are the engine's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from steelyard.errors import OptionError
from steelyard.study.planning.provenance import Origin
from steelyard.study.running.events import Event
from steelyard.study.storage.trial_checkpoint import Folder
from steelyard.study.training.hardware import AUTO, CPU, check_device
from steelyard.study.trial import Trial


@dataclass(frozen=True)
class Job:
    """What the trials of a study have in common.

    Attributes:
        reference: by which the problem is loaded, or the program run.
        origin: the code and data that the study was planned with.
        checkpoints: the folder for what is needed to go on.
        shared: every machine sees that folder, as its user says; otherwise it is on this machine's disk.
        scratch: a folder beside the store that is the engine's own while the study runs; not made yet.
        keep: whether results bring their networks.
        workers: at most so many at a time; None: as many as there is room for.
        device: on which trials train; a kind (``cuda``) stands for all that a machine has of it.
        per_device: so many trials have a device at a time, where it is not the CPU.
    """

    reference: str
    origin: Origin | None
    checkpoints: Folder
    shared: bool
    scratch: Path
    workers: int | None
    keep: bool = False
    device: str = CPU
    per_device: int = 1


class Session(Protocol):
    """Trials under way."""

    @property
    def places(self) -> int:
        """How many pieces of work there is room for at a time."""

    def submit(self, trials: tuple[Trial, ...]) -> None:
        """Have these trained by one worker, at once if they can be; also while `events` are being read."""

    def events(self) -> Iterator[tuple[Trial, Event]]:
        """What happens, as it happens, until every trial that was submitted has ended."""


class Engine(Protocol):
    """Runs trials somewhere.

    One that knows which devices there are may have a method ``device(asked) -> str``: it says what ``auto`` stands for
    there, and raises an `OptionError` for a device that trials cannot have. Without it, ``auto`` is the CPU.
    """

    def get_ready(self) -> None:
        """Start what takes a while to start, and return at once: a plan is being made meanwhile."""

    def open(self, job: Job) -> AbstractContextManager[Session]:
        """A session in which trials run; what still runs when the block is left is stopped."""


def device_of_cluster(engine: str, asked: str, gpus: float | None) -> str:
    """What trials train on where the cluster hands out GPUs, so many to each (None: one, if they are to have one).

    Raises:
        OptionError: a certain one of a machine's was asked for, or GPUs of which a trial gets none.
    """
    check_device(asked)
    if asked == AUTO:
        return "cuda" if gpus else CPU
    if ":" in asked:
        raise OptionError(f"--device {asked}: {engine} says which of its GPUs a trial gets; write --device cuda")
    if asked == "cuda" and gpus == 0:
        raise OptionError(f"--device cuda, and {engine}(gpus=0) gives trials none: write --on '{engine}(gpus=1)'")
    return asked


def device_for(engine: Engine, asked: str) -> str:
    """What trials of this engine train on, where a user has asked for that.

    Raises:
        OptionError: no device is called so, or trials cannot have it there; says what is there.
    """
    ask = getattr(engine, "device", None)
    if ask is not None:
        return str(ask(asked))
    return CPU if check_device(asked) == AUTO else asked
