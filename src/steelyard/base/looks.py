"""Backward passes that are taken to read gradients, and move nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_under_way = 0
"""Looks under way in this process; backward passes run in threads of torch's own on other devices, and read it too."""


def looking() -> bool:
    """Whether a look at gradients is under way: a backward pass that is not the training's.

    Balancers and a `Ledger` differentiate losses before the backward pass of the step, and once more within it under
    ``create_graph=True``. Hooks on activations and modules, and autograd functions, run in each of these looks. One
    that does more than hand a gradient on (it accumulates into a buffer of its own, counts, writes a log) asks here,
    and leaves that to the backward pass of the step. Further forward passes (`losses_of`) are no look.

    Example:
        >>> w = nn.Parameter(torch.ones(2))
        >>> z = 2 * w
        >>> asked = []
        >>> handle = z.register_hook(lambda gradient: asked.append(steelyard.looking()))
        >>> balancer = steelyard.MGDA(["a", "b"])
        >>> balancer({"a": z[0], "b": 3 * z[1]}, shared=[w]).backward()  # a look for each task, then the step's own
        >>> asked
        [True, True, False]
    """
    return _under_way > 0


def grad(outputs: Any, inputs: Any, seeds: Any = None, **options: bool) -> tuple[Tensor | None, ...]:
    """`torch.autograd.grad` as a look, ``None`` for what the outputs do not depend on."""
    global _under_way
    _under_way += 1
    try:
        found: tuple[Tensor | None, ...] = torch.autograd.grad(outputs, inputs, seeds, allow_unused=True, **options)
        return found
    finally:
        _under_way -= 1
