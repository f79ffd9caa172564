"""Gramians of one layer's task gradients, without forming those gradients where that is cheaper.

A formula is registered for the autograd node that the layer leaves in the graph. It names the parameters it covers
and turns the gradients that arrive at the node's output into ``⟨g_i, g_j⟩`` over those parameters::

    @gramian_of("AddmmBackward0")
    def linear_with_bias(node): ...

Names of nodes and of what they save are private to torch, so everything that knows them is in this file; a node that
is not known here, or that does not look as expected, falls back to autograd on its own parameters.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from steelyard.gradients.graph import Node, held_elsewhere


@dataclass(frozen=True)
class Match:
    """One use of a layer in the graph.

    Attributes:
        leaves: the accumulating nodes of the parameters that the formula covers, in the formula's order.
        through: nodes between the layer's node and those leaves (the transposition of a weight, autocast's cast of it),
            which belong to it.
        inputs: what the formula needs of the forward pass.
        node: the layer's node, for formulas that need its settings.
    """

    leaves: tuple[Node, ...]
    through: tuple[Node, ...]
    inputs: tuple[Tensor, ...]
    node: Node = None


Find = Callable[[Node], Match | None]
Uses = Sequence[Match]


@dataclass(frozen=True)
class Formula:
    """How a kind of layer makes its Gramian.

    Attributes:
        gramian: ``gramian(uses, output gradients [T, …] of each use) -> [T, T]`` float64.
        worth: ``worth(uses, T)``, whether that is cheaper than autograd's own gradients of these parameters.
        bias: whether the leaves after the first are biases, which the formula leaves out where they are not there.
        as_linear: ``as_linear(uses, output gradients) -> (A, D)`` where the Gramian is that of a linear layer,
            ``⟨D_i, (AAᵀ) D_j⟩`` with a 1 added for a bias; then tasks may be read some at a time.
    """

    gramian: Callable[[Uses, Sequence[Tensor]], Tensor]
    worth: Callable[[Uses, int], bool]
    bias: bool = False
    as_linear: Callable[[Uses, Sequence[Tensor]], tuple[Tensor, Tensor]] | None = None

    def asked(self, found: Match, accumulating: Container[Node]) -> Match:
        """The use without a bias that nobody asked for."""
        first, *others = found.leaves
        if not self.bias or not others or all(leaf in accumulating for leaf in others):
            return found
        return replace(found, leaves=(first, *(leaf for leaf in others if leaf in accumulating)))


_FORMULAS: dict[str, tuple[tuple[Find, Formula], ...]] = {}


def gramian_of(node_name: str, formula: Formula) -> Callable[[Find], Find]:
    """Register a layer: the decorated function recognises its node, ``formula`` makes the Gramian.

    Of several with the same node the one registered last is asked first.

    Example:
        >>> from steelyard.gradients.layers import Formula, Match, gramian_of
        >>> def products(uses, gradients):  # of y = x * weight: the weight's gradient is the sum of x D over the rows
        ...     rows = sum((use.inputs[0] * D).flatten(1, -2).sum(1) for use, D in zip(uses, gradients))
        ...     return (rows @ rows.T).double()
        >>> @gramian_of("ScaleByWeightBackward", Formula(products, worth=lambda uses, tasks: True))
        ... def scale(node):
        ...     _, (weight, _) = node.next_functions
        ...     return Match(leaves=(weight,), through=(), inputs=(node.saved_tensors[0],))
    """

    def register(find: Find) -> Find:
        _FORMULAS[node_name] = ((find, formula), *_FORMULAS.get(node_name, ()))
        return find

    return register


def match(node: Node) -> tuple[Match, Formula] | None:
    """The registered layer behind a node, if it is one and looks as expected."""
    entries = _FORMULAS.get(node.name())
    if entries is None or held_elsewhere(node) is not None:  # to read its input would run a checkpointed block again
        return None
    return next(((found, formula) for find, formula in entries if (found := find(node)) is not None), None)


_MOST_CANCELLATION = 50.0
"""float32 keeps ``G_ij`` to ``eps`` times this, relative to ``√(G_ii G_jj)``."""
AT_A_TIME = 8
"""Tasks whose products are held at once."""


def _products(A: Tensor, D: Tensor, bias: bool) -> Tensor:
    """``⟨D_iᵀA, D_jᵀA⟩ = ⟨D_i, (AAᵀ) D_j⟩`` for ``A [N, in]`` and ``D [T, N, out]``; a bias adds 1 to ``AAᵀ``.

    Where the samples' gradients cancel (inputs far from zero before a batch norm), formed gradients lose precision
    once and this its square: what float32 cannot hold is done in float64.
    """
    precise = torch.promote_types(torch.promote_types(A.dtype, D.dtype), torch.float32)
    A, D = A.to(precise), D.to(precise)
    K = kernel_of(A, bias)
    total = _product(K, D)
    if precise == torch.float32 and cancels(K, D, total.diagonal()):
        total = _product(kernel_of(A.double(), bias), D.double())
    return total


def kernel_of(A: Tensor, bias: bool) -> Tensor:
    """``AAᵀ``, with a 1 added for a bias."""
    K = A @ A.T
    return K.add_(1) if bias else K


def _product(K: Tensor, D: Tensor) -> Tensor:
    """``⟨D_i, K D_j⟩``; some tasks at a time, so that ``K D`` is never held and each pair is multiplied once."""
    tasks, flat = len(D), D.flatten(1)
    total = flat.new_zeros(tasks, tasks, dtype=torch.float64)
    for start in range(0, tasks, AT_A_TIME):
        part = torch.matmul(K, D[start : start + AT_A_TIME]).flatten(1)
        total[start : start + len(part), start:] = part @ flat[start:].T
        del part  # before the next one comes
    return total.triu() + total.triu(1).T


def cancels(K: Tensor, D: Tensor, squares: Tensor) -> bool:
    """Whether the tasks' squared norms lose what float32 should hold: each against the sum of its samples' own.

    That sum is the diagonal if no two samples met; it is no more than the longest input with all of the gradient, which
    is cheaper to know and mostly enough.
    """
    kept, lengths = _MOST_CANCELLATION * squares, K.diagonal().double()
    most = lengths.max() * torch.linalg.vector_norm(D.flatten(1), dim=1).double().square()
    if not bool((most > kept).any()):
        return False
    samples = torch.linalg.vector_norm(D, dim=2).double().square()
    return bool((samples @ lengths > kept).any())


def _products_are_worth(rows: int, inputs: int, outputs: int, tasks: int) -> bool:
    """``N² (in + T out) + T² N out`` multiplications, against ``T N in out + T² in out`` for ``T`` weight gradients."""
    by_products = rows * rows * (inputs + tasks * outputs) + tasks * tasks * rows * outputs
    by_gradients = tasks * rows * inputs * outputs + tasks * tasks * inputs * outputs
    return by_products < by_gradients


def _linear(uses: Uses, gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Uses of one weight add up, which is the same as one use on all rows."""
    A = _joined([use.inputs[0] for use in uses], 0)
    return A, _joined([gradient.flatten(1, -2) for gradient in gradients], 1)


