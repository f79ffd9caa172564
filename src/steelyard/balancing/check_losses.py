"""What the losses given to a balancer must be; each error names the task, the value and the fix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from steelyard.errors import LossError, NonFiniteLossError, UnknownNameError, warn
from steelyard.gradients.graph import is_freed
from steelyard.gradients.reading import freed_error


def present_losses(
    tasks: tuple[str, ...],
    known: frozenset[str],
    losses: Mapping[str, Tensor | None],
    needs_graph: bool,
    may_be_empty: bool = False,
) -> tuple[list[int] | None, list[Tensor]]:
    """The losses that are there, in the balancer's order, and their positions (``None``: all of them)."""
    _check_names(tasks, known, losses)
    positions, there = [], []
    for position, name in enumerate(tasks):
        loss = losses.get(name)
        if loss is not None:
            positions.append(position)
            there.append(loss)
    if not there and not may_be_empty:
        raise LossError("every task is absent from this batch: skip the batch, there is nothing to balance")
    for position, loss in zip(positions, there, strict=True):
        _check_scalar(tasks[position], loss)
        if loss.device != there[0].device:
            raise LossError(
                f"the losses lie on different devices: {tasks[positions[0]]!r} on {there[0].device}, "
                f"{tasks[position]!r} on {loss.device}; move them to one, e.g. loss.to({str(there[0].device)!r})"
            )
        if needs_graph:
            _check_trainable(tasks[position], loss)
    return (None if len(there) == len(tasks) else positions), there


def _check_names(tasks: tuple[str, ...], known: frozenset[str], losses: object) -> None:
    """Losses come by task name, and of tasks that are known."""
    if not isinstance(losses, Mapping):
        raise LossError(
            f"losses must map task names to scalar tensors, got {type(losses).__name__}: "
            f"write balancer({{{tasks[0]!r}: loss, ...}})"
            + (
                ". A tensor made by torch.tensor([l1, l2]) has lost the graph, and nothing could be trained through it"
                if isinstance(losses, Tensor)
                else ""
            )
        )
    for name in losses:
        if name not in known:
            raise UnknownNameError(
                "task",
                str(name),
                tasks,
                "Tasks are named when the balancer is made; balancer.set_tasks([...]) changes them.",
            )


def _check_scalar(task: str, loss: object) -> None:
    """A loss is a floating-point tensor of one number."""
    if not isinstance(loss, Tensor):
        raise LossError(_no_tensor(task, loss))
    if loss.dim() != 0:
        raise LossError(
            f"the loss of {task!r} has shape {tuple(loss.shape)}: reduce it to a scalar, e.g. by "
            ".mean() (steelyard.masked_mean where labels are missing)"
        )
    if not loss.is_floating_point():
        raise LossError(f"the loss of {task!r} has dtype {loss.dtype}: losses are floating-point scalars")


def _no_tensor(task: str, loss: object) -> str:
    if isinstance(loss, int | float) and loss == 0:
        return (
            f"the loss of {task!r} is the number {loss!r}: where a batch has no labels for a task, leave the task out, "
            "or pass None"
        )
    item = ", not its .item()" if isinstance(loss, int | float) else ""
    given = f"the loss of {task!r} is a {type(loss).__name__} ({loss!r}), not a tensor"
    return f"{given}: pass what the loss function returned{item}"


def _check_trainable(task: str, loss: Tensor) -> None:
    """A loss that a balancer in training weighs has a value, and a graph of its own to send gradients through."""
    if torch._C._functorch.maybe_get_level(loss) > 0:
        raise LossError(
            f"the loss of {task!r} comes from inside a transform of torch.func (grad, vmap, jacrev, …), where it has "
            "no value to weigh and no graph to send a balanced gradient through: call the balancer outside the "
            "transform, and backward() on what it returns"
        )
    if loss.is_meta:
        raise LossError(
            f"the loss of {task!r} lies on the meta device and has no value: weights depend on values. Give model and "
            "data a real device first (model.to_empty(device=...)), or call balancer.eval() for a dry run of shapes"
        )
    if not loss.requires_grad:
        raise LossError(_no_graph(task))


def check_not_freed(tasks: Sequence[str], losses: Sequence[Tensor]) -> None:
    """Losses whose graph a backward pass has used up: else torch says so at a line that is not to blame."""
    for task, loss in zip(tasks, losses, strict=True):
        if is_freed(loss.grad_fn):
            raise freed_error(task)


def warn_of_twins(tasks: Sequence[str], losses: Sequence[Tensor]) -> None:
    """One loss under two names counts twice, which is hardly ever meant."""
    first: dict[int, str] = {}
    for task, loss in zip(tasks, losses, strict=True):
        other = first.setdefault(id(loss), task)
        if other != task:
            warn(
                f"the losses of {other!r} and {task!r} are one tensor and count twice: give each task its own loss, "
                f"or leave {task!r} out"
            )


def _no_graph(task: str) -> str:
    if not torch.is_grad_enabled():
        return (
            f"the loss of {task!r} has no graph because gradients are off (torch.no_grad): "
            "call balancer.eval() before validation, balancer.train() after it"
        )
    return (
        f"the loss of {task!r} has no graph (requires_grad=False), so nothing can be trained through it. Usual causes: "
        "torch.tensor(loss), .detach(), .item(), or a task all of whose parameters are frozen (leave such a task out, "
        "or pass None)"
    )


def not_finite(values: Sequence[float]) -> list[int]:
    """Positions of inf and NaN."""
    return [position for position, value in enumerate(values) if not math.isfinite(value)]


def non_finite_error(
    names: Sequence[str], values: Sequence[float], what: str, ranks: Sequence[int] | None = None
) -> NonFiniteLossError:
    places = [""] * len(names) if ranks is None else [f" on rank {rank}" for rank in ranks]
    listing = ", ".join(f"{name!r} is {value}{place}" for name, value, place in zip(names, values, places, strict=True))
    return NonFiniteLossError(
        f"{what} of {listing}. Find its cause, or make the balancer with on_nonfinite='drop_task' (leave the task out "
        "of the step), 'skip_step' (leave the step out) or 'ignore' (no check)"
    )


def check_positive(names: Sequence[str], values: Sequence[float], reader: str) -> None:
    """Methods that take logarithms or ratios of losses are defined for losses of at least zero."""
    for name, value in zip(names, values, strict=True):
        if value < 0:
            raise negative_error(name, value, reader)


def negative_error(name: str, value: float, reader: str, place: str = "") -> LossError:
    return LossError(
        f"the loss of {name!r} is negative{place} ({value:.6g}), and {reader} is defined for losses of at least 0: "
        "add a constant to the loss, or choose a method that reads gradients alone"
    )
