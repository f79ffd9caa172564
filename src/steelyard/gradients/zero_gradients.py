"""Losses that are left out of a step: out of the graph, while whoever waits for their gradients is served.

An input of the scalar that receives nothing would not do: compiled functions, losses that make their gradient in the
forward pass and reentrant checkpointing make zeros of nothing, and 0 · NaN is NaN in every parameter. So a loss that is
left out is no input at all. Data-parallel wrappers wait for every parameter on every rank, though: parameters that no
other loss reaches receive exact zeros, themselves and not through that graph.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from steelyard.gradients.graph import REENTRANT, Node, nodes_below


def only_reached_by(left_out: Sequence[Tensor], kept: Sequence[Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
    """The parameters that no kept loss reaches, each with a zero gradient (sparse, where it expects a sparse one).

    Cost: a walk of the losses' graphs, about a microsecond a node.
    """
    reached = list(nodes_below(_roots(kept)))
    served = {id(parameter) for node in reached for parameter in _inside(node)}
    found: dict[int, tuple[nn.Parameter, Tensor]] = {}
    sparse: set[Node] = set()
    for node in nodes_below(_roots(left_out), reached):
        if getattr(node, "_saved_sparse", False):
            sparse.add(node.next_functions[0][0])
        inside = [each for each in _inside(node) if id(each) not in served]
        variable = getattr(node, "variable", None)
        for parameter in [*inside, *([variable] if isinstance(variable, nn.Parameter) else [])]:
            found[id(parameter)] = parameter, _zero(parameter, node in sparse)
    return list(found.values())


def fully_sharded() -> bool:
    """Whether this process trains with `fully_shard`, whose hooks exchange parameters as the graph is walked."""
    module = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(module, "FSDPModule", None)
    return kind is not None and bool(kind.__subclasses__())


def _roots(losses: Iterable[Tensor]) -> list[Node]:
    return [get_gradient_edge(loss).node for loss in losses]


def _zero(parameter: Tensor, sparse: bool) -> Tensor:
    if not sparse:
        return torch.zeros_like(parameter)
    width = parameter.shape[1:]
    indices = torch.zeros(1, 0, dtype=torch.long, device=parameter.device)
    return torch.sparse_coo_tensor(indices, parameter.new_zeros(0, *width), parameter.shape)


def _inside(node: Node) -> Iterator[nn.Parameter]:
    """The parameters that reentrant checkpointing hides: those of the modules that its function calls."""
    if node.name() == REENTRANT:
        for module in _modules(node.run_function):
            yield from (parameter for parameter in module.parameters() if parameter.requires_grad)


def _modules(function: Any) -> Iterator[nn.Module]:
    """The modules that a function is, is bound to, or holds."""
    if isinstance(function, nn.Module):
        yield function
    elif isinstance(function, functools.partial):
        for held in (function.func, *function.args, *function.keywords.values()):
            yield from _modules(held)
    else:
        if isinstance(bound := getattr(function, "__self__", None), nn.Module):
            yield bound
        for cell in getattr(function, "__closure__", None) or ():
            yield from _modules(cell.cell_contents)
