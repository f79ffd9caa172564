"""The steps of all optimizers of this process: how many have begun, which is under way, whether one stands still."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

PATIENCE = 1000
"""Calls since the last step after which the balancer says that the optimizer does not step."""
OTHERS = 25
"""As many, where another optimizer trains the model meanwhile."""


class _UnderWay:
    """Which optimizer's step is under way, of all there are: two small hooks, for balancers that are not attached."""

    number = 0
    optimizer = ""


def _begin(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    if torch.compiler.is_compiling():  # a step that is compiled would be so anew for each number
        return
    _UnderWay.number += 1
    _UnderWay.optimizer = type(optimizer).__name__


def _end(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    if torch.compiler.is_compiling():
        return
    _UnderWay.optimizer = ""


register_optimizer_step_pre_hook(_begin)
register_optimizer_step_post_hook(_end)


def steps_begun() -> int:
    """Steps of all optimizers of this process, those that are compiled left out."""
    return _UnderWay.number


def step_under_way() -> int:
    """The number of the step in which this call may stand; 0 outside."""
    return _UnderWay.number if _UnderWay.optimizer else 0


def optimizer_under_way() -> str:
    """The class of the optimizer within whose step this call stands; empty outside.

    A step that failed never ends for the hooks: only the stack shows whether one is under way here, and one that is
    not is forgotten.
    """
    frame, inside = sys._getframe(1), False
    while frame.f_back is not None and not inside:
        frame = frame.f_back
        inside = frame.f_code.co_name == "wrapper" and frame.f_globals.get("__name__") == "torch.optim.optimizer"
    if not inside:
        _UnderWay.optimizer = ""
    return _UnderWay.optimizer


def evaluates_often(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is known to evaluate its closure more than once in a step."""
    if not isinstance(optimizer, torch.optim.LBFGS):
        return False
    group = optimizer.param_groups[0]
    return group["max_iter"] > 1 or group["line_search_fn"] is not None


def is_bypassed(before: tuple[int, int], parameters: Sequence[Tensor]) -> bool:
    """Whether another optimizer has stepped in each of `OTHERS` calls, and not beside one that accumulates.

    It moves what this one should, or nothing that this one moves has a gradient.

    Args:
        before: at the first of these calls, steps of all optimizers, and how often the first parameter had been
            written to.
        parameters: what this one moves.
    """
    steps, changes = before
    if steps_begun() - steps < OTHERS - 1:
        return False
    return parameters[0]._version > changes or all(parameter.grad is None for parameter in parameters)
