"""Exact Gramians of the trunk's task gradients, without the matrix that holds them.

One backward pass per task stops at the outputs of the trunk's layers: a layer with a registered formula (`layers.py`)
needs no more than the gradient that arrives there, and the weight gradients, half of a backward pass and all of the
``T x P`` matrix, are never formed. What has no formula is differentiated by autograd, parameter by parameter.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from steelyard.errors import SharedError
from steelyard.gradients.differentiation import differentiate, refused_compiled_whole, refused_reentrant
from steelyard.gradients.graph import COMPILED, REENTRANT, Edge, Node, Survey, precision_of, survey
from steelyard.gradients.layers import Formula, Match, match
from steelyard.gradients.rows import Rows, is_safe


@dataclass(frozen=True)
class Layer:
    """A layer with a formula, and its uses in the graph."""

    formula: Formula
    uses: tuple[tuple[Node, Match], ...]


@dataclass(frozen=True)
class TrunkGradients:
    """What a look at the trunk brings.

    Attributes:
        gramian: ``[T, T]`` float64.
        boundary: edges where the trunk ends and heads begin.
        rows: task gradients at the boundary, where they were asked for.
        whole: task gradients at all parameters, where they were asked for.
    """

    gramian: Tensor
    boundary: tuple[Edge, ...]
    rows: Rows | None
    whole: Rows | None = None


def trunk_gradients(
    tasks: Sequence[str],
    losses: Sequence[Tensor],
    parameters: Sequence[Tensor],
    at_boundary: bool,
    whole: bool = False,
) -> TrunkGradients:
    """Look at every task's gradient with respect to the trunk's parameters.

    Args:
        tasks: names, for messages.
        losses: scalars with a graph, which is kept for the backward pass to come.
        parameters: the trunk's; frozen ones, and ones that no loss reaches, have no gradient and do not matter.
        at_boundary: whether the gradients where the trunk ends are wanted too.
        whole: whether the rows are wanted, all ``T x P`` of them; no formula then spares anything.

    Cost: per task one backward pass without weight gradients, and ``T x`` the outputs of the layers in memory.
    """
    found = survey([loss.grad_fn for loss in losses if loss.grad_fn is not None], parameters)
    if any(node.name() == REENTRANT for node in found.leads_to):
        raise refused_reentrant()
    if not found.leaves:
        raise SharedError(
            f"none of the losses ({', '.join(tasks)}) depends on a trainable parameter of the trunk given as shared="
        )
    precision = precision_of(found.leads_to, losses)
    layers, raw = _layers(found, len(losses))
    if whole:
        layers, raw = [], [parameter for parameter in parameters if parameter.requires_grad]
    boundary = tuple(found.boundary) if at_boundary else ()
    if at_boundary:
        _check_boundary(found, boundary)

    wanted = [GradientEdge(node, 0) for layer in layers for node, _ in layer.uses]
    wanted += [GradientEdge(node, output) for node, output in boundary]
    arrived: list[list[Tensor | None]] = [[] for _ in wanted]
    width = sum(parameter.numel() for parameter in raw)
    device = losses[0].device
    rest = torch.zeros(len(losses), width, dtype=_row_dtype(raw), device=device) if raw else None
    for position, loss in enumerate(losses):
        gradients = differentiate(loss, [*wanted, *raw], precision.float16)
        for place, gradient in enumerate(gradients[: len(wanted)]):
            arrived[place].append(gradient)
        if rest is not None:
            start = 0
            for parameter, gradient in zip(raw, gradients[len(wanted) :], strict=True):
                if gradient is not None:
                    rest[position, start : start + parameter.numel()].copy_(gradient.reshape(-1))
                start += parameter.numel()
    stacked = [_stack(gradients) for gradients in arrived]

    with torch.no_grad():
        gramian = _gramian(layers, stacked, rest, torch.float32)
        if not is_safe(gramian.diagonal()):
            gramian = _gramian(layers, stacked, rest, torch.float64)
        rows = None
        if at_boundary:
            ends = stacked[len(stacked) - len(boundary) :]
            to_boundary = precision_of((node for node in found.leads_to if not found.in_trunk(node)), losses)
            flat = [end.reshape(len(end), -1).to(torch.promote_types(end.dtype, torch.float32)) for end in ends]
            rows = Rows(torch.cat(flat, 1), tuple(end[0] for end in ends), to_boundary.coarsest)
    all_rows = Rows(rest, tuple(raw), precision.coarsest) if whole and rest is not None else None
    return TrunkGradients(gramian.to(device), boundary, rows, all_rows)


def _gramian(layers: Sequence[Layer], stacked: Sequence[Tensor], rest: Tensor | None, precision: torch.dtype) -> Tensor:
    parts, place = [], 0
    for layer in layers:
        gradients = [stacked[place + number] for number in range(len(layer.uses))]
        gradients = [gradient.to(torch.promote_types(gradient.dtype, precision)) for gradient in gradients]
        parts.append(layer.formula.gramian([found for _, found in layer.uses], gradients))
        place += len(layer.uses)
    if rest is not None:
        rest = rest.to(torch.promote_types(rest.dtype, precision))
        parts.append((rest @ rest.T).double())
    return functools.reduce(torch.add, parts)


def _layers(found: Survey, tasks: int) -> tuple[list[Layer], list[Tensor]]:
    """Layers whose every use is known and whose formula is worth it, and the parameters of all others."""
    uses: dict[tuple[Node, ...], list[tuple[Node, Match]]] = {}
    formulas: dict[tuple[Node, ...], Formula] = {}
    for node in found.leads_to:
        if found.in_trunk(node) and (known := match(node)) is not None:
            uses.setdefault(known[0].leaves, []).append((node, known[0]))
            formulas[known[0].leaves] = known[1]
    layers: list[Layer] = []
    covered: set[Node] = set()
    accumulating = set(found.leaves.values())
    for leaves, nodes in uses.items():
        worth = accumulating.issuperset(leaves) and formulas[leaves].worth([found for _, found in nodes], tasks)
        if worth and all(_complete(found, leaf, nodes) for leaf in leaves):
            layers.append(Layer(formulas[leaves], tuple(nodes)))
            covered.update(leaves)
    return layers, [parameter for parameter, leaf in found.leaves.items() if leaf not in covered]


def _complete(found: Survey, leaf: Node, uses: Sequence[tuple[Node, Match]]) -> bool:
    """Whether each edge into a parameter belongs to a matched use; else their formula would miss a part of it.

    A weight enters through its transposition alone, a bias or a table directly. One that is also the layer's input
    (``W Wᵀ``) has an edge too many.
    """
    matched = {node for node, _ in uses}
    between = [through for _, each in uses for through in each.through]
    transposed = bool(between) and leaf is uses[0][1].leaves[0]
    direct = [consumer for consumer in found.consumers[leaf] if consumer not in between]
    if len(direct) != (0 if transposed else len(uses)) or not matched.issuperset(direct):
        return False
    behind = [consumer for consumer in found.consumers[leaf] if consumer in between]
    return all(len(found.consumers[each]) == between.count(each) for each in behind)


def _check_boundary(found: Survey, boundary: tuple[Edge, ...]) -> None:
    """Plain heads replace what arrives where the trunk ends; that must be all that arrives there from the tasks."""
    ends = {node for node, _ in boundary}
    leaf = next((parameter for parameter, node in found.leaves.items() if node in ends), None)
    if leaf is not None:
        if any(each.name() == COMPILED for each in found.consumers[found.leaves[leaf]]):
            raise refused_compiled_whole()
        raise SharedError(
            f"a trunk parameter of shape {tuple(leaf.shape)} is used by the heads too (tied weights), so its trunk "
            "and head gradients cannot be told apart: use heads='weighted', or pass the tensor that the heads read"
        )
    for node in ends:
        consumers = [each for each in found.consumers.get(node, ()) if each not in found.private]
        if any(found.in_trunk(consumer) for consumer in consumers):
            raise SharedError(
                "the heads read the trunk at several depths, and what they send to the shallower ones cannot be "
                "told apart from what comes through the deeper ones: use heads='weighted'"
            )


def _stack(gradients: list[Tensor | None]) -> Tensor:
    """``[T, …]``, zero where a loss does not reach the edge."""
    like = next((gradient for gradient in gradients if gradient is not None), None)
    if like is None:
        raise SharedError("no loss reaches a layer that the graph shows: this is a fault, please report it")
    return torch.stack([torch.zeros_like(like) if gradient is None else gradient for gradient in gradients])


def _row_dtype(parameters: Sequence[Tensor]) -> torch.dtype:
    return functools.reduce(torch.promote_types, (parameter.dtype for parameter in parameters), torch.float32)
