"""Losses in units of their start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steelyard.methods.equal import Equal
from steelyard.methods.loss_stages.initial_scale import InitialScale


class InitialScaled(Equal):
    """The sum of the losses, each in units of its mean at the start of training.

    ``Σ_k L_k / mean L_k`` over the first ``steps`` steps, so that ``w_k`` is constant from then on; while the mean is
    being formed, ``w_k`` divides by the mean so far.

    Args:
        tasks: task names.
        steps: number of steps behind the mean; ``None`` waits for the end of the first epoch (`Balancer.end_epoch`).
        common: the options of `Balancer`.

    Example:
        >>> balancer = steelyard.InitialScaled(["a", "b"], steps=1)
        >>> for a, b in torch.tensor([[2.0, 8.0], [1.0, 8.0]], requires_grad=True):
        ...     print(balancer({"a": a, "b": b}).item())
        2.0
        1.5
    """

    name = "initial-scale"
    rescaling = "contribution"

    def __init__(self, tasks: Sequence[str], *, steps: int | None = None, **common: Any) -> None:
        super().__init__(tasks, **common)
        self.prepend_stages([InitialScale(steps)])
