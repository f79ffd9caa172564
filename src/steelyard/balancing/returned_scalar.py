"""The scalar of a call: what its backward sends to the losses, to the trunk, and to those who only wait."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.devices import as_result
from steelyard.balancing.distributed.ranks import Ranks, is_initialised
from steelyard.balancing.observe import Batch, Shown
from steelyard.balancing.state_dict import Persistent
from steelyard.balancing.weighing import Proposal
from steelyard.base.float64 import has_float64, widest
from steelyard.errors import SharedError
from steelyard.gradients.balanced_backward import arriving_at_depths, carry, combined_in_graph, on_backward
from steelyard.gradients.graph import sparsely_used
from steelyard.gradients.reading import Reading
from steelyard.gradients.redirection import InGraph, Redirection, rounding_of
from steelyard.gradients.wrappers import unnoticed
from steelyard.gradients.zero_gradients import fully_sharded, only_reached_by


def carried(
    balancer: Persistent, batch: Batch, ranks: Ranks | None, shown: Shown, proposal: Proposal, value: Tensor
) -> Tensor:
    """A scalar whose backward is the balanced update."""
    losses = _taking_part(batch, shown)
    redirection = None
    if shown.reading is not None and (balancer.heads == "plain" or proposal.direction is not None):
        names = [name for name, kept in zip(batch.names, shown.kept, strict=True) if kept]
        balancer._now.watch.nested(balancer, names, losses, shown.reading.targets)
        redirection = _redirection(balancer.name, shown, shown.reading, proposal, losses)
    result = carry(
        as_result(value, batch.losses),
        losses,
        shown.own(proposal.head_weights),
        [*_of_parameters(balancer, proposal), *_reached(shown, proposal, batch.losses)],
        redirection,
        **_left_out(batch, shown.kept, ranks, shown.seen.tasks),
    )
    if redirection is not None and shown.reading is not None:
        redirection.install(shown.reading.targets, losses)
    return result


def weighted(batch: Batch, ranks: Ranks | None, shown: Shown, weights: Tensor, value: Tensor) -> Tensor:
    """A scalar whose backward sends the weights alone."""
    others = _left_out(batch, shown.kept, ranks, shown.seen.tasks)
    return carry(value, _taking_part(batch, shown), shown.own(weights), **others)


def nothing(balancer: Persistent, batch: Batch, ranks: Ranks | None) -> Tensor:
    """A scalar whose backward moves nothing, and says so to the step: a batch that is given up before has no say."""
    balancer._now.record = None
    others = _left_out(batch, [False] * len(batch.losses), ranks)
    zero = as_result(batch.values.new_zeros(()), batch.losses)
    result = carry(zero, [], batch.values.new_zeros(0), **others)
    if (attachment := balancer._attachment) is not None:
        skip_step = balancer.on_nonfinite == "skip_step"
        on_backward(result, functools.partial(attachment.nothing_to_do, skip_step=skip_step))
    return result


def warn_if_trained_in_eval(total: Tensor, balancer: Persistent) -> None:
    """Tell a balancer in ``eval()`` mode that its result is being trained on."""
    total.register_hook(functools.partial(_trained_in_eval, weakref.ref(balancer)))  # type: ignore[no-untyped-call]


def _trained_in_eval(this: weakref.ref[Persistent], gradient: Tensor) -> None:
    if (balancer := this()) is not None:
        balancer._now.watch.trained_in_eval(balancer)


def _taking_part(batch: Batch, shown: Shown) -> list[Tensor]:
    return [loss for loss, kept in zip(batch.losses, shown.kept, strict=True) if kept]


def _left_out(batch: Batch, kept: list[bool], ranks: Ranks | None, weighed: tuple[str, ...] = ()) -> dict[str, Any]:
    """What `carry` does for those who wait for the gradients of losses that take no part here."""
    if all(kept) or not is_initialised():
        return {}
    chosen = [loss for loss, keep in zip(batch.losses, kept, strict=True) if keep]
    rest = [k for k, keep in enumerate(kept) if not keep]
    waiting: dict[str, Any] = {"zeros": only_reached_by([batch.losses[k] for k in rest], chosen)}
    if fully_sharded():
        # Other ranks exchange parameters as they go through these heads, and so must this one.
        waiting["untouched"] = [batch.losses[k] for k in rest if ranks is None or batch.names[k] in weighed]
    return waiting


def _redirection(method: str, shown: Shown, reading: Reading, proposal: Proposal, losses: list[Tensor]) -> Redirection:
    """What must replace the gradient that arrives at the features."""
    rows = reading.rows
    assert rows is not None
    # At features the squared norms are those of these very rows; at the trunk the rows are where it ends.
    squared_norms = rows.squared_norms() if reading.angles_hold and len(rows) else reading.squared_norms
    on_heads, weights = shown.own(proposal.head_weights), shown.own(proposal.weights)
    if proposal.direction is None:
        direction, sent = rows.combine(torch.stack((weights, on_heads)))
    else:
        direction, sent = proposal.direction * shown.spread, rows.combine(on_heads)
    towards, away = rows.shaped(direction), rows.shaped(sent)
    largest = on_heads
    if reading.at_depths and losses:
        with unnoticed(losses) if is_initialised() else nullcontext():
            away = arriving_at_depths(losses, on_heads, reading.edges, towards)
        largest = torch.maximum(on_heads.abs(), weights.abs())
    if proposal.direction is not None or reading.at_depths:
        in_graph: InGraph = functools.partial(_refuse_create_graph, method, reading.at_depths)
    else:
        in_graph = functools.partial(combined_in_graph, losses, reading.targets, weights, on_heads)
    rounding = rounding_of(rows.coarsest, largest, squared_norms, rows)
    if not has_float64(direction.device):  # in the backward it meets what arrives there
        rounding = rounding.to(direction.device, widest(direction.device))
    return Redirection(towards, away, rounding, in_graph)


def _refuse_create_graph(method: str, at_depths: bool, incoming: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What replaces the gradient is a constant, and would be differentiated as one."""
    if at_depths:
        why, fix = "with plain heads, and losses that read the trunk at several depths,", "use heads='weighted'"
    else:
        why, fix = "sends a direction of its own to shared=, which", "choose a method that weighs the losses"
    raise SharedError(
        f"{method} {why} cannot be differentiated twice (create_graph=True): {fix}, or take the second derivative of "
        "the losses themselves"
    )


def _reached(shown: Shown, proposal: Proposal, losses: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Zeros for the trunk: the ranks' common direction must arrive also where this one has no labels."""
    reading = shown.reading
    if shown.mine is not None and reading is not None and reading.angles_hold and proposal.direction is not None:
        sparse = sparsely_used(loss.grad_fn for loss in losses)  # a dense zero would make a sparse gradient dense
        for parameter in reading.targets:
            if isinstance(parameter, Tensor):
                zero = parameter.new_zeros(()).expand_as(parameter)
                yield parameter, zero.to_sparse(1) if parameter in sparse else zero


def _of_parameters(balancer: Persistent, proposal: Proposal) -> Iterator[tuple[Tensor, Tensor]]:
    """Gradients of Parameters over all tasks (weights of an outside optimizer), zero for the absent."""
    for name, gradient in proposal.parameter_gradients.items():
        if proposal.index is not None:
            gradient = gradient.new_zeros(len(balancer.tasks)).index_copy_(0, proposal.index, gradient)
        yield getattr(balancer, name), gradient
