"""Train one trial, from start to finish. Read it from top to bottom: this is all that a study does to a network."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.balancing.ledger import Ledger
from steelyard.errors import TrainingError
from steelyard.method_registry import make
from steelyard.models import build
from steelyard.problems.network_parameters import Parameters
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Targets
from steelyard.problems.task import Inputs
from steelyard.study.storage.trial_checkpoint import Folder
from steelyard.study.training.batch import (
    Forward,
    LossesOf,
    in_order,
    recompute,
    tell_labels,
)
from steelyard.study.training.epoch_progress import EpochProgress
from steelyard.study.training.evaluate import BestEpoch, TaskOutputs, measure, predict, tested
from steelyard.study.training.hardware import ON_CPU, Hardware, seed_everything
from steelyard.study.training.kept_outputs import keep
from steelyard.study.training.left_out_rows import left_out, on_halves
from steelyard.study.training.peak_memory import peak_memory
from steelyard.study.training.rows_on_device import rows_of
from steelyard.study.training.training_rows import Material
from steelyard.study.trial import SINGLE_TASK, Result, Trial, derive_seed

CHECKPOINT_SECONDS = 1.0
DRAW_MORE = "have the DataLoader's sampler draw more rows in an epoch, or such rows more often"


def train(
    trial: Trial,
    problem: Problem,
    checkpoint: Folder | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_trained: Callable[[Mapping[str, Tensor]], None] = lambda state: None,
    hardware: Hardware = ON_CPU,
) -> Result:
    """Train the network of one trial and read its metrics.

    Deterministic on the CPU with one thread: the same trial gives the same numbers bit for bit, whether it ran
    in one go or was killed and resumed from its checkpoint. Other devices add in an order that they do not promise.

    Args:
        trial: what to train.
        problem: the problem that the trial names.
        checkpoint: where to keep what is needed to resume: written after an epoch, but not more often than every
            `checkpoint_seconds`, so that a kill loses the epoch in flight or one second, whichever is longer.
        on_epoch: called with the number of finished epochs; first with those that a checkpoint brought.
        on_trained: called with the network's ``state_dict()`` at the chosen epoch.
        hardware: where to, and in which precision.

    Raises:
        TrainingError: the loss or a metric is not finite, no epoch can be chosen, or no label of a task was drawn.
    """
    training = _Training(trial, problem, hardware)
    if checkpoint is not None and training.restore(checkpoint):
        on_epoch(training.progress.epoch)
    saved_at = time.perf_counter()
    while not training.ended:
        epoch = training.progress.epoch + 1
        training.learn(epoch)
        training.validate(epoch)
        if checkpoint is not None and time.perf_counter() - saved_at >= checkpoint_seconds:
            training.save(checkpoint)
            saved_at = time.perf_counter()
        on_epoch(epoch)
    result = training.result()
    on_trained(training.network.state_dict())  # at the chosen epoch, where test was read last
    return result


class _Training:
    """A network, what it learns from, and how far it has come."""

    def __init__(self, trial: Trial, problem: Problem, hardware: Hardware) -> None:
        problem = problem.redrawn() if trial.resplit else problem
        self.trial, self.problem, self.hardware = trial, problem, hardware
        self.tasks = [problem.task(name) for name in trial.tasks]
        self.data = problem.data(trial.seed)
        self.rows = rows_of(self.data, self.tasks, hardware)
        self.memory = peak_memory(hardware)
        # What is learnt from: fractions hide labels, rows without any label are left out.
        self.material = Material.of(problem, self.tasks, trial.seed, dict(trial.fractions), self.rows["train"])
        # What learns: trunk and heads start from (seed, name), the same for every method.
        self.network = build(problem, trial.tasks, trial.seed, trial.architecture)
        tell_labels(self.network, self.tasks, self.data.train, self.material.labels)
        self.network.to(hardware.device).train()
        self.optimizer = problem.optimizer(Parameters.of(self.network))
        self.scaler = hardware.scaler()
        self.balancer = make_balancer(trial)
        if self.balancer is not None:
            self.optimizer = self.balancer.optimizer_for(self.optimizer)
            self.balancer.attach(self.optimizer, self.scaler)
        set_rate(self.optimizer, trial)
        self.ledger = None
        if self.balancer is not None and trial.ledger:
            self.ledger = Ledger(self.balancer, self.optimizer, trial.ledger)
        counts = {t.name: int(self.data.validation.labelled(t).sum()) for t in self.tasks}
        self.progress = EpochProgress(
            BestEpoch(self.tasks, counts, problem.main, problem.choose == "last"), hardware=hardware
        )

    @property
    def ended(self) -> bool:
        """After all epochs, or as soon as so many in a row as the trial has patience for were no better."""
        progress, trial = self.progress, self.trial
        return progress.best.ends(progress.epoch, trial.epochs, trial.patience)

    # --- one epoch ----------------------------------------------------------------------------------------------------
    def learn(self, epoch: int) -> None:
        """One pass over the training rows."""
        trial, optimizer = self.trial, self.optimizer
        seed_everything(derive_seed(trial.seed, "epoch", epoch))
        schedule_rate(optimizer, self.problem.rate_factor((epoch - 1) / trial.epochs))
        losses, weights, there = [], [], set[str]()
        self.hardware.synchronize()
        started, worked = time.perf_counter(), time.process_time()
        order = self.material.order(trial.batch_size, epoch, trial.epoch_steps, trial.sampling)
        for step, (rows, batch) in enumerate(zip(order, self.material.read(order, epoch), strict=True)):
            if not batch[1]:
                continue  # no row of it turned out to have a label
            forward, loss = self._loss(epoch, step, rows, batch)
            if self.balancer is not None:
                weights.append(self.balancer.last_weights)
            forward.step(optimizer, loss, self.scaler)
            losses.append(in_order(self.tasks, forward.losses))
            there.update(forward.losses)
        self.hardware.synchronize()
        self.progress.note(labelled=[name in there for name in trial.tasks])
        self._check_labels(epoch, order, len(losses))
        seconds, work = time.perf_counter() - started, work_since(worked, losses)
        self.progress.note(seconds=seconds, processor=work, steps=len(losses))
        if self.balancer is not None:
            self.balancer.end_epoch()
        self._write_down(epoch, torch.stack(losses).cpu().double(), weights)

    def _check_labels(self, epoch: int, order: Sequence[Tensor], steps: int) -> None:
        """Raise a `TrainingError` where a task has no label in all rows, or no task has one in the rows of an epoch.

        A sampler of a DataLoader's own may miss a rare label in one epoch and draw it in another: `result` asks then.
        """
        absent = self.progress.never_labelled(self.trial.tasks)
        if absent and epoch == 1 and self.material.are_all(order):
            raise TrainingError(f"no row of the first epoch has a label of {', '.join(absent)}")
        if not steps:
            names = ", ".join(self.trial.tasks)
            raise TrainingError(f"no row that epoch {epoch} drew has a label of {names}: {DRAW_MORE}")

    def _loss(self, epoch: int, step: int, rows: Tensor, batch: tuple[Inputs, Targets]) -> tuple[Forward, Tensor]:
        """The batch through the network, and the scalar that the balancer makes of it."""
        trial, network, balancer = self.trial, self.network, self.balancer
        inputs, targets = batch
        recomputes = balancer is not None and balancer.recomputes
        before = self.hardware.random_state() if recomputes else None
        forward = Forward(network, self.tasks, inputs, targets, self.hardware)
        if balancer is None:
            return forward, forward.losses[trial.tasks[0]]
        further = []
        if balancer.reads == "cross_gramian" or balancer.needs_held_out:
            further = self.material.probes(trial.batch_size, epoch, step, rows)
        probes = None
        if balancer.reads == "cross_gramian":
            losses_of = LossesOf(network, self.tasks, self.hardware)
            probes = [losses_of(there, wanted) for there, wanted in further]
        held_out = further[0] if further else None
        again = recompute(network, self.tasks, inputs, targets, before, held_out, self.hardware)
        loss = balancer(forward.balanced(), shared=forward.shared(trial.shared, balancer), again=again, probes=probes)
        return forward, loss

    def _write_down(self, epoch: int, losses: Tensor, weights: list[Tensor]) -> None:
        """Means over the steps [S, T] in which a task was there, and how far its weights moved around theirs."""
        of_steps = torch.stack(weights).cpu() if weights else torch.ones_like(losses)
        of_steps = of_steps.where(~losses.isnan(), torch.nan)
        mean = of_steps.nanmean(0)
        spread = (of_steps - mean).square().nanmean(0).sqrt()
        self.progress.note(loss=losses.nanmean(0).tolist(), weight=mean.tolist(), spread=spread.tolist())
        if self.balancer is None:  # a balancer has its own policy
            check_finite(self.trial, epoch, losses.mean(0).tolist())

    def validate(self, epoch: int) -> None:
        """Validation chooses the epoch."""
        balancer, progress = self.balancer, self.progress
        observes = balancer is not None and type(balancer).validated is not Balancer.validated
        if not observes and not progress.best.asks(epoch, self.trial):
            progress.hold(epoch)
            return
        shown = self._predict("validation", losses=observes)
        values = {t.name: measure(t, shown[t.name], "validation", only_main=True)[0] for t in self.tasks}
        halves = [on_halves(t, shown[t.name]) for t in self.tasks]
        self.progress.note(validation=[values[t.name] for t in self.tasks], halves=halves)
        if self.progress.best.better(epoch, values):
            state = self.network.state_dict()
            self.progress.best_network = copy.deepcopy(state) if self.hardware.is_cpu else self.hardware.on_cpu(state)
        if balancer is not None and observes:
            balancer.observe(validation={t.name: shown[t.name].loss for t in self.tasks})
        self.progress.epoch = epoch

    # --- what outlives it ---------------------------------------------------------------------------------------------
    def restore(self, checkpoint: Folder) -> bool:
        """Go on where an earlier process was, if it left a checkpoint."""
        parts = (self.network, self.optimizer, self.balancer, self.ledger, self.scaler)
        return self.progress.restore(checkpoint, self.trial, *parts)

    def save(self, checkpoint: Folder) -> None:
        """Keep what is needed to go on."""
        growth = self.memory.growth()
        parts = (self.network, self.optimizer, self.balancer, growth, self.ledger, self.scaler)
        self.progress.save(checkpoint, self.trial, *parts)

    def result(self) -> Result:
        """Test is read at the last epoch and at the chosen one, and never to choose."""
        if absent := self.progress.never_labelled(self.trial.tasks):
            raise TrainingError(f"no row that any epoch drew has a label of {', '.join(absent)}: {DRAW_MORE}")
        moved = self.progress.best.epoch < self.progress.epoch  # otherwise they are one network
        last, kept, parts = self._test(parts=not moved)
        chosen = last
        if moved:
            self.network.load_state_dict(self.progress.best_network)
            chosen, kept, parts = self._test(parts=True)
        return self.progress.result(self.trial, chosen, last, kept, self.memory.growth(), parts, self.ledger)

    def _test(self, parts: bool) -> tuple[dict[str, list[float]], dict[str, str], dict[str, list[float]]]:
        seed_everything(derive_seed(self.trial.seed, "test"))
        shown = self._predict("test")
        values = {t.name: tested(t, shown[t.name]) for t in self.tasks}
        without = {t.name: found for t in self.tasks if parts and (found := left_out(t, shown[t.name]))}
        return values, keep(self.problem, shown), without

    def _predict(self, part: str, losses: bool = False) -> dict[str, TaskOutputs]:
        return predict(self.network, self.problem, self.rows[part], self.trial.batch_size, losses, self.hardware)


def work_since(began: float, losses: list[Tensor]) -> float:
    """Seconds that this process worked since then; 0 where another device trained, whose time that is not."""
    return time.process_time() - began if losses[0].device.type == "cpu" else 0.0


def set_rate(optimizer: torch.optim.Optimizer, trial: Trial) -> None:
    """Give an optimizer the trial's learning rate, if it has one of its own; other groups stay at their ratios to the
    first."""
    if trial.learning_rate is not None:
        first = optimizer.param_groups[0]["lr"]
        for group in optimizer.param_groups:
            group["lr"] = trial.learning_rate * (group["lr"] / first if first else 1.0)


def schedule_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply an optimizer's first learning rates by what the problem's schedule says of an epoch."""
    for group in optimizer.param_groups:
        # The name is that of torch's own schedulers; it is saved with the optimizer.
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def make_balancer(trial: Trial) -> Balancer | None:
    """The trial's balancer; None for a single-task network, which has nothing to balance."""
    if trial.method == SINGLE_TASK:
        return None
    options: dict[str, Any] = {} if trial.scale is None else {"scale": trial.scale}
    generator = torch.Generator().manual_seed(derive_seed(trial.seed, "balancer"))
    return make(trial.method, trial.tasks, generator=generator, **options)


def check_finite(trial: Trial, epoch: int, losses: list[float]) -> None:
    """Raise a `TrainingError` where the mean training loss of an epoch is inf or NaN."""
    for task, loss in zip(trial.tasks, losses, strict=True):
        if not math.isfinite(loss):
            raise TrainingError(f"the training loss of {task!r} is {loss} in epoch {epoch}: lower the learning rate")
