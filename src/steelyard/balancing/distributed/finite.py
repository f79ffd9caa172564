"""Whether the gradients that a step is about to take are finite."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from steelyard.balancing.distributed.ranks import Ranks
from steelyard.gradients.wrappers import is_sharded


def gradients_finite(parameters: Iterable[Tensor], ranks: Ranks | None) -> bool:
    """Whether no ``.grad`` holds inf or NaN, on any rank where each holds a piece.

    Cost: one pass over the gradients, and the device is waited for.
    """
    pieces, sharded = [], False
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if is_sharded(gradient):
            sharded, gradient = True, gradient.to_local()  # type: ignore[attr-defined]
        if gradient.is_sparse:
            gradient = gradient.coalesce().values()
        if gradient.numel():
            pieces.append(gradient.detach())
    if not pieces:
        return True
    # The largest element and not the length, whose squares overflow.
    largest = torch.stack([each.to(pieces[0].device) for each in torch._foreach_norm(pieces, float("inf"))])
    bad = (~largest.isfinite()).sum()
    if sharded and ranks is not None:
        ranks.sum(bad)
    return not bool(bad)
