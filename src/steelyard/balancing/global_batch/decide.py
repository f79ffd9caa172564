"""Which tasks of the global batch are balanced, and what is refused on all ranks alike."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from steelyard.balancing.check_losses import negative_error, non_finite_error, not_finite
from steelyard.balancing.distributed.ranks import Ranks
from steelyard.balancing.distributed.replicas import warn_of_drift
from steelyard.balancing.global_batch.local_batch import LocalBatch
from steelyard.balancing.observe import Batch
from steelyard.base.method import Method
from steelyard.errors import LossError, NonFiniteLossError


def decide(
    ranks: Ranks,
    method: Method,
    batch: Batch,
    table: Tensor,
    part: LocalBatch,
    idle: bool,
) -> list[int]:
    """Which tasks are balanced: those that any rank has labels for, less what the policy leaves out."""
    counts, _, _, bad, negative, more = table.tolist()
    present = [k for k in range(len(counts)) if counts[k] > 0 and more[k]]
    if not present and not idle:
        raise _nobody_has_any()
    live = [k for k in present if not bad[k]]
    if live != present:
        if method.on_nonfinite == "raise":
            raise _non_finite_anywhere(ranks, batch, part)
        if method.on_nonfinite == "skip_step":
            return []
    if method.on_nonfinite != "ignore":
        _check_negative(ranks, method, batch, part, negative, live)
    return live


def _nobody_has_any() -> LossError:
    return LossError(
        "every task is absent from this batch, on all ranks: skip the batch on all of them, there is nothing to balance"
    )


def _non_finite_anywhere(ranks: Ranks, batch: Batch, part: LocalBatch) -> NonFiniteLossError:
    """All ranks name the losses of all."""
    values, holds = batch.values.tolist(), part.holds.tolist()
    gathered = ranks.gather([(batch.names[k], values[k]) for k in not_finite(values) if holds[k]])
    listing = [(name, value, rank) for rank, pairs in gathered for name, value in pairs]
    names, numbers, where = zip(*listing, strict=True)
    return non_finite_error(names, numbers, "the loss", where)


def _check_negative(
    ranks: Ranks, method: Method, batch: Batch, part: LocalBatch, negative: Sequence[float], live: Sequence[int]
) -> None:
    """Losses below 0 for a method that takes none: all ranks name the first one's."""
    reader = method.positive_reader()
    if reader is None or not any(negative[k] for k in live):
        return
    usable = zip(batch.names, batch.values.tolist(), part.clean.tolist(), strict=True)
    gathered = ranks.gather([(name, value) for name, value, ok in usable if ok and value < 0])
    rank, (name, value) = next((rank, pairs[0]) for rank, pairs in gathered if pairs)
    raise negative_error(name, value, reader, f" on rank {rank}")


def check_ranks(ranks: Ranks, flags: Sequence[float], batch: Batch) -> None:
    """Warn where the ranks' parameters differ; raise on all of them where one has no loss to call backward on."""
    empty, _, prints, squares, *_ = flags
    if ranks.size * squares != prints**2:
        warn_of_drift()
    if not empty:
        return
    missing = [str(rank) for rank, has in ranks.gather(bool(batch.losses)) if not has]
    raise LossError(
        f"every task is absent from the batch of rank {', '.join(missing)}, whose backward would then be missing in "
        "the others' average: give it losses that keep their graph, with no labels behind them "
        "(steelyard.masked_mean does; otherwise counts={task: 0})"
    )
