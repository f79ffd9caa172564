"""A look at the global batch: what `observe.py` sees on each rank, made one.

Rank ``r`` holds ``n_k^r`` of task ``k``'s ``N_k`` labels, ``c_k^r = n_k^r / N_k``. The global batch's loss is
``Σ_r c_k^r L_k^r``, and its task gradient ``Σ_r c_k^r g_k^r``. At features, where the rows of different samples are
orthogonal, its Gramian is ``Σ_r c_i^r c_j^r G_ij^r``; at the trunk it is that of the summed rows. Wrappers average
gradients over the ``R`` ranks, so each rank's loss is multiplied by ``R c_k^r``: the average is then the gradient of
the global batch.

Losses, counts, what is wrong with them, and a Gramian read at features travel in one collective. Every decision is
made on its result, so that all ranks make the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steelyard.balancing.distributed.pace import FLAGS as PACE
from steelyard.balancing.distributed.pace import Counts, check_pace, flags_of
from steelyard.balancing.distributed.ranks import Ranks, summed_over
from steelyard.balancing.global_batch.asked import Asked
from steelyard.balancing.global_batch.cross_gramian import cross_gramian
from steelyard.balancing.global_batch.decide import check_ranks, decide
from steelyard.balancing.global_batch.local_batch import FLAG_COUNT, TABLE_ROWS, LocalBatch, products_of
from steelyard.balancing.global_batch.whole_batch import GlobalBatch, with_products, with_rows
from steelyard.balancing.observe import Batch, Shown, settle
from steelyard.base.method import Method
from steelyard.base.observation import Reads, Seen
from steelyard.errors import OptionError
from steelyard.gradients.reading import Reading, read
from steelyard.gradients.rows import Rows
from steelyard.gradients.shared_option import Place


def look_together(
    ranks: Ranks,
    method: Method,
    batch: Batch,
    place: Place | None,
    workspace: Tensor | None,
    refresh: bool,
    tasks: Sequence[str],
    fingerprint: int,
    counts: Counts,
) -> Shown | None:
    """Look at the global batch; ``None`` where nothing of it is left to balance.

    Args:
        ranks: who shares it.
        fingerprint: of this rank's parameters, 0 where they are not compared in this step.
        counts: what this rank has counted.
        method, batch, place, workspace, refresh, tasks: as `look`'s.

    Raises:
        NonFiniteLossError, LossError: on all ranks, whichever had the fault.
        StateError: on all ranks, where they have not gone the same way.

    Cost: one all-reduce of ``6T + 7`` numbers, with ``T`` or ``T²`` more for norms or a Gramian; at the trunk a second
    one of ``T x P`` where the sum over ranks is to be exact.
    """
    if method.reads == "lookahead":
        raise OptionError(
            f"{method.name} steps ahead along the gradients of the batch at hand, of which each rank has but a "
            "part: choose another method, or sync='off' where ranks are meant to train apart"
        )
    asked = Asked.of(method, place, refresh)
    reading = None
    if place is not None and batch.losses:
        # Every loss is looked at, also what will not take part: heads that are sharded over ranks gather in the look.
        whole = asked.by_rows and asked.reads not in ("losses", "rows")
        reading = read(method, batch.names, batch.losses, place, workspace, whole)
    part = LocalBatch.of(method, batch)

    # --- what travels
    flags = batch.values.new_tensor(
        [float(not batch.losses), len(batch.idle), fingerprint, fingerprint**2, *flags_of(counts)]
    )
    products = flags[:0]
    if asked.products(len(tasks)):
        products = products_of(reading, part, len(tasks), asked.square)
    sizes = [TABLE_ROWS * len(tasks), FLAG_COUNT, len(products)]
    packed = ranks.sum(torch.cat([part.table(batch.values, len(tasks)).flatten(), flags, products]))
    table, flags, products = torch.split(packed, sizes)
    table = table.view(TABLE_ROWS, len(tasks))

    # --- what is decided
    summed = flags.tolist()
    check_pace(ranks, summed[-PACE:], counts, tuple(tasks))
    check_ranks(ranks, summed, batch)
    live = decide(ranks, method, batch, table, part, bool(summed[1]))
    if not live:
        return None
    joint = _gradients(ranks, asked, batch, part, reading, GlobalBatch.of(live, table), table, products)
    joint = _finite(method, joint, tasks)
    if not joint.live:
        return None
    return _seen_here(ranks, method, batch, place, tasks, asked.reads, reading, part, joint)


def _gradients(
    ranks: Ranks,
    asked: Asked,
    batch: Batch,
    part: LocalBatch,
    reading: Reading | None,
    whole: GlobalBatch,
    table: Tensor,
    products: Tensor,
) -> GlobalBatch:
    """The global batch with what is known of its gradients."""
    if len(products):
        # At the trunk the sum is the mean of the ranks' own Gramians, weighted by their labels.
        scale = table[1, whole.live].rsqrt() if asked.at_parameters else 1 / whole.labels
        return with_products(whole, products, asked.square, scale)
    if asked.by_rows and asked.reads != "losses":
        assert reading is not None
        return with_rows(whole, ranks, reading, batch, part, element_wise=asked.reads == "rows")
    return whole


def _finite(method: Method, whole: GlobalBatch, tasks: Sequence[str]) -> GlobalBatch:
    """Without the tasks whose gradient the policy leaves out: the same on all ranks, as the numbers are."""
    if whole.squared_norms is None or method.on_nonfinite == "ignore":
        return whole
    present, norms = [tasks[position] for position in whole.live], whole.squared_norms.tolist()
    rest = settle(method, present, list(range(len(norms))), norms, "the squared gradient norm over all ranks")
    return whole if len(rest) == len(norms) else whole.only(rest)


def _seen_here(
    ranks: Ranks,
    method: Method,
    batch: Batch,
    place: Place | None,
    tasks: Sequence[str],
    reads: Reads,
    reading: Reading | None,
    part: LocalBatch,
    whole: GlobalBatch,
) -> Shown:
    """What is seen of the global batch, and what this rank has of it."""
    kept, chosen, mine = _kept_here(batch, part, whole)
    share = part.counts[chosen] / whole.labels[mine]
    if reading is not None and not all(kept):
        reading = reading.select(chosen)
    names = tuple(tasks[position] for position in whole.live)
    rows, features = _rows_here(place, reads, reading, whole, mine, share)
    cross = None
    if place is not None and reads == "cross_gramian":
        cross = cross_gramian(ranks, method, names, [batch.names[k] for k in chosen], batch, place)
    seen = Seen(
        names,
        whole.losses,
        whole.labels,
        whole.squared_norms,
        whole.gramian,
        cross,
        rows,
        features,
        over_ranks=summed_over(ranks) if features is not None else None,
        reached=whole.reached,
    )
    return Shown(
        seen,
        None if len(whole.live) == len(tasks) else torch.tensor(whole.live, device=batch.values.device),
        kept,
        reading,
        mine,
        share * ranks.size,
        # At features a direction belongs to this rank's samples; at the trunk it is the same on all ranks.
        float(ranks.size) if place is not None and not place.is_trunk else 1.0,
    )


def _kept_here(batch: Batch, part: LocalBatch, whole: GlobalBatch) -> tuple[list[bool], list[int], Tensor]:
    """Which of this rank's losses take part, their positions, and of which of the seen tasks they are."""
    where = {position: k for k, position in enumerate(whole.live)}
    kept = [ok and batch.position(k) in where for k, ok in enumerate(part.clean.tolist())]
    chosen = [k for k, keep in enumerate(kept) if keep]
    of = torch.tensor([where[batch.position(k)] for k in chosen], dtype=torch.long, device=batch.values.device)
    return kept, chosen, of


