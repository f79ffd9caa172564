"""What a step does with one batch: targets, losses, and the losses once more for methods that look again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from steelyard.models import Architecture
from steelyard.problems.problem import Inputs, Task

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


def recompute(
    network: nn.Module, tasks: Sequence[Task], inputs: Inputs, targets: Targets, random_state: Tensor | None
) -> Callable[..., dict[str, Tensor]]:
    """``again(params=None, batch=None)``: the losses of this batch (or another), at these parameters (or others).

    The network stays as it is: running statistics are copies, and dropout draws what it drew before.
    """

    def again(
        params: dict[str, Tensor] | None = None, batch: tuple[Inputs, Targets] | None = None
    ) -> dict[str, Tensor]:
        there, wanted = (inputs, targets) if batch is None else batch
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        with torch.random.fork_rng(devices=[]):
            if random_state is not None:
                torch.set_rng_state(random_state)
            outputs, _ = functional_call(network, {**buffers, **(params or {})}, (there,))
        return task_losses(tasks, outputs, wanted)

    return again


def shared_of(where: str | None, network: nn.Module, features: Any) -> Any:
    """What a balancer gets as ``shared=``: the features, or the module that holds the shared parameters."""
    return network.trunk if where == "trunk" else features


def penalty_of(network: nn.Module) -> Tensor | None:
    """What the architecture adds to the balanced loss, if anything."""
    return network.penalty() if isinstance(network, Architecture) else None
