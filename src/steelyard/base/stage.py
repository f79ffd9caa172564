"""`Stage`: a map of the losses in front of a method."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from steelyard.base.state import State, Stateful


class Stage(Stateful):
    """A map ``L_k → f(L_k)`` in front of a method, with declared state of its own.

    One that says ``reweighs = True`` maps what all behind it weigh by too, or alone.

    Example:
        >>> class Halves(steelyard.Stage):
        ...     def transform(self, losses, state):
        ...         return losses / 2, torch.full_like(losses, 0.5)
        >>> balancer = steelyard.Chain(Halves(), steelyard.Equal(["a"]))
        >>> balancer({"a": torch.tensor(4.0, requires_grad=True)}).item()
        2.0
    """

    revision: ClassVar[int] = 0
    """As a method has it."""
    positive_losses: ClassVar[bool] = False
    """Whether the stage is defined for losses of at least zero only."""
    periodic: bool = False
    """Whether the stage waits for the end of an epoch."""
    reweighs: ClassVar[bool] = False
    """Whether it has a `reweigh`; such a stage stands in front of all that change losses."""

    def transform(self, losses: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """``f(L) [T]`` and ``f'(L) [T]`` for the losses ``[T]`` of the present tasks; rebinds ``state``."""
        raise NotImplementedError

    def again(self, losses: Tensor, state: State) -> Tensor:
        """``f(L) [T]`` of losses that are seen once more after a step, by the ``f`` of that step; ``state`` is what the
        step left. A stage whose ``f`` follows the losses has one that stands still.
        """
        return self.transform(losses, state)[0]

    def reweigh(self, weights: Tensor, state: State) -> Tensor:
        """``[T]``, the multipliers of the task gradients, from those ``[T]`` of all behind it; rebinds ``state``."""
        raise NotImplementedError

    def period_ended(self, state: State) -> None:
        """An epoch has ended; ``state`` covers all tasks."""
