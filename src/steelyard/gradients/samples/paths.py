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
class _Step:
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
    return rule(_Step(edge[0], position, axis, output, shape, *place))


def operation(node: Node) -> str:
    """The name of one of torch's operations, as its node has it; empty for a function of somebody else, of any name."""
    name: str = node.name()
    return name.rpartition("Backward")[0] if name[-1].isdigit() else ""


def _elementwise(step: _Step) -> Axis | None:
    """Dimensions that are not there, or of length 1, are spread."""
    return step.to(step.dim - (len(step.output) - len(step.input)))


def _reshaped(step: _Step) -> Axis | None:
    return step.axis if math.prod(step.input) == math.prod(step.output) else None


def _transposed(step: _Step) -> Axis | None:
    if step.node.name() == "TBackward0":
        return step.to(len(step.output) - 1 - step.dim)
    pair = [_dim(step.node._saved_dim0, step.output), _dim(step.node._saved_dim1, step.output)]
    return step.to(pair[1 - pair.index(step.dim)] if step.dim in pair else step.dim)


def _permuted(step: _Step) -> Axis | None:
    return step.to(_dim(step.node._saved_dims[step.dim], step.output))


def _along(step: _Step) -> Axis | None:
    """Something happens along one dimension, and all others stay."""
    return None if step.dim == _dim(step.node._saved_dim, step.output) else step.to(step.dim)


def _one_dim_less(step: _Step) -> Axis | None:
    """The output lacks one dimension of the input."""
    return step.to(step.dim + (step.dim >= _dim(step.node._saved_dim, step.input)))


def _one_dim_more(step: _Step) -> Axis | None:
    dim = _dim(step.node._saved_dim, step.output)
    return None if step.dim == dim else step.to(step.dim - (step.dim > dim))


def _reduced(step: _Step) -> Axis | None:
    saved = getattr(step.node, "_saved_dim", None)
    if saved is None:
        return None
    gone = {_dim(dim, step.input) for dim in (saved if isinstance(saved, tuple) else (saved,))}
    if step.node._saved_keepdim:
        return None if step.dim in gone else step.to(step.dim)
    left = [dim for dim in range(len(step.input)) if dim not in gone]
    return step.to(left[step.dim]) if len(left) == len(step.output) else None


def _before_last(places: int) -> Callable[[_Step], Axis | None]:
    """Dimensions before the last few stay."""
    return lambda step: step.to(step.dim) if step.dim < len(step.output) - places else None


def _padded(step: _Step) -> Axis | None:
    return _before_last(len(step.node._saved_pad) // 2)(step)


def _first(*positions: int) -> Callable[[_Step], Axis | None]:
    """Samples in the first dimension of the output stay there in these inputs."""
    return lambda step: step.to(0) if step.dim == 0 and step.position in positions else None


def _addmm(step: _Step) -> Axis | None:
    return _elementwise(step) if step.position == 0 else _first(1)(step)


def _baddbmm(step: _Step) -> Axis | None:
    return _elementwise(step) if step.position == 0 else _first(1, 2)(step)


def _attention(step: _Step) -> Axis | None:
    return step.to(step.dim) if step.position < 3 and len(step.output) == 4 and step.dim < 2 else None


def _layer_norm(step: _Step) -> Axis | None:
    return _before_last(len(step.node._saved_normalized_shape))(step) if step.position == 0 else None


def _batch_norm(step: _Step) -> Axis | None:
    """In training a sample's gradient goes to the whole batch."""
    return step.to(step.dim) if step.position == 0 and step.node._saved_training is False else None


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
_RULES: dict[str, Callable[[_Step], Axis | None]] = {
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
