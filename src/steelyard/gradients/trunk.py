"""Exact Gramians of the trunk's task gradients, without the matrix that holds them.

One backward pass per task stops at the outputs of the trunk's layers: a layer with a registered formula (`layers/`)
needs no more than the gradient that arrives there, and the weight gradients, half of a backward pass and all of the
``T x P`` matrix, are never formed. What has no formula is differentiated by autograd, added to the Gramian and freed,
one segment of the network after the other where that saves memory (`segments.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from steelyard.base.float64 import at_least, double, float64_device
from steelyard.errors import SharedError, SteelyardWarning, warn
from steelyard.gradients.boundary import Boundary
from steelyard.gradients.differentiation import (
    HookedEdgeError,
    Received,
    differentiate,
    refused_reentrant,
    watched,
)
from steelyard.gradients.graph import (
    METADATA,
    REENTRANT,
    Edge,
    Survey,
    precision_of,
    replacing,
    survey,
)
from steelyard.gradients.layers.products import AT_A_TIME
from steelyard.gradients.retained import left_as_it_was, retaining_among
from steelyard.gradients.row_products import inner_products, is_safe
from steelyard.gradients.rows import Rows, numbers_in, real_dtype, real_numbers
from steelyard.gradients.samples.look import AtEnd, at_end, gramian_of_disjoint
from steelyard.gradients.segments import Segment, in_one_piece, segments, size_of
from steelyard.gradients.task_blocks import block_size, gramian_in_blocks
from steelyard.gradients.trunk_layers import TrunkLayer, trunk_layers

_EdgeOrNone = TypeVar("_EdgeOrNone")


@dataclass(frozen=True)
class TrunkGradients:
    """What a look at the trunk brings.

    Attributes:
        gramian: ``[T, T]`` float64.
        boundary: edges where the trunk ends and heads begin.
        rows: task gradients at the boundary, where they were asked for.
        whole: task gradients at all parameters, where they were asked for.
        at_depths: whether some of the boundary's edges lie behind others.
    """

    gramian: Tensor
    boundary: tuple[Edge, ...]
    rows: Rows | None
    whole: Rows | None = None
    at_depths: bool = False


def trunk_gradients(
    tasks: Sequence[str],
    losses: Sequence[Tensor],
    parameters: Sequence[Tensor],
    at_boundary: bool,
    whole: bool = False,
    *,
    boundary: Boundary | None = None,
    given: str = "shared=",
) -> TrunkGradients:
    """Look at every task's gradient with respect to the trunk's parameters, or any others.

    Args:
        tasks: names, for messages.
        losses: scalars with a graph, which is kept for the backward pass to come.
        parameters: the trunk's, or those of a part; frozen ones, and ones that no loss reaches, have no gradient and
            do not matter.
        at_boundary: whether the gradients where the trunk ends are wanted too.
        whole: whether the rows are wanted, all ``T x P`` of them; no formula then spares anything.
        boundary: where they are wanted, if not there.
        given: the argument that named the parameters, for messages.

    Cost: of tasks that share no samples one backward pass for all, where the trunk keeps samples apart. Otherwise per
    task one backward pass, without the weight gradients of layers with a formula. In memory ``T x`` the
    outputs of those layers and ``T x`` the parameters of the others; of the largest segment, where the trunk is cut.
    """
    found = survey(losses, parameters)
    if any(node.name() == REENTRANT for node in found.leads_to):
        raise refused_reentrant()
    if not found.leaves:
        raise SharedError(
            f"none of the losses ({', '.join(tasks)}) depends on a trainable parameter of "
            f"{'the trunk' if given == 'shared=' else 'the layers'} given as {given}"
        )
    if len(losses) > 1 and not any(found.reached_by[leaf].bit_count() > 1 for leaf in found.leaves.values()):
        warn(
            f"no parameter given as {given} is reached by two of the losses: these are heads, not the trunk, so tasks "
            "share no gradient there and their weights mean little. Pass the module that the tasks share",
            SteelyardWarning,
        )
    precision = precision_of(found.leads_to, losses)
    layers, raw = trunk_layers(found, len(losses))
    if whole:
        layers, raw = [], {parameter: None for parameter in parameters if parameter.requires_grad}
    if at_boundary:
        boundary = Boundary.of(found, losses)
    wanted = () if boundary is None else boundary.edges

    def held(segment: Segment) -> int:
        edges = dict.fromkeys([*(edge for layer in layers for edge in layer.edges), *wanted])
        rows = sum(numbers_in(parameter) for parameter in segment.parameters if parameter in raw)
        return rows + sum(size_of(edge) for edge in edges if edge[0] in segment.nodes)

    # What float16 must not lose is seeded by the loss, and divided again where it arrives; a balancer's result replaces
    # gradients in the backward pass that has come through it.
    undivided = precision.float16 or bool(replacing(found.leads_to))
    if whole:
        stretches = [Segment(None, set(found.leads_to), list(raw))]
    elif undivided:
        stretches = [in_one_piece(found)]
    else:
        stretches = segments(found, held)
    with torch.no_grad(), left_as_it_was(retaining_among(found.leads_to)):
        plan = _ReadingPlan(stretches, layers, raw, wanted, precision.float16)
        end = None if whole or undivided else _at_one_end(losses, found, plan)
        apart = None if end is None else gramian_of_disjoint(found, end)
        if apart is None and not whole and (blocked := _in_blocks(losses, found, plan)) is not None:
            return TrunkGradients(blocked, (), None)
        if apart is not None and end is not None:
            gramian, room = apart, torch.empty(len(losses), 0, device=apart.device)
            ends = {edge: _stacked(end.known) for edge in wanted}
        else:
            gramian, ends, room = _look_past_hooks(losses, plan, found, end)
        rows = None
        if boundary is not None:
            flat = [real_numbers(end).view(len(end), -1) for end in ends.values()]
            matrix = flat[0] if len(flat) == 1 else torch.cat([room[:, :0], *flat], 1)
            rows = Rows(matrix, tuple(end[0] for end in ends.values()), boundary.coarsest)
    all_rows = Rows(room, tuple(raw), precision.coarsest) if whole else None
    return TrunkGradients(gramian, tuple(ends), rows, all_rows, boundary is not None and boundary.at_depths)


@dataclass(frozen=True)
class _ReadingPlan:
    """What to read, and in which stretches of the graph."""

    segments: Sequence[Segment]
    layers: Sequence[TrunkLayer]
    raw: dict[Tensor, None]
    boundary: tuple[Edge, ...]
    float16: bool


def _at_one_end(losses: Sequence[Tensor], found: Survey, plan: _ReadingPlan) -> AtEnd | None:
    """What arrives where heads meet the trunk, if that is one place, until two tasks share a sample."""
    if not METADATA or len(losses) < 2 or len(found.boundary) != 1:
        return None
    (edge,) = found.boundary
    if not found.in_trunk(edge[0]) or hasattr(edge[0], "variable") or not set(plan.boundary) <= {edge}:
        return None
    return at_end(losses, edge, found)


def _stacked(gradients: Sequence[Tensor | None]) -> Tensor:
    """``[T, …]``; zero where a loss does not reach."""
    arrived: dict[None, Tensor] = {}
    for task, gradient in enumerate(gradients):
        _put(arrived, None, gradient, task, len(gradients))
    return arrived[None]


def _in_blocks(losses: Sequence[Tensor], found: Survey, plan: _ReadingPlan) -> Tensor | None:
    """The Gramian of layers that are all linear, in memory that the backward pass will need anyway; else ``None``."""
    tasks = len(losses)
    if tasks <= AT_A_TIME or plan.raw or plan.boundary or len(plan.segments) > 1 or not METADATA:
        return None
    if any(layer.formula.as_linear is None or len(layer.uses) > 1 for layer in plan.layers):
        return None
    layers = [(layer.formula, layer.uses[0][1], layer.edges[0]) for layer in plan.layers]
    edges = [edge for _, _, edge in layers]
    block = block_size(tasks, sum(size_of(edge) for edge in edges), found.numbers)
    if block == tasks:
        return None
    with watched(edges) as received:

        def arrivals(of: range) -> dict[Edge, Tensor]:
            arrived: dict[Edge, Tensor] = {}
            for place, task in enumerate(of):
                one = torch.ones_like(losses[task])
                for edge, gradient in zip(
                    edges, _walk(losses[task], one, edges, [], None, plan.float16, received), strict=True
                ):
                    _put(arrived, edge, gradient, place, len(of))
            return arrived

        return gramian_in_blocks(layers, arrivals, tasks, block)


_Looked = tuple[Tensor, dict[Edge, Tensor], Tensor]
"""The Gramian, the gradients ``[T, …]`` at the boundary, and the rows of the parameters read last."""


def _look_past_hooks(losses: Sequence[Tensor], plan: _ReadingPlan, found: Survey, end: AtEnd | None) -> _Looked:
    """From where heads meet the trunk, and in segments, unless a hook stands there: nodes do not tell before."""
    for known in (end, None) if end is not None else (None,):
        try:
            return _look(losses, plan, known)
        except HookedEdgeError:
            continue
    return _look(losses, replace(plan, segments=[in_one_piece(found)]))


def _look(losses: Sequence[Tensor], plan: _ReadingPlan, end: AtEnd | None = None) -> _Looked:
    """Task by task; those that are known where heads meet the trunk go on from there."""
    tasks, device = len(losses), losses[0].device
    gramian = torch.zeros(tasks, tasks, dtype=torch.float64, device=float64_device(device))
    widest = max(sum(numbers_in(p) for p in segment.parameters if p in plan.raw) for segment in plan.segments)
    room = torch.empty(tasks, widest, dtype=_row_dtype(plan.raw), device=device)
    ends: dict[Edge, Tensor] = {}
    starts: list[Tensor | GradientEdge] = list(losses)
    begin: Edge | None = None
    gradients: list[Tensor | None] = [torch.ones_like(loss) for loss in losses]
    if end is not None and end.edge[0] in plan.segments[0].nodes:
        begin, known = end.edge, len(end.known)
        starts[:known], gradients[:known] = [GradientEdge(*begin)] * known, end.known
    for segment in plan.segments:
        layers = [layer for layer in plan.layers if layer.edges[0][0] in segment.nodes]
        boundary = [edge for edge in plan.boundary if edge[0] in segment.nodes]
        edges = list(dict.fromkeys([*(edge for layer in layers for edge in layer.edges), *boundary]))
        parameters = [parameter for parameter in segment.parameters if parameter in plan.raw]
        sizes = [numbers_in(parameter) for parameter in parameters]
        rows = room[:, : sum(sizes)]
        arrived: dict[Edge, Tensor] = {}
        with watched([*edges, *([begin] if begin else ())]) as received:
            for task, start in enumerate(starts):
                found = _walk(start, gradients[task], edges, parameters, segment.end, plan.float16, received)
                for edge, gradient in zip(edges, found, strict=False):
                    _put(arrived, edge, gradient, task, tasks)
                for piece, gradient in zip(torch.split(rows[task], sizes), found[len(edges) :], strict=False):
                    piece.zero_() if gradient is None else piece.copy_(real_numbers(gradient))
                gradients[task] = None if segment.end is None else found[-1]
        gramian += _gramian(layers, arrived, rows)
        ends.update((edge, arrived[edge]) for edge in boundary if edge in arrived)
        begin = segment.end
        if segment.end is not None:
            starts = [GradientEdge(*segment.end)] * tasks
    return gramian, ends, room


def _walk(
    start: Tensor | GradientEdge,
    arrived: Tensor | None,
    edges: Sequence[Edge],
    parameters: Sequence[Tensor],
    end: Edge | None,
    float16: bool,
    received: Received,
) -> list[Tensor | None]:
    """Walk one task through one segment: what arrives at edges, at parameters, and at the segment's end, if it ends."""
    inputs = [*(GradientEdge(*edge) for edge in edges), *parameters, *([GradientEdge(*end)] if end else ())]
    if arrived is None or not inputs:
        return [None] * len(inputs)
    return differentiate(start, inputs, float16, arrived, received)


