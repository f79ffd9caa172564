"""One call from top to bottom: take the losses that are there, look at them, weigh, carry the weights, keep.

Each part has files of its own: `check_losses.py` and `idle_losses.py` take, `observe.py` looks (`global_batch/` over
several ranks), `weighing.py` weighs, `returned_scalar.py` builds the scalar, `commit.py` and `attachment.py` keep.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Container, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steelyard.balancing import returned_scalar
from steelyard.balancing.along_call import AlongCall
from steelyard.balancing.along_step import call_of, learn, step_of
from steelyard.balancing.check_losses import check_not_freed, present_losses, warn_of_twins
from steelyard.balancing.closure import Hold, hold_of
from steelyard.balancing.commit import commit
from steelyard.balancing.devices import as_called, as_result, follow, full_precision, stacked, without_losses
from steelyard.balancing.distributed.pace import Counts, expect_all, leave_alone
from steelyard.balancing.distributed.ranks import Ranks, is_initialised, ranks_of
from steelyard.balancing.distributed.replicas import fingerprint
from steelyard.balancing.distributed.states import meet
from steelyard.balancing.global_batch.look_together import announce_change, look_together
from steelyard.balancing.global_batch.losses_together import recompute_together
from steelyard.balancing.history import Evaluated, Record
from steelyard.balancing.idle_losses import has_count
from steelyard.balancing.observe import Batch, Shown, label_counts, look
from steelyard.balancing.state_dict import Persistent
from steelyard.balancing.weighing import Proposal, propose
from steelyard.base.float64 import float64_device
from steelyard.base.lookahead import Losses, Recompute
from steelyard.base.method import Look
from steelyard.errors import MissingInputError, StateError
from steelyard.gradients.balanced_backward import on_backward
from steelyard.gradients.rows import Rows
from steelyard.gradients.shared_option import Place, Shared, place_of
from steelyard.gradients.wrappers import unnoticed


@dataclass(frozen=True, slots=True)
class Given:
    """What the caller gave; see `Balancer.forward`."""

    losses: Losses
    shared: Shared | None
    again: Recompute | None
    probes: Sequence[Losses] | None
    counts: Mapping[str, float] | None
    look: Look | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What of it takes part.

    Attributes:
        batch: the losses at hand.
        place: where gradients are read; ``None``: nowhere in this step.
        refresh: whether the method weighs anew.
        ranks: who shares the batch.
        again: recomputes the losses, of all ranks.
        along: parameters along whose step the losses are looked at; ``None``: all.
    """

    batch: Batch
    place: Place | None
    refresh: bool
    ranks: Ranks | None
    again: Recompute | None
    along: tuple[Tensor, ...] | None = None


def balance(balancer: Persistent, given: Given) -> Tensor:
    """The call in training."""
    ranks = ranks_of(balancer.sync, balancer.process_group)
    positions, losses = present_losses(balancer.tasks, balancer.known, given.losses, True, ranks is not None)
    names = balancer.tasks if positions is None else tuple(balancer.tasks[position] for position in positions)
    _begin(balancer, names, losses)
    device = losses[0].device if losses else without_losses(balancer, ranks)
    given = replace(given, again=as_called(given.again, device.type))
    with torch.no_grad(), full_precision(device.type):
        result = _balanced(balancer, given, _take(balancer, given, names, positions, losses, ranks))
    if ranks is not None:
        company = balancer._now.company
        company.sent = False  # the others are told with the next call
        on_backward(result, company.send)
    return result


