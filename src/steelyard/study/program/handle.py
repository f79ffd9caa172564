"""`steelyard.trial`: the one thing that a program asks, run by hand or by a study."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steelyard.balancing.balancer import Balancer
from steelyard.errors import ProgramError, TrainingError, UnknownNameError
from steelyard.io.printable_text import printable
from steelyard.io.writing import replacing
from steelyard.method_registry import make
from steelyard.models.build_network import Part, seeded_part
from steelyard.problems.user_file import being_read
from steelyard.study.program.assignment import Assignment
from steelyard.study.program.by_hand import by_hand
from steelyard.study.program.declaration import DeclaredTask, ProgramDeclaration, TaskLike, declare
from steelyard.study.program.program_faults import (
    check_balanced,
    check_epoch,
    check_patience,
    check_read,
    refuse_others,
)
from steelyard.study.program.rank_here import rank_here
from steelyard.study.program.reported_network import NetworkLike, drop_weights, weights_of, write_weights
from steelyard.study.program.reported_values import Values, numbers
from steelyard.study.program.reports import History, Report, ReportReader, tell
from steelyard.study.program.start_digests import start_digests
from steelyard.study.program.step_meter import StepMeter
from steelyard.study.program.uncaught_errors import tell_uncaught
from steelyard.study.training.peak_memory import PeakMemory
from steelyard.study.training.sampling import batches, kept_rows
from steelyard.study.trial import PLAIN_SUM, SINGLE_TASK, Trial, derive_seed

CHECKPOINT = "checkpoint.pt"


def trial(
    tasks: Mapping[str, TaskLike],
    *,
    epochs: int,
    learning_rate: float | None = None,
    main: str | None = None,
    method: str | None = None,
    seed: int | None = None,
) -> TrialHandle:
    """What this program is to train: everything by hand, or one trial of the study that runs it.

    ``steelyard compare --methods uw,db-mtl -- python train.py`` runs the program once for every trial, and this call
    tells it which. Call it early: a study first runs the program as far as this line, to hear of its tasks.

    Args:
        tasks: each task's metric, by name: a ready one (``"accuracy"``, ``"rmse"``, …), ``"perplexity:min"``,
            ``"miou:max:1"`` with its best value, a `Metric`, or several of these; the first chooses the epoch.
        epochs: how many reports there will be; a study may want another number.
        learning_rate: the program's own, if it is used as ``trial.learning_rate``; without it, a study cannot tune it.
        main: the task that the others are there to help, if there is one; it alone chooses the epoch.
        method, seed: by hand, what to train; by default ``STEELYARD_METHOD`` and ``STEELYARD_SEED``, or the plain sum
            and 0. (``STEELYARD_TASKS=left`` trains some of the tasks.) A study has its own.

    Raises:
        ProgramError: a task, metric or number makes no sense, or is not what the study was planned with.

    Example:
        >>> import steelyard
        >>> trial = steelyard.trial(tasks={"left": "accuracy", "right": "accuracy"}, epochs=1, method="uw")
        >>> trial.tasks, trial.seed
        (('left', 'right'), 0)
        >>> balancer = trial.balancer()
        >>> losses = {task: torch.ones((), requires_grad=True) for task in trial.tasks}
        >>> balancer(losses).backward()
        >>> trial.report(1, validation={"left": 0.5, "right": 0.75}, test=lambda: {"left": 0.5, "right": 0.7})
        epoch 1: left accuracy 0.5, right accuracy 0.75; the best so far, on test data left 0.5, right 0.7
        True
    """
    declaration = declare(tasks, epochs, learning_rate, main)
    assignment = Assignment.here()
    if assignment is None and (read := being_read()) is not None:  # by hand it would train, for as long as it takes
        raise ProgramError(f"a file that calls steelyard.trial is a program: steelyard compare -- python {read.name}")
    if assignment is None:
        return TrialHandle(declaration, by_hand(declaration, method, seed), None)
    if assignment.trial is None or assignment.declaration is None:
        if rank_here() == 0:
            with replacing(Path(assignment.answer)) as file:
                file.write(json.dumps(declaration.to_dict()).encode())
        raise SystemExit(0)  # it was only asked
    if declaration != assignment.declaration:
        raise ProgramError(
            f"the program declares {declaration}, and declared {assignment.declaration} when the study was planned: "
            "what it declares may not depend on the trial"
        )
    return TrialHandle(declaration, assignment.trial, assignment)


class TrialHandle:
    """One network to be trained; `steelyard.trial` gives it.

    Attributes:
        tasks: those to train: one, in a run of a single task.
        method: by which their losses are balanced; ``single-task`` for one task alone.
        epochs: how many to train and to report.
    """

    def __init__(self, declaration: ProgramDeclaration, planned: Trial, assignment: Assignment | None) -> None:
        self.tasks, self.method, self.epochs = planned.tasks, planned.method, planned.epochs
        self._planned, self._assignment, self._declaration = planned, assignment, declaration
        self._declared: list[DeclaredTask] = declaration.only(planned.tasks)
        self._read: set[str] = set()
        self._meter: StepMeter | None = None
        self._memory: PeakMemory | None = None
        self._next: int | None = None
        self._history = History(self._declared, declaration.main)
        if assignment is not None:
            for report in ReportReader(Path(assignment.answer)).new():
                self._history.take(report)
            self._tell(kind="asked")
            tell_uncaught(assignment)
        self._best = self._history.best()
        self._saved_best = 0  # of the epochs that a start after a kill goes on from

    # --- what to train ------------------------------------------------------------------------------------------------
    @property
    def seed(self) -> int:
        """Decides the start of the network, the labels kept and the order of batches: ``torch.manual_seed(trial.seed)``
        before anything is drawn. Trials of one seed are compared with each other."""
        self._read.add("seed")
        return self._planned.seed

    @property
    def division(self) -> int:
        """By which number the rows are divided into training, validation and test: with ``--resplit`` the seed, so that
        every seed has rows of its own, the same for all methods; else 0."""
        self._read.add("division")
        return self._planned.seed if self._planned.resplit else 0

    @property
    def fractions(self) -> dict[str, float]:
        """Of its training labels that each task may use; 1 unless the study is about amounts of labels."""
        self._read.add("fraction")
        return dict(self._planned.fractions)

    @property
    def fraction(self) -> float:
        """The same where all tasks have the same.

        Raises:
            ProgramError: they differ.
        """
        found = set(self.fractions.values())
        if len(found) > 1:
            raise ProgramError(f"the tasks have different fractions of their labels: read trial.fractions ({found})")
        return found.pop()

    @property
    def learning_rate(self) -> float:
        """Of the optimizer: the program's own, or the one that the study tries."""
        self._read.add("learning_rate")
        own = self._declaration.learning_rate
        if own is None:
            raise ProgramError("trial(…) was given no learning_rate=: give it the program's own")
        return own if self._planned.learning_rate is None else self._planned.learning_rate

    def part(self, name: str, build: Callable[[], Part]) -> Part:
        """``trial.part("trunk", lambda: nn.Linear(8, 4))``: a part of the network, started from (`seed`, name).

        It starts alike whatever else is built, in the run of one task as in that of all. Parts named ``trunk`` and
        ``head/TASK`` start as those of a problem file do. Random numbers drawn elsewhere are left alone.

        Raises:
            ProgramError: it was built on a device, which draws numbers of its own that follow no seed.
        """
        part = seeded_part(self.seed, name, build)
        for parameter in part.parameters():
            if not parameter.is_cpu:
                raise ProgramError(
                    f"part({name!r}) was built on {parameter.device}, where its start does not follow from the seed: "
                    "build it on the CPU, and move it afterwards, trial.part(…).to(trial.device)"
                )
        return part

    def batches(self, rows: int, size: int, epoch: int) -> list[Tensor]:
        """Row numbers of each batch of an epoch: `fraction` of so many rows, in the order that a problem file has.

        The order is one of (`seed`, epoch), the same for every method and after a restart. The last batch has what is
        left; a single row joins the batch before. Under torchrun every rank gets the whole batches, of which its share
        is ``batch[rank::ranks]``.

        Args:
            rows: how many there are to learn from, each with a label of every task.
            size: rows in a batch, over all ranks.
            epoch: counted from 1.

        Raises:
            ProgramError: there are no such batches, or the tasks have different fractions.
        """
        if min(rows, size, epoch) < 1:
            raise ProgramError(f"batches({rows}, {size}, epoch={epoch}): each is at least 1")
        kept = kept_rows(torch.ones(rows, dtype=torch.bool), self.fraction, self.seed)
        return list(batches(kept, size, self.seed, epoch))

    @property
    def device(self) -> torch.device:
        """A GPU if there is one, under torchrun the rank's own; else the CPU."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())

    def balancer(self, **options: Any) -> Balancer:
        """The method over `tasks`; of one task, the loss itself comes back. It counts steps, so call it in every run.

        Args:
            options: further ones of `steelyard.make`, the same for every method.
        """
        given: dict[str, Any] = {} if self._planned.scale is None else {"scale": self._planned.scale}
        generator = torch.Generator().manual_seed(derive_seed(self._planned.seed, "balancer"))
        method = PLAIN_SUM if self.method == SINGLE_TASK else self.method
        made = make(method, self.tasks, **{"generator": generator, **given, **options})
        self._meter, self._memory = StepMeter(made), PeakMemory()
        return made

    # --- what survives a restart --------------------------------------------------------------------------------------
    @cached_property
    def folder(self) -> Path:
        """For whatever is to survive a restart; removed when the trial is stored. By hand, ``steelyard-trial``."""
        folder = Path("steelyard-trial" if self._assignment is None else self._assignment.folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save(self, **state: Any) -> None:
        """Keep this until the next call, whole or not at all: ``trial.save(epoch=epoch, model=model.state_dict())``.

        Call it after the epoch's report: what was reported and not saved is trained and reported again, and what was
        saved and not reported would be missing. Under torchrun the first rank writes. By hand, nothing is kept.
        """
        if self._assignment is not None and rank_here() == 0:
            with replacing(self.folder / CHECKPOINT) as file:
                torch.save(state, file)
        self._saved_best = self._best.epoch

    def resume(self) -> dict[str, Any] | None:
        """What an earlier start of this trial has saved last; None where there is nothing to go on from."""
        if self._assignment is None or not (self.folder / CHECKPOINT).is_file():
            return None
        state: dict[str, Any] = torch.load(self.folder / CHECKPOINT, map_location="cpu", weights_only=True)
        return state

    # --- what was found -----------------------------------------------------------------------------------------------
    @property
    def should_stop(self) -> bool:
        """No further epoch is wanted: all are reported, or as many in a row as the study has patience for were no
        better on validation data. Under torchrun every rank reads the same if every rank reports.

        Raises:
            ProgramError: this rank has trained and reported nothing, and so cannot know.
        """
        self._read.add("should_stop")
        trained = self._meter is not None and self._meter.steps > 0
        if self._planned.patience and self._next is None and trained and rank_here() > 0:
            raise ProgramError(
                f"rank {rank_here()} reads trial.should_stop and has reported nothing, so that it would go on alone: "
                "call trial.report on all ranks, with the same numbers"
            )
        return self._ends

    @property
    def _ends(self) -> bool:
        return self._last(len(self._history.epochs) if self._next is None else self._next - 1)

    def _last(self, epoch: int) -> bool:
        return self._best.ends(epoch, self.epochs, self._planned.patience)

    def start(self, network: nn.Module) -> None:
        """Show the network before its first step: a study says when two trials of one seed did not start alike."""
        self._tell(kind="start", start=start_digests(network))

    def report(
        self,
        epoch: int,
        validation: Values,
        test: Values | Callable[[], Values],
        network: NetworkLike | None = None,
    ) -> bool:
        """Say what an epoch has brought; True if it is the best so far.

        Validation chooses the epoch, and test is read there and at the last one: give a function, and it is called for
        these alone. Under torchrun call it on all ranks, with the same numbers, or on the first alone.

        Args:
            epoch: counted from 1.
            validation, test: by task its metric, or its metrics by name: the first one on validation data, all of them
                on test data.
            network: for the study to keep, if it keeps networks (``--keep``): its weights at the epoch that validation
                chooses. A network, its ``state_dict()``, or a function that gives it, which is called on every rank
                (FSDP gathers there).

        Raises:
            ProgramError: a name, number, epoch or network that does not fit.
        """
        if self._next is None and self._ends and epoch == len(self._history.epochs) + 1 <= self.epochs:
            return False  # an earlier start was stopped between its last report and its end
        try:
            self._check(epoch)
            values = {task.name: self._main_of(task, validation, epoch) for task in self._declared}
            refuse_others(validation, self.tasks, self._declaration.task_names)
            before = self._best.epoch
            better = self._best.better(epoch, values)
            found = self._test(test, epoch) if better or self._last(epoch) else {}
            if better and network is not None:
                self._keep(network, epoch, before)
        except (ProgramError, TrainingError, UnknownNameError) as error:
            self._tell(kind="refused", error=str(error))
            raise
        assert self._meter is not None
        assert self._memory is not None
        measured = self._meter.take()
        memory = self._memory.growth()
        if torch.cuda.is_available():
            memory = torch.cuda.max_memory_allocated() / 2**20
        self._tell(kind="epoch", epoch=epoch, validation=values, test=found, memory=memory, **measured)
        self._next = epoch + 1
        if self._assignment is None and rank_here() == 0:
            self._print(epoch, values, found, better)
        return better

    def _keep(self, network: NetworkLike, epoch: int, before: int) -> None:
        """Before the report is told: what is told to be the best so far has its network.

        The one `before` stays too, and that of what was saved: a start after a kill goes on from there, and need not
        find this epoch as good again.
        """
        if self._assignment is not None and self._assignment.keep:
            weights = weights_of(network)
            if rank_here() == 0:
                write_weights(self.folder, self._planned, epoch, weights)
                drop_weights(self.folder, {epoch, before, self._saved_best}.__contains__)

    def _check(self, epoch: int) -> None:
        """Raise a `ProgramError` unless this is the epoch that comes, of a program that does what it is asked."""
        check_epoch(epoch, self._next, len(self._history.epochs), self.epochs)
        if self._next is None:
            self._best = self._history.best(before=epoch)
            self._saved_best = self._best.epoch
            if self._assignment is not None and rank_here() == 0:  # those of epochs that are now trained anew
                drop_weights(self.folder, lambda there: there < epoch)
        check_balanced(self._meter)
        if self._next is None and self._assignment is not None:
            check_read(self._read, self._planned)
        if self._next is not None and self._planned.patience:
            check_patience(epoch, self._planned.patience, self._read, self._ends)

    def _main_of(self, task: DeclaredTask, validation: Values, epoch: int) -> float:
        return numbers(task, validation, "validation", epoch, only_main=True)[0]

    def _test(self, test: Values | Callable[[], Values], epoch: int) -> dict[str, list[float]]:
        values = test() if callable(test) else test
        refuse_others(values, self.tasks, self._declaration.task_names)
        return {task.name: numbers(task, values, "test", epoch) for task in self._declared}

    def _print(self, epoch: int, values: Mapping[str, float], found: Mapping[str, list[float]], better: bool) -> None:
        said = ", ".join(f"{task.name} {task.metrics[0].name} {values[task.name]:.4g}" for task in self._declared)
        on_test = ", ".join(f"{task} {tested[0]:.4g}" for task, tested in found.items())
        which = "the best so far" if better else "the last"
        print(printable(f"epoch {epoch}: {said}" + (f"; {which}, on test data {on_test}" if found else "")), flush=True)

    def _tell(self, **values: Any) -> None:
        if self._assignment is not None and rank_here() == 0:
            tell(Path(self._assignment.answer), Report(self._assignment.run, os.getpid(), **values))
