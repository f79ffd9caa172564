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

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.check_losses import negative_error, non_finite_error, not_finite
from steelyard.balancing.distributed.pace import FLAGS as PACE
from steelyard.balancing.distributed.pace import Counts, check_pace, flags_of
from steelyard.balancing.distributed.ranks import Ranks, summed_over
from steelyard.balancing.distributed.replicas import warn_of_drift
from steelyard.balancing.observe import Batch, Shown, label_counts, settle
from steelyard.base.lookahead import Losses
from steelyard.base.method import Method
from steelyard.base.observation import Reads, Seen
from steelyard.errors import LossError, MissingInputError, NonFiniteLossError, OptionError
from steelyard.gradients.reading import Reading, read, rows_of_probes
from steelyard.gradients.row_products import gramian_of_rows
from steelyard.gradients.rows import Rows, numbers_in
from steelyard.gradients.shared_option import Place

_ROWS = 6
"""Of the table that travels: labels, their squares, labels times loss, non-finite losses, negative losses, ranks on
which the loss is more than an idle zero."""
_FLAGS = 4 + PACE
"""Behind it: ranks without any loss, idle losses, the fingerprint of the parameters, its square, and whether all keep
pace."""


@dataclass(frozen=True, slots=True)
class _LocalBatch:
    """This rank's part of the global batch, loss by loss.

    Attributes:
        tasks: positions of their tasks among the balancer's.
        counts: labels behind each.
        holds: which have any, and are no idle zeros.
        clean: which have any, and a loss that may be used.
    """

    tasks: Tensor
    counts: Tensor
    holds: Tensor
    clean: Tensor

    @classmethod
    def of(cls, method: Method, batch: Batch) -> _LocalBatch:
        device = batch.values.device
        tasks = torch.tensor([batch.position(k) for k in range(len(batch.losses))], dtype=torch.long, device=device)
        counts = torch.ones_like(batch.values) if batch.counts is None else batch.values.new_tensor(batch.counts)
        holds = counts > 0
        if batch.idle:
            holds[list(batch.idle)] = False
        clean = holds if method.on_nonfinite == "ignore" else holds & batch.values.isfinite()
        return cls(tasks, counts, holds, clean)

    def table(self, values: Tensor, size: int) -> Tensor:
        """What all ranks sum of each of ``size`` tasks; the rows are those of `_ROWS`."""
        table = values.new_zeros(_ROWS, size)
        sums = torch.where(self.clean, self.counts * values, 0.0)
        bad, negative = self.holds & ~self.clean, self.clean & (values < 0)
        rows = [self.counts, self.counts**2, sums, bad.double(), negative.double(), self.holds.double()]
        table[:, self.tasks] = torch.stack(rows)
        return table


