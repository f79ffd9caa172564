"""What is looked out for in the first steps: calls that run and balance nothing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from steelyard.base.method import Method
from steelyard.errors import AngleWarning, SharedError, warn


def lone(method: Method, is_trunk: bool) -> bool:
    """Whether a task that is alone in its batch has a weight that says nothing: its gradient meets no other."""
    return method.memory != "rows" and method.looks_for(is_trunk) in ("gramian", "cross_gramian", "rows")


def refused_lone_tasks(method: Method, steps: int) -> SharedError:
    """One task per batch, and a method that compares the gradients of several."""
    if method.reads == "cross_gramian" or "trunk" not in method.where:
        rows = ""
    else:
        rows = "make it with memory='rows' and pass shared=trunk (it keeps each task's last gradient, T x P numbers), "
    return SharedError(
        f"{method.name} compares the gradients of different tasks, and each of the first {steps} batches held one task "
        f"alone: {rows}put several tasks into a batch, or choose a method that reads losses or norms"
    )


def warn_of_lone_tasks(method: Method, steps: int, weight: float) -> None:
    """One task per batch, and a method that weighs tasks against the others in the batch."""
    warn(
        f"{method.name} weighs tasks against the others in a batch, and each of the first {steps} batches held one "
        f"task alone: all had the weight {weight:g}. Make it with memory='numbers', which weighs a task against "
        "what was last seen of the others, or put several tasks into a batch",
    )


def warn_of_unreached_tasks(method: Method, tasks: Sequence[str], steps: int) -> None:
    """Their losses do not depend on what the others share, by mistake more often than not."""
    one = len(tasks) == 1
    warn(
        f"{method.name}: the gradient of {', '.join(map(repr, tasks))} at shared= was exactly zero in each of the "
        f"first {steps} steps, so {'it is' if one else 'they are'} not balanced: "
        f"{'its head reads' if one else 'their heads read'} something else (detached or other features, or shared= is "
        "the head of another task). Pass what all heads read, or the module that all tasks share",
    )


def disjoint(gramian: Tensor) -> bool:
    """Whether two tasks that both have a gradient have an inner product of exactly zero: they share no samples."""
    moving = gramian.diagonal() > 0
    return bool(((gramian == 0) & moving[:, None] & moving).any())


def warn_of_disjoint_samples(method: Method) -> None:
    """Angles between such tasks mean nothing at the features."""
    warn(
        f"{method.name} uses the angles between task gradients, but at the features some tasks share no samples "
        "(their own inputs, disjoint labels, one task per batch): their inner products are exactly zero there, and "
        "conflict is invisible. Read the gradients at the trunk (shared=trunk), or choose a method that reads losses "
        "or norms",
        AngleWarning,
    )


def warn_of_training_in_eval(method: Method) -> None:
    """Most often ``model.eval()``, to keep batch statistics still, and a balancer inside the model."""
    warn(
        f"{method.name} was called in eval() mode, where it returns the plain sum and balances nothing, and the "
        "backward of the result ran. If this is training, call balancer.train(); model.eval() reaches a balancer that "
        "is a part of the model: keep the balancer out of the model, or call balancer.train() after model.eval()"
    )
