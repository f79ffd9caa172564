"""Gradients that are clipped in every step because a method's weights are large.

``clip_grad_norm_`` with a limit that was chosen for the plain sum cuts every step to one length where weights sum to
100 times the number of tasks. What shows it: the length of the gradient that arrives at the optimizer is the same
number step after step, while the weights move. Nothing but a clip at work does that, and a formula that sends one
length to the shared place, as Nash-MTL's: what arrives then has about that one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from steelyard.errors import warn

_STEPS = 10
_RATIO = 20.0
_MOVING, _STILL = 1e-3, 1e-2
"""The least by which weights move over these steps, as a part of them, and the most by which a clipped length does, as
a part of that."""
_NEAR = 0.05
"""Within this of the length that a formula gives, nothing is cut, or next to nothing."""


class ClipWatch:
    """Looks at the first steps of an attached balancer whose weights are as published."""

    def __init__(self, name: str, tasks: int, constant_length: float | None = None) -> None:
        self._name, self._tasks, self._weighed = name, tasks, False
        self._constant_length = constant_length
        self._sums: list[float] = []
        self._lengths: list[float] = []
        self.done = False

    def weighed(self, weights: Tensor) -> None:
        """The weights of a micro-batch; ordinary ones end the watch. Waits for the device, in the first steps."""
        total = float(weights.sum())
        self.done, self._weighed = not total >= _RATIO * self._tasks, True
        self._sums.append(total / self._tasks)

    def stepping(self, parameters: Iterable[Tensor]) -> None:
        """The optimizer is about to step."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients or not self._weighed:
            return
        self._weighed = False
        if any(gradient.is_sparse or hasattr(gradient, "device_mesh") for gradient in gradients):
            self.done = True  # of which a rank holds a piece, or nothing that has a length at hand
            return
        self._lengths.append(_length(gradients))
        if len(self._lengths) == _STEPS:
            self._conclude()

    def _conclude(self) -> None:
        self.done = True
        moved = _spread(self._sums)
        alike = moved >= _MOVING and _spread(self._lengths) <= _STILL * min(moved, 1e-2)
        constant = self._constant_length
        by_formula = constant is not None and math.isclose(min(self._lengths), constant, rel_tol=_NEAR)
        if alike and not by_formula:
            warn(
                f"{self._name}'s weights sum to {min(self._sums):.3g} times the number of tasks or more, and the "
                f"gradients that reached the optimizer had the same length, {self._lengths[-1]:.3g}, in each of the "
                f"first {_STEPS} steps: clip_grad_norm_ cuts every step. Make the balancer with scale='sum', whose "
                "weights sum to the number of tasks, or raise the limit"
            )


def _length(gradients: Iterable[Tensor]) -> float:
    """Of all gradients together, in float32 or better; waits for the device once."""
    wide = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in gradients)
    lengths = [torch.linalg.vector_norm(each) for each in wide]
    return math.hypot(*torch.stack([each.to(lengths[0].device) for each in lengths]).tolist())


def _spread(numbers: list[float]) -> float:
    """The range as a part of the largest; 0 where all are 0 or not finite."""
    largest = max(numbers)
    return (largest - min(numbers)) / largest if 0 < largest < float("inf") else 1.0
