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

from steelyard.base.method import Method
from steelyard.distributed.ranks import Ranks
from steelyard.errors import StateError

FLAGS = 3
"""The mark of what was counted, its square, and whether the tasks have changed."""
GRACE = 5.0
"""Seconds for which a rank that balanced alone may still turn up to balance with the others."""
_PATIENCE = 60.0
"""Seconds after which a rank that has not turned up is waited for in the collective itself."""

Counts = tuple[int, int, int]
"""Steps, steps since the last end of an epoch, ends of epochs since the ranks met."""


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
    listing = "; ".join(
        f"rank {rank} has taken {steps} steps, {since} of them since the end of an epoch, and {ends} epochs have ended"
        for rank, ((steps, since, ends), _, _) in found
    )
    raise StateError(
        f"the ranks have not gone the same way since they met: {listing}. Call the balancer, optimizer.step() and "
        "balancer.end_epoch() equally often on all ranks (batches that one rank has more than the others are left out)"
    )


# --- ranks that balance alone -------------------------------------------------------------------------------------
_COUNTED: dict[int, tuple[Any, Counter[str]]] = {}
"""First calls of balancers, by the store of the process group, which is kept so that its number stays its own."""


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _first_call(method: Method, together: bool) -> tuple[Any, str, int, int]:
    """Leave a note; returns the store, the balancer's key, and the first calls so far: those together, and all."""
    store = _store()
    _, counter = _COUNTED.setdefault(id(store), (store, Counter()))
    key = f"steelyard/{method.name}/{','.join(method.tasks)}"
    counter[f"{key}/all"] += 1
    counter[f"{key}/together"] += together
    everything, joint = counter[f"{key}/all"], counter[f"{key}/together"]
    rank = dist.get_rank()
    if together:
        store.set(f"{key}/together/{joint}/{rank}", "1")
    store.set(f"{key}/all/{everything}/{rank}", "1")
    return store, key, joint, everything


def leave_alone(method: Method) -> None:
    """This rank balances for itself (``sync="off"``): a note, and nothing is waited for."""
    _first_call(method, together=False)


def expect_all(ranks: Ranks, method: Method) -> None:
    """Wait until all ranks come to balance together, before a collective that could only be waited out.

    Raises:
        StateError: a rank has made its balancer with ``sync="off"``.
    """
    store, key, joint, everything = _first_call(method, together=True)
    start = time.monotonic()
    for rank in dist.get_process_group_ranks(ranks.group):
        since = None
        while not store.check([f"{key}/together/{joint}/{rank}"]):
            now = time.monotonic()
            if now - start > _PATIENCE:
                return
            if since is None and store.check([f"{key}/all/{everything}/{rank}"]):
                since = now
            if since is not None and now - since > GRACE:
                raise StateError(
                    f"the ranks balance differently: sync= is '{method.sync}' on rank {dist.get_rank()} and 'off' on "
                    f"rank {rank}. Make the balancer with the same arguments on all ranks"
                )
            time.sleep(0.005)
