"""One look at a step: which losses take part, and what is known of them before anything is weighed.

The non-finite ones are settled here, by the balancer's policy, and gradients are read where the method asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.balancing.check_losses import check_positive, non_finite_error, not_finite
from steelyard.balancing.weighing import stage_slopes
from steelyard.base.constants import constant, vector
from steelyard.base.lookahead import LookAhead, Losses, Recompute
from steelyard.base.method import Method
from steelyard.base.observation import Seen
from steelyard.errors import LossError, UnknownNameError
from steelyard.gradients.reading import Reading, read, read_cross
from steelyard.gradients.retained import left_as_it_was, retaining_below
from steelyard.gradients.rows import Rows
from steelyard.gradients.shared_option import Place


@dataclass(frozen=True, slots=True)
class Batch:
    """The losses at hand.

    Attributes:
        names: of their tasks.
        positions: of their tasks among the balancer's; ``None``: all of them.
        losses: scalars with a graph.
        values: ``[T]`` float64, detached, where the small mathematics runs.
        counts: labels behind each, 0 for a task that is absent but keeps its graph; ``None``: nobody counts.
        probes: losses of two further batches, for methods that read a cross Gramian.
        again: recomputes the losses, for methods that look ahead.
        optimizer: the attached one.
        numbers: the values on the host, where the policy looks at them.
        idle: which losses are exactly zero and move nothing.
    """

    names: tuple[str, ...]
    positions: list[int] | None
    losses: list[Tensor]
    values: Tensor
    counts: list[float] | None
    probes: Sequence[Losses] | None
    again: Recompute | None = None
    optimizer: torch.optim.Optimizer | None = None
    numbers: list[float] | None = None
    idle: frozenset[int] = frozenset()

    def position(self, k: int) -> int:
        """Of the ``k``-th loss's task among the balancer's."""
        return k if self.positions is None else self.positions[k]

    def labelled(self) -> list[int]:
        """Which losses have labels behind them."""
        return [k for k in range(len(self.losses)) if self.counts is None or self.counts[k] > 0]


@dataclass(frozen=True, slots=True)
class Shown:
    """What one step shows.

    Attributes:
        seen: what the method is told.
        index: positions of its tasks among the balancer's; ``None``: all of them.
        kept: which of the losses at hand take part.
        reading: their task gradients.
        mine: where a batch is shared by several ranks, which of the seen tasks the kept losses are of.
        share: by what those losses are multiplied there.
        spread: by what a direction that replaces gradients is multiplied there.
    """

    seen: Seen
    index: Tensor | None
    kept: list[bool]
    reading: Reading | None
    mine: Tensor | None = None
    share: Tensor | None = None
    spread: float = 1.0

    def own(self, multipliers: Tensor) -> Tensor:
        """Of the seen tasks' multipliers, those of the kept losses."""
        return multipliers if self.mine is None or self.share is None else multipliers[self.mine] * self.share


def look(
    method: Method, batch: Batch, place: Place | None, workspace: Tensor | None, refresh: bool, tasks: int
) -> Shown | None:
    """Look at a step; ``None`` where nothing of it is left to balance.

    Args:
        method: says what it reads, and what is to become of non-finite losses.
        batch: the losses at hand.
        place: where gradients are read; ``None``: nowhere in this step.
        workspace: see `task_rows`.
        refresh: whether the method weighs anew in this step.
        tasks: how many the balancer has.
    """
    live, outlook = _taking_part(method, batch), None
    if refresh and live:
        live, outlook = _look_ahead(method, batch, live, tasks)
    reading = None
    if place is not None and live:
        live, reading = _read(method, batch, live, place, workspace)
    return _shown(method, batch, live, place, refresh, tasks, reading, outlook) if live else None


def _read(
    method: Method, batch: Batch, live: list[int], place: Place, workspace: Tensor | None
) -> tuple[list[int], Reading]:
    """Positions of the tasks whose gradients the policy lets through, and these gradients."""
    reading = read(method, [batch.names[k] for k in live], [batch.losses[k] for k in live], place, workspace)
    return _finite_gradients(method, batch.names, live, reading)


def _shown(
    method: Method,
    batch: Batch,
    live: list[int],
    place: Place | None,
    refresh: bool,
    tasks: int,
    reading: Reading | None,
    outlook: Tensor | None,
) -> Shown:
    """What is left of the batch, as the method is told."""
    whole = len(live) == len(batch.losses)
    names = batch.names if whole else tuple(batch.names[k] for k in live)
    cross = None
    if place is not None and refresh and method.reads == "cross_gramian":
        cross = read_cross(method, names, batch.probes, place)
    values = batch.values if whole else batch.values[live]
    labels = _label_vector(batch.counts, live, batch.values.device)
    seen = _seen(method, names, values, labels, place, reading, cross, None if outlook is None else outlook[live])
    kept = [True] * len(live) if whole else [k in live for k in range(len(batch.losses))]
    return Shown(seen, _index(batch, live, tasks), kept, reading)


