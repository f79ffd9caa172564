"""Train the single-task networks of many tasks at once, each exactly as `train` would train it alone."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steelyard.models import build
from steelyard.problems.data import Data
from steelyard.problems.network_parameters import Parameters
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Split
from steelyard.problems.task import Task
from steelyard.study.storage.trial_checkpoint import Folder, checkpoint_of
from steelyard.study.training.epoch_progress import EpochProgress
from steelyard.study.training.evaluate import BestEpoch, TaskOutputs, measure, predict, tested
from steelyard.study.training.hardware import ON_CPU, Hardware, seed_everything
from steelyard.study.training.kept_outputs import keep
from steelyard.study.training.left_out_rows import left_out, on_halves
from steelyard.study.training.peak_memory import peak_memory
from steelyard.study.training.rows_on_device import RowsOnDevice, rows_of
from steelyard.study.training.sampling import batches, kept_labels, steps_per_epoch
from steelyard.study.training.stacking import Stack, agrees, batch_of, kind_of, padded
from steelyard.study.training.train import (
    CHECKPOINT_SECONDS,
    check_finite,
    schedule_rate,
    set_rate,
    work_since,
)
from steelyard.study.trial import SINGLE_TASK, Failed, Result, Trial, derive_seed

# Trials of a group. Small networks gain a factor of two or three in a stack, wide ones only that a worker starts and
# reads its data once for all: that pays where there are many.
FEWEST = 24
MOST = 64
ROOM = 2**29  # bytes for what all networks of an ensemble need in a step, roughly

OnTrained = Callable[[Trial, Mapping[str, Tensor]], None]


def groups(trials: Sequence[Trial], workers: int) -> list[tuple[Trial, ...]]:
    """Trials as one worker each gets them: alone, or those single-task ones together that differ in the task only."""
    alike: dict[object, list[Trial]] = {}
    for trial in trials:
        key: object = trial
        if trial.method == SINGLE_TASK and not trial.patience:  # those of an ensemble end together
            # All but the task and its fraction.
            key = dataclasses.replace(trial, tasks=(), fractions=())
        alike.setdefault(key, []).append(trial)
    found: list[tuple[Trial, ...]] = []
    for members in alike.values():
        if len(members) < FEWEST:
            found += [(trial,) for trial in members]
            continue
        parts = max(-(-len(members) // MOST), min(workers, len(members) // FEWEST))
        found += [tuple(members[part::parts]) for part in range(parts)]
    return found


@dataclass
class _Member:
    """One trial of an ensemble: what `train` has in local variables."""

    trial: Trial
    task: Task
    network: nn.Module
    optimizer: torch.optim.Optimizer
    kept: Tensor  # mask of the training rows
    progress: EpochProgress
    failed: Failed | None = None

    @property
    def steps(self) -> int:
        return steps_per_epoch(int(self.kept.sum()), self.trial.batch_size, self.trial.epoch_steps)


def train_together(
    trials: Sequence[Trial],
    problem: Problem,
    checkpoints: Folder | None = None,
    on_epoch: Callable[[Trial, int], None] = lambda trial, epoch: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_trained: OnTrained = lambda trial, state: None,
    hardware: Hardware = ON_CPU,
) -> Iterator[tuple[Trial, Result | Failed | None]]:
    """Train single-task trials that differ in the task only; None for those that must be trained one by one.

    Those of one shape that make equally many steps per epoch are stacked (`Stack`). Start, rows, order of batches,
    dropout, chosen epoch and checkpoints are those of `train`, so that results differ by rounding alone, and a
    checkpoint of one is good for the other. A network that diverges fails alone.

    ``seconds`` of a result are its share of the ensemble's, ``peak_memory`` is that of the whole ensemble.

    Args:
        trials: see `groups`.
        problem: of all trials.
        checkpoints: the folder for the checkpoints of trials, each named by its key.
        on_epoch: called with a trial and the number of its finished epochs.
        checkpoint_seconds: checkpoints are written no more often than once in so many seconds for every ten networks.
        on_trained: called with a trial and its network's ``state_dict()`` at the chosen epoch.
        hardware: where to, and in which precision. On a device whose memory the data do not fit into, none is stacked.
    """
    problem = problem.redrawn() if trials[0].resplit else problem
    data = problem.data(trials[0].seed)
    if not isinstance(data.train, Split):  # a stack takes rows of one tensor: without it, one by one
        yield from ((trial, None) for trial in trials)
        return
    rows = rows_of(data, [problem.task(trial.tasks[0]) for trial in trials], hardware)
    shapes: dict[object, list[_Member]] = {}
    for trial in trials:
        member, kind = _prepare(trial, problem, data, checkpoints, hardware)
        if kind is None or not rows["train"].stays:
            yield trial, None
        else:
            shapes.setdefault((kind, member.steps, member.progress.epoch), []).append(member)
    for members in shapes.values():
        most = _most(members[0], data)
        for start in range(0, len(members), most):
            part = members[start : start + most]
            stack = _stack(part, problem, rows["train"]) if len(part) > 1 else None
            if stack is None:
                yield from ((member.trial, None) for member in part)
            else:
                yield from _train(stack, part, problem, rows, checkpoints, on_epoch, checkpoint_seconds, on_trained)


def _prepare(
    trial: Trial, problem: Problem, data: Data, checkpoints: Folder | None, hardware: Hardware
) -> tuple[_Member, object]:
    (name,) = trial.tasks
    task = problem.task(name)
    network = build(problem, trial.tasks, trial.seed, trial.architecture)
    network.to(hardware.device).train()
    optimizer = problem.optimizer(Parameters.of(network))
    set_rate(optimizer, trial)
    kept = kept_labels(task, data.train, dict(trial.fractions)[name], trial.seed)
    count = int(data.validation.labelled(task).sum())
    best = BestEpoch([task], {name: count}, problem.main, problem.choose == "last")
    member = _Member(trial, task, network, optimizer, kept, EpochProgress(best, hardware=hardware))
    kind = kind_of(network, task, optimizer, hardware)
    if kind is not None and checkpoints is not None:
        member.progress.restore(checkpoint_of(checkpoints, trial), trial, network, optimizer)
    targets = _in_memory(data).targets[name]
    return member, kind and (kind, targets.shape, targets.dtype)


def _most(member: _Member, data: Data) -> int:
    """How many networks have room."""
    stored = _in_memory(data).inputs
    inputs = stored if isinstance(stored, tuple) else (stored,)
    row = sum(tensor[0].numel() for tensor in inputs)
    weights = sum(parameter.numel() for parameter in member.network.parameters())
    # Inputs as stored and as prepared; parameters, gradients, best ones, two moments and what a step needs.
    return max(1, ROOM // (4 * (2 * member.trial.batch_size * row + 8 * weights)))


def _stack(members: Sequence[_Member], problem: Problem, train: RowsOnDevice) -> Stack | None:
    """The stack of the members' networks, if it computes what they compute."""
    stack = Stack(
        [member.network for member in members],
        [member.task.name for member in members],
        [member.optimizer for member in members],
        members[0].task.loss,
    )
    rows = [member.kept.nonzero().squeeze(1) for member in members]
    return stack if agrees(stack, problem, train, _targets(members, train), rows) else None