def _linear_gramian(uses: Uses, gradients: Sequence[Tensor]) -> Tensor:
    return _products(*_linear(uses, gradients), bias=len(uses[0].leaves) > 1)


def _linear_worth(uses: Uses, tasks: int) -> bool:
    rows, width = sum(len(use.inputs[0]) for use in uses), uses[0].inputs[0].shape[1]
    return _products_are_worth(rows, width, _shape(uses[0].leaves[0])[0], tasks)


LINEAR = Formula(_linear_gramian, _linear_worth, bias=True, as_linear=_linear)


def _shape(leaf: Node) -> tuple[int, ...]:
    """The shape of the parameter behind its accumulating node; empty for any other node."""
    variable = getattr(leaf, "variable", None)
    return () if variable is None else tuple(variable.shape)


def _joined(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)


def _source(node: Node, *through: Node) -> tuple[Node, tuple[Node, ...]]:
    """The leaf behind a node, or what else it is made of, and the nodes between: autocast casts a parameter first."""
    if node.name() == "ToCopyBackward0":
        (behind, _), *_ = node.next_functions
        return behind, (*through, node)
    return node, through


def _transposed(node: Node | None) -> tuple[Node, tuple[Node, ...]] | None:
    """The leaf behind the transposition that a linear layer makes of its weight, and the nodes between."""
    if node is None or node.name() != "TBackward0":
        return None
    return _source(node.next_functions[0][0], node)


@gramian_of("AddmmBackward0", LINEAR)
def _linear_with_bias(node: Node) -> Match | None:
    if node._saved_alpha != 1 or node._saved_beta != 1:
        return None
    (bias, _), _, (weight, _) = node.next_functions
    behind, saved = _transposed(weight), node._saved_mat1
    if behind is None or saved is None:
        return None
    leaf, through = behind
    if bias is None:
        return Match((leaf,), through, (saved.detach(),))
    bias, casts = _source(bias)
    if _shape(bias) != _shape(leaf)[:1]:  # a bias that is spread over the rows otherwise
        return None
    return Match((leaf, bias), (*through, *casts), (saved.detach(),))


@gramian_of("MmBackward0", LINEAR)
def _linear_without_bias(node: Node) -> Match | None:
    _, (weight, _) = node.next_functions
    behind, saved = _transposed(weight), node._saved_self
    if behind is None or saved is None:
        return None
    return Match((behind[0],), behind[1], (saved.detach(),))


def _table_gramian(uses: Uses, gradients: Sequence[Tensor]) -> Tensor:
    """Gradients of equal ids add up, others are orthogonal; only the table's rows that occur are formed."""
    lookups = [_lookups(use.node) for use in uses]
    occurring, places = torch.unique(torch.cat([each.ids for each in lookups]), return_inverse=True)
    precise = functools.reduce(torch.promote_types, (gradient.dtype for gradient in gradients), torch.float32)
    tasks, width = len(gradients[0]), gradients[0].shape[-1]  # a single id, without dimensions, brings one row
    summed = gradients[0].new_zeros(tasks, len(occurring), width, dtype=precise)
    for each, place, gradient in zip(
        lookups, places.split([len(each.ids) for each in lookups]), gradients, strict=True
    ):
        for total, D in zip(summed, gradient.reshape(tasks, -1, width).to(precise), strict=True):
            total.index_add_(0, place, each.of(D))  # task by task: a bag's gradient counts once for each of its ids
    flat = summed.flatten(1)
    return (flat @ flat.T).double()