def _put(arrived: dict[_EdgeOrNone, Tensor], edge: _EdgeOrNone, gradient: Tensor | None, task: int, tasks: int) -> None:
    """Into ``[T, …]``, task by task; zero where a loss does not reach."""
    if edge in arrived:
        if gradient is None:
            arrived[edge][task].zero_()
        else:
            arrived[edge][task] = gradient
    elif gradient is not None:
        precise = torch.promote_types(gradient.dtype, torch.float32)
        arrived[edge] = room = gradient.new_empty(tasks, *gradient.shape, dtype=precise)
        room[:task].zero_()
        room[task] = gradient


def _gramian(layers: Sequence[TrunkLayer], arrived: dict[Edge, Tensor], rows: Tensor) -> Tensor:
    """The part of one segment; in float64 where float32 squares would overflow or underflow."""
    total = rows.new_zeros(len(rows), len(rows), dtype=torch.float64, device=float64_device(rows.device))
    for precision in (torch.float32, torch.float64):
        here = at_least(rows, precision)
        total = inner_products(here, here)
        for layer in layers:
            # An operation on the way may send nothing, which is not the same as a zero that has a shape.
            reached = [(found, arrived[node, 0]) for node, found in layer.uses if (node, 0) in arrived]
            gradients = [at_least(gradient, precision) for _, gradient in reached]
            uses = [found for found, _ in reached]
            if precision == torch.float64:  # for which gradients may have come to the CPU
                uses = [found.to(gradients[0].device) for found in uses]
            if reached:
                total += double(layer.formula.gramian(uses, gradients)).to(total.device)
        if is_safe(total.diagonal()):
            break
    return total


def _row_dtype(parameters: Iterable[Tensor]) -> torch.dtype:
    return functools.reduce(
        torch.promote_types, (real_dtype(parameter.dtype) for parameter in parameters), torch.float32
    )
