"""What outlives an epoch of a trial: its history, the best network so far, and the checkpoint that holds both."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from steelyard.balancing.balancer import Balancer
from steelyard.balancing.ledger import Ledger
from steelyard.study.storage.trial_checkpoint import Folder, load_checkpoint, save_checkpoint
from steelyard.study.training.evaluate import BestEpoch
from steelyard.study.training.hardware import ON_CPU, Hardware
from steelyard.study.trial import Account, Curves, Result, Trial

KINDS = ("loss", "weight", "spread", "validation", "halves", "seconds", "processor", "steps", "labelled")
"""What is written down epoch by epoch."""
CURVES = ("loss", "weight", "validation", "spread")
"""What of it a result shows by task, in the order of `Curves`."""


@dataclass
class EpochProgress:
    """A trial on its way.

    Attributes:
        epoch: finished ones.
        peak: of the memory, in earlier processes.
    """

    best: BestEpoch
    best_network: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[Any]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    epoch: int = 0
    peak: float = 0.0
    hardware: Hardware = ON_CPU

    def note(self, **values: Any) -> None:
        """Write down one epoch's value of each kind named."""
        for kind, value in values.items():
            self.history[kind].append(value)

    def hold(self, epoch: int) -> None:
        """An epoch after which validation data were not read: its values are those of the last one that was."""
        self.note(**{kind: self.history[kind][-1] for kind in ("validation", "halves")})
        self.epoch = epoch

    def never_labelled(self, tasks: tuple[str, ...]) -> list[str]:
        """Those of the tasks that no batch of any epoch so far had a label of."""
        return [task for task, seen in _by_task(tasks, self.history["labelled"]).items() if not any(seen)]

    def restore(
        self,
        path: Folder,
        trial: Trial,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        balancer: Balancer | None = None,
        ledger: Ledger | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> bool:
        """Go on from a checkpoint, if there is a whole one of this trial."""
        state = load_checkpoint(path, trial)
        if state is None:
            return False
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        if balancer is not None:
            balancer.load_state_dict(state["balancer"])
        if ledger is not None:
            ledger.load_state_dict(state["ledger"])
        if scaler is not None:
            scaler.load_state_dict(state["scaler"])
        self.best.score, self.best.epoch, self.best.smallest = state["best"]
        self.best_network, self.history, self.peak = state["best network"], state["history"], state["peak"]
        epochs = len(self.history["steps"])
        self.history.setdefault("processor", [0.0] * epochs)  # 0.2 did not count it
        self.history.setdefault("halves", [[[]] * len(trial.tasks)] * epochs)  # nor measured these
        if len(self.history.get("labelled", [])) < epochs:  # nor wrote this down
            self.history["labelled"] = [[True] * len(trial.tasks)] * epochs
        self.epoch = state["epoch"]
        return True

    def save(
        self,
        path: Folder,
        trial: Trial,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        balancer: Balancer | None,
        peak: float,
        ledger: Ledger | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        """Write the checkpoint, with everything on the CPU: any device of the kind can go on from it."""
        on_cpu = self.hardware.on_cpu
        state = {
            "epoch": self.epoch,
            "network": on_cpu(network.state_dict()),
            "optimizer": on_cpu(optimizer.state_dict()),
            "balancer": on_cpu(balancer.state_dict()) if balancer is not None else {},
            "ledger": on_cpu(ledger.state_dict()) if ledger is not None else {},
            "scaler": scaler.state_dict() if scaler is not None else {},
            "best": (self.best.score, self.best.epoch, self.best.smallest),
            "best network": self.best_network,
            "history": self.history,
            "peak": max(self.peak, peak),
        }
        save_checkpoint(path, trial, state)

    def result(
        self,
        trial: Trial,
        test: dict[str, list[float]],
        last: dict[str, list[float]],
        outputs: dict[str, str],
        peak: float,
        left_out: dict[str, list[float]],
        ledger: Ledger | None = None,
    ) -> Result:
        """What the finished trial found."""
        history = self.history
        counted = all(history["processor"])
        spent = history["processor" if counted else "seconds"]
        halves = {task: of for task, of in _by_task(trial.tasks, history["halves"]).items() if all(of)}
        rates = [steps / s for steps, s in zip(history["steps"], spent, strict=True)]
        return Result(
            test=test,
            last=last,
            chosen_epoch=self.best.epoch,
            steps=sum(history["steps"]),
            seconds=sum(history["seconds"]),
            steps_per_second=statistics.median(rates),
            peak_memory=max(self.peak, peak),
            curves=Curves(*[*(_by_task(trial.tasks, history[kind]) for kind in CURVES), halves]),
            processor_seconds=sum(history["processor"]) if counted else 0.0,
            outputs=outputs,
            left_out=left_out,
            ledger={} if ledger is None else _accounts(ledger),
        )


def _accounts(ledger: Ledger) -> dict[str, Account]:
    """Of the tasks that were measured; a trial of few steps may end before the first."""
    rows = ledger.summary().to_dict()
    return {
        task: Account(round(row["steps"]), row["hurt"], row["progress"], row["against"])
        for task, row in rows.items()
        if row["steps"]
    }


def _by_task(tasks: tuple[str, ...], history: list[Any]) -> dict[str, list[Any]]:
    return {task: [values[position] for values in history] for position, task in enumerate(tasks)}
