"""One loss, made in the ways that differ in what their backward makes of nothing, or of zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Loss = Callable[[Tensor, Tensor], Tensor]


def plain(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


class Fused(torch.autograd.Function):
    """A loss that makes its gradient in the forward pass, as fused cross-entropies do."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, target: Tensor) -> Tensor:
        difference = output - target
        ctx.save_for_backward(difference * (2 / difference.numel()))
        return difference.square().mean()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Any:
        return ctx.saved_tensors[0] * incoming, None


def fused(output: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = Fused.apply(output, target)
    return loss


def reentrant(output: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = checkpoint(plain, output, target, use_reentrant=True)
    return loss
