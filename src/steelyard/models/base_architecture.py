"""What all architectures have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from steelyard.errors import OptionError
from steelyard.models.features import Features

if TYPE_CHECKING:
    from steelyard.problems.problem import Problem

# part(name, builder) -> the built module, started from a seed of (seed, name)
Part = Callable[[str, Callable[[], nn.Module]], nn.Module]


class Architecture(nn.Module):
    """A network of several tasks: ``network(inputs) -> (outputs by task, shared)``.

    ``shared`` is what a balancer takes as ``shared=``: a tensor or a tuple of tensors, none computed from another,
    through which alone every task's loss reaches the parameters of ``trunk``. All other parameters (or rows of
    them) belong to one task each.

    Attributes:
        trunk: holds the shared parameters and no others: ``shared=network.trunk`` reads gradients there.
        tasks: names, in the order of the heads.
        heads: one per task.
        for_positive_losses: where `reweigh` may turn losses negative, what to write for a method that needs them
            positive; empty where it never does.

    Example:
        >>> from steelyard.models import Architecture, build
        >>> from steelyard.problems import load_problem
        >>> isinstance(build(load_problem("digits"), ["left", "right"], seed=0, architecture="mmoe"), Architecture)
        True
    """

    trunk: nn.Module
    for_positive_losses: str = ""

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        # ModuleDict refuses names with dots and names such as "type", which are good task names.
        self.tasks = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    def before_training(self, labels: Mapping[str, Tensor]) -> None:
        """Told once before training which labels each task learns from, [N_t, ...]; most need not know."""

    def reweigh(
        self, losses: Mapping[str, Tensor], outputs: Mapping[str, Tensor], shared: Features
    ) -> Mapping[str, Tensor]:
        """What the balancer gets in place of the tasks' losses; one loss per task, as they are unless overridden.

        Called right after ``forward``, with what that returned.
        """
        return losses

    def penalty(self, outputs: Mapping[str, Tensor], shared: Features) -> Tensor | None:
        """What training adds to the balanced loss; ``None`` where the architecture has no such term.

        Called with what ``forward`` returned for the batch.
        """
        return None


def build_heads(problem: Problem, tasks: Sequence[str], part: Part) -> dict[str, nn.Module]:
    """Every task's head, each from its own seed."""
    heads = {}
    for name in tasks:
        task = problem.task(name)
        heads[name] = part(f"head/{name}", lambda task=task: problem.head(task))  # type: ignore[misc]
    return heads


def whole(architecture: str, option: str, value: object, least: int = 1) -> int:
    """A whole number of at least ``least``, or an `OptionError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{architecture}: {option}={value!r} must be a whole number of at least {least}")
    return value