@dataclass(frozen=True, slots=True)
class _GlobalBatch:
    """The global batch, by the tasks that are balanced: the same numbers on all ranks.

    Attributes:
        live: their positions among the balancer's.
        labels: behind each.
        losses: the mean over those labels.
        gramian, squared_norms: of their gradients, where those are read.
        rows: their gradients, where the ranks' sums of them are.
        reached: the numbers in each parameter that a task depends on, on any rank, for methods that read rows.
    """

    live: list[int]
    labels: Tensor
    losses: Tensor
    gramian: Tensor | None = None
    squared_norms: Tensor | None = None
    rows: Tensor | None = None
    reached: Tensor | None = None

    @classmethod
    def of(cls, live: list[int], table: Tensor) -> _GlobalBatch:
        """From what the ranks have summed."""
        labels, _, totals = table[:3, live]
        return cls(live, labels, totals / labels)

    def only(self, chosen: list[int]) -> _GlobalBatch:
        """Some of them, by their place among these."""
        return _GlobalBatch(
            [self.live[k] for k in chosen],
            self.labels[chosen],
            self.losses[chosen],
            None if self.gramian is None else self.gramian[chosen][:, chosen],
            None if self.squared_norms is None else self.squared_norms[chosen],
            None if self.rows is None else self.rows[chosen],
            None if self.reached is None else self.reached[chosen],
        )


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
    asked = _Asked.of(method, place, refresh)
    reading = None
    if place is not None and batch.losses:
        # Every loss is looked at, also what will not take part: heads that are sharded over ranks gather in the look.
        whole = asked.by_rows and asked.reads not in ("losses", "rows")
        reading = read(method, batch.names, batch.losses, place, workspace, whole)
    part = _LocalBatch.of(method, batch)

    # --- what travels
    flags = batch.values.new_tensor(
        [float(not batch.losses), len(batch.idle), fingerprint, fingerprint**2, *flags_of(counts)]
    )
    products = flags[:0]
    if asked.products(len(tasks)):
        products = _products(reading, part, len(tasks), asked.square)
    sizes = [_ROWS * len(tasks), _FLAGS, len(products)]
    packed = ranks.sum(torch.cat([part.table(batch.values, len(tasks)).flatten(), flags, products]))
    table, flags, products = torch.split(packed, sizes)
    table = table.view(_ROWS, len(tasks))

    # --- what is decided
    summed = flags.tolist()
    check_pace(ranks, summed[-PACE:], counts, tuple(tasks))
    _check_ranks(ranks, summed, batch)
    live = _decide(ranks, method, batch, table, part, bool(summed[1]))
    if not live:
        return None
    joint = _gradients(ranks, asked, batch, part, reading, _GlobalBatch.of(live, table), table, products)
    joint = _finite(method, joint, tasks)
    if not joint.live:
        return None
    return _seen_here(ranks, method, batch, place, tasks, asked.reads, reading, part, joint)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a step wants of the gradients, known before any is read.

    Attributes:
        reads: what the method is shown; weights that are held need nothing.
        at_parameters: whether they are read at parameters, the trunk's or a layer's.
        by_rows: whether the ranks' gradients themselves are summed there, ``T x P`` numbers.
    """

    reads: Reads
    at_parameters: bool
    by_rows: bool

    @classmethod
    def of(cls, method: Method, place: Place | None, refresh: bool) -> _Asked:
        reads = _wanted(method, place, refresh)
        at_parameters = place is not None and place.at_parameters
        return cls(reads, at_parameters, at_parameters and (reads == "rows" or method.sync == "exact"))

    @property
    def square(self) -> bool:
        """Whether products of different tasks are needed."""
        return self.at_parameters or self.reads != "norms"

    def products(self, size: int) -> int:
        """How many products of gradients travel beside the losses of ``size`` tasks."""
        if self.reads == "losses" or self.by_rows:
            return 0
        return size**2 if self.square else size


def _gradients(
    ranks: Ranks,
    asked: _Asked,
    batch: Batch,
    part: _LocalBatch,
    reading: Reading | None,
    whole: _GlobalBatch,
    table: Tensor,
    products: Tensor,
) -> _GlobalBatch:
    """The global batch with what is known of its gradients."""
    if len(products):
        # At the trunk the sum is the mean of the ranks' own Gramians, weighted by their labels.
        scale = table[1, whole.live].rsqrt() if asked.at_parameters else 1 / whole.labels
        return _with_products(whole, products, asked.square, scale)
    if asked.by_rows and asked.reads != "losses":
        assert reading is not None
        return _with_rows(whole, ranks, reading, batch, part, element_wise=asked.reads == "rows")
    return whole


def _finite(method: Method, whole: _GlobalBatch, tasks: Sequence[str]) -> _GlobalBatch:
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
    part: _LocalBatch,
    whole: _GlobalBatch,
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
        cross = _cross_gramian(ranks, method, names, [batch.names[k] for k in chosen], batch, place)
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


def _kept_here(batch: Batch, part: _LocalBatch, whole: _GlobalBatch) -> tuple[list[bool], list[int], Tensor]:
    """Which of this rank's losses take part, their positions, and of which of the seen tasks they are."""
    where = {position: k for k, position in enumerate(whole.live)}
    kept = [ok and batch.position(k) in where for k, ok in enumerate(part.clean.tolist())]
    chosen = [k for k, keep in enumerate(kept) if keep]
    of = torch.tensor([where[batch.position(k)] for k in chosen], dtype=torch.long, device=batch.values.device)
    return kept, chosen, of