def _rows_here(
    place: Place | None, reads: Reads, reading: Reading | None, whole: GlobalBatch, mine: Tensor, share: Tensor
) -> tuple[Tensor | None, tuple[Tensor, ...] | None]:
    """For methods that read them: the rows, those of this rank's samples at features, and these features."""
    if reads != "rows" or place is None:
        return None, None
    if place.is_trunk or reading is None:
        return whole.rows, None
    assert isinstance(reading.rows, Rows)
    matrix = reading.rows.matrix
    rows = matrix.new_zeros(len(whole.live), matrix.shape[1])
    rows[mine] = matrix * share[:, None].to(matrix)
    return rows, tuple(tensor.detach() for tensor in place.tensors)


def announce_change(
    ranks: Ranks, method: Method, place: Place | None, refresh: bool, size: int, counts: Counts, device: torch.device
) -> None:
    """The tasks have changed since the ranks met with ``size`` of them: say so in the form that they expect.

    Raises:
        StateError: the others' have not.
    """
    table, products = TABLE_ROWS * size, Asked.of(method, place, refresh).products(size)
    sent = torch.zeros(table + FLAG_COUNT + products, dtype=torch.float64, device=device)
    at = slice(table + FLAG_COUNT - PACE, table + FLAG_COUNT)
    sent[at] = sent.new_tensor(flags_of(counts, changed=True))
    check_pace(ranks, ranks.sum(sent)[at].tolist(), counts, method.tasks)
