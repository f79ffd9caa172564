"""What a step does with one batch: targets, losses, and the losses once more for methods that look again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from steelyard.balancing.balancer import Balancer
from steelyard.balancing.losses_of import Again, losses_of
from steelyard.errors import ProblemError
from steelyard.models import Architecture
from steelyard.problems.rows import DataRows, Targets
from steelyard.problems.task import Inputs, Task
from steelyard.study.training.hardware import ON_CPU, Hardware, RandomState


def task_losses(tasks: Sequence[Task], outputs: Mapping[str, Tensor], targets: Targets) -> dict[str, Tensor]:
    """Each task's loss over the rows of the batch that have its label; a task without any is absent."""
    losses = {}
    for task in tasks:
        if task.name not in targets:
            continue
        wanted, rows = targets[task.name]
        if len(wanted):
            predicted = outputs[task.name]
            losses[task.name] = task.loss(predicted if rows is None else predicted[rows], wanted)
    return losses


def labelled_targets(task: Task, targets: Tensor, places: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Those targets that are no mark of a missing label, and the rows of the batch that they belong to."""
    mask = task.labelled(targets)
    if mask.all():
        return targets, places
    return targets[mask], mask.nonzero().squeeze(1) if places is None else places[mask]


def in_order(tasks: Sequence[Task], losses: Mapping[str, Tensor]) -> Tensor:
    """Losses [T], NaN for absent tasks."""
    if len(losses) == len(tasks):
        return torch.stack([loss.detach() for loss in losses.values()])
    absent = next(iter(losses.values())).new_full((), torch.nan) if losses else torch.tensor(torch.nan)
    return torch.stack([losses[t.name].detach() if t.name in losses else absent for t in tasks])


class Forward:
    """One batch through a network, up to what is made of its outputs.

    Attributes:
        features: what the balancer may read gradients at.
        losses: the tasks' own, of those that are there.
    """

    def __init__(
        self,
        network: nn.Module,
        tasks: Sequence[Task],
        inputs: Inputs,
        targets: Targets,
        hardware: Hardware = ON_CPU,
    ) -> None:
        self.network, self.tasks = network, tasks
        with hardware.forward():
            outputs, self.features = network(inputs)
        self.outputs = hardware.outputs(outputs)
        self.losses = task_losses(tasks, self.outputs, targets)

    def balanced(self) -> Mapping[str, Tensor]:
        """What the balancer gets: the tasks' losses, or what the architecture makes of them."""
        if not isinstance(self.network, Architecture):
            return self.losses
        return self.network.reweigh(self.losses, self.outputs, self.features)

    def shared(self, where: str | None, balancer: Balancer | None = None) -> Any:
        """What a balancer gets as ``shared=``: the features, the module that holds the shared parameters, or all."""
        if where == "trunk" and balancer is not None and balancer.sends_steps:
            return self.network  # whose optimizer is left with nothing but the steps
        return self.network.trunk if where == "trunk" else self.features

    def check_trunk(self, problem: str, reader: str) -> None:
        """Name the problem and its trunk where no gradient arrives at it: a balancer knows of ``shared=`` alone.

        Args:
            problem: its name.
            reader: what reads gradients there, as the subject of a sentence.

        Raises:
            ProblemError: nothing before the heads learns.
        """
        tensors = [each for each in tree_leaves(self.features) if isinstance(each, Tensor)]
        if tensors and not any(tensor.requires_grad for tensor in tensors):
            raise ProblemError(
                f"problem {problem!r}: what the trunk returns has no gradient, and {reader} gradients there: the trunk "
                "has no weights, all of them are frozen (requires_grad=False), or it runs under torch.no_grad(). Give "
                "it weights that learn; methods that read losses alone (uw, dwa) do without"
            )

    def penalty(self) -> Tensor | None:
        """What the architecture adds to the balanced loss, if it adds anything."""
        return self.network.penalty(self.outputs, self.features) if isinstance(self.network, Architecture) else None

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor, scaler: torch.amp.GradScaler | None = None) -> None:
        """The step itself, with what the architecture adds to the balanced loss."""
        penalty = self.penalty()
        optimizer.zero_grad()
        whole = loss if penalty is None else loss + penalty
        if scaler is None:
            whole.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        else:
            scaler.scale(whole).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)  # leaves it out where a gradient has overflowed
            scaler.update()


class LossesOf(nn.Module):
    """A network with its losses behind it: ``(inputs, targets) -> what the balancer gets``."""

    def __init__(self, network: nn.Module, tasks: Sequence[Task], hardware: Hardware = ON_CPU) -> None:
        super().__init__()
        self.network, self.tasks, self.hardware = network, tasks, hardware

    def forward(self, inputs: Inputs, targets: Targets) -> Mapping[str, Tensor]:
        forward = Forward(self.network, self.tasks, inputs, targets, self.hardware)
        for name, loss in forward.losses.items():  # a loss of exactly 0 is then a task that is fitted, not one missing
            loss.label_count = len(targets[name][0])  # type: ignore[attr-defined]
        return forward.balanced()


def recompute(
    network: nn.Module,
    tasks: Sequence[Task],
    inputs: Inputs,
    targets: Targets,
    random_state: RandomState | None,
    held_out: tuple[Inputs, Targets] | None = None,
    hardware: Hardware = ON_CPU,
) -> Again:
    """``again(params=None, batch=None)``: the losses of this batch (or another), at these parameters (or others).

    The network stays as it is, and dropout draws what it drew from ``random_state`` on.
    """

    def losses_on(call: Callable[..., Any], batch: tuple[Inputs, Targets]) -> Mapping[str, Tensor]:
        if random_state is not None:
            hardware.set_random_state(random_state)
        losses: Mapping[str, Tensor] = call(*batch)
        return losses

    again = losses_of(LossesOf(network, tasks, hardware), losses_on, (inputs, targets), held_out)
    again.replays = random_state is not None
    return again


def tell_labels(network: nn.Module, tasks: Sequence[Task], rows: DataRows, kept: Mapping[str, Tensor]) -> None:
    """Let the architecture see which labels its tasks learn from, if it wants to.

    Raises:
        ProblemError: it wants to, and they are known by reading alone.
    """
    if not isinstance(network, Architecture) or type(network).before_training is Architecture.before_training:
        return
    labels: dict[str, Tensor] = {}
    for task in tasks:
        found = rows.labels(task, kept[task.name])
        if found is None:
            raise ProblemError(
                f"{type(network).__name__} looks at all labels before training, and a Dataset gives them batch by "
                "batch: give Data(train=Split(…)), in memory, or take another architecture"
            )
        labels[task.name] = found
    network.before_training(labels)
