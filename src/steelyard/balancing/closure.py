"""A closure may be evaluated many times within one step, and must be one function in all of them.

A line search compares values at several points. So the weights of the first evaluation are held to the end of the step,
and the function is ``Σ w_k L_k`` with these weights, in value and in gradient. Where it is known beforehand that there
will be several evaluations (`Balancer.frozen`, LBFGS), the first one returns that too, in place of the method's own
objective. Most optimizers call their closure once, though, and trainers hand a closure to all of them: there the first
evaluation stays the method's own, and a second one differs from ``Σ w_k L_k`` by the constant that joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.balancing.along_call import Step
from steelyard.balancing.optimizers.steps import optimizer_under_way, step_under_way
from steelyard.balancing.weighing import Proposal
from steelyard.base.method import Method
from steelyard.base.observation import Seen
from steelyard.errors import LossError, OptionError, warn


@dataclass(frozen=True)
class Hold:
    """What the first evaluation in a step leaves to the others.

    Attributes:
        tasks: those that it saw.
        weights: ``[T]`` over all of the balancer's tasks, 0 for the others.
        offset: what the first evaluation's value has beyond ``Σ w_k L_k``.
        refusal: why there is no function to go on with; empty where there is one.
    """

    tasks: frozenset[str]
    weights: Tensor
    offset: Tensor
    refusal: str

    def check(self) -> None:
        """Refuse a further evaluation where what the first one sent is no function's gradient."""
        if self.refusal:
            raise OptionError(self.refusal)

    def weights_of(self, name: str, seen: Seen, index: Tensor | None) -> Tensor:
        """``[T]``, those of the tasks that are seen now."""
        for task in seen.tasks:
            if task not in self.tasks:
                raise LossError(
                    f"{name} holds its weights while losses are evaluated several times in one step, and {task!r} "
                    "was absent from the first evaluation: evaluate the same batch each time"
                )
        return self.weights if index is None else self.weights[index]


@dataclass
class Closure:
    """Where a balancer stands within a step that evaluates its losses several times.

    Attributes:
        frozen: inside `Balancer.frozen`.
        held: the function that goes on after the first evaluation, if there was one.
        pending: inside `Balancer.frozen`, what its end commits.
        pending_step: and what the step teaches, where it is known.
        last: of the last evaluation within a step of an optimizer that is not attached, the step's number and the
            weights.
        said: whether it has been said that these move.
    """

    frozen: bool = False
    held: Hold | None = None
    pending: Proposal | None = None
    pending_step: Step | None = None
    last: tuple[int, Tensor] | None = None
    said: bool = False

    def unattached(self, method: Method, proposal: Proposal) -> None:
        """Say once that weights move between the evaluations within a step of an optimizer that is not attached."""
        step = 0 if self.held is not None else step_under_way()
        if not step:
            return
        before, self.last = self.last, (step, proposal.weights)
        if self.said or before is None or before[0] != step:
            return
        if proposal.direction is not None or not torch.equal(before[1], proposal.weights):
            self.said = warn_of_moving_closure(method)


def hold_of(method: Method, tasks: Sequence[str], proposal: Proposal, offset: Tensor) -> Hold:
    """What an evaluation of these tasks leaves to those that follow in the same step."""
    weights = proposal.weights
    if proposal.index is not None:
        weights = weights.new_zeros(len(method.tasks)).index_copy_(0, proposal.index, weights)
    return Hold(frozenset(tasks), weights, offset, refusal(method, proposal))


def refusal(method: Method, proposal: Proposal) -> str:
    """Why what a method sends is not the gradient of ``Σ w_k L_k`` with constant weights; empty where it is."""
    several = "while losses are evaluated several times in one step (a closure, a sharpness-aware optimizer)"
    if proposal.direction is not None:
        return (
            f"{method.name} sends the trunk a direction of its own here (averages of earlier gradients, or a choice "
            f"element by element), which is no function's gradient and cannot be held {several}. "
            + (
                "Use beta=0 with heads='weighted', or pass shared=features"
                if getattr(method, "beta", 0) and method.where >= {"features", "trunk"}
                else "Choose another method, or an optimizer that evaluates the losses once"
            )
        )
    if method.heads == "plain":
        return (
            f"{method.name} with plain heads cannot hold its weights {several}: its trunk and head gradients are not "
            "those of one function. Use heads='weighted'"
        )
    if proposal.parameter_gradients:
        names = ", ".join(proposal.parameter_gradients)
        return (
            f"{method.name} cannot hold its weights {several} where an outside optimizer learns them ({names}). Use "
            "learn='inside'"
        )
    return ""


def warn_of_moving_closure(method: Method) -> bool:
    """Say that state moves at each evaluation; whether it was so."""
    optimizer = optimizer_under_way()
    if optimizer:
        warn(
            f"{method.name} was evaluated several times within one step of {optimizer}, to which it is not "
            "attached: its weights moved from one evaluation to the next, so that a line search compares different "
            "functions. Call balancer.attach(optimizer), or write `with balancer.frozen(): optimizer.step(closure)`, "
            "and the weights of the first evaluation hold for the whole step"
        )
    return bool(optimizer)