def _rows_here(
    place: Place | None, reads: Reads, reading: Reading | None, whole: _GlobalBatch, mine: Tensor, share: Tensor
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


# --- parts --------------------------------------------------------------------------------------------------------


def _wanted(method: Method, place: Place | None, refresh: bool) -> Reads:
    """What the method reads in this step; weights that are held need nothing."""
    if place is None or not refresh:
        return "losses"
    reads = place.asked_by(method)
    if reads == "along":  # what is read is for carrying alone
        return "losses"
    if place.is_trunk and method.sync == "local-mean" and reads == "rows":
        raise OptionError(
            f"sync='local-mean' takes the mean of the ranks' Gramians, and {method.name} reads the task gradients "
            "themselves at the trunk: use sync='exact'"
        )
    return reads


def announce_change(
    ranks: Ranks, method: Method, place: Place | None, refresh: bool, size: int, counts: Counts, device: torch.device
) -> None:
    """The tasks have changed since the ranks met with ``size`` of them: say so in the form that they expect.

    Raises:
        StateError: the others' have not.
    """
    table, products = _ROWS * size, _Asked.of(method, place, refresh).products(size)
    sent = torch.zeros(table + _FLAGS + products, dtype=torch.float64, device=device)
    at = slice(table + _FLAGS - PACE, table + _FLAGS)
    sent[at] = sent.new_tensor(flags_of(counts, changed=True))
    check_pace(ranks, ranks.sum(sent)[at].tolist(), counts, method.tasks)


def _products(reading: Reading | None, part: _LocalBatch, size: int, square: bool) -> Tensor:
    """``n_i n_j G_ij`` of this rank, spread over all tasks, flat; zero where it has no labels."""
    whole = part.counts.new_zeros((size, size) if square else (size,))
    if reading is None:
        return whole.flatten()
    counts, holds = part.counts, part.holds
    if square:
        assert reading.gramian is not None
        products = torch.where(holds[:, None] & holds, counts[:, None] * counts * reading.gramian, 0.0)
        whole[part.tasks[:, None], part.tasks] = products
    else:
        whole[part.tasks] = torch.where(holds, counts**2 * reading.squared_norms, 0.0)
    return whole.flatten()


def _with_products(whole: _GlobalBatch, products: Tensor, square: bool, scale: Tensor) -> _GlobalBatch:
    """The Gramian, or the squared norms, from the sum of all ranks' `_products`; a task's gradient times ``scale``."""
    if not square:
        return replace(whole, squared_norms=products[whole.live] * scale**2)
    size = math.isqrt(len(products))
    gramian = products.view(size, size)[whole.live][:, whole.live] * scale[:, None] * scale
    return replace(whole, gramian=gramian, squared_norms=gramian.diagonal())


def _with_rows(
    whole: _GlobalBatch, ranks: Ranks, reading: Reading, batch: Batch, part: _LocalBatch, element_wise: bool
) -> _GlobalBatch:
    """The gradients of the global batch, summed over the ranks, and their Gramian."""
    local = reading.whole if reading.whole is not None else reading.rows
    assert isinstance(local, Rows)
    rows = local.matrix.new_zeros(len(whole.live), local.matrix.shape[1])
    reached = part.counts.new_zeros(len(whole.live), len(local.tensors))
    for k, clean in enumerate(part.clean.tolist()):
        if clean and batch.position(k) in whole.live:
            place = whole.live.index(batch.position(k))
            rows[place] = local.matrix[k] * (part.counts[k] / whole.labels[place]).to(rows)
            if local.reached is not None:
                reached[place] = local.reached[k].to(reached)
    rows = ranks.sum(rows)
    gramian = gramian_of_rows(rows)
    whole = replace(whole, gramian=gramian, squared_norms=gramian.diagonal(), rows=rows)
    if not element_wise:
        return whole
    sizes = reached.new_tensor([numbers_in(tensor) for tensor in local.tensors])
    return replace(whole, reached=torch.minimum(ranks.sum(reached), sizes))


def _decide(
    ranks: Ranks,
    method: Method,
    batch: Batch,
    table: Tensor,
    part: _LocalBatch,
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


def _non_finite_anywhere(ranks: Ranks, batch: Batch, part: _LocalBatch) -> NonFiniteLossError:
    """All ranks name the losses of all."""
    values, holds = batch.values.tolist(), part.holds.tolist()
    gathered = ranks.gather([(batch.names[k], values[k]) for k in not_finite(values) if holds[k]])
    listing = [(name, value, rank) for rank, pairs in gathered for name, value in pairs]
    names, numbers, where = zip(*listing, strict=True)
    return non_finite_error(names, numbers, "the loss", where)


def _check_negative(
    ranks: Ranks, method: Method, batch: Batch, part: _LocalBatch, negative: Sequence[float], live: Sequence[int]
) -> None:
    """Losses below 0 for a method that takes none: all ranks name the first one's."""
    reader = method.positive_reader()
    if reader is None or not any(negative[k] for k in live):
        return
    usable = zip(batch.names, batch.values.tolist(), part.clean.tolist(), strict=True)
    gathered = ranks.gather([(name, value) for name, value, ok in usable if ok and value < 0])
    rank, (name, value) = next((rank, pairs[0]) for rank, pairs in gathered if pairs)
    raise negative_error(name, value, reader, f" on rank {rank}")


def _check_ranks(ranks: Ranks, flags: Sequence[float], batch: Batch) -> None:
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
        _check_probed(names, weight.amin(0))
        mean: Tensor = total / weight
        return mean
    ranks.sum(labels)
    _check_probed(names, labels.amin(0))
    ranks.sum(rows)
    rows = rows / labels[:, :, None].to(rows)
    return rows[0].double() @ rows[1].double().T


def _check_probed(names: Sequence[str], labels: Tensor) -> None:
    absent = [name for name, count in zip(names, labels.tolist(), strict=True) if not count > 0]
    if absent:
        raise MissingInputError(f"the probes lack the task {absent[0]!r} on all ranks, which the batch at hand has")
