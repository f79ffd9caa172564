"""Features are a tensor or a tuple of tensors [N, ...]; what architectures do with either."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from steelyard.problems.rows import Draw

if TYPE_CHECKING:
    from steelyard.problems.problem import Problem

Features = Tensor | tuple[Tensor, ...]


def run(module: nn.Module, inputs: Features) -> Any:
    """A trunk, or its first stage, takes a tuple of inputs as several arguments, and a mapping of them by name."""
    if isinstance(inputs, Mapping):  # what a tokenizer gives
        return module(**{str(name): value for name, value in inputs.items()})
    return module(*inputs) if isinstance(inputs, tuple) and not isinstance(inputs, PackedSequence) else module(inputs)


def parts(features: Features) -> tuple[Tensor, ...]:
    """The tensors, be it one, several, or several by name; a balancer's ``shared=`` is a flat tuple of them."""
    if isinstance(features, Mapping):
        return tuple(features.values())
    return (features,) if isinstance(features, Tensor) else tuple(features)


def stack(features: Sequence[Features]) -> Features:
    """E features [N, ...] -> [E, N, ...]."""
    if isinstance(features[0], Tensor):
        return torch.stack([tensor for tensor in features if isinstance(tensor, Tensor)])
    return tuple(torch.stack(tensors) for tensors in zip(*features, strict=True))


def each(change: Callable[..., Tensor], *features: Features) -> Features:
    """Apply a function to the tensor, or to every tensor of the tuple."""
    if isinstance(features[0], Tensor):
        return change(*features)
    return tuple(change(*tensors) for tensors in zip(*features, strict=True))


def mix(weights: Tensor, stacked: Features) -> Features:
    """``Σ_e w_e f_e``: weights [E] or, by row, [N, E]; stacked features [E, N, ...] -> [N, ...]."""
    equation = "e,e...->..." if weights.dim() == 1 else "ne,en...->n..."
    return each(lambda tensor: torch.einsum(equation, weights, tensor), stacked)


def pick(stacked: Features, places: slice | list[int]) -> Features:
    """Some of the experts: [E, N, ...] -> [e, N, ...]."""
    return each(lambda tensor: tensor[places], stacked)


def join(first: Features, second: Features) -> Features:
    """[E, N, ...] and [F, N, ...] -> [E + F, N, ...]."""
    return each(lambda *tensors: torch.cat(tensors), first, second)


def tap(features: Features) -> Features:
    """A copy for the tasks to read while the trunk goes on with the original.

    Where tasks read a trunk at several depths, the tensors there feed one another; their taps do not, so that
    together they are what a balancer may take as ``shared=``. (A view would do, but not under an in-place activation.)
    """
    return each(lambda tensor: _Tap.apply(tensor, tensor), features)  # type: ignore[no-untyped-call]


class _Tap(torch.autograd.Function):
    """A copy whose node has two inputs: a reader of the graph that looks past what one task alone does to features
    (a view) takes it for the end of the trunk, which it is."""

    @staticmethod
    def forward(features: Tensor, same: Tensor) -> Tensor:
        return features.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, None


def flat(features: Features) -> Tensor:
    """One row of numbers per row of the batch: [N, ...] -> [N, width]."""
    return torch.cat([tensor.flatten(1) for tensor in parts(features)], dim=1)


def sample_inputs(problem: Problem) -> Features:
    """Two rows of the training data as the trunk gets them, to learn shapes from."""
    train = problem.data().train
    (batch,) = train.reader(ahead=False)([Draw(torch.arange(min(2, len(train))), seed=0)])
    with torch.random.fork_rng(devices=[]):  # prepare may augment
        return problem.prepare(batch.inputs)


def trace(stages: Sequence[nn.Module], inputs: Features) -> list[Features]:
    """What each stage puts out, one after the other; the stages are left in evaluation mode."""
    outputs = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for stage in stages:
            inputs = run(stage.eval(), inputs)
            outputs.append(inputs)
    return outputs
