"""What a worker does, wherever it is: train one trial, or several at once. It reads its problem, and only tells."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from steelyard.errors import SteelyardWarning, StoreError, TrainingError
from steelyard.io.printable_text import LONGEST_MESSAGE, printable
from steelyard.io.unread_streams import going_on_unread
from steelyard.problems import Problem, load_problem
from steelyard.problems.sources import data_digests
from steelyard.study.planning.provenance import Origin, changed_data, edited, versions_here
from steelyard.study.program.command import Program
from steelyard.study.running.events import Alone, Epoch, Event, Finished, Started, Unwritable, Warned
from steelyard.study.running.program_trial import train_by_program
from steelyard.study.storage.network_files import pack
from steelyard.study.storage.trial_checkpoint import Folder, checkpoint_of
from steelyard.study.training.ensemble import train_together
from steelyard.study.training.hardware import Hardware
from steelyard.study.training.train import train
from steelyard.study.trial import Failed, Result, Trial

PROGRESS_SECONDS = 0.1


@dataclass(frozen=True)
class Work:
    """What one worker gets.

    Attributes:
        reference: of a problem, or of a program.
        trials: one, or a group as `groups` makes them.
        checkpoints: their folder, if there is one where the worker is.
        origin: of the problem when the study was planned.
        keep: whether results bring their networks.
        device: where to train, if it is to be a certain one: by default one of the trial's kind.
        sharing: so many trials have the device at a time.
    """

    reference: str
    trials: tuple[Trial, ...]
    checkpoints: Folder | None
    origin: Origin | None = None
    keep: bool = False
    device: str = ""
    sharing: int = 1

    @property
    def hardware(self) -> Hardware:
        """What to train with, on this machine."""
        trial = self.trials[0]
        found = Hardware.of(self.device or trial.device, trial.precision, self.sharing)
        if found.device.type == "cuda":
            torch.cuda.set_device(found.device)  # what the problem's code puts on "cuda" goes there too
        return found


Tell = Callable[[int, Event], None]
"""Is told what happens to a trial, by its place in the work."""


def perform(work: Work, tell: Tell) -> None:
    """Train, and tell what happens; an error of the problem's ends its trial, and is not raised."""
    for place in range(len(work.trials)):
        tell(place, Started(platform.node()))
    # What the problem's code prints may have lost its reader, as the command has.
    with going_on_unread(), warnings.catch_warnings(record=True) as caught:
        for place, ending in _attempt(work, tell):
            for warning in caught:
                tell(place, Warned(printable(warning.message, LONGEST_MESSAGE)))
            caught.clear()
            tell(place, ending)


def _attempt(work: Work, tell: Tell) -> Iterator[tuple[int, Event]]:
    """The ending of every trial."""
    waiting = {trial: place for place, trial in enumerate(work.trials)}
    told_at = dict.fromkeys(work.trials, 0.0)

    def on_epoch(trial: Trial, epoch: int) -> None:
        if time.monotonic() - told_at[trial] >= PROGRESS_SECONDS * len(told_at):
            tell(waiting[trial], Epoch(epoch))
            told_at[trial] = time.monotonic()

    trained: dict[Trial, bytes] = {}

    def on_trained(trial: Trial, state: Mapping[str, Tensor]) -> None:
        if work.keep:
            trained[trial] = pack(trial, state)

    try:
        if (program := Program.read(work.reference)) is not None:
            run = partial(train_by_program, work.trials[0], program, work.checkpoints, work.origin)
            yield 0, run(partial(tell, 0), work.keep)
            return
        hardware = work.hardware
        problem = load_problem(work.reference)
        other = "" if work.origin is None else check_origin(work.origin, problem, work.trials[0])
        if len(work.trials) == 1:
            (trial,) = work.trials
            checkpoint = None if work.checkpoints is None else checkpoint_of(work.checkpoints, trial)
            result = train(
                trial,
                problem,
                checkpoint,
                lambda epoch: on_epoch(trial, epoch),
                on_trained=lambda state: on_trained(trial, state),
                hardware=hardware,
            )
            yield 0, Finished(replace(result, other_data=other), trained.get(trial))
            return
        options: dict[str, Any] = {"on_trained": on_trained, "hardware": hardware}
        for trial, ending in train_together(work.trials, problem, work.checkpoints, on_epoch, **options):
            if isinstance(ending, Result):
                yield waiting.pop(trial), Finished(replace(ending, other_data=other), trained.pop(trial, None))
            else:
                yield waiting.pop(trial), ending or Alone()
    except StoreError as error:
        yield next(iter(waiting.values()), 0), Unwritable(str(error))  # of one that has not ended yet
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # sys.exit() and exceptions of the user's own kind, too
        failed = Failed.of(error)
        yield from ((place, failed) for place in waiting.values())


def check_origin(origin: Origin, problem: Problem, trial: Trial) -> str:
    """Is this what the study was planned with? Say which of its data are not.

    These may differ from process to process by rounding (threads add up in another order): that is only told.

    Raises:
        TrainingError: versions or files are others.
    """
    if origin.versions != (here := versions_here(problem)):
        raise TrainingError(
            f"{platform.node()} has {here}, and the study was planned with {origin.versions}: install these"
        )
    if files := edited(origin, problem, trial):
        raise TrainingError(f"{', '.join(files)} was changed while the study was running: start the study again")
    if changed := changed_data(origin.data_of(trial.seed), data_digests(problem.data(trial.seed))):
        warnings.warn(
            f"the data of {problem.name} are not those that the study was planned with ({changed}): they were changed "
            "since, or load() gives other numbers in every process. Give whatever it draws from a seed",
            SteelyardWarning,
            stacklevel=2,
        )
    return changed
