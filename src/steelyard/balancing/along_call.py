"""What a look along a step needs, from the call of the balancer to the optimizer's step; see `along_step.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from steelyard.balancing.distributed.ranks import Ranks
from steelyard.base.observation import Along, Seen
from steelyard.errors import OptionError

GIVE_AGAIN = (
    "write balancer(losses, …, again=steelyard.losses_of(model, losses_on, batch)), where losses_on(call, batch) "
    "returns the losses by task from call(...) in place of model(...), and call balancer.attach(optimizer)"
)


@dataclass(frozen=True)
class AlongCall:
    """One call of the balancer whose step is still to come.

    Attributes:
        seen, index: the tasks that were weighed.
        values: losses at hand by task, those of this rank.
        counts: the caller's.
        again: recomputes them.
        parameters: along which they are looked at; ``None``: all that have a gradient.
        coarse: whether they are made in half precision.
        ranks: who shares the batch.
        products: ``[T]``, where they are known already.
    """

    seen: Seen
    index: Tensor | None
    values: Mapping[str, Tensor]
    counts: Mapping[str, float] | None
    again: Any
    parameters: tuple[Tensor, ...] | None
    coarse: bool
    ranks: Ranks | None
    products: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """What a step teaches, and of which of the balancer's tasks."""

    along: Along
    index: Tensor | None


def refuse_several(method: str) -> None:
    """Products that were found with one micro-batch are not those of a step of several."""
    raise OptionError(
        f"{method} looks along the step of several micro-batches, which is there once all have been: {GIVE_AGAIN}"
    )
