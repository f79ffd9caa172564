"""Task gradients as explicit rows, and what a method weighs them with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.specs import parse_spec
from steelyard.method_registry import make, method_class, options_of


def random_rows(tasks: int, size: int, seed: int, ratio: float = 1.0, conflict: float = 0.5) -> Tensor:
    """Random gradients ``[T, P]`` that share a part of size ``conflict``, random signs; norms up to ``ratio``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows = normal(tasks, size) + conflict * normal(tasks, 1).sign() * normal(1, size)
    return rows * ratio ** torch.rand(tasks, 1, generator=generator, dtype=torch.float64)


def balancer(method: str, tasks: int, **options: Any) -> Balancer:
    """A method for tasks ``0, 1, …``; the first is the main one where the method asks for one."""
    if "main" in options_of(method_class(parse_spec(method).name)):
        options.setdefault("main", "0")
    return make(method, [str(task) for task in range(tasks)], **options)


def weigh(method: Balancer, rows: Tensor, losses: Sequence[float] | None = None) -> Tensor:
    """The weights of one step that sees these rows; the state moves."""
    features = torch.zeros(rows.shape[1], dtype=rows.dtype, requires_grad=True) * 1
    values = [1.0] * len(rows) if losses is None else losses
    tasks = zip(method.tasks, rows, values, strict=True)
    method({task: row @ features + value for task, row, value in tasks}, shared=features)
    return method.last_weights


def seen(rows: Tensor) -> Seen:
    """An observation of these rows, past everything that reads gradients."""
    gramian = rows.double() @ rows.double().T
    ones = torch.ones(len(rows), dtype=torch.float64)
    return Seen(tuple(str(task) for task in range(len(rows))), ones, ones, gramian.diagonal(), gramian)