def _balanced(balancer: Persistent, given: Given, taken: Taken) -> Tensor:
    """The scalar of what is taken: look, weigh, carry, keep."""
    shown = _look(balancer, taken)
    _note_left_out(balancer, taken.batch, shown)
    if shown is None:
        return returned_scalar.nothing(balancer, taken.batch, taken.ranks)
    now = balancer._now
    now.watch.look(balancer, shown)
    if now.closure.held is not None:
        return _go_on(balancer, taken, shown, now.closure.held)
    proposal = propose(balancer, shown.seen, shown.index, balancer.refreshing())
    value, hold = _value(balancer, shown, proposal)
    reads = balancer.looks_for(False) if taken.place is None else taken.place.asked_by(balancer)
    now.watch.weigh(balancer, shown.seen, proposal.weights, reads)
    now.record = Record(shown.seen, proposal.weights, shown.index)
    if shown.reading is not None and isinstance(shown.reading.rows, Rows) and shown.seen.rows is None:
        now.caches.workspace = shown.reading.rows.matrix
    redirected = balancer.heads == "plain" or proposal.direction is not None
    if redirected and shown.reading is not None and taken.place is not None and not taken.place.is_trunk:
        now.watch.past(balancer, taken.batch.names, taken.batch.losses, shown.reading.targets)
    result = returned_scalar.carried(balancer, taken.batch, taken.ranks, shown, proposal, value)
    call = _along(balancer, given, taken, shown, proposal) if balancer.needs_along and taken.refresh else None
    now.closure.held = hold
    _keep(balancer, taken, shown, proposal, result, call)
    return result


def plain_sum(balancer: Persistent, losses: Losses) -> Tensor:
    """The call in ``eval()`` mode: weighted by the priorities alone."""
    positions, found = present_losses(balancer.tasks, balancer.known, losses, False)
    names = balancer.tasks if positions is None else [balancer.tasks[position] for position in positions]
    terms = [
        loss if balancer.priorities[name] == 1.0 else loss * balancer.priorities[name]
        for name, loss in zip(names, found, strict=True)
    ]
    total = functools.reduce(torch.add, terms)
    if not total.is_meta:
        with torch.no_grad():
            values = stacked(found, float64_device(found[0].device))
        balancer._now.evaluated = Evaluated(tuple(names), positions, values, balancer.priorities)
    if total.requires_grad and torch.is_grad_enabled() and not balancer._now.watch.eval_said:
        total = total.clone() if total is found[0] else total  # the user's own tensor keeps no hook of ours
        returned_scalar.warn_if_trained_in_eval(total, balancer)
    return total


# --- take -------------------------------------------------------------------------------------------------------------
def _begin(balancer: Persistent, names: tuple[str, ...], losses: list[Tensor]) -> None:
    """What must be so before anything is looked at."""
    now = balancer._now
    now.evaluated = None
    if balancer.sync == "off" and not now.company.met and is_initialised():
        leave_alone()
        now.company.met = True
    if now.counters.awaiting_after and balancer.needs_after:
        raise MissingInputError(
            f"{balancer.name} compares the losses before and after each step, and never saw the last step's: call "
            "balancer.observe(after=losses) after optimizer.step(), or attach the optimizer and pass "
            "again=lambda params=None, batch=None: losses"
        )
    if now.counters.steps == 0:
        check_not_freed(names, losses)
        warn_of_twins(names, losses)
    if balancer._attachment is not None:
        balancer._attachment.before_forward(again=now.closure.held is not None)


def _take(
    balancer: Persistent,
    given: Given,
    names: tuple[str, ...],
    positions: list[int] | None,
    losses: list[Tensor],
    ranks: Ranks | None,
) -> Taken:
    """The losses with their labels, and where their gradients are read in this step."""
    device = float64_device(losses[0].device) if losses else without_losses(balancer, ranks)
    follow(balancer, device)
    place = _place(balancer, given, names, losses, ranks, device)
    along = None
    if place is not None and balancer.reads == "along":
        # The step's own direction is looked along; nothing is read beforehand but what plain heads are carried by.
        along = place.read
        place = replace(place, look=None, told=False) if balancer.heads == "plain" else None
    batch = _batch(balancer, given, names, positions, losses, ranks, device)
    again = given.again
    if ranks is not None and again is not None:
        again = recompute_together(ranks, balancer.tasks, again, given.counts, device, balancer._now.idle.call)
    refresh = balancer._now.closure.held is None and balancer.refreshing()
    return Taken(batch, place, refresh, ranks, again, along)


