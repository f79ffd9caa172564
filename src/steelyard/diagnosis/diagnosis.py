"""A first look at how the tasks' gradients get along: numbers of one batch, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from steelyard.balancing.check_losses import present_losses
from steelyard.balancing.heads_inside import Sharing, warn_of_heads_inside
from steelyard.base.method import Look, Method
from steelyard.base.observation import Reads
from steelyard.diagnosis.advice import advise
from steelyard.diagnosis.measurements import CONFLICT, Measurements
from steelyard.diagnosis.text_tables import cosine_table, task_table
from steelyard.errors import LossError, SharedError
from steelyard.gradients.reading import read
from steelyard.gradients.retained import left_as_it_was, retaining
from steelyard.gradients.shared_option import Shared, place_of

_CANCELLED = 1e-3
"""Below this part of ``Σ ‖g_k‖``, the length of ``Σ g_k`` is rounding, or as good as nothing."""


class Diagnosis(Measurements):
    """How the tasks' gradients get along; prints as a table and words.

    Example:
        >>> z = torch.tensor([1.0, 1.0], requires_grad=True)
        >>> found = steelyard.diagnose({"a": z[0] - z[1], "b": z[1]}, shared=z)
        >>> found.conflicts
        [('a', 'b', -0.7071067811865475)]
    """

    @property
    def advice(self) -> tuple[str, ...]:
        """What the numbers say, in sentences."""
        return advise(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text; ``"cosine"`` and ``"conflict_rate"`` are keyed ``"first,second"``."""
        return {**super().to_dict(), "advice": list(self.advice)}

    def table(self) -> str:
        """The numbers."""
        blocks = [task_table(self)]
        if len(self.tasks) > 1:
            blocks.append(cosine_table(self))
        if self.absent:
            blocks.append(f"Absent: {', '.join(self.absent)}")
        return "\n\n".join(blocks)

    def __str__(self) -> str:
        return "\n".join([self.table(), "", *(f"- {sentence}" for sentence in self.advice)])

    __repr__ = __str__


def diagnose(losses: Mapping[str, Tensor | None], *, shared: Shared, look: Look | None = None) -> Diagnosis:
    """Look at one batch: whose gradient dominates, whose conflict, and what that suggests.

    Nothing is changed: no ``.grad``, no state, and the graph is kept, so the backward pass may follow.

    Args:
        losses: scalar loss tensors with a graph, by task name; a task may be ``None``.
        shared: where gradients are read, as in a balancer's call: the features that the heads read (cheap, blind to
            conflicts of tasks that share no samples), or the trunk as a module or its parameters (exact).
        look: where they are read, if not there: ``"last"``, ``"trunk"``, or layers, as in a balancer's call.

    Raises:
        LossError, SharedError: the losses or ``shared`` cannot be read.

    Cost: one backward pass per task, to where gradients are read.

    Example:
        >>> z = torch.tensor([1.0, 1.0], requires_grad=True)  # features
        >>> losses = {"a": 1 * z[0], "b": 3 * z[1]}  # gradients (1, 0) and (0, 3)
        >>> found = steelyard.diagnose(losses, shared=z)
        >>> found.norms, found.ratio
        (tensor([1., 3.], dtype=torch.float64), 3.0)
    """
    if not isinstance(losses, Mapping) or not losses:
        raise LossError("losses must map task names to scalar tensors: write diagnose({'name': loss, …}, shared=…)")
    if shared is None:
        raise SharedError(
            "diagnose needs to know where to read gradients: write diagnose(losses, shared=features), with the tensor "
            "(or tuple of tensors) that the task heads read, or shared=trunk with the shared module"
        )
    names = tuple(losses)
    method = _ReadOnly(names)
    positions, there = present_losses(method.tasks, frozenset(names), losses, needs_graph=True)
    tasks = names if positions is None else tuple(names[position] for position in positions)
    place = place_of(method, shared, look, there)
    assert place is not None
    if place.is_trunk:
        warn_of_heads_inside(method, Sharing().and_of(tasks, there, place.tensors), shared)
    with torch.no_grad(), left_as_it_was(retaining(shared)):
        gramian = read(method, tasks, there, place).gramian
        assert gramian is not None
        numbers = torch.tensor([float(loss) for loss in there], dtype=torch.float64)
        absent = tuple(name for name in names if name not in tasks)
        where = "trunk" if place.is_trunk or look == "trunk" else "features"
        if place.look is not None and look != "trunk":
            where = "last" if look == "last" else "layers"
        return _from_gramian(tasks, absent, where, numbers, gramian.cpu())


class _ReadOnly(Method):
    """Declares what is read; it weighs nothing."""

    name: ClassVar[str] = "diagnose"
    reads: Reads = "gramian"


def _from_gramian(
    tasks: tuple[str, ...], absent: tuple[str, ...], place: str, losses: Tensor, gramian: Tensor
) -> Diagnosis:
    norms = gramian.diagonal().clamp(min=0).sqrt()
    fine = norms.isfinite()
    moving = fine & (norms > 0)
    both = moving[:, None] & moving
    unknown = torch.full_like(norms, torch.nan)
    inverse = torch.where(moving, 1 / norms, torch.zeros_like(norms))
    cosines = torch.where(both, (gramian * inverse[:, None] * inverse).clamp(-1, 1), torch.nan)
    # In units of the longest gradient, so that no square of a sum leaves the range of numbers.
    size = norms[moving].max() if bool(moving.any()) else norms.new_ones(())
    with_sum = torch.where(both, gramian / size / size, torch.zeros_like(gramian)).sum(1)
    length = with_sum.sum().clamp(min=0).sqrt()
    whole = length > _CANCELLED * (norms[moving] / size).sum()
    alignment = torch.where(moving & whole, (with_sum * size * inverse / length).clamp(-1, 1), unknown)
    shares = torch.where(fine & whole, with_sum / length**2, unknown)
    rates = torch.where(cosines.isnan(), torch.nan, (cosines < CONFLICT).double())
    return Diagnosis(tasks, absent, place, losses, norms, cosines, alignment, shares, 1, rates)
