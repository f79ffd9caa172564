"""Tensors whose gradient the user asked to see (`Tensor.retain_grad`): a look leaves it as it was.

torch adds to their ``.grad`` in every backward pass that comes by, and no node tells which tensor it made. Found are
those that are given as ``shared=``, and those that the operation which reads them saves, as they are or as a view of
them: what linear layers, products and norms read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch import Tensor

from steelyard.gradients.graph import Node, nodes_below


@contextmanager
def left_as_it_was(retaining: Sequence[Tensor]) -> Iterator[None]:
    """The ``.grad`` of these tensors is afterwards what it was before, errors included."""
    before = [(tensor, tensor.grad) for tensor in retaining]
    try:
        yield
    finally:
        for tensor, gradient in before:
            tensor.grad = gradient


def retaining(shared: Any) -> list[Tensor]:
    """Those of what is given as ``shared=``; iterators are not touched, since they hold parameters."""
    parts = shared if isinstance(shared, list | tuple) else (shared,)
    return [each for each in parts if isinstance(each, Tensor) and each.retains_grad]


def retaining_below(losses: Iterable[Tensor]) -> list[Tensor]:
    """Those that operations save on the way from the losses to their parameters."""
    return retaining_among(nodes_below([loss.grad_fn for loss in losses]))


def retaining_among(nodes: Iterable[Node]) -> list[Tensor]:
    """Those that some nodes save; half a microsecond a node."""
    found: list[Tensor] = []
    for node in nodes:
        for raw, name in _inputs(type(node)):  # type: ignore[arg-type]
            held = getattr(node, raw)
            if getattr(held, "unpack_hook", held) is not None:
                continue  # unpacking would recompute a checkpointed block, or bring back what was offloaded
            saved = getattr(node, name)
            if saved is None:
                continue
            if saved.retains_grad:
                found.append(saved)
            if (base := saved._base) is not None and base.retains_grad:
                found.append(base)
    return found


@cache
def _inputs(kind: type[Any]) -> tuple[tuple[str, str], ...]:
    """The names under which nodes of a kind hold what their operations read; what these made comes as a copy."""
    raw = [name for name in dir(kind) if name.startswith("_raw_saved_") and not name.startswith("_raw_saved_result")]
    return tuple((name, name.removeprefix("_raw")) for name in raw if name != "_raw_saved_tensors")
