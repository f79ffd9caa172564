"""Train one trial, from start to finish. Read it from top to bottom: this is all that a study does to a network."""

from __future__ import annotations

import copy
import math
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.errors import TrainingError
from steelyard.models import build
from steelyard.problems.problem import Problem
from steelyard.problems.task import Inputs
from steelyard.registry import make
from steelyard.study.storage.checkpoint import load_checkpoint, save_checkpoint
from steelyard.study.training.batch import (
    LossesOf,
    Targets,
    balanced_losses,
    in_order,
    penalty_of,
    recompute,
    shared_of,
    targets_of,
    task_losses,
    tell_labels,
)
from steelyard.study.training.evaluate import BestEpoch, measure, predict, take
from steelyard.study.training.kept import keep
from steelyard.study.training.memory import PeakMemory
from steelyard.study.training.sampling import batches, kept_labels, probe_rows, used_rows
from steelyard.study.trial import SINGLE_TASK, Curves, Result, Trial, derive_seed

CHECKPOINT_SECONDS = 1.0


def train(
    trial: Trial,
    problem: Problem,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Result:
    """Train the network of one trial and read its metrics.

    Deterministic on the CPU with one thread: the same trial gives the same numbers bit for bit, whether it ran
    in one go or was killed and resumed from its checkpoint.

    Args:
        trial: what to train.
        problem: the problem that the trial names.
        checkpoint: where to keep what is needed to resume: written after an epoch, but not more often than every
            `checkpoint_seconds`, so that a kill loses the epoch in flight or one second, whichever is longer.
        on_epoch: called with the number of finished epochs; first with those that a checkpoint brought.

    Raises:
        TrainingError: the loss or a metric is not finite, or no epoch can be chosen.
    """
    tasks = [problem.task(name) for name in trial.tasks]
    data = problem.data(trial.seed)
    memory = PeakMemory()

    # --- what is learnt from: fractions hide labels, rows without any label are left out
    labels = {t.name: kept_labels(t, data.train, dict(trial.fractions)[t.name], trial.seed) for t in tasks}
    used = used_rows(labels)
    gaps = {name: mask for name, mask in labels.items() if not torch.equal(mask, used)}

    def batch(rows: Tensor) -> tuple[Inputs, Targets]:
        targets = {t.name: targets_of(data.train.targets[t.name], gaps.get(t.name), rows) for t in tasks}
        return problem.prepare(take(data.train.inputs, rows)), targets

    # --- what learns: trunk and heads start from (seed, name), the same for every method
    network = build(problem, trial.tasks, trial.seed, trial.architecture)
    tell_labels(network, data.train.targets, labels)
    network.train()
    optimizer = problem.optimizer(network.parameters())
    set_rate(optimizer, trial)
    balancer = make_balancer(trial)
    if balancer is not None:
        balancer.attach(optimizer)
    counts = {t.name: int(t.labelled(data.validation.targets[t.name]).sum()) for t in tasks}
    best = BestEpoch(tasks, counts, problem.main)
    best_network: dict[str, Any] = {}
    history = new_history()
    first_epoch, earlier_peak = 1, 0.0

    if checkpoint is not None and (state := load_checkpoint(checkpoint, trial)) is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        if balancer is not None:
            balancer.load_state_dict(state["balancer"])
        best.score, best.epoch, best.smallest = state["best"]
        best_network, history, earlier_peak = state["best network"], state["history"], state["peak"]
        first_epoch = state["epoch"] + 1
        on_epoch(state["epoch"])
    saved_at = time.perf_counter()

    for epoch in range(first_epoch, trial.epochs + 1):
        seed_everything(derive_seed(trial.seed, "epoch", epoch))
        schedule_rate(optimizer, problem.schedule((epoch - 1) / trial.epochs))
        step_losses, step_weights = [], []
        started = time.perf_counter()
        for step, rows in enumerate(batches(used, trial.batch_size, trial.seed, epoch, trial.epoch_steps)):
            inputs, targets = batch(rows)
            recomputes = balancer is not None and (balancer.needs_after or balancer.reads == "lookahead")
            before = torch.get_rng_state() if recomputes else None
            outputs, features = network(inputs)
            losses = task_losses(tasks, outputs, targets)
            if balancer is None:
                loss = losses[trial.tasks[0]]
            else:
                further = []
                if balancer.reads == "cross_gramian" or balancer.needs_held_out:
                    further = [batch(each) for each in probe_rows(used, trial.batch_size, trial.seed, epoch, step)]
                probes = None
                if balancer.reads == "cross_gramian":
                    probes = [LossesOf(network, tasks)(there, wanted) for there, wanted in further]
                again = recompute(network, tasks, inputs, targets, before, further[0] if further else None)
                shared = shared_of(trial.shared, network, features)
                seen = balanced_losses(network, losses, outputs, features)
                loss = balancer(seen, shared=shared, again=again, probes=probes)
                step_weights.append(balancer.last_weights)
            if (penalty := penalty_of(network, outputs, features)) is not None:
                loss = loss + penalty
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step_losses.append(in_order(tasks, losses))
        seconds = time.perf_counter() - started
        if balancer is not None:
            balancer.end_epoch()
        history["seconds"].append(seconds)
        history["steps"].append(len(step_losses))
        means = torch.stack(step_losses).double()
        history["loss"].append(means.nanmean(0).tolist())
        weights = torch.stack(step_weights) if step_weights else torch.ones_like(means)
        weights = weights.where(~means.isnan(), torch.nan)
        history["weight"].append(weights.nanmean(0).tolist())
        history["spread"].append((weights - weights.nanmean(0)).square().nanmean(0).sqrt().tolist())
        if balancer is None:  # a balancer has its own policy
            check_finite(trial, epoch, means.mean(0).tolist())

        # --- validation: chooses the epoch
        observes = balancer is not None and type(balancer).validated is not Balancer.validated
        shown = predict(network, problem, data.validation, trial.batch_size, losses=observes)
        values = {t.name: measure(t.metrics[:1], shown[t.name])[0] for t in tasks}
        history["validation"].append([values[t.name] for t in tasks])
        if best.better(epoch, values):
            best_network = copy.deepcopy(network.state_dict())
        if balancer is not None and observes:
            balancer.observe(validation={t.name: shown[t.name].loss for t in tasks})

        if checkpoint is not None and time.perf_counter() - saved_at >= checkpoint_seconds:
            state = {
                "epoch": epoch,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "balancer": balancer.state_dict() if balancer is not None else {},
                "best": (best.score, best.epoch, best.smallest),
                "best network": best_network,
                "history": history,
                "peak": max(earlier_peak, memory.growth()),
            }
            save_checkpoint(checkpoint, trial, state)
            saved_at = time.perf_counter()
        on_epoch(epoch)

    # --- test: read at the last epoch and at the chosen one, and never to choose
    def test() -> tuple[dict[str, list[float]], dict[str, str]]:
        seed_everything(derive_seed(trial.seed, "test"))
        shown = predict(network, problem, data.test, trial.batch_size)
        return {t.name: measure(t.metrics, shown[t.name]) for t in tasks}, keep(problem, shown)

    last, kept = test()
    chosen = last
    if best.epoch < trial.epochs:  # otherwise they are one network
        network.load_state_dict(best_network)
        chosen, kept = test()
    return result_of(trial, chosen, last, best.epoch, history, max(earlier_peak, memory.growth()), kept)


def set_rate(optimizer: torch.optim.Optimizer, trial: Trial) -> None:
    """Give an optimizer the trial's learning rate, if it has one of its own."""
    if trial.learning_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = trial.learning_rate


def new_history() -> dict[str, list[Any]]:
    """What is written down epoch by epoch, nothing yet."""
    return {kind: [] for kind in ("loss", "weight", "spread", "validation", "seconds", "steps")}


def schedule_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply an optimizer's first learning rates by what the problem's schedule says of an epoch."""
    for group in optimizer.param_groups:
        # The name is that of torch's own schedulers; it is saved with the optimizer.
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def result_of(
    trial: Trial,
    test: dict[str, list[float]],
    last: dict[str, list[float]],
    chosen_epoch: int,
    history: dict[str, list[Any]],
    peak_memory: float,
    outputs: dict[str, str],
) -> Result:
    """What a finished trial found, from what was written down epoch by epoch."""
    rates = [steps / s for steps, s in zip(history["steps"], history["seconds"], strict=True)]
    return Result(
        test=test,
        last=last,
        chosen_epoch=chosen_epoch,
        steps=sum(history["steps"]),
        seconds=sum(history["seconds"]),
        steps_per_second=statistics.median(rates),
        peak_memory=peak_memory,
        curves=Curves(*(_by_task(trial.tasks, history[kind]) for kind in ("loss", "weight", "validation", "spread"))),
        outputs=outputs,
    )


def make_balancer(trial: Trial) -> Balancer | None:
    """The trial's balancer; None for a single-task network, which has nothing to balance."""
    if trial.method == SINGLE_TASK:
        return None
    options: dict[str, Any] = {} if trial.scale is None else {"scale": trial.scale}
    generator = torch.Generator().manual_seed(derive_seed(trial.seed, "balancer"))
    return make(trial.method, trial.tasks, generator=generator, **options)


def seed_everything(seed: int) -> None:
    """What dropout and augmentation draw from; done anew each epoch, so that a resumed trial draws the same."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def check_finite(trial: Trial, epoch: int, losses: list[float]) -> None:
    """Raise a `TrainingError` where the mean training loss of an epoch is inf or NaN."""
    for task, loss in zip(trial.tasks, losses, strict=True):
        if not math.isfinite(loss):
            raise TrainingError(f"the training loss of {task!r} is {loss} in epoch {epoch}: lower the learning rate")


def _by_task(tasks: tuple[str, ...], history: list[list[float]]) -> dict[str, list[float]]:
    return {task: [values[position] for values in history] for position, task in enumerate(tasks)}
