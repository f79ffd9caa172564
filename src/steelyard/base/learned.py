"""Weights that are learnt: Adam on a closed-form gradient, as a pure function of declared state.

Learned weights live in the balancer and are updated by it, so there is nothing to add to the user's optimizer, no
parameter group for a scheduler to miss and no weight decay that pulls them to zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.base.constants import constant
from steelyard.base.state import TASKS, State, Stateful

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def declare_learned(module: Stateful, name: str, default: float = 0.0) -> None:
    """Declare a learned vector over tasks together with its Adam moments and its own step count."""
    module.declare(name, (TASKS,), default, "mean")
    for moment in ("first_moment", "second_moment", "updates"):
        module.declare(f"{name}_{moment}", (TASKS,), 0.0, "mean")


def adam(state: State, name: str, gradient: Tensor, rate: float, decay: float = 0.0) -> None:
    """Rebind ``state.<name>`` to where one Adam step on ``gradient [T]`` takes it.

    Kingma & Ba (2015), arXiv 1412.6980, with the customary L2 term ``gradient + decay · value``. The step count is
    kept per task, so that a task which was absent has neither moved nor aged.
    """
    value = getattr(state, name)
    if decay:
        gradient = gradient + decay * value
    updates = getattr(state, f"{name}_updates") + 1
    first = torch.lerp(gradient, getattr(state, f"{name}_first_moment"), BETA1)
    second = torch.lerp(gradient * gradient, getattr(state, f"{name}_second_moment"), BETA2)
    first_bias, second_bias = (1 - constant((BETA1, BETA2), updates.device)[:, None] ** updates).unbind()
    step = first / first_bias / ((second / second_bias).sqrt() + EPSILON)
    setattr(state, name, torch.add(value, step, alpha=-rate))
    setattr(state, f"{name}_first_moment", first)
    setattr(state, f"{name}_second_moment", second)
    setattr(state, f"{name}_updates", updates)