def _seen(
    method: Method,
    names: tuple[str, ...],
    values: Tensor,
    labels: Tensor,
    place: Place | None,
    reading: Reading | None,
    cross: Tensor | None,
    outlook: Tensor | None,
) -> Seen:
    """What the method is told."""
    if reading is None or (place is not None and not place.told):
        return Seen(names, values, labels, cross_gramian=cross, outlook=outlook)
    rows, features = element_wise(method, place, reading)
    reached = reading.rows.reached if rows is not None and isinstance(reading.rows, Rows) else None
    return Seen(
        names,
        values,
        labels,
        reading.squared_norms,
        reading.gramian,
        cross,
        rows,
        features,
        outlook,
        reached=None if reached is None or features is not None else reached.to(labels.device),
    )


def _taking_part(method: Method, batch: Batch) -> list[int]:
    """Positions of the losses that have labels, say something, and are let through by the policy."""
    labelled = batch.labelled()
    if not labelled:
        raise LossError("every task is absent from this batch: skip the batch, there is nothing to balance")
    return finite_losses(method, batch.names, batch.numbers, [k for k in labelled if k not in batch.idle])


def label_counts(
    names: Sequence[str], losses: Sequence[Tensor], counts: Mapping[str, float] | None, tasks: Sequence[str]
) -> list[float]:
    """Labels behind each loss: named in ``counts``, or brought along by a loss that `masked_mean` made, or 1.

    Raises:
        UnknownNameError, LossError: ``counts`` names a task that is not there, or less than no labels.
    """
    if counts is not None and not isinstance(counts, Mapping):
        raise LossError(
            f"counts must map task names to numbers of labels, got {type(counts).__name__}: write "
            f"counts={{{tasks[0]!r}: 12, ...}}"
        )
    for name in counts or ():
        if name not in tasks:
            raise UnknownNameError("task", str(name), tasks, "It stands in counts=.")
    given = [
        float((counts or {}).get(name, getattr(loss, "label_count", 1.0)))
        for name, loss in zip(names, losses, strict=True)
    ]
    for name, value in zip(names, given, strict=True):
        if not 0 <= value < float("inf"):
            raise LossError(
                f"counts says that {name!r} has {value:g} labels: give their number, 0 where there are none"
            )
    return given


def element_wise(
    method: Method, place: Place | None, reading: Reading | None
) -> tuple[Tensor | None, tuple[Tensor, ...] | None]:
    """The rows, and the features behind them, for methods that read element by element."""
    if place is None or reading is None or not isinstance(reading.rows, Rows) or place.asked_by(method) != "rows":
        return None, None
    return reading.rows.matrix, None if place.is_trunk else tuple(tensor.detach() for tensor in place.tensors)


def settle(method: Method, names: Sequence[str], live: list[int], numbers: Sequence[float], what: str) -> list[int]:
    """Positions that the policy lets through, of those in ``live`` with these numbers."""
    bad = not_finite(numbers)
    if not bad:
        return live
    if method.on_nonfinite == "raise":
        raise non_finite_error([names[live[k]] for k in bad], [numbers[k] for k in bad], what)
    if method.on_nonfinite == "skip_step":
        return []
    return [k for place, k in enumerate(live) if place not in bad]


def finite_losses(method: Method, names: Sequence[str], numbers: Sequence[float] | None, live: list[int]) -> list[int]:
    """Positions, of those in ``live``, of the losses that the method is defined for and the policy lets through."""
    if numbers is None:
        return live
    live = settle(method, names, live, [numbers[k] for k in live], "the loss")
    reader = method.positive_reader()
    if reader is not None:
        check_positive([names[k] for k in live], [numbers[k] for k in live], reader)
    return live


def _finite_gradients(
    method: Method, names: Sequence[str], live: list[int], reading: Reading
) -> tuple[list[int], Reading]:
    if method.on_nonfinite == "ignore":
        return live, reading
    rest = settle(method, names, live, reading.squared_norms.tolist(), "the squared gradient norm")
    if len(rest) < len(live):
        reading = reading.select([place for place, k in enumerate(live) if k in rest])
    return rest, reading


def _look_ahead(method: Method, batch: Batch, live: list[int], tasks: int) -> tuple[list[int], Tensor | None]:
    """Positions of the tasks that are left, and what the method's look ahead found, over all losses at hand."""
    if method.reads != "lookahead" or not live:
        return live, None
    index = _index(batch, live, tasks)
    slopes = stage_slopes(method, batch.values[live], index)
    names, losses = [batch.names[k] for k in live], [batch.losses[k] for k in live]
    ahead = LookAhead(method.name, names, losses, slopes, batch.again, batch.optimizer)
    with left_as_it_was(retaining_below(losses)):
        found = method.look_ahead(ahead, method.working_state(index))
    if found is None:
        return live, None
    outlook = torch.full_like(batch.values, float("nan"))
    outlook[live] = found.to(outlook)
    if ahead.squared_norms is not None and method.on_nonfinite != "ignore":
        live = settle(method, batch.names, live, ahead.squared_norms.tolist(), "the squared gradient norm")
    return live, outlook


def _index(batch: Batch, live: list[int], tasks: int) -> Tensor | None:
    """Positions of the live losses' tasks among the balancer's; ``None``: all of them."""
    if len(live) == tasks:
        return None
    return constant(tuple(batch.position(k) for k in live), batch.values.device, torch.long)


def _label_vector(counts: Sequence[float] | None, live: Sequence[int], device: torch.device) -> Tensor:
    """``[T]``, labels behind each live loss."""
    if counts is None or all(count == 1.0 for count in counts):
        return constant((1.0,) * len(live), device)
    return vector([counts[k] for k in live], device)
