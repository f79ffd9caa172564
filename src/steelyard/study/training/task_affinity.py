"""How much a step for one task alone would help each other one: the look-ahead affinity."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from steelyard.balancing.losses_of import Again
from steelyard.base.float64 import double
from steelyard.study.training.batch import Forward


def look_ahead(forward: Forward, again: Again, optimizer: torch.optim.Optimizer) -> Tensor:
    """What a step of the shared parameters for one task alone does to the loss of each, on the same batch.

    ``Z[j, i] = 1 − L_j(θ − η ∇L_i, φ) / L_j(θ, φ)``, where ``θ`` are the shared parameters and ``φ`` all others:
    positive where task i helps task j.

    Args:
        forward: the batch; its graph, the network and the optimizer are left as they are.
        again: the losses of this batch once more, with the same draws.
        optimizer: trains the network. ``η`` is the rate that its step amounts to here: the length of its step for the
            plain sum over that of the plain sum's gradient, for plain gradient descent the learning rate itself.

    Returns:
        ``[T, T]`` over the network's tasks, float64: row, whose loss; column, whose step. NaN where either task is not
        in the batch, or its loss is zero.

    Cost: a backward and a forward pass for each task, and a copy of the optimizer.

    Source: Fifty et al., "Efficiently Identifying Task Groupings for Multi-Task Learning", 2021 (TAG, arXiv
    2109.04617). Their ``η`` is the learning rate of SGD; Adam's would be a step of another length.
    """
    names = {parameter: name for name, parameter in again.parameters.items()}
    shared = [parameter for parameter in forward.shared("trunk").parameters() if parameter.requires_grad]
    tasks = [task.name for task in forward.tasks]
    place = {task: number for number, task in enumerate(tasks)}
    losses = forward.balanced()
    gradients = {task: _gradient(loss, shared) for task, loss in losses.items()}
    together = [sum(parts, torch.zeros_like(parts[0])) for parts in zip(*gradients.values(), strict=True)]
    rate = _rate(optimizer, shared, together)
    before = _values(again, {})
    found = torch.full((len(tasks), len(tasks)), torch.nan, dtype=torch.float64)
    for task, gradient in gradients.items():
        moved = {
            names[parameter]: parameter.detach() - rate * part for parameter, part in zip(shared, gradient, strict=True)
        }
        after = _values(again, moved)
        for other in losses:
            if before[other]:
                found[place[other], place[task]] = 1 - after[other] / before[other]
    return found


@torch.no_grad()
def _values(again: Again, parameters: Mapping[str, Tensor]) -> dict[str, float]:
    return {task: float(loss) for task, loss in again(parameters).items() if loss is not None}


def _gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(parameter) if part is None else part for parameter, part in zip(parameters, found, strict=True)
    ]


def _rate(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> float:
    """The length of the optimizer's step, were these the only gradients, over theirs; 0 where there are none."""
    twin = copy.deepcopy(optimizer)
    groups = zip(optimizer.param_groups, twin.param_groups, strict=True)
    twins = {
        ours: theirs for group, other in groups for ours, theirs in zip(group["params"], other["params"], strict=True)
    }
    for each in twins.values():
        each.grad = None
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter in twins:
            twins[parameter].grad = gradient.clone()
    twin.step()
    moved = [twins[parameter].detach() - parameter.detach() for parameter in parameters if parameter in twins]
    length = _length(gradients)
    return _length(moved) / length if length else 0.0


def _length(parts: Sequence[Tensor]) -> float:
    return float(torch.stack([double(part).norm() for part in parts]).norm()) if parts else 0.0
