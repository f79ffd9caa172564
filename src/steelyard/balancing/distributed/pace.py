"""Whether the ranks keep pace: the same balancer, called equally often, with the same tasks.

What each has counted travels with every batch, as one number and its square: where they differ, all ranks see it in the
same sum, and raise. A rank whose tasks have changed first says so in the form that the others still expect. A rank that
was told to balance alone says nothing to the others; it leaves a note in the process group's store. All who balance
together leave one as well, and wait for each other's: who is missed is named before a collective waits for it.

A whole step more on one rank cannot be told from what travels. Collectives meet by their order, so the step too many is
answered by the others' next one, and whatever both have counted by then is equal: the ranks have different batches, as
they have anyway.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from typing import Any

import torch.distributed as dist

from steelyard.balancing.distributed.ranks import Ranks
from steelyard.errors import StateError, warn

FLAGS = 3
"""The mark of what was counted, its square, and whether the tasks have changed."""
GRACE = 20.0
"""Seconds after which a rank that has not come to balance with the others is named."""

Counts = tuple[int, int, int, bool]
"""Steps, steps since the last end of an epoch, ends of epochs since the ranks met, and whether the backward of the last
call has begun."""


def flags_of(counts: Counts, changed: bool = False) -> list[float]:
    """What travels."""
    mark = 1 + zlib.crc32(repr(counts).encode()) % 0xFFFF
    return [float(mark), float(mark**2), float(changed)]


def check_pace(ranks: Ranks, flags: list[float], counts: Counts, tasks: tuple[str, ...]) -> None:
    """Raise, on all ranks, where ``flags``, summed over them, show that one has gone another way.

    Raises:
        StateError: `set_tasks` or `reset` on some ranks, or steps or ends of epochs that others have not seen.
    """
    marks, squares, changed = flags
    if ranks.size * squares == marks**2 and changed in (0, ranks.size):
        return
    found = ranks.gather((counts, tasks, bool(changed)))
    if changed:
        listing = "; ".join(f"rank {rank} balances {', '.join(names)}" for rank, (_, names, _) in found)
        raise StateError(
            f"set_tasks() or reset() was called on {changed:g} of {ranks.size} ranks ({listing}): call it on all of "
            "them, between the same steps"
        )
    if len({each[:3] for _, (each, _, _) in found}) == 1:
        idle = ", ".join(str(rank) for rank, ((*_, sent), _, _) in found if not sent)
        raise StateError(
            f"the balancer was called again on rank {idle} without a backward of its last result, which the other "
            "ranks have begun: one call more is answered by the others' next one. Call it equally often on all ranks "
            "(a rank that looks at losses alone does so under balancer.eval(), which exchanges nothing)"
        )
    listing = "; ".join(
        f"rank {rank} has taken {steps} steps, {since} of them since the end of an epoch, and {ends} epochs have ended"
        for rank, ((steps, since, ends, _), _, _) in found
    )
    raise StateError(
        f"the ranks have not gone the same way since they met: {listing}. Call the balancer, optimizer.step() and "
        "balancer.end_epoch() equally often on all ranks (batches that one rank has more than the others are left out)"
    )


# --- ranks that balance alone -------------------------------------------------------------------------------------
_COUNTED: dict[int, tuple[Any, Counter[str]]] = {}
"""Balancers' first calls, by the store of the process group, which is kept so that its number stays its own."""


def _note(what: str) -> tuple[Any, int]:
    """Leave a note of a balancer's first call; returns the store, and the number of such notes of this rank."""
    store: Any = dist.distributed_c10d._get_default_store()
    _, counter = _COUNTED.setdefault(id(store), (store, Counter()))
    counter[what] += 1
    store.set(f"steelyard/{what}/{counter[what]}/{dist.get_rank()}", "1")
    return store, counter[what]


def leave_alone() -> None:
    """This rank balances for itself (``sync="off"``): a note, and nothing is waited for."""
    _note("alone")


def expect_all(ranks: Ranks, sync: str) -> None:
    """Wait until all ranks come to balance together, before a collective that could only be waited out.

    Who has not come after `GRACE` is named in a warning and waited for as long as a collective would wait: it may only
    be late.

    Raises:
        StateError: a rank has not come at all.
    """
    members = dist.get_process_group_ranks(ranks.group)
    group = "together/" + ",".join(map(str, members))
    store, joint = _note(group)
    start, warned = time.monotonic(), False
    patience: float = store.timeout.total_seconds()
    missing = list(members)
    # Those who have come stay: of many ranks, the store is asked about the late ones alone.
    while missing := [rank for rank in missing if not store.check([f"steelyard/{group}/{joint}/{rank}"])]:
        waited = time.monotonic() - start
        if waited > patience:
            raise StateError(_missed(missing, patience, sync, store))
        if waited > GRACE and not warned:
            warned = True
            warn(f"{_missed(missing, GRACE, sync, store)}. Waiting on")
        time.sleep(0.005)


def _missed(missing: list[int], seconds: float, sync: str, store: Any) -> str:
    """What is known of ranks that do not come, and no more."""
    alone = [rank for rank in missing if store.check([f"steelyard/alone/1/{rank}"])]
    known = f" (a balancer with sync='off' has been called on rank {', '.join(map(str, alone))})" if alone else ""
    who, late, made = "rank {} has", "it is", "its balancer was"
    if len(missing) > 1:
        who, late, made = "ranks {} have", "they are", "their balancers were"
    return (
        f"{who.format(', '.join(map(str, missing)))} not come for {seconds:g} s to the first call of a balancer that "
        f"rank {dist.get_rank()} has made with sync={sync!r}: {late} late or stopped, or {made} made with "
        f"sync='off'{known}. Make the balancer with the same arguments on all ranks, and call it on all"
    )