def _place(
    balancer: Persistent,
    given: Given,
    names: tuple[str, ...],
    losses: list[Tensor],
    ranks: Ranks | None,
    device: torch.device,
) -> Place | None:
    """Where gradients are read; ``None`` where nothing is in this step."""
    now = balancer._now
    shared = balancer.trunk if given.shared is None else given.shared
    look = balancer.look if given.look is None else given.look
    place = place_of(balancer, shared, look, losses, refresh=balancer.refreshing())
    if ranks is not None and not now.company.met:
        _meet(balancer, ranks, place, device)
    held = now.closure.held
    if held is not None and held.refusal:
        balancer.discard()
        held.check()
    if held is not None or not (balancer.refreshing() or balancer.heads == "plain"):
        return None
    now.watch.trunk(balancer, names, losses, place, shared)
    _check_rows(balancer, place)
    return place


def _check_rows(balancer: Persistent, place: Place | None) -> None:
    """Averages by element are of the parameters that they were made of; those of another size are refused by size."""
    kept = [declared.name for declared in balancer._declared.values() if declared.by_element]
    if not kept or place is None or not place.is_trunk:
        return
    caches = balancer._now.caches
    behind = tuple((position, *tensor.shape) for position, tensor in enumerate(place.read) if tensor.requires_grad)
    before = caches.behind
    moved = before is not None and before != behind and _size(before) == _size(behind)
    if moved and any(balancer.committed(name).shape[1] for name in kept):
        raise StateError(
            f"{balancer.name} keeps an average of gradients of other parameters than the trunk's now: its trainable "
            "parameters have changed; call balancer.reset() to start anew"
        )
    caches.behind = behind


def _size(behind: tuple[tuple[int, ...], ...]) -> int:
    return sum(math.prod(shape) for _, *shape in behind)


def _batch(
    balancer: Persistent,
    given: Given,
    names: tuple[str, ...],
    positions: list[int] | None,
    losses: list[Tensor],
    ranks: Ranks | None,
    device: torch.device,
) -> Batch:
    """The losses, their values and labels, and which of them are idle."""
    now, attachment = balancer._now, balancer._attachment
    values = stacked(losses, device)
    labels = None
    if given.counts is not None or attachment is not None or is_initialised():
        labels = label_counts(names, losses, given.counts, balancer.tasks)  # else there is nothing to average
    numbers = None if balancer.on_nonfinite == "ignore" else values.tolist()
    counted = None if ranks is None else functools.partial(has_count, counts=given.counts)
    begins = attachment is None or not attachment.under_way
    idle = now.idle.among(names, losses, numbers, labels, counted, now.closure.held is not None, begins)
    if numbers is not None and balancer.on_nonfinite == "drop_task":
        for k in now.left_out.spoiled(balancer, names, losses, numbers, _live(labels, idle, len(losses))):
            values[k] = numbers[k] = float("nan")  # what has such a gradient is treated as such a loss, on all ranks
    optimizer = None if attachment is None else attachment.stepping
    return Batch(names, positions, losses, values, labels, given.probes, given.again, optimizer, numbers, idle)


def _live(labels: Sequence[float] | None, idle: Container[int], size: int) -> list[int]:
    """Positions of the losses that have labels and move anything."""
    return [k for k in range(size) if k not in idle and (labels is None or labels[k] > 0)]


def _meet(balancer: Persistent, ranks: Ranks, place: Place | None, device: torch.device) -> None:
    """Before anything is decided by the state, which may come from another rank."""
    company = balancer._now.company
    if company.agreed == 0:
        expect_all(ranks, balancer.sync)
    else:  # the others may be on their way to an ordinary step
        refreshing = balancer.refreshing()
        where = place if refreshing or balancer.heads == "plain" else None
        announce_change(ranks, balancer, where, refreshing, company.agreed, _counts(balancer), device)
    meet(ranks, balancer, place)
    company.met, company.agreed, company.ends = True, len(balancer.tasks), 0


def _counts(balancer: Persistent) -> Counts:
    counters = balancer._now.counters
    company = balancer._now.company
    return counters.steps, counters.period_steps, company.ends, company.sent


