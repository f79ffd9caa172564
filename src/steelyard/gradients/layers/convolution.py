"""Convolutions and transposed convolutions: linear layers on patches."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from steelyard.base.float64 import double
from steelyard.gradients.graph import Node
from steelyard.gradients.layers.formula import Formula, Match, Uses, gramian_of, joined, shape_of, source_of
from steelyard.gradients.layers.products import products, products_are_worth


def _on_patches(uses: Uses, gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """A linear layer on patches of the input."""
    A = joined([_patches(use.inputs[0], use.node) for use in uses], 0)
    return A, joined([gradient.flatten(3).movedim(2, -1).flatten(1, 2) for gradient in gradients], 1)


def _convolution_gramian(uses: Uses, gradients: Sequence[Tensor]) -> Tensor:
    return products(*_on_patches(uses, gradients), bias=len(uses[0].leaves) > 1)


def _convolution_worth(uses: Uses, tasks: int) -> bool:
    outer, inner, *kernel = shape_of(uses[0].leaves[0])
    rows = sum(len(use.inputs[0]) * math.prod(_positions(use.inputs[0], use.node, kernel)) for use in uses)
    return products_are_worth(rows, inner * math.prod(kernel), outer, tasks)


def _transposed_gramian(uses: Uses, gradients: Sequence[Tensor]) -> Tensor:
    """A linear layer from the input's positions to patches of the output."""
    A = joined([use.inputs[0].flatten(2).movedim(1, -1).flatten(0, 1) for use in uses], 0)
    patches = [
        _patches(gradient.flatten(0, 1), use.node, use.inputs[0].shape[2:]).reshape(
            len(gradient), -1, math.prod(shape_of(use.leaves[0])[1:])
        )
        for use, gradient in zip(uses, gradients, strict=True)
    ]
    total = products(A, joined(patches, 1), bias=False)
    if len(uses[0].leaves) > 1:
        sums = functools.reduce(torch.add, [double(gradient.flatten(3)).sum((1, 3)) for gradient in gradients])
        total += sums @ sums.T
    return total


def _transposed_worth(uses: Uses, tasks: int) -> bool:
    inner, outer, *kernel = shape_of(uses[0].leaves[0])
    rows = sum(math.prod(use.inputs[0].shape) // inner for use in uses)
    return products_are_worth(rows, inner, outer * math.prod(kernel), tasks)


@gramian_of("ConvolutionBackward0", Formula(_convolution_gramian, _convolution_worth, bias=True, as_linear=_on_patches))
def _convolution(node: Node) -> Match | None:
    return None if node._saved_transposed else _kernel(node)


@gramian_of("ConvolutionBackward0", Formula(_transposed_gramian, _transposed_worth, bias=True))
def _transposed_convolution(node: Node) -> Match | None:
    return _kernel(node) if node._saved_transposed else None


def _kernel(node: Node) -> Match | None:
    _, (weight, _), (bias, _) = node.next_functions
    if node._saved_groups != 1 or weight is None:
        return None
    leaf, through = source_of(weight)
    if not shape_of(leaf):
        return None
    if bias is None:
        return Match((leaf,), through, (node._saved_input.detach(),), node)
    bias, casts = source_of(bias)
    return Match((leaf, bias), (*through, *casts), (node._saved_input.detach(),), node)


def _positions(images: Tensor, node: Node, kernel: Sequence[int]) -> list[int]:
    return [
        (length + 2 * padding - dilation * (size - 1) - 1) // stride + 1
        for length, size, (padding, dilation, stride) in zip(
            images.shape[2:], kernel, _settings(node, len(kernel)), strict=True
        )
    ]


def _settings(node: Node, places: int) -> list[tuple[int, int, int]]:
    """Padding, dilation and stride of each dimension; ``padding="valid"`` is saved once for all of them."""
    saved = (node._saved_padding, node._saved_dilation, node._saved_stride)
    return list(zip(*(each * places if len(each) == 1 else each for each in saved), strict=True))


def _patches(images: Tensor, node: Node, positions: Sequence[int] | None = None) -> Tensor:
    """What a convolution sees from each of its positions: ``[N, C, space] -> [N x positions, C x kernel]``.

    ``positions``: no more than these, where ``output_padding`` leaves room for others.
    """
    kernel = node._saved_weight.shape[2:]
    places = len(kernel)
    settings = _settings(node, places)
    seen = nn.functional.pad(images, [padding for padding, _, _ in reversed(settings) for _ in range(2)])
    for place, (size, (_, dilation, stride)) in enumerate(zip(kernel, settings, strict=True), start=2):
        seen = seen.unfold(place, dilation * (size - 1) + 1, stride)[..., ::dilation]
        if positions is not None:
            seen = seen.narrow(place, 0, positions[place - 2])
    # [N, C, positions, kernel] -> [N, positions, C, kernel]
    return seen.movedim(1, 1 + places).flatten(1 + places).flatten(0, places)
