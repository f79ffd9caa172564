"""Reading task gradients where the user points: ``shared=``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steelyard.errors import AngleWarning, SharedError
from steelyard.gradients.features import FeatureRows, feature_rows
from steelyard.method import Method
from steelyard.warn import warn

Shared = Tensor | Sequence[Tensor]
READABLE = frozenset({"features"})
"""Where gradients can be read so far."""


@dataclass(frozen=True)
class Reading:
    """Task gradients of one step: rows, squared norms ``[T]``, and the Gramian ``[T, T]`` where it was asked for."""

    rows: FeatureRows
    squared_norms: Tensor
    gramian: Tensor | None

    def select(self, positions: list[int]) -> Reading:
        """The reading of the tasks at ``positions``."""
        return Reading(
            self.rows.select(positions),
            self.squared_norms[positions],
            None if self.gramian is None else self.gramian[positions][:, positions],
        )


def read(method: Method, names: Sequence[str], losses: Sequence[Tensor], features: tuple[Tensor, ...]) -> Reading:
    """Differentiate the losses at the features, as far as the method needs it."""
    with torch.enable_grad():
        rows = feature_rows(names, losses, features)
    if method.reads in ("gramian", "cross_gramian", "rows"):
        gramian = rows.gramian()
        return Reading(rows, gramian.diagonal(), gramian)
    return Reading(rows, rows.squared_norms(), None)


def features_of(method: Method, shared: Shared | nn.Module | None) -> tuple[Tensor, ...] | None:
    """The feature tensors that ``shared=`` names, or ``None`` for a method that reads none."""
    if method.reads == "losses" and method.heads == "weighted":
        return None
    if shared is None:
        why = f"reads the tasks' {method.reads}" if method.reads != "losses" else "leaves the heads plain"
        raise SharedError(
            f"{method.name} {why} and needs to know where: write balancer(losses, shared=features), with the tensor "
            "(or tuple of tensors) that the task heads read"
        )
    if isinstance(shared, nn.Module):
        raise SharedError(
            f"{method.name} got a module as shared=, but gradients are read at features: pass the tensor that "
            f"{type(shared).__name__} returned and the task heads read"
        )
    if "features" not in method.where:
        raise SharedError(f"{method.name} is not defined on features, only on: {', '.join(sorted(method.where))}")
    features = (shared,) if isinstance(shared, Tensor) else tuple(shared)
    if not features:
        raise SharedError("shared= is empty: pass the tensors that the task heads read")
    for position, feature in enumerate(features):
        if not isinstance(feature, Tensor):
            raise SharedError(f"shared[{position}] is a {type(feature).__name__}, not a tensor")
        if isinstance(feature, nn.Parameter):
            raise SharedError(
                f"shared[{position}] is a Parameter of shape {tuple(feature.shape)}, but gradients are read at "
                "features: pass the tensor that the task heads read"
            )
        if not feature.requires_grad:
            raise SharedError(
                f"shared[{position}] has no graph (requires_grad=False): the trunk is frozen or ran under no_grad, so "
                "there is no shared gradient to balance"
            )
    return features


def disjoint(gramian: Tensor) -> bool:
    """Whether two tasks that both have a gradient have an inner product of exactly zero: they share no samples."""
    moving = gramian.diagonal() > 0
    return bool(((gramian == 0) & moving[:, None] & moving).any())


def warn_of_disjoint_samples(method: Method) -> None:
    """Angles between such tasks mean nothing at the features."""
    warn(
        f"{method.name} uses the angles between task gradients, but at the features some tasks share no samples "
        "(their own inputs, disjoint labels, one task per batch): their inner products are exactly zero there, and "
        "conflict is invisible. Read the gradients at the trunk, or choose a method that reads losses or norms",
        AngleWarning,
    )
