"""The few collectives."""

from __future__ import annotations

import torch
import torch.distributed as dist

from steelyard.errors import StateError
from steelyard.method import Method


def synchronise(method: Method) -> None:
    """Make the ranks' states one, each declared value by its own reduction.

    For ranks that trained apart (local steps between synchronisations) or resumed from different checkpoints.
    ``"mean"``, ``"sum"`` and ``"max"`` combine the ranks; ``"first"`` takes rank 0's; ``"same"`` declares that ranks
    never differ, and is checked. Weights in Parameters are the outside optimizer's and left to it.

    Raises:
        StateError: no process group is initialised, or a value declared ``"same"`` differs.

    Cost: one collective per declared value, two for ``"same"``.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise StateError(
            "synchronise() joins the ranks of a process group: call torch.distributed.init_process_group first"
        )
    ranks = dist.get_world_size()
    for part in (*method.loss_stages(), method):
        state = part.working_state()
        for declaration in part.declarations():
            value = getattr(state, declaration.name).clone()
            if declaration.reduce == "first":
                dist.broadcast(value, src=0)
            elif declaration.reduce == "max":
                dist.all_reduce(value, dist.ReduceOp.MAX)
            elif declaration.reduce in ("mean", "sum"):
                dist.all_reduce(value)
                if declaration.reduce == "mean":
                    value /= ranks
            else:
                first = value.clone()
                dist.broadcast(first, src=0)
                differs = torch.tensor(float(not torch.equal(first.nan_to_num(), value.nan_to_num())))
                dist.all_reduce(differs)
                if differs.item():
                    raise StateError(
                        f"the ranks disagree on {method.name}'s {declaration.name!r}, which is declared the same on "
                        "all: load one checkpoint on every rank"
                    )
            setattr(state, declaration.name, value)
        part.commit(state)