def _targets(members: Sequence[_Member], train: RowsOnDevice) -> Tensor:
    return torch.stack([train.targets(member.task.name, slice(None)) for member in members])


def _in_memory(data: Data) -> Split:
    assert isinstance(data.train, Split)
    return data.train


def _train(
    stack: Stack,
    members: Sequence[_Member],
    problem: Problem,
    rows: Mapping[str, RowsOnDevice],
    checkpoints: Folder | None,
    on_epoch: Callable[[Trial, int], None],
    checkpoint_seconds: float,
    on_trained: OnTrained,
) -> Iterator[tuple[Trial, Result | Failed]]:
    running = _Running(stack, members, problem, rows)
    done = members[0].progress.epoch
    for member in members if done else ():
        on_epoch(member.trial, done)
    saved_at, interval = time.perf_counter(), checkpoint_seconds * max(1.0, len(members) / 10)
    for epoch in range(done + 1, running.first.epochs + 1):
        if not running.alive:
            break
        running.validate(epoch, *running.learn(epoch))
        if checkpoints is not None and time.perf_counter() - saved_at >= interval:
            running.save(checkpoints)
            saved_at = time.perf_counter()
        for member in members:
            on_epoch(member.trial, epoch)
    yield from running.results(on_trained)


class _Running:
    """The networks of one stack in training: what `train` does with one."""

    def __init__(
        self, stack: Stack, members: Sequence[_Member], problem: Problem, rows: Mapping[str, RowsOnDevice]
    ) -> None:
        self.stack, self.members, self.problem, self.rows = stack, members, problem, rows
        self.first = members[0].trial
        self.hardware = rows["train"].hardware
        self.memory = peak_memory(self.hardware)
        self.targets = _targets(members, rows["train"])

    @property
    def alive(self) -> list[tuple[int, _Member]]:
        """Those that have not failed, with their places in the stack."""
        return [(place, member) for place, member in enumerate(self.members) if member.failed is None]

    def learn(self, epoch: int) -> tuple[list[float], dict[str, float], int]:
        """One pass over the training rows: mean losses, each network's share of the seconds of both kinds, steps."""
        first, problem = self.first, self.problem
        seed_everything(derive_seed(first.seed, "epoch", epoch))
        schedule_rate(self.stack.optimizer, problem.rate_factor((epoch - 1) / first.epochs))
        step_losses = []
        self.hardware.synchronize()
        started, worked = time.perf_counter(), time.process_time()
        orders = (
            batches(member.kept, first.batch_size, first.seed, epoch, first.epoch_steps) for member in self.members
        )
        for rows in zip(*orders, strict=True):
            numbers, mask = padded(rows)
            batch = batch_of(problem, self.rows["train"], self.targets, numbers)
            losses = self.stack.losses(*batch, self.hardware.to(mask))
            self.stack.step(losses)
            step_losses.append(losses.detach())
        self.hardware.synchronize()
        spent = {"seconds": time.perf_counter() - started, "processor": work_since(worked, step_losses)}
        shares = {kind: seconds / len(self.members) for kind, seconds in spent.items()}
        return torch.stack(step_losses).cpu().double().mean(0).tolist(), shares, len(step_losses)

    def validate(self, epoch: int, means: list[float], times: dict[str, float], steps: int) -> None:
        """Validation chooses the epoch, for each network its own."""
        asked = self.members[0].progress.best.asks(epoch, self.first)
        shown = self._predict("validation") if asked else {}
        for place, member in self.alive:
            with _failing(member):
                check_finite(member.trial, epoch, [means[place]])
                note = {"loss": [means[place]], "weight": [1.0], "spread": [0.0], "labelled": [True]}
                member.progress.note(**note, **times, steps=steps)
                if not asked:
                    member.progress.hold(epoch)
                    continue
                (value,) = measure(member.task, shown[member.task.name], "validation", only_main=True)
                member.progress.note(validation=[value], halves=[on_halves(member.task, shown[member.task.name])])
                if member.progress.best.better(epoch, {member.task.name: value}):
                    member.progress.best_network = self.hardware.on_cpu(self.stack.state_of(place))
                member.progress.epoch = epoch

    def save(self, checkpoints: Folder) -> None:
        """Keep what is needed to go on, as `train` would for each."""
        self.stack.unstack()
        for _, member in self.alive:
            path, growth = checkpoint_of(checkpoints, member.trial), self.memory.growth()
            member.progress.save(path, member.trial, member.network, member.optimizer, None, growth)

    def results(self, on_trained: OnTrained) -> Iterator[tuple[Trial, Result | Failed]]:
        """Test values at the last epoch and at the chosen one."""
        last, _, _ = self._test(parts=False)
        for place, member in self.alive:
            self.stack.load(place, member.progress.best_network)
        chosen, kept, parts = self._test(parts=True)
        for member in self.members:
            if member.failed is not None:
                yield member.trial, member.failed
                continue
            name = member.task.name
            test_of, last_of = {name: chosen[name]}, {name: last[name]}
            outputs = {name: kept[name]} if kept else {}
            on_trained(member.trial, member.progress.best_network)
            kept_out = {name: parts[name]} if name in parts else {}
            growth = self.memory.growth()
            yield member.trial, member.progress.result(member.trial, test_of, last_of, outputs, growth, kept_out)

    def _test(self, parts: bool) -> tuple[dict[str, list[float]], dict[str, str], dict[str, list[float]]]:
        seed_everything(derive_seed(self.first.seed, "test"))
        shown = self._predict("test")
        values: dict[str, list[float]] = {}
        without: dict[str, list[float]] = {}
        for _, member in self.alive:
            with _failing(member):
                values[member.task.name] = tested(member.task, shown[member.task.name])
                if parts and (found := left_out(member.task, shown[member.task.name])):
                    without[member.task.name] = found
        return values, keep(self.problem, shown), without

    def _predict(self, part: str) -> dict[str, TaskOutputs]:
        return predict(self.stack, self.problem, self.rows[part], self.first.batch_size, hardware=self.hardware)


@contextmanager
def _failing(member: _Member) -> Iterator[None]:
    """An error that concerns one task only ends its trial, not the others'."""
    try:
        yield
    except Exception as error:
        member.failed = Failed.of(error)
