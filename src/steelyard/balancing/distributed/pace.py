"""Whether the ranks keep pace: the same balancer, called equally often, with the same tasks.

What each has counted travels with every batch, as one number and its square: where they differ, all ranks see it in the
same sum, and raise. A rank whose tasks have changed first says so in the form that the others still expect. A rank that
was told to balance alone says nothing to the others; it leaves a note in the process group's store, which they read
before they wait for it.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from typing import Any

import torch.distributed as dist

from steelyard.balancing.distributed.ranks import Ranks
from steelyard.errors import StateError

FLAGS = 3
"""The mark of what was counted, its square, and whether the tasks have changed."""
GRACE = 20.0
"""Seconds for which a rank that balanced alone may still turn up to balance with the others."""
_PATIENCE = 60.0
"""Seconds after which a rank that has not turned up is waited for in the collective itself."""

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
    _note("all")


def expect_all(ranks: Ranks, sync: str) -> None:
    """Wait until all ranks come to balance together, before a collective that could only be waited out.

    Raises:
        StateError: a rank has made its balancer with ``sync="off"``.
    """
    members = dist.get_process_group_ranks(ranks.group)
    group = "together/" + ",".join(map(str, members))
    store, joint = _note(group)
    _, every = _note("all")
    start = time.monotonic()
    for rank in members:
        while not store.check([f"steelyard/{group}/{joint}/{rank}"]):
            waited = time.monotonic() - start
            if waited > GRACE and store.check([f"steelyard/all/{every}/{rank}"]):
                raise StateError(
                    f"the ranks balance differently: sync= is {sync!r} on rank {dist.get_rank()} and 'off' on rank "
                    f"{rank}. Make the balancer with the same arguments on all ranks"
                )
            if waited > _PATIENCE:
                return
            time.sleep(0.005)