# --- look -------------------------------------------------------------------------------------------------------------
def _look(balancer: Persistent, taken: Taken) -> Shown | None:
    """What is known of the losses before anything is weighed; ``None`` where nothing is left to balance."""
    caches, batch, place = balancer._now.caches, taken.batch, taken.place
    guarded = place is not None and caches.unnoticed and is_initialised()
    with unnoticed(batch.losses) if guarded else nullcontext(False) as waiting:
        if taken.ranks is None:
            shown = look(balancer, batch, place, caches.workspace, taken.refresh, len(balancer.tasks))
        else:
            shown = look_together(
                taken.ranks,
                balancer,
                batch,
                place,
                caches.workspace,
                taken.refresh,
                balancer.tasks,
                _mark(balancer, place),
                _counts(balancer),
            )
    if guarded:
        caches.unnoticed = waiting  # once it has averaged, it stays out of the way
    return shown


def _note_left_out(balancer: Persistent, batch: Batch, shown: Shown | None) -> None:
    """Tasks that the policy leaves out time after time are told."""
    now = balancer._now
    if balancer.on_nonfinite not in ("drop_task", "skip_step") or now.closure.held is not None:
        return
    there = [k for k in batch.labelled() if k not in batch.idle]
    numbers = None if batch.numbers is None else [batch.numbers[k] for k in there]
    now.left_out.batch(balancer, [batch.names[k] for k in there], numbers, () if shown is None else shown.seen.tasks)


def _mark(balancer: Persistent, place: Place | None) -> int:
    """A fingerprint of the parameters in ever fewer steps: what drifts has drifted after one."""
    steps = balancer._now.counters.steps
    if steps == 0 or steps & (steps - 1):
        return 0
    if balancer._attachment is not None:
        return fingerprint(balancer._attachment.parameters())
    return fingerprint(place.tensors) if place is not None and place.is_trunk else 0


# --- weigh, and the evaluations of a closure --------------------------------------------------------------------------
def _value(balancer: Persistent, shown: Shown, proposal: Proposal) -> tuple[Tensor, Hold | None]:
    """The value to report, and where a step may evaluate its losses again, what is held until it ends."""
    closure, attachment = balancer._now.closure, balancer._attachment
    if not (closure.frozen or (attachment is not None and attachment.inside_step)):
        return proposal.value, None
    function = (proposal.weights * shown.seen.losses).sum()
    often = closure.frozen or (attachment is not None and attachment.evaluates_often)
    value = function if often else proposal.value
    hold = hold_of(balancer, shown.seen.tasks, proposal, value - function)
    if often:
        hold.check()
    return value, hold


def _go_on(balancer: Persistent, taken: Taken, shown: Shown, held: Hold) -> Tensor:
    """A further evaluation within a step: the function of the first one, ``Σ w_k L_k`` with its weights."""
    weights = held.weights_of(balancer.name, shown.seen, shown.index)
    value = (weights * shown.seen.losses).sum() + held.offset
    balancer._now.record = Record(shown.seen, weights, shown.index)
    return returned_scalar.weighted(taken.batch, taken.ranks, shown, weights, as_result(value, taken.batch.losses))


# --- keep -------------------------------------------------------------------------------------------------------------
def _along(balancer: Persistent, given: Given, taken: Taken, shown: Shown, proposal: Proposal) -> AlongCall:
    """What a look along the step needs."""
    batch = taken.batch
    losses = {name: loss for name, loss, kept in zip(batch.names, batch.losses, shown.kept, strict=True) if kept}
    return call_of(balancer, losses, given.counts, given.again, taken.along, taken.ranks, shown.seen, proposal)


def _keep(
    balancer: Persistent, taken: Taken, shown: Shown, proposal: Proposal, result: Tensor, call: AlongCall | None
) -> None:
    """Commit now, or when the optimizer steps, or when `Balancer.frozen` ends."""
    closure = balancer._now.closure
    closure.unattached(balancer, proposal)
    if balancer._attachment is not None:
        balancer._attachment.add(result, shown.seen, proposal, taken.again, call)
        return
    step = None
    if call is not None and call.products is not None:
        step = step_of(balancer, shown.seen, shown.index, proposal, call.products)
    if closure.frozen:
        closure.pending, closure.pending_step = proposal, step
        return
    commit(balancer, proposal)
    if step is not None:
        learn(balancer, step)
