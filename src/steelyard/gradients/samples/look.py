"""The trunk's Gramian of tasks that share no samples, from one backward pass.

The sum of the tasks' gradients where heads meet the trunk holds each one whole: every sample's part of it belongs to
one task. Where the trunk keeps samples apart (`paths.py`), so it is all the way down, and each parameter's gradients
are taken task by task from what arrives beside it (`per_task.py`). Whatever is not known to be so is left to a backward
pass for each task.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from steelyard.base.float64 import has_float64
from steelyard.base.looks import grad
from steelyard.gradients.differentiation import differentiate
from steelyard.gradients.graph import Edge, Node, Survey, nodes_below
from steelyard.gradients.row_products import inner_products, is_safe
from steelyard.gradients.samples.paths import SamplePaths, sample_paths, shape_at
from steelyard.gradients.samples.per_task import Arrived, Contribution, Outer, Owners, TableRows, sent_to

_LARGEST_WEIGHT = 32
"""Nodes between a layer and the parameters that its weight is computed from."""


@dataclass(frozen=True)
class AtEnd:
    """What arrives where heads meet the trunk.

    Attributes:
        edge: the place.
        known: the gradients of the first tasks there; ``None`` for one that does not reach it.
        owners: whose each sample is, if all tasks are known and no two share one.
        paths: of their samples through the trunk, if it keeps them apart.
    """

    edge: Edge
    known: Sequence[Tensor | None]
    owners: Owners | None = None
    paths: SamplePaths | None = None


def at_end(losses: Sequence[Tensor], edge: Edge, found: Survey) -> AtEnd:
    """Differentiate the losses at the trunk's end, until two of them share a sample: mostly the first two.

    Where the trunk is not known to keep samples apart, no more than two either.
    """
    known: list[Tensor | None] = []
    owner: Tensor | None = None
    paths: SamplePaths | None = None
    for task, loss in enumerate(losses):
        (gradient,) = differentiate(loss, [GradientEdge(*edge)], False)
        known.append(gradient)
        if gradient is None:
            continue
        if gradient.is_sparse or gradient.is_complex() or gradient.dim() < 1:
            return AtEnd(edge, known)
        uses = (gradient != 0).flatten(1).any(1) if gradient.dim() > 1 else gradient != 0
        owner = uses.new_full(uses.shape, len(losses), dtype=torch.long) if owner is None else owner
        if bool((uses & (owner < len(losses))).any()):
            return AtEnd(edge, known)
        if task > 0 and paths is None and (paths := sample_paths(found, edge)) is None:
            return AtEnd(edge, known)
        owner[uses] = task
    if owner is None:
        return AtEnd(edge, known)
    return AtEnd(
        edge, known, Owners(owner % len(losses), len(losses)), paths
    )  # of samples that none uses, all get zero


def gramian_of_disjoint(found: Survey, end: AtEnd) -> Tensor | None:
    """``[T, T]`` float64; ``None`` where the trunk does not keep samples apart, or is not known to.

    Args:
        found: the graph, with one place where heads meet the trunk.
        end: what arrives there.
    """
    paths = end.paths
    if end.owners is None or paths is None:
        return None
    arrived = _arrivals(end, paths)
    if arrived is None:
        return None
    for precision in (torch.float32, torch.float64):
        if precision == torch.float64 and not has_float64(end.owners.of.device):
            return None  # task by task, where what arrives can come to the CPU
        sent = _sent(found, paths, arrived, end.owners, precision)
        if sent is None:
            return None
        parts = [_gramian(each, end.owners.tasks) for each in sent.values()]
        if not parts or any(part is None for part in parts):
            return None
        total = torch.stack([part for part in parts if part is not None]).sum(0)
        if is_safe(total.diagonal()):
            break
    # What is not finite in one sample spreads over the gradients of all tasks, if each has its own backward pass.
    return total if bool(total.isfinite().all()) else None


def _arrivals(end: AtEnd, paths: SamplePaths) -> dict[Edge, Tensor] | None:
    """What one backward pass sends to each layer; ``None`` where a hook changes it, by what it does to one task."""
    nodes = {node for node, _ in paths.axes}
    if any(_has_hooks(node) for node in nodes):
        return None
    gradients = [gradient for gradient in end.known if gradient is not None]
    seed = functools.reduce(torch.add, gradients[1:], gradients[0].clone())
    layers = list(dict.fromkeys(edge for edge, _ in paths.lost))
    with _watched(paths, end.edge, seed) as watch:
        shown = grad([GradientEdge(*end.edge)], [GradientEdge(*edge) for edge in layers], [seed], retain_graph=True)
    arrived = {edge: gradient for edge, gradient in zip(layers, shown, strict=True) if gradient is not None}
    onward = {node for node in nodes if any(following in paths.axes for following in node.next_functions)}
    for edge, gradient in arrived.items():  # those at the end of their way are shown as hooks have left them
        if edge[0] not in onward:
            watch.arrive(edge, gradient)
    return None if watch.changed else arrived


class _Watch:
    """Whether what arrives at each edge is what was sent to it; nothing is held longer than on its way."""

    def __init__(self, sent: dict[Edge, list[Tensor]]) -> None:
        self.sent, self.changed = sent, False

    def send(self, edge: Edge, gradient: Tensor | None) -> None:
        if gradient is not None:
            self.sent.setdefault(edge, []).append(gradient)

    def arrive(self, edge: Edge, gradient: Tensor | None) -> None:
        if gradient is not None and not _is_sum(gradient, self.sent.pop(edge, [])):
            self.changed = True


@contextmanager
def _watched(paths: SamplePaths, start: Edge, seed: Tensor) -> Iterator[_Watch]:
    watch = _Watch({start: [seed]})

    def before(edge: Edge) -> torch.utils.hooks.RemovableHandle:
        handle: torch.utils.hooks.RemovableHandle = edge[0].register_prehook(
            lambda gradients: watch.arrive(edge, gradients[edge[1]])
        )
        return handle

    def after(node: Node) -> torch.utils.hooks.RemovableHandle:
        def note(gradients: Sequence[Tensor | None], arrived: object) -> None:
            for following, gradient in zip(node.next_functions, gradients, strict=True):
                if following in paths.axes:
                    watch.send(following, gradient)

        handle: torch.utils.hooks.RemovableHandle = node.register_hook(note)
        return handle

    handles = [*map(before, paths.axes), *map(after, {node for node, _ in paths.axes})]
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def _has_hooks(node: Node) -> bool:
    """Whether somebody else is told of what a node sends, and may change it."""
    handle = node.register_hook(lambda sent, arrived: None)
    hooks = handle.hooks_dict_ref()
    handle.remove()
    return bool(hooks)


def _is_sum(arrived: Tensor, sent: Sequence[Tensor]) -> bool:
    if len(sent) == 1 and sent[0] is arrived:
        return True
    if not sent or any(part.shape != arrived.shape for part in sent):
        return False
    total = functools.reduce(torch.add, sent)
    if torch.equal(arrived, total):  # autograd adds in the order of sending, mostly; else there is rounding
        return True
    rounding = 4 * len(sent) * torch.finfo(arrived.dtype).eps * sum(part.abs() for part in sent)
    return bool(((arrived - total).abs() <= rounding).all())


_ByLeaf = dict[Node, list[Contribution]]


def _sent(
    found: Survey, paths: SamplePaths, arrived: Mapping[Edge, Tensor], owners: Owners, precision: torch.dtype
) -> _ByLeaf | None:
    """What each task sends to each parameter, by its accumulating node."""
    sent: _ByLeaf = {}
    for edge, position in paths.lost:
        if edge not in arrived:
            continue
        gradient = arrived[edge].to(torch.promote_types(arrived[edge].dtype, precision))
        following = edge[0].next_functions[position]
        here = sent_to(Arrived(edge[0], gradient, paths.axes[edge], owners), position, shape_at(following))
        if here is None or not _follow(found, paths, following, here, sent):
            return None
    plain = all(not leaf.variable._backward_hooks and not leaf.variable.is_complex() for leaf in sent)
    return sent if plain else None


def _follow(found: Survey, paths: SamplePaths, edge: Edge, here: Contribution, sent: _ByLeaf) -> bool:
    """To the parameters that an input of a layer is, or is computed from; whether that was possible."""
    node, turned = edge[0], False
    while node.name() in ("TBackward0", "ToCopyBackward0"):
        turned ^= node.name() == "TBackward0"
        node = node.next_functions[0][0]
    if hasattr(node, "variable"):
        if turned and isinstance(here, TableRows):
            return False
        turn = here.mT if isinstance(here, Tensor) else here.transposed() if isinstance(here, Outer) else here
        sent.setdefault(node, []).append(turn if turned else here)
        return True
    below = list(nodes_below([edge[0]]))
    if isinstance(here, TableRows) or len(below) > _LARGEST_WEIGHT or len(found.consumers[edge[0]]) > 1:
        return False
    on_the_way = {each for each, _ in paths.axes}  # there samples meet, as at the mean over a batch
    if any(each in on_the_way or _has_hooks(each) for each in below):
        return False
    leaves = {each.variable: each for each in below if getattr(each, "variable", None) in found.leaves}
    return _computed(edge, leaves, here.formed() if isinstance(here, Outer) else here, sent)


def _computed(edge: Edge, leaves: Mapping[Tensor, Node], gradients: Tensor, sent: _ByLeaf) -> bool:
    """Through what a weight is computed by, task by task; it is small."""
    dtype = edge[0]._input_metadata[edge[1]].dtype
    rows: list[list[Tensor]] = [[] for _ in leaves]
    for gradient in gradients:
        found = grad([GradientEdge(*edge)], list(leaves), [gradient.to(dtype)], retain_graph=True)
        for row, parameter, each in zip(rows, leaves, found, strict=True):
            row.append((torch.zeros_like(parameter) if each is None else each).to(gradients.dtype))
    for leaf, row in zip(leaves.values(), rows, strict=True):
        sent.setdefault(leaf, []).append(torch.stack(row))
    return True


def _gramian(parts: Sequence[Contribution], tasks: int) -> Tensor | None:
    """Of one parameter, to which several layers may send."""
    if tables := [part for part in parts if isinstance(part, TableRows)]:
        return _table_gramian(tables, tasks) if len(tables) == len(parts) else None
    if len(parts) == 1 and isinstance(parts[0], Outer) and (products := parts[0].gramian()) is not None:
        return products
    formed = [part.formed() if isinstance(part, Outer) else part for part in parts if not isinstance(part, TableRows)]
    flat = functools.reduce(torch.add, [each.to(formed[0]) for each in formed]).reshape(tasks, -1)
    return inner_products(flat, flat)


def _table_gramian(parts: Sequence[TableRows], tasks: int) -> Tensor:
    """Gradients of equal ids add up, others are orthogonal; only the table's rows that occur are formed."""
    occurring, places = torch.unique(torch.cat([part.ids for part in parts]), return_inverse=True)
    rows, sent = torch.cat([part.rows for part in parts]), torch.cat([part.sent for part in parts])
    summed = sent.new_zeros(tasks * len(occurring), sent.shape[1])
    flat = summed.index_add_(0, rows * len(occurring) + places, sent).view(tasks, -1)
    return inner_products(flat, flat)
