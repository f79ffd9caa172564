"""What a step does with one batch: targets, losses, and the losses once more for methods that look again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from steelyard.balancing.losses_of import Again, losses_of
from steelyard.models import Architecture
from steelyard.problems.task import Inputs, Task

Targets = dict[str, tuple[Tensor, Tensor | None]]


def task_losses(tasks: Sequence[Task], outputs: Mapping[str, Tensor], targets: Targets) -> dict[str, Tensor]:
    """Each task's loss over the rows of the batch that have its label; a task without any is absent."""
    losses = {}
    for task in tasks:
        wanted, rows = targets[task.name]
        if len(wanted):
            predicted = outputs[task.name]
            losses[task.name] = task.loss(predicted if rows is None else predicted[rows], wanted)
    return losses


def targets_of(targets: Tensor, mask: Tensor | None, rows: Tensor) -> tuple[Tensor, Tensor | None]:
    """The batch's targets, and which of its rows they belong to (None = all)."""
    if mask is None:
        return targets.index_select(0, rows), None
    here = mask.index_select(0, rows).nonzero().squeeze(1)
    return targets.index_select(0, rows.index_select(0, here)), here


def in_order(tasks: Sequence[Task], losses: Mapping[str, Tensor]) -> Tensor:
    """Losses [T], NaN for absent tasks."""
    if len(losses) == len(tasks):
        return torch.stack([loss.detach() for loss in losses.values()])
    return torch.stack([losses[t.name].detach() if t.name in losses else torch.tensor(torch.nan) for t in tasks])


class Forward:
    """One batch through a network, up to what is made of its outputs.

    Attributes:
        features: what the balancer may read gradients at.
        losses: the tasks' own, of those that are there.
    """

    def __init__(self, network: nn.Module, tasks: Sequence[Task], inputs: Inputs, targets: Targets) -> None:
        self.network, self.tasks = network, tasks
        self.outputs, self.features = network(inputs)
        self.losses = task_losses(tasks, self.outputs, targets)

    def balanced(self) -> Mapping[str, Tensor]:
        """What the balancer gets: the tasks' losses, or what the architecture makes of them."""
        if not isinstance(self.network, Architecture):
            return self.losses
        return self.network.reweigh(self.losses, self.outputs, self.features)

    def shared(self, where: str | None) -> Any:
        """What a balancer gets as ``shared=``: the features, or the module that holds the shared parameters."""
        return self.network.trunk if where == "trunk" else self.features

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """The step itself, with what the architecture adds to the balanced loss."""
        penalty = self.network.penalty(self.outputs, self.features) if isinstance(self.network, Architecture) else None
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


class LossesOf(nn.Module):
    """A network with its losses behind it: ``(inputs, targets) -> what the balancer gets``."""

    def __init__(self, network: nn.Module, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.network, self.tasks = network, tasks

    def forward(self, inputs: Inputs, targets: Targets) -> Mapping[str, Tensor]:
        return Forward(self.network, self.tasks, inputs, targets).balanced()


def recompute(
    network: nn.Module,
    tasks: Sequence[Task],
    inputs: Inputs,
    targets: Targets,
    random_state: Tensor | None,
    held_out: tuple[Inputs, Targets] | None = None,
) -> Again:
    """``again(params=None, batch=None)``: the losses of this batch (or another), at these parameters (or others).

    The network stays as it is, and dropout draws what it drew from ``random_state`` on.
    """

    def losses_on(call: Callable[..., Any], batch: tuple[Inputs, Targets]) -> Mapping[str, Tensor]:
        if random_state is not None:
            torch.set_rng_state(random_state)
        losses: Mapping[str, Tensor] = call(*batch)
        return losses

    return losses_of(LossesOf(network, tasks), losses_on, (inputs, targets), held_out)


def tell_labels(network: nn.Module, targets: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    """Let the architecture see which labels its tasks learn from, if it wants to."""
    if isinstance(network, Architecture) and type(network).before_training is not Architecture.before_training:
        network.before_training({task: targets[task][mask] for task, mask in kept.items()})
