"""What a method sees of one step, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

Reads = Literal["losses", "norms", "gramian", "cross_gramian", "rows", "lookahead", "along"]
"""What a method needs to know of a step, in order of cost; ``"along"`` it hears of it when it is taken, see `Along`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The present tasks of one step; every tensor is float64 and detached. ``T`` counts the *present* tasks, with a
    memory those that are remembered too.

    Attributes:
        tasks: their names, in the balancer's order.
        losses: ``[T]``.
        counts: ``[T]``, labels behind each loss; ones where the caller gave none.
        squared_norms: ``[T]``, squared norms of the task gradients, for methods that read ``norms`` or more.
        gramian: ``[T, T]``, inner products of the task gradients, for methods that read the ``gramian`` or more.
        cross_gramian: ``[T, T]``, inner products of the rows of two independent probe batches, ``J₁ J₂ᵀ``.
        rows: ``[T, P]`` in float32 or better, the task gradients themselves, for methods that read ``rows``.
        reached: ``[T, n]``, where rows are read at a trunk of ``n`` parameters: the numbers in each that the loss
            depends on, all of them or none. Gradients that are zero by chance count, a parameter that the loss does not
            use does not; zero for a task that is remembered from another batch. ``None``: nobody knows.
        features: the tensors that the heads read, detached, for methods that read ``rows`` at features.
        outlook: ``[T]``, what `Method.look_ahead` found, for methods that read the ``lookahead``; over several
            micro-batches NaN for a task that was in none of which it found anything.
        over_ranks: the sum of a tensor over the ranks that share the batch; ``None``: there is but one.

    Example:
        >>> gramian = torch.tensor([[1.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
        >>> losses = torch.tensor([1.0, 3.0], dtype=torch.float64)
        >>> seen = steelyard.Seen(("a", "b"), losses, torch.ones(2), gramian.diagonal(), gramian)
        >>> steelyard.MGDA(["a", "b"]).weigh(seen, steelyard.MGDA(["a", "b"]).working_state())
        tensor([0.9000, 0.1000], dtype=torch.float64)
    """

    tasks: tuple[str, ...]
    losses: Tensor
    counts: Tensor
    squared_norms: Tensor | None = None
    gramian: Tensor | None = None
    cross_gramian: Tensor | None = None
    rows: Tensor | None = None
    features: tuple[Tensor, ...] | None = None
    outlook: Tensor | None = None
    over_ranks: Callable[[Tensor], Tensor] | None = None
    reached: Tensor | None = None

    def batch_sum(self, values: Tensor) -> Tensor:
        """The sum of ``[T, B, …]`` over the batch, that of all ranks."""
        local = values.sum(1)
        return local if self.over_ranks is None else self.over_ranks(local)

    @property
    def norms(self) -> Tensor:
        """``[T]``, norms of the task gradients."""
        assert self.squared_norms is not None, "the method reads norms without declaring it in `reads`"
        return self.squared_norms.sqrt()

    def transformed(self, losses: Tensor, factor: Tensor | None) -> Seen:
        """The same step seen through loss stages: task gradients scale by ``factor = d stage(L) / dL``.

        A look ahead has stepped along the scaled gradients already.
        """
        if factor is None:
            return self
        return replace(
            self,
            losses=losses,
            squared_norms=None if self.squared_norms is None else self.squared_norms * factor**2,
            gramian=None if self.gramian is None else self.gramian * factor[:, None] * factor,
            cross_gramian=None if self.cross_gramian is None else self.cross_gramian * factor[:, None] * factor,
            rows=None if self.rows is None else self.rows * factor[:, None].to(self.rows),
        )


@dataclass(frozen=True, slots=True)
class Along:
    """How fast every loss falls along the direction of one step, ``d = Σ_k w_k g_k``, seen through the stages.

    Attributes:
        tasks: the present ones.
        products: ``[T]``, ``⟨g_k, d⟩``; that is ``G w``.
        weights: ``[T]``, ``w``, the multipliers that were sent.
        losses: ``[T]``.

    Example:
        >>> from steelyard.base.observation import Along
        >>> gramian = torch.tensor([[1.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
        >>> weights = torch.tensor([0.5, 0.5], dtype=torch.float64)
        >>> Along(("a", "b"), gramian @ weights, weights, torch.ones(2)).squared_length
        tensor(2.5000, dtype=torch.float64)
    """

    tasks: tuple[str, ...]
    products: Tensor
    weights: Tensor
    losses: Tensor

    @property
    def squared_length(self) -> Tensor:
        """``‖d‖² = wᵀ G w``."""
        return self.weights @ self.products


@dataclass(frozen=True, slots=True)
class Balance:
    """A method's answer for one step.

    Attributes:
        weights: ``[T]``, the multiplier of each task's gradient (of its stage-transformed loss).
        value: the objective's value, where it is not ``Σ weights · losses``.
        rows: ``[T, P]``, for element-wise methods: what the weights multiply at ``shared`` instead of the task
            gradients.

    Example:
        >>> steelyard.Balance(torch.tensor([0.5, 0.5]), value=torch.tensor(3.0)).value
        tensor(3.)
    """

    weights: Tensor
    value: Tensor | None = None
    rows: Tensor | None = None
