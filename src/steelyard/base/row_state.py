"""State that is as large as the task gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.errors import StateError


def like_rows(value: Tensor, rows: Tensor, name: str) -> Tensor:
    """Declared state by element, zero before the first rows ``[T, P]`` have been seen.

    Raises:
        StateError: the state belongs to a trunk of another size.
    """
    if value.shape[1] == 0:
        return torch.zeros_like(rows)
    if value.shape[1] != rows.shape[1]:
        raise StateError(
            f"{name} keeps an average of gradients with {value.shape[1]:,} elements, and the trunk now has "
            f"{rows.shape[1]:,}: its trainable parameters have changed; call balancer.reset() to start anew"
        )
    return value.to(rows)