@dataclass(frozen=True)
class _Lookups:
    """Which row of a table received what: ``factor · D[row]``.

    Attributes:
        ids: ``[M]``, of the table's rows.
        rows: ``[M]``, of the gradient that arrives.
        factor: ``[M]``, or ``None`` for ones.
    """

    ids: Tensor
    rows: Tensor
    factor: Tensor | None

    def of(self, D: Tensor) -> Tensor:
        """What each lookup sends to its row of the table, from the gradient ``[rows, width]`` that arrives."""
        sent = D[self.rows]
        return sent if self.factor is None else sent * self.factor.to(sent)[:, None]


_SUM, _MEAN = 0, 1
"""Modes of an `nn.EmbeddingBag`."""


def _lookups(node: Node) -> _Lookups:
    """Without those of the padding, which receives nothing."""
    ids = node._saved_indices.reshape(-1)
    rows = torch.arange(len(ids), device=ids.device)
    kept = ids != node._saved_padding_idx if node._saved_padding_idx < 2**62 else None  # -1 is saved unsigned
    factor = None
    if node.name() == "EmbeddingBagBackward0":
        offsets = node._saved_offsets
        rows = torch.searchsorted(offsets, rows.to(offsets.dtype), right=True) - 1  # the last bag of equal offsets
        if node._saved_mode == _MEAN:
            counted = rows if kept is None else rows[kept]
            factor = 1 / torch.bincount(counted, minlength=len(offsets)).clamp(min=1)[rows].double()
        elif (weights := node._saved_per_sample_weights) is not None:
            factor = weights.detach()
    elif node._saved_scale_grad_by_freq:
        _, place, counts = torch.unique(ids, return_inverse=True, return_counts=True)
        factor = 1 / counts[place].double()
    if kept is None:
        return _Lookups(ids, rows, factor)
    return _Lookups(ids[kept], rows[kept], None if factor is None else factor[kept])


TABLE = Formula(_table_gramian, lambda uses, tasks: True)


@gramian_of("EmbeddingBackward0", TABLE)
def _embedding(node: Node) -> Match | None:
    return Match((node.next_functions[0][0],), (), (), node)


@gramian_of("EmbeddingBagBackward0", TABLE)
def _embedding_bag(node: Node) -> Match | None:
    # The largest number of a bag is another row's for each column, and by what torch divides for frequency differs
    # from one of its kernels to the next: both are left to autograd.
    if node._saved_mode not in (_SUM, _MEAN) or node._saved_scale_grad_by_freq:
        return None
    return Match((node.next_functions[0][0],), (), (), node)


def _on_patches(uses: Uses, gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """A linear layer on patches of the input."""
    A = _joined([_patches(use.inputs[0], use.node) for use in uses], 0)
    return A, _joined([gradient.flatten(3).movedim(2, -1).flatten(1, 2) for gradient in gradients], 1)


def _convolution_gramian(uses: Uses, gradients: Sequence[Tensor]) -> Tensor:
    return _products(*_on_patches(uses, gradients), bias=len(uses[0].leaves) > 1)


def _convolution_worth(uses: Uses, tasks: int) -> bool:
    outer, inner, *kernel = _shape(uses[0].leaves[0])
    rows = sum(len(use.inputs[0]) * math.prod(_positions(use.inputs[0], use.node, kernel)) for use in uses)
    return _products_are_worth(rows, inner * math.prod(kernel), outer, tasks)


def _transposed_gramian(uses: Uses, gradients: Sequence[Tensor]) -> Tensor:
    """A linear layer from the input's positions to patches of the output."""
    A = _joined([use.inputs[0].flatten(2).movedim(1, -1).flatten(0, 1) for use in uses], 0)
    patches = [
        _patches(gradient.flatten(0, 1), use.node, use.inputs[0].shape[2:]).reshape(
            len(gradient), -1, math.prod(_shape(use.leaves[0])[1:])
        )
        for use, gradient in zip(uses, gradients, strict=True)
    ]
    total = _products(A, _joined(patches, 1), bias=False)
    if len(uses[0].leaves) > 1:
        sums = functools.reduce(torch.add, [gradient.flatten(3).double().sum((1, 3)) for gradient in gradients])
        total += sums @ sums.T
    return total


def _transposed_worth(uses: Uses, tasks: int) -> bool:
    inner, outer, *kernel = _shape(uses[0].leaves[0])
    rows = sum(math.prod(use.inputs[0].shape) // inner for use in uses)
    return _products_are_worth(rows, inner, outer * math.prod(kernel), tasks)


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
    leaf, through = _source(weight)
    if not _shape(leaf):
        return None
    if bias is None:
        return Match((leaf,), through, (node._saved_input.detach(),), node)
    bias, casts = _source(bias)
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
