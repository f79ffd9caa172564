"""Losses that are there and say nothing: exactly zero, with a gradient that is exactly zero.

A task without labels is often passed as ``0 * outputs.sum()``, since data-parallel wrappers want a gradient from every
head. To a method it would be the task that is solved, or the one whose gradient is shortest, and take all the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from steelyard.base.lookahead import Losses
from steelyard.errors import warn
from steelyard.gradients.gradients_near_loss import moves_nothing


@dataclass
class Idle:
    """The tasks whose loss was exactly zero and moved nothing.

    Attributes:
        call: in the last call, those that have no labels then.
        tasks: in the calls of the step under way, those that have none in any of them.
        live: in those calls, the others.
        said: those that were warned of.
    """

    call: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    live: frozenset[str] = frozenset()
    said: frozenset[str] = frozenset()

    def among(
        self,
        names: Sequence[str],
        losses: Sequence[Tensor],
        numbers: Sequence[float] | None,
        labels: list[float] | None,
        has_count: Callable[[str, Tensor], bool] | None,
        held: bool,
        begins: bool,
    ) -> frozenset[int]:
        """Positions of the idle losses of a call; those that nobody counts get 0 labels.

        Args:
            numbers: values of the losses; ``None`` where nobody looks.
            labels: behind each; where `has_count` is given, changed in place.
            has_count: over several ranks, whether somebody says how many labels are behind a loss.
            held: a further evaluation within a step, which is one function: what was idle in the first stays out.
            begins: the first call of a step.
        """
        if held:
            return frozenset(k for k, name in enumerate(names) if name in self.tasks)
        if begins:
            self.tasks = self.live = frozenset()
        idle: list[int] = []
        self.call = frozenset()
        if numbers is not None and 0.0 in numbers:
            idle = idle_losses(names, losses, numbers, labels, self.said)
            self.said |= {names[k] for k, number in enumerate(numbers) if number == 0.0}
            if has_count is None or labels is None:
                self.call = frozenset(names[k] for k in idle)
            else:
                self.call = _without_labels(names, losses, idle, labels, has_count)
        self.live |= frozenset(name for k, name in enumerate(names) if labels is None or labels[k] > 0) - self.call
        self.tasks = (self.tasks | self.call) - self.live
        return frozenset(idle)

    def shown(self, losses: Losses, counts: Mapping[str, float] | None) -> Losses:
        """Of losses that are shown, not trained on, those that are no idle zeros; the others are said once."""
        kept: dict[str, Tensor | None] = {}
        for name, loss in losses.items():
            zero = isinstance(loss, Tensor) and loss.dim() == 0 and not loss.is_meta and loss.item() == 0
            idle = moves_nothing(loss) if zero and loss is not None and loss.requires_grad else None
            if not zero or has_count(name, loss, counts):  # type: ignore[arg-type]
                kept[name] = loss
                continue
            if idle is not True:
                kept[name] = loss
            if idle is not False and name not in self.said:
                _warn(name, seen=idle is True)
                self.said |= {name}
        return kept


def _without_labels(
    names: Sequence[str],
    losses: Sequence[Tensor],
    idle: Sequence[int],
    labels: list[float],
    has_count: Callable[[str, Tensor], bool],
) -> frozenset[str]:
    """Over several ranks, an idle loss has no labels on this one, unless somebody says how many."""
    uncounted = [k for k in idle if not has_count(names[k], losses[k])]
    for k in uncounted:
        labels[k] = 0.0
    return frozenset(names[k] for k in uncounted)


def idle_losses(
    names: Sequence[str],
    losses: Sequence[Tensor],
    numbers: Sequence[float],
    labels: Sequence[float] | None,
    said: Container[str],
) -> list[int]:
    """Positions of the losses that are zero and move nothing; each task's first is warned of.

    Cost: nothing but for a loss that is exactly 0.0: then a backward pass from that loss to the nearest layers.
    """
    found = []
    for k, number in enumerate(numbers):
        if number != 0.0 or (labels is not None and not labels[k] > 0):
            continue
        idle = moves_nothing(losses[k])
        if idle:
            found.append(k)
        if idle is not False and names[k] not in said:
            _warn(names[k], seen=idle is True)
    return found


def has_count(name: str, loss: Tensor, counts: Mapping[str, float] | None) -> bool:
    """Whether somebody says how many labels are behind a loss."""
    return name in (counts or ()) or hasattr(loss, "label_count")


def _warn(name: str, seen: bool) -> None:
    instead = "leave it out, or pass None (in a distributed run: counts=, with 0 labels)"
    if seen:
        warn(
            f"the loss of {name!r} is exactly 0, and so is its gradient: the task counts as absent from this batch, "
            f"and from others like it. If that is how it says that it has no labels, {instead}"
        )
    else:
        warn(
            f"the loss of {name!r} is exactly 0, and whether its gradient is too does not show (it has no graph, was "
            f"compiled or checkpointed as a whole, or parameters are sharded), so it is weighed. If it has no "
            f"labels, {instead}"
        )
