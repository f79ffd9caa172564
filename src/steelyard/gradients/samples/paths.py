"""Where the samples of a batch lie in what a backward pass sends through a network, and whether it keeps them apart.

A network that treats its samples one by one sends each sample's part of a gradient to that sample's part of the layer
before. Whether it does is seen from the operations in the graph, each of which is known here or is not; what mixes
samples (batch norm in training, attention over the batch) and what is not known end the walk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from steelyard.gradients.graph import TRUNK, Edge, Node, Survey

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """Element ``i`` of a tensor, counted in row-major order, belongs to sample ``(i // stride) % samples``.

    So a batch that is flattened with its time steps, or split into attention heads, keeps its axis.
    """

    samples: int
    stride: int

    def within(self, shape: Shape) -> tuple[int, int] | None:
        """The dimension in which all samples lie, and how many places in a row each has there; ``None``: in several."""
        after = math.prod(shape)
        for dim, size in enumerate(shape):
            after //= max(size, 1)
            inner = self.stride // max(after, 1)
            if inner and inner * after == self.stride and size and size % (inner * self.samples) == 0:
                return dim, inner
        return None


@dataclass(frozen=True)
class SamplePaths:
    """The way of each sample's gradient through a network that keeps samples apart.

    Attributes:
        axes: where samples lie in what arrives at each edge.
        lost: inputs of nodes that all samples meet in (weights, biases), by node and position.
    """

    axes: Mapping[Edge, Axis]
    lost: tuple[tuple[Edge, int], ...]


@dataclass(frozen=True)
class _Passage:
    """From one output of a node back to one of its inputs.

    Attributes:
        dim, inner: where the samples lie in the output's shape.
    """

    node: Node
    position: int
    axis: Axis
    output: Shape
    input: Shape
    dim: int
    inner: int

    def to(self, dim: int) -> Axis | None:
        """The axis, where the output's dimension with the samples is this one of the input."""
        if not 0 <= dim < len(self.input) or self.input[dim] != self.output[self.dim]:
            return None
        return Axis(self.axis.samples, math.prod(self.input[dim + 1 :]) * self.inner)


def sample_paths(found: Survey, start: Edge) -> SamplePaths | None:
    """Follow the samples along the first dimension of what arrives at an edge down to the trunk's parameters.

    ``None`` where an operation on the way has more than one sample's part in what it sends back, or may have.
    """
    shape = shape_at(start)
    if not shape or shape[0] < 2:
        return None
    axes: dict[Edge, Axis] = {start: Axis(shape[0], math.prod(shape[1:]))}
    lost: list[tuple[Edge, int]] = []
    stack = [start]
    while stack:
        edge = stack.pop()
        node, axis = edge[0], axes[edge]
        for position, following in enumerate(node.next_functions):
            if following[0] is None or not found.leads_to[following[0]] & TRUNK:
                continue
            onward = None if hasattr(following[0], "variable") else _onward(edge, position, axis, shape_at(following))
            if onward is None:
                lost.append((edge, position))
            elif following not in axes:
                axes[following] = onward
                stack.append(following)
            elif axes[following] != onward:
                return None
    return SamplePaths(axes, tuple(lost))


def shape_at(edge: Edge) -> Shape:
    """The shape of what arrives."""
    node, output = edge
    return tuple(int(length) for length in node._input_metadata[output].shape)


def _onward(edge: Edge, position: int, axis: Axis, shape: Shape) -> Axis | None:
    rule = _RULES.get(operation(edge[0]))
    output = shape_at(edge)
    place = axis.within(output)
    if rule is None or place is None:
        return None
    return rule(_Passage(edge[0], position, axis, output, shape, *place))


def operation(node: Node) -> str:
    """The name of one of torch's operations, as its node has it; empty for a function of somebody else, of any name."""
    name: str = node.name()
    return name.rpartition("Backward")[0] if name[-1].isdigit() else ""


def _elementwise(passage: _Passage) -> Axis | None:
    """Dimensions that are not there, or of length 1, are spread."""
    return passage.to(passage.dim - (len(passage.output) - len(passage.input)))


def _reshaped(passage: _Passage) -> Axis | None:
    return passage.axis if math.prod(passage.input) == math.prod(passage.output) else None


def _transposed(passage: _Passage) -> Axis | None:
    if passage.node.name() == "TBackward0":
        return passage.to(len(passage.output) - 1 - passage.dim)
    pair = [_dim(passage.node._saved_dim0, passage.output), _dim(passage.node._saved_dim1, passage.output)]
    return passage.to(pair[1 - pair.index(passage.dim)] if passage.dim in pair else passage.dim)


def _permuted(passage: _Passage) -> Axis | None:
    return passage.to(_dim(passage.node._saved_dims[passage.dim], passage.output))


def _along(passage: _Passage) -> Axis | None:
    """Something happens along one dimension, and all others stay."""
    return None if passage.dim == _dim(passage.node._saved_dim, passage.output) else passage.to(passage.dim)


def _one_dim_less(passage: _Passage) -> Axis | None:
    """The output lacks one dimension of the input."""
    return passage.to(passage.dim + (passage.dim >= _dim(passage.node._saved_dim, passage.input)))


def _one_dim_more(passage: _Passage) -> Axis | None:
    dim = _dim(passage.node._saved_dim, passage.output)
    return None if passage.dim == dim else passage.to(passage.dim - (passage.dim > dim))


def _reduced(passage: _Passage) -> Axis | None:
    saved = getattr(passage.node, "_saved_dim", None)
    if saved is None:
        return None
    gone = {_dim(dim, passage.input) for dim in (saved if isinstance(saved, tuple) else (saved,))}
    if passage.node._saved_keepdim:
        return None if passage.dim in gone else passage.to(passage.dim)
    left = [dim for dim in range(len(passage.input)) if dim not in gone]
    return passage.to(left[passage.dim]) if len(left) == len(passage.output) else None


def _before_last(places: int) -> Callable[[_Passage], Axis | None]:
    """Dimensions before the last few stay."""
    return lambda passage: passage.to(passage.dim) if passage.dim < len(passage.output) - places else None


def _padded(passage: _Passage) -> Axis | None:
    return _before_last(len(passage.node._saved_pad) // 2)(passage)


def _first(*positions: int) -> Callable[[_Passage], Axis | None]:
    """Samples in the first dimension of the output stay there in these inputs."""
    return lambda passage: passage.to(0) if passage.dim == 0 and passage.position in positions else None


def _addmm(passage: _Passage) -> Axis | None:
    return _elementwise(passage) if passage.position == 0 else _first(1)(passage)


def _baddbmm(passage: _Passage) -> Axis | None:
    return _elementwise(passage) if passage.position == 0 else _first(1, 2)(passage)


def _attention(passage: _Passage) -> Axis | None:
    return passage.to(passage.dim) if passage.position < 3 and len(passage.output) == 4 and passage.dim < 2 else None


def _layer_norm(passage: _Passage) -> Axis | None:
    return _before_last(len(passage.node._saved_normalized_shape))(passage) if passage.position == 0 else None


def _batch_norm(passage: _Passage) -> Axis | None:
    """In training a sample's gradient goes to the whole batch."""
    return passage.to(passage.dim) if passage.position == 0 and passage.node._saved_training is False else None


def _dim(saved: int, shape: Shape) -> int:
    """A dimension as nodes keep it: negative ones as the user gave them, unsigned."""
    return (saved - 2**64 if saved >= 2**63 else saved) % max(len(shape), 1)


_ELEMENTWISE = (
    *("Abs", "Add", "Sub", "Mul", "Div", "Neg", "Pow", "Exp", "Expm1", "Log", "Log1P", "Log2", "Sqrt", "Rsqrt"),
    *("Reciprocal", "Sin", "Cos", "Tanh", "Sigmoid", "Relu", "Gelu", "Silu", "Mish", "Elu", "LeakyRelu", "Softplus"),
    *("Hardtanh", "Hardswish", "Hardsigmoid", "Threshold", "Clamp", "ClampMin", "ClampMax", "LogSigmoid", "Erf"),
    *("NativeDropout", "MaskedFill", "Where", "ToCopy", "Clone", "Maximum", "Minimum", "Expand"),
)
_RESHAPED = ("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Alias")
_RULES: dict[str, Callable[[_Passage], Axis | None]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_RESHAPED, _reshaped),
    **dict.fromkeys(("T", "Transpose"), _transposed),
    "Permute": _permuted,
    **dict.fromkeys(("Softmax", "SafeSoftmax", "LogSoftmax", "Cumsum", "Glu", "Cat", "Slice"), _along),
    **dict.fromkeys(("Split", "UnsafeSplit", "SplitWithSizes"), _along),
    **dict.fromkeys(("Select", "Unbind"), _one_dim_less),
    "Stack": _one_dim_more,
    **dict.fromkeys(("Sum", "Mean", "Amax", "Amin", "Max", "Min"), _reduced),
    **dict.fromkeys(("AvgPool2D", "AdaptiveAvgPool2D", "MaxPool2DWithIndices"), _before_last(2)),
    **dict.fromkeys(("UpsampleNearest2D", "UpsampleBilinear2D", "UpsampleBicubic2D"), _before_last(2)),
    **dict.fromkeys(("AvgPool3D", "AdaptiveAvgPool3D", "MaxPool3DWithIndices", "UpsampleNearest3D"), _before_last(3)),
    "UpsampleNearest1D": _before_last(1),
    "ConstantPadNd": _padded,
    "Convolution": _first(0),
    "NativeGroupNorm": _first(0),
    "Mm": _first(0),
    "Addmm": _addmm,
    "Bmm": _first(0, 1),
    "Baddbmm": _baddbmm,
    **dict.fromkeys(
        (
            "ScaledDotProductFlashAttentionForCpu",
            "ScaledDotProductFlashAttention",
            "ScaledDotProductEfficientAttention",
            "ScaledDotProductCudnnAttention",
        ),
        _attention,
    ),
    "NativeLayerNorm": _layer_norm,
    **dict.fromkeys(("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"), _batch_norm),
}
"""What is known to treat the samples one by one, and where it leaves them."""
