"""One loss differentiated at some places: through float16 without loss, and with named refusals where torch cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from steelyard.base.looks import grad
from steelyard.errors import SharedError
from steelyard.gradients.graph import REENTRANT, Edge, is_compiled, nodes_below

# float16 gradients below 6e-8 vanish before any gradient scaler sees them: looks are seeded high and divided again.
# Powers of two, so that both are exact; float16 itself ends at 65504. What overflows is tried with lower ones.
_SEEDS = (2.0**16, 2.0**8, 1.0, 2.0**-8, 2.0**-16, 2.0**-24)


Received = dict[Edge, Tensor | None]
"""The gradients that nodes received, by edge."""


class HookedEdgeError(Exception):
    """A hook changes the gradient at the edge that a backward pass was to start from, and has done so already."""


def differentiate(
    start: Tensor | GradientEdge,
    inputs: Sequence[Any],
    float16: bool,
    arrived: Tensor | None = None,
    received: Received | None = None,
) -> list[Tensor | None]:
    """The gradients of one loss, ``None`` where it does not depend on an input; the graph is kept.

    Args:
        start: the loss, or an edge at which its gradient has ``arrived`` (not through float16).
        inputs: tensors, or edges of the graph.
        float16: whether it lies in between: then the backward pass starts from 65536, or the next power of two at
            which nothing overflows, and is divided by that in float32.
        received: what is `watched` meanwhile, where some of the edges lie on the way to other inputs.

    Raises:
        SharedError: the graph cannot be looked through; says what to set.
        HookedEdgeError: ``start`` is an edge, and a hook would change what has ``arrived`` there once more.
    """
    if not float16 or not isinstance(start, Tensor):
        return _gradients(start, inputs, arrived, received)
    with unchecked():
        gradients, seed, finite = _from_high(start, inputs, received)
    if not finite and _is_checking():
        _gradients(start, inputs, None, received)  # NaN whatever the seed: torch names the operation
    return [
        None if gradient is None else gradient.to(torch.promote_types(gradient.dtype, torch.float32)) / seed
        for gradient in gradients
    ]


def _from_high(
    start: Tensor, inputs: Sequence[Any], received: Received | None
) -> tuple[list[Tensor | None], float, bool]:
    """The gradients from the highest seed at which they are finite, that seed, and whether there is one."""
    for seed in _SEEDS:
        if seed > torch.finfo(start.dtype).max:
            continue
        gradients = _gradients(start, inputs, torch.full_like(start, seed), received)
        finite = [gradient.isfinite().all() for gradient in gradients if gradient is not None]
        if not finite or bool(torch.stack(finite).all()):
            return gradients, seed, True
    return gradients, seed, False


def _is_checking() -> bool:
    """Whether anomaly detection looks for NaN."""
    return torch.is_anomaly_enabled() and torch.is_anomaly_check_nan_enabled()


@contextmanager
def unchecked() -> Iterator[None]:
    """Without anomaly detection's errors: of what is tried here, NaN may come, and is seen to."""
    if not _is_checking():
        yield
        return
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        yield


def _gradients(
    start: Tensor | GradientEdge, inputs: Sequence[Any], seed: Tensor | None, received: Received | None
) -> list[Tensor | None]:
    outputs: Any = start
    version = 0 if seed is None else seed._version
    if received is not None:
        received.clear()
    try:
        gradients: list[Tensor | None] = list(grad(outputs, inputs, seed, retain_graph=True))
    except RuntimeError as error:
        if "donated buffers" in str(error):
            raise SharedError(
                "a compiled part of the network gives its memory away in its first backward pass, and the look at the "
                "task gradients needs it again: set torch._functorch.config.donated_buffer = False before the first "
                "call of what torch.compile returned"
            ) from error
        if any(
            node.name() == REENTRANT
            for node in nodes_below([start.grad_fn if isinstance(start, Tensor) else start.node])
        ):
            raise refused_reentrant() from error
        raise
    for position, each in enumerate(inputs):
        if isinstance(each, GradientEdge) and received is not None:
            gradients[position] = received.setdefault((each.node, each.output_nr), gradients[position])
    if isinstance(start, GradientEdge) and received is not None and seed is not None:
        begun = received.get((start.node, start.output_nr))
        if begun is not seed or seed._version != version:
            raise HookedEdgeError
    return gradients


@contextmanager
def watched(edges: Sequence[Edge]) -> Iterator[Received]:
    """What the nodes of these edges receive, after every hook on the tensors that they made.

    Asked for the gradient at an edge in the middle of its way, autograd shows it before those hooks; at the end of its
    way, after them, and this shows nothing.
    """
    received: Received = {}

    def watch(edge: Edge) -> Any:
        node, output = edge

        def note(gradients: Sequence[Tensor | None]) -> None:
            received[edge] = gradients[output]

        return node.register_prehook(note)

    handles = [watch(edge) for edge in dict.fromkeys(edges)]
    try:
        yield received
    finally:
        for handle in handles:
            handle.remove()


def refused_reentrant() -> SharedError:
    """Such a block hides its parameters from the graph, and torch forbids to look through it."""
    return SharedError(
        "gradients cannot be read through reentrant activation checkpointing, which hides its parameters from the "
        "graph: call torch.utils.checkpoint.checkpoint(..., use_reentrant=False), or pass as shared= the tensor that "
        "the task heads read, with no checkpointing behind it"
    )


def refused_compiled_whole() -> SharedError:
    """Inside one compiled function there is no edge between trunk and heads."""
    return SharedError(
        "trunk and heads were compiled as one function, in which the graph shows no place between them: compile them "
        "apart (torch.compile(trunk), torch.compile(head), or so with torch.jit.script), or pass shared=trunk to a "
        "method with heads='weighted'"
    )


def compiled_whole(losses: Sequence[Tensor], tensors: Sequence[Tensor]) -> bool:
    """Whether the function that makes the features is the one that the losses come through."""
    makers = {tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None and is_compiled(tensor.grad_fn)}
    return bool(makers) and any(node in makers for node in nodes_below([loss.grad_fn for loss in losses]))
