"""A look at the global batch: what `look.py` sees on each rank, made one.

Rank ``r`` holds ``n_k^r`` of task ``k``'s ``N_k`` labels, ``c_k^r = n_k^r / N_k``. The global batch's loss is
``Σ_r c_k^r L_k^r``, and its task gradient ``Σ_r c_k^r g_k^r``. At features, where the rows of different samples are
orthogonal, its Gramian is ``Σ_r c_i^r c_j^r G_ij^r``; at the trunk it is that of the summed rows. Wrappers average
gradients over the ``R`` ranks, so each rank's loss is multiplied by ``R c_k^r``: the average is then the gradient of
the global batch.

Losses, counts, what is wrong with them, and a Gramian read at features travel in one collective. Every decision is
made on its result, so that all ranks make the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from steelyard.checks import negative_error, non_finite_error, not_finite
from steelyard.distributed.ranks import Ranks, summed_over
from steelyard.distributed.replicas import warn_of_drift
from steelyard.errors import LossError, MissingInputError, OptionError
from steelyard.gradients.rows import Rows, gramian_of_rows
from steelyard.look import Batch, Look, label_counts, settle
from steelyard.method import Method
from steelyard.observation import Reads, Seen
from steelyard.reading import Losses, Place, Reading, read, rows_of_probes

_ROWS = 5
"""Of the table that travels: labels, their squares, labels times loss, non-finite losses, negative losses."""
_FLAGS = 3
"""Behind it: ranks without any loss, the fingerprint of the parameters, and its square."""


def look_together(
    ranks: Ranks,
    method: Method,
    batch: Batch,
    place: Place | None,
    workspace: Tensor | None,
    refresh: bool,
    tasks: Sequence[str],
    fingerprint: int,
) -> Look | None:
    """Look at the global batch; ``None`` where nothing of it is left to balance.

    Args:
        ranks: who shares it.
        fingerprint: of this rank's parameters, 0 where they are not compared in this step.
        method, batch, place, workspace, refresh, tasks: as `look`'s.

    Raises:
        NonFiniteLossError, LossError: on all ranks, whichever had the fault.

    Cost: one all-reduce of ``5T + 3`` numbers, with ``T`` or ``T²`` more for norms or a Gramian; at the trunk a second
    one of ``T x P`` where the sum over ranks is to be exact.
    """
    if method.reads == "lookahead":
        raise OptionError(
            f"{method.name} steps ahead along the gradients of the batch at hand, of which each rank has but a "
            "part: choose another method, or sync='off' where ranks are meant to train apart"
        )
    size, device = len(tasks), batch.values.device
    reads = _wanted(method, place, refresh)
    by_rows = place is not None and place.is_trunk and (reads == "rows" or method.sync == "exact")
    reading = None
    if place is not None and batch.losses:
        # Every loss is looked at, also what will not take part: heads that are sharded over ranks gather in the look.
        whole = by_rows and reads not in ("losses", "rows")
        reading = read(method, batch.names, batch.losses, place, workspace, whole)

    # --- what travels -------------------------------------------------------------------------------------------------
    own = torch.tensor([batch.position(k) for k in range(len(batch.losses))], dtype=torch.long, device=device)
    counts = torch.ones_like(batch.values) if batch.counts is None else batch.values.new_tensor(batch.counts)
    holds = counts > 0
    clean = holds if method.on_nonfinite == "ignore" else holds & batch.values.isfinite()
    negative = clean & (batch.values < 0)
    table = batch.values.new_zeros(_ROWS, size)
    sums = torch.where(clean, counts * batch.values, torch.zeros_like(counts))
    table[:, own] = torch.stack([counts, counts * counts, sums, (holds & ~clean).double(), negative.double()])
    flags = table.new_tensor([float(not batch.losses), fingerprint, fingerprint**2])
    parts = [table.flatten(), flags]
    travels = place is not None and reads != "losses" and not by_rows
    square = place is not None and (place.is_trunk or reads != "norms")
    if travels:
        parts.append(_products(reading, counts, own, size, square, device))
    packed = ranks.sum(torch.cat(parts))

    # --- what is decided ----------------------------------------------------------------------------------------------
    table, flags = packed[: _ROWS * size].view(_ROWS, size), packed[_ROWS * size :][:_FLAGS]
    numbers, (empty, prints, squares) = table.tolist(), flags.tolist()
    if ranks.size * squares != prints**2:
        warn_of_drift()
    if empty:
        raise _no_losses(ranks, bool(batch.losses))
    live = _decide(ranks, method, batch, numbers, holds.tolist(), clean.tolist())
    if not live:
        return None

    index = torch.tensor(live, device=device)
    labels, square_labels, totals = table[0, index], table[1, index], table[2, index]
    gramian = squared_norms = None
    rows: Tensor | None = None
    if travels and square:
        gramian = packed[_ROWS * size + _FLAGS :].view(size, size)[index[:, None], index]
        scale = square_labels.rsqrt() if place is not None and place.is_trunk else 1 / labels
        gramian = gramian * scale[:, None] * scale
        squared_norms = gramian.diagonal()
    elif travels:
        squared_norms = packed[_ROWS * size + _FLAGS :][index] / labels**2
    elif by_rows and reads != "losses":
        assert reading is not None
        local = reading.whole if reading.whole is not None else reading.rows
        assert isinstance(local, Rows)
        rows = ranks.sum(_weighted(local.matrix, batch, counts / table[0, own], live, clean))
        gramian = gramian_of_rows(rows)
        squared_norms = gramian.diagonal()
    if squared_norms is not None and method.on_nonfinite != "ignore":
        # The numbers are the same on all ranks, and so is what follows from them.
        present = [tasks[position] for position in live]
        rest = settle(
            method, present, list(range(len(live))), squared_norms.tolist(), "the squared gradient norm over all ranks"
        )
        if not rest:
            return None
        if len(rest) < len(live):
            live, index = [live[k] for k in rest], index[rest]
            labels, totals, squared_norms = labels[rest], totals[rest], squared_norms[rest]
            gramian = None if gramian is None else gramian[rest][:, rest]
            rows = None if rows is None else rows[rest]

    # --- what is seen -------------------------------------------------------------------------------------------------
    where = {position: k for k, position in enumerate(live)}
    kept = [ok and batch.position(k) in where for k, ok in enumerate(clean.tolist())]
    chosen = [k for k, keep in enumerate(kept) if keep]
    mine = torch.tensor([where[batch.position(k)] for k in chosen], dtype=torch.long, device=device)
    part = counts[chosen] / labels[mine]
    if reading is not None and not all(kept):
        reading = reading.select(chosen)
    features = None
    at_features = place is not None and not place.is_trunk
    if at_features and reads == "rows" and reading is not None and place is not None:
        assert isinstance(reading.rows, Rows)
        features = tuple(tensor.detach() for tensor in place.tensors)
        matrix = reading.rows.matrix
        rows = matrix.new_zeros(len(live), matrix.shape[1])
        rows[mine] = matrix * part[:, None].to(matrix)
    elif reads != "rows":
        rows = None
    cross = None
    names = tuple(tasks[position] for position in live)
    if place is not None and reads == "cross_gramian":
        cross = _cross_gramian(ranks, method, names, [batch.names[k] for k in chosen], batch, place)
    seen = Seen(
        names,
        totals / labels,
        labels,
        squared_norms,
        gramian,
        cross,
        rows,
        features,
        over_ranks=summed_over(ranks) if features is not None else None,
    )
    everything = len(live) == size
    return Look(
        seen,
        None if everything else index,
        kept,
        reading,
        mine,
        part * ranks.size,
        # At features a direction belongs to this rank's samples; at the trunk it is the same on all ranks.
        float(ranks.size) if at_features else 1.0,
    )


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
    found = [loss for name in names if (loss := losses[name]) is not None]
    labels = label_counts(names, found, counts, tasks)
    table = torch.zeros(2, len(tasks), dtype=torch.float64, device=found[0].device if found else device)
    for name, loss, count in zip(names, found, labels, strict=True):
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
) -> Callable[..., Losses]:
    """``again``, of the global batch."""
    return lambda *args, **kwargs: losses_together(ranks, tasks, again(*args, **kwargs), counts, device)


# --- parts --------------------------------------------------------------------------------------------------------


def _wanted(method: Method, place: Place | None, refresh: bool) -> Reads:
    """What the method reads in this step; weights that are held need nothing."""
    if place is None or not refresh:
        return "losses"
    reads = method.looks_for(place.is_trunk)
    if place.is_trunk and method.sync == "local-mean" and reads == "rows":
        raise OptionError(
            f"sync='local-mean' takes the mean of the ranks' Gramians, and {method.name} reads the task gradients "
            "themselves at the trunk: use sync='exact'"
        )
    return reads


def _products(
    reading: Reading | None, counts: Tensor, own: Tensor, size: int, square: bool, device: torch.device
) -> Tensor:
    """``n_i n_j G_ij`` of this rank, spread over all tasks, flat; zero where it has no labels."""
    whole = torch.zeros((size, size) if square else (size,), dtype=torch.float64, device=device)
    if reading is None:
        return whole.flatten()
    holds = counts > 0
    if square:
        assert reading.gramian is not None
        products = torch.where(holds[:, None] & holds, counts[:, None] * counts * reading.gramian, 0.0)
        whole[own[:, None], own] = products
    else:
        whole[own] = torch.where(holds, counts**2 * reading.squared_norms, 0.0)
    return whole.flatten()


def _weighted(matrix: Tensor, batch: Batch, part: Tensor, live: list[int], clean: Tensor) -> Tensor:
    """``c_k g_k`` of this rank for the live tasks ``[T, P]``; zero for those that it has no labels for."""
    whole = matrix.new_zeros(len(live), matrix.shape[1])
    takes = clean.tolist()
    for k in range(len(batch.losses)):
        if takes[k] and batch.position(k) in live:
            whole[live.index(batch.position(k))] = matrix[k] * part[k].to(matrix)
    return whole


def _decide(
    ranks: Ranks,
    method: Method,
    batch: Batch,
    numbers: list[list[float]],
    holds: list[bool],
    clean: list[bool],
) -> list[int]:
    """Which tasks are balanced: those that any rank has labels for, less what the policy leaves out."""
    counts, _, _, bad, negative = numbers
    present = [k for k, count in enumerate(counts) if count > 0]
    if not present:
        raise LossError(
            "every task is absent from this batch, on all ranks: skip the batch on all of them, there is nothing to "
            "balance"
        )
    spoiled = [k for k in present if bad[k]]
    values = batch.values.tolist()
    if spoiled and method.on_nonfinite == "raise":
        found = ranks.gather([(batch.names[k], values[k]) for k in not_finite(values) if holds[k]])
        listing = [(name, value, rank) for rank, pairs in found for name, value in pairs]
        raise non_finite_error(
            [name for name, *_ in listing],
            [value for _, value, _ in listing],
            "the loss",
            [rank for *_, rank in listing],
        )
    if spoiled and method.on_nonfinite == "skip_step":
        return []
    live = [k for k in present if not bad[k]]
    reader = method.positive_reader()
    if method.on_nonfinite != "ignore" and reader is not None and any(negative[k] for k in live):
        found = ranks.gather(
            [(name, value) for name, value, ok in zip(batch.names, values, clean, strict=True) if ok and value < 0]
        )
        rank, (name, value) = next((rank, pairs[0]) for rank, pairs in found if pairs)
        raise negative_error(name, value, reader, f" on rank {rank}")
    return live


def _no_losses(ranks: Ranks, has_losses: bool) -> LossError:
    missing = [str(rank) for rank, has in ranks.gather(has_losses) if not has]
    return LossError(
        f"every task is absent from the batch of rank {', '.join(missing)}, whose backward would then be missing in "
        "the others' average: give it losses that keep their graph, with no labels behind them "
        "(steelyard.masked_mean does; otherwise counts={task: 0})"
    )


def _cross_gramian(
    ranks: Ranks, method: Method, names: Sequence[str], required: Sequence[str], batch: Batch, place: Place
) -> Tensor:
    """``J₁ J₂ᵀ`` of two further global batches, or (``"local-mean"``) the mean of the ranks' own."""
    probes = rows_of_probes(method, names, required, batch.probes, place)
    size, device = len(names), batch.values.device
    labels = torch.zeros(2, size, dtype=torch.float64, device=device)
    width = max(matrix.shape[1] for _, matrix, _ in probes)
    rows = torch.zeros(2, size, width, dtype=probes[0][1].dtype, device=device)
    for k, (positions, matrix, counts) in enumerate(probes):
        labels[k, positions] = labels.new_tensor(counts)
        rows[k, positions] = matrix * rows.new_tensor(counts)[:, None]
    if method.sync == "local-mean":
        both = labels[0][:, None] * labels[1]
        total, weight = ranks.sum(torch.stack([rows[0].double() @ rows[1].double().T, both]))
        mean: Tensor = total / weight
        return mean
    ranks.sum(labels)
    absent = [name for name, count in zip(names, labels.amin(0).tolist(), strict=True) if not count > 0]
    if absent:
        raise MissingInputError(f"the probes lack the task {absent[0]!r} on all ranks, which the batch at hand has")
    ranks.sum(rows)
    rows = rows / labels[:, :, None].to(rows)
    return rows[0].double() @ rows[1].double().T
