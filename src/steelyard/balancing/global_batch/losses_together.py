"""The losses of the global batch, where they are shown and not trained on."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.distributed.ranks import Ranks
from steelyard.balancing.observe import label_counts
from steelyard.base.lookahead import Losses


def losses_together(
    ranks: Ranks,
    tasks: Sequence[str],
    losses: Mapping[str, Tensor | None],
    counts: Mapping[str, float] | None,
    device: torch.device,
) -> dict[str, Tensor]:
    """The global batch's losses, by name, of tasks that any rank has; for losses that are shown, not trained on.

    Args:
        ranks, tasks, losses, counts: as in the balancer's call.
        device: of the other ranks' losses, where this rank has none.
    """
    names = [name for name in tasks if losses.get(name) is not None]
    there = [loss for name in names if (loss := losses[name]) is not None]
    labels = label_counts(names, there, counts, tasks)
    table = torch.zeros(2, len(tasks), dtype=torch.float64, device=there[0].device if there else device)
    for name, loss, count in zip(names, there, labels, strict=True):
        if count > 0:
            table[:, tasks.index(name)] = torch.stack([table.new_tensor(count), loss.detach().to(table) * count])
    totals, sums = ranks.sum(table)
    present = (totals > 0).tolist()
    return {name: sums[k] / totals[k] for k, name in enumerate(tasks) if present[k]}


def recompute_together(
    ranks: Ranks,
    tasks: Sequence[str],
    again: Callable[..., Losses],
    counts: Mapping[str, float] | None,
    device: torch.device,
    idle: Container[str],
) -> Callable[..., Losses]:
    """``again``, of the global batch, without the tasks that had no labels on this rank."""

    def recompute(*args: Any, **kwargs: Any) -> Losses:
        losses = {name: loss for name, loss in again(*args, **kwargs).items() if name not in idle}
        return losses_together(ranks, tasks, losses, counts, device)

    return recompute
